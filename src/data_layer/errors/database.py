"""Errors of the database and of transactions."""

from __future__ import annotations

from data_layer.errors.base import DataLayerError


class DatabaseError(DataLayerError):
    """PostgreSQL refused or failed in a way that no more precise class describes."""

    code = "database_error"


class DatabaseUnavailableError(DatabaseError):
    """PostgreSQL could not be reached, or the connection broke. Nothing was committed by the failed call."""

    code = "database_unavailable"


class DatabaseLoginError(DatabaseError):
    """PostgreSQL refused the user name, the password or the certificate."""

    code = "database_login_failed"


class DatabasePermissionError(DatabaseError):
    """The database user lacks a right that the statement needs."""

    code = "database_permission_denied"


class DatabaseMissingError(DatabaseError):
    """The server answers, but has no database of that name."""

    code = "database_missing"


class PoolTimeoutError(DatabaseError):
    """Every connection stayed in use for the whole waiting time (DB_POOL_TIMEOUT)."""

    code = "database_pool_timeout"


class StatementTimeoutError(DatabaseError):
    """A statement ran, or waited for a lock, longer than it may (DB_STATEMENT_TIMEOUT)."""

    code = "database_statement_timeout"


class CommitUnknownError(DatabaseError):
    """The connection broke while COMMIT was under way: the change may or may not be stored. Read before repeating."""

    code = "commit_unknown"


class ConcurrentChangeError(DatabaseError):
    """Another transaction changed the same rows first (serialization failure or deadlock). Repeating may succeed."""

    code = "concurrent_change"


class MigrationError(DatabaseError):
    """A migration could not be carried out; the schema is as it was before it."""

    code = "migration_failed"


class SchemaMismatchError(DatabaseError):
    """The tables in the database are not the ones that this version of the code needs."""

    code = "schema_mismatch"


class SchemaBehindError(SchemaMismatchError):
    """The database is older than the code: migrations are missing."""

    code = "schema_behind"


class SchemaAheadError(SchemaMismatchError):
    """The database is newer than the code: it knows migrations that this version does not."""

    code = "schema_ahead"


class ForeignSchemaError(SchemaMismatchError):
    """The database holds the tables of another application."""

    code = "schema_foreign"


class TransactionError(DataLayerError):
    """A transaction was used in a way that cannot work."""

    code = "transaction_misused"


class NestedTransactionError(TransactionError):
    """A transaction was begun inside another one of the same task."""

    code = "transaction_nested"


class TransactionClosedError(TransactionError):
    """A transaction was used before it began or after it ended."""

    code = "transaction_closed"
