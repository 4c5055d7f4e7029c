"""What is done to a whole database: made, given its extensions, dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import Connection, Engine, NullPool, bindparam, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from data_layer.database.address import DatabaseAddress
from data_layer.database.driver import translated
from data_layer.database.migrations import VERSION_TABLE
from data_layer.entities import Entity
from data_layer.errors import (
    DatabaseError,
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DatabaseUnavailableError,
)

EXTENSIONS = ("pg_stat_statements", "pg_trgm")
"""Extensions worth having: one shows which statements take the server's time, one finds names with typing errors.

No code needs them. Identifiers, JSON indexes and full-text search, for which extensions were once usual, need none
since PostgreSQL 13.
"""

_MAINTENANCE_DATABASES = ("postgres", "template1")

# The names of other applications' tables, in whichever schema: dropping the database would drop them too.
_READ_STRANGERS = text("""
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname <> 'information_schema' AND nspname !~ '^pg_'
AND NOT (nspname = current_schema() AND relname IN :ours)
AND NOT EXISTS (
    SELECT FROM pg_inherits JOIN pg_class parent ON parent.oid = inhparent
    WHERE inhrelid = pg_class.oid AND parent.relnamespace = pg_namespace.oid AND parent.relname IN :ours
)
AND NOT EXISTS (
    SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
)
ORDER BY relname
""").bindparams(bindparam("ours", [*Entity.metadata.tables, VERSION_TABLE], expanding=True))

_MAY_RECREATE = text("""
SELECT rolsuper OR (rolcreatedb AND pg_has_role(datdba, 'MEMBER'))
FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user
""")
_READ_OWNER = text("SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()")


class ExtensionStatus(StrEnum):
    """What became of an extension."""

    CREATED = "created"
    PRESENT = "present"
    UNAVAILABLE = "unavailable"
    NOT_PERMITTED = "not_permitted"


@dataclass(frozen=True, slots=True)
class CreationReport:
    """What ``create`` did: whether it made the database, and what became of each useful extension."""

    created: bool
    extensions: dict[str, ExtensionStatus] = field(default_factory=dict)


def make_engine(address: DatabaseAddress, database: str | None = None) -> Engine:
    """An engine without a pool, for the address or for another database of the same server."""
    url = address.url if database is None else address.url.set(database=database)
    engine = create_engine(
        url, connect_args=address.options, poolclass=NullPool, hide_parameters=True, use_native_hstore=False
    )

    def prepare(connection: DBAPIConnection, _record: object) -> None:
        with connection.cursor() as cursor:  # type: ignore[attr-defined]  # Psycopg's.
            cursor.execute(address.first_statement)
        connection.commit()

    event.listen(engine, "connect", prepare)
    return engine


def create_database(address: DatabaseAddress, owner: str | None = None) -> CreationReport:
    """Make the database unless it exists, and its extensions where that is possible. Two may do it at once.

    Args:
        address: the database to make; its user needs CREATEDB, and a database postgres or template1 to log in to.
        owner: the role that it shall belong to, quoted as SQL needs it; by default the user.

    Raises:
        DatabasePermissionError: the user may not create databases.
        DatabaseUnavailableError: the server cannot be reached.
        DatabaseLoginError: the server refused the user.
    """
    created = not _exists(address) and _create(address, owner)
    return CreationReport(created, _create_extensions(address))


def drop_and_create_database(address: DatabaseAddress) -> CreationReport:
    """Drop the database with everything in it and create it again for the same owner. Its connections are ended."""
    with translated(), make_engine(address).connect() as connection:
        owner = connection.scalar(_READ_OWNER)
    with _maintenance(address) as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {_quoted(address, connection)} WITH (FORCE)")
    return create_database(address, owner)


def may_recreate(connection: Connection) -> bool:
    """Whether the user has the rights to drop this database and to create it again."""
    return bool(connection.scalar(_MAY_RECREATE))


def tables_of_others(connection: Connection) -> Sequence[str]:
    """The names of all tables in the database, in any schema, that are neither ours nor an extension's."""
    return connection.scalars(_READ_STRANGERS).all()


def _exists(address: DatabaseAddress) -> bool:
    try:
        with translated(), make_engine(address).connect():
            return True
    except (DatabaseMissingError, DatabaseUnavailableError) as error:
        # A server that speaks another language than English is not understood, and must be asked in SQL.
        with _maintenance(address) as connection:
            is_there = text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")
            if not connection.scalar(is_there, {"name": address.name}):
                return False
        if isinstance(error, DatabaseMissingError):
            return True  # Another process has made it in between.
        raise error from None


def _create(address: DatabaseAddress, owner: str | None) -> bool:
    """Make the database; whether it was us: another process may be faster."""
    with _maintenance(address) as connection:
        # template0, because nobody can be connected to it, which would fail us, and because it allows any encoding.
        statement = f"CREATE DATABASE {_quoted(address, connection)} TEMPLATE template0 ENCODING 'UTF8'"
        try:
            connection.exec_driver_sql(statement + (f" OWNER {owner}" if owner else ""))
        except (ProgrammingError, IntegrityError) as error:
            match getattr(error.orig, "sqlstate", None):
                case "42P04" | "23505":
                    return False
                case "42501":
                    raise _may_not_create(address) from error
            raise
    return True


def _may_not_create(address: DatabaseAddress) -> DatabasePermissionError:
    user = address.url.username
    return DatabasePermissionError(
        f"the database {address.name} does not exist and the user {user} may not create it; ask an administrator "
        f'to run: CREATE DATABASE "{address.name}" OWNER "{user}"'
    )


def _create_extensions(address: DatabaseAddress) -> dict[str, ExtensionStatus]:
    with translated(), make_engine(address).connect() as connection:
        return {name: _create_extension(connection, name) for name in EXTENSIONS}


def _create_extension(connection: Connection, name: str) -> ExtensionStatus:
    installed = text("SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = :name")
    is_installed = connection.scalar(installed, {"name": name})
    if is_installed is None:
        return ExtensionStatus.UNAVAILABLE
    if is_installed:
        return ExtensionStatus.PRESENT
    try:
        connection.exec_driver_sql(f"CREATE EXTENSION IF NOT EXISTS {name}")
        connection.commit()
    except DBAPIError:
        # Another process was faster or we lack the right; neither is a reason to stop.
        connection.rollback()
        return (
            ExtensionStatus.PRESENT if connection.scalar(installed, {"name": name}) else ExtensionStatus.NOT_PERMITTED
        )
    return ExtensionStatus.CREATED


@contextmanager
def _maintenance(address: DatabaseAddress) -> Iterator[Connection]:
    """A connection to a database that is always there; each statement is its own transaction."""
    with translated(), _connect_to_any(address) as connection:
        yield connection


def _connect_to_any(address: DatabaseAddress) -> Connection:
    problem: DatabaseError | None = None
    for name in _MAINTENANCE_DATABASES:
        try:
            with translated():
                return make_engine(address, name).connect().execution_options(isolation_level="AUTOCOMMIT")
        except (DatabaseMissingError, DatabasePermissionError, DatabaseUnavailableError, DatabaseLoginError) as error:
            problem = problem or error
    raise problem or DatabaseError("the server has no database to log in to")


def _quoted(address: DatabaseAddress, connection: Connection) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(address.name)
