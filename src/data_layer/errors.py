"""Every error that this library raises on purpose.

Each class has a stable ``code`` that programs may compare and clients may see; messages are for people, name the
thing that was wrong and what to do, and never hold a secret.

::

    DataLayerError
    ├── ConfigurationError                 configuration_invalid
    ├── NotInitializedError                not_initialized
    ├── EmbeddedServerError                embedded_server_failed
    │   └── FolderInUseError               folder_in_use
    ├── DatabaseError                      database_error
    │   ├── DatabaseUnavailableError       database_unavailable
    │   ├── DatabaseLoginError             database_login_failed
    │   ├── DatabasePermissionError        database_permission_denied
    │   ├── DatabaseMissingError           database_missing
    │   ├── PoolTimeoutError               database_pool_timeout
    │   ├── StatementTimeoutError          database_statement_timeout
    │   ├── CommitUnknownError             commit_unknown
    │   ├── ConcurrentChangeError          concurrent_change
    │   ├── MigrationError                 migration_failed
    │   └── SchemaMismatchError            schema_mismatch
    │       ├── SchemaBehindError          schema_behind
    │       ├── SchemaAheadError           schema_ahead
    │       └── ForeignSchemaError         schema_foreign
    ├── TransactionError                   transaction_misused
    │   ├── NestedTransactionError         transaction_nested
    │   └── TransactionClosedError         transaction_closed
    ├── InvalidValueError                  invalid_value
    │   ├── ValueTooLongError              value_too_long
    │   ├── InvalidTextError               invalid_text
    │   └── IllegalStatusMoveError         illegal_status_move
    ├── NotFoundError                      not_found
    ├── ConflictError                      conflict
    │   ├── DuplicateError                 duplicate
    │   ├── MissingReferenceError          missing_reference
    │   └── StillReferencedError           still_referenced
    ├── CacheError                         cache_error
    │   ├── CacheUnavailableError          cache_unavailable
    │   ├── CacheLoginError                cache_login_failed
    │   ├── CacheTimeoutError              cache_timeout
    │   ├── InvalidCacheKeyError           cache_key_invalid
    │   ├── InvalidCacheValueError         cache_value_invalid
    │   └── InvalidTimeToLiveError         cache_ttl_invalid
    └── StorageError                       storage_error
        ├── StorageUnavailableError        storage_unavailable
        │   ├── StorageMissingError        storage_missing
        │   └── StoragePermissionError     storage_permission_denied
        ├── StorageFullError               storage_full
        ├── FileNotFoundInStorageError     file_not_found
        ├── FileExistsInStorageError       file_exists
        ├── FileChangedInStorageError      file_changed
        ├── FileTooLargeError              file_too_large
        ├── ContentMismatchError           content_mismatch
        ├── InvalidFileError               file_invalid
        │   ├── EmptyFileError             file_empty
        │   ├── FileTypeNotAllowedError    file_type_not_allowed
        │   ├── FileTypeMismatchError      file_type_mismatch
        │   ├── CorruptFileError           file_corrupt
        │   ├── PolyglotFileError          file_polyglot
        │   ├── ActiveContentError         file_active_content
        │   ├── ImageTooLargeError         image_too_large
        │   ├── ImageTimeoutError          image_timeout
        │   └── InvalidFileNameError       file_name_invalid
        ├── InvalidStorageKeyError         storage_key_invalid
        ├── InvalidSignatureError          signature_invalid
        ├── NotSupportedByStorageError     storage_not_supported
        └── PublicStorageError             storage_public
"""

from __future__ import annotations

from typing import ClassVar


class DataLayerError(Exception):
    """The root: catching it catches everything that the data layer raises on purpose."""

    code: ClassVar[str] = "data_layer_error"


class ConfigurationError(DataLayerError):
    """The settings cannot be used. ``problems`` holds every problem found, not only the first."""

    code = "configuration_invalid"

    def __init__(self, *problems: str) -> None:
        super().__init__("The configuration cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = problems


class NotInitializedError(DataLayerError):
    """The data layer was used before it was opened or after it was closed."""

    code = "not_initialized"


class EmbeddedServerError(DataLayerError):
    """An embedded PostgreSQL or Valkey could not be started or stopped."""

    code = "embedded_server_failed"


class FolderInUseError(EmbeddedServerError):
    """Another service already runs on the same data folder."""

    code = "folder_in_use"


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


class InvalidValueError(DataLayerError):
    """A value breaks a rule of its field. ``field`` names it where one field is to blame."""

    code = "invalid_value"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ValueTooLongError(InvalidValueError):
    """A text is longer than its column, or a row larger than its limit."""

    code = "value_too_long"


class InvalidTextError(InvalidValueError):
    """A text holds what PostgreSQL cannot store: a NUL character or a lone surrogate."""

    code = "invalid_text"


class IllegalStatusMoveError(InvalidValueError):
    """A status may not follow the one that the row has."""

    code = "illegal_status_move"


class NotFoundError(DataLayerError):
    """No row has this id, or the caller may not know that it exists."""

    code = "not_found"


class ConflictError(DataLayerError):
    """The change contradicts what is stored. ``field`` names the column where one is to blame."""

    code = "conflict"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class DuplicateError(ConflictError):
    """A value that must be unique is already taken."""

    code = "duplicate"


class MissingReferenceError(ConflictError):
    """A row refers to another one that does not exist."""

    code = "missing_reference"


class StillReferencedError(ConflictError):
    """A row cannot be removed while others refer to it."""

    code = "still_referenced"


class CacheError(DataLayerError):
    """The cache refused or failed in a way that no more precise class describes."""

    code = "cache_error"


class CacheUnavailableError(CacheError):
    """Redis or Valkey could not be reached, or the connection broke."""

    code = "cache_unavailable"


class CacheLoginError(CacheError):
    """Redis or Valkey refused the user name or the password."""

    code = "cache_login_failed"


class CacheTimeoutError(CacheError):
    """Redis or Valkey did not answer within the time limit (REDIS_COMMAND_TIMEOUT)."""

    code = "cache_timeout"


class InvalidCacheKeyError(CacheError):
    """A cache key is empty, too long or not text."""

    code = "cache_key_invalid"


class InvalidCacheValueError(CacheError):
    """A cache value cannot be carried as JSON, or is too large."""

    code = "cache_value_invalid"


class InvalidTimeToLiveError(CacheError):
    """A time to live is zero, negative, not finite or too long."""

    code = "cache_ttl_invalid"


class StorageError(DataLayerError):
    """The storage refused or failed in a way that no more precise class describes."""

    code = "storage_error"


class StorageUnavailableError(StorageError):
    """The storage could not be reached or used: a broken mount, a read-only disk, a missing bucket, a dead server."""

    code = "storage_unavailable"


class StorageMissingError(StorageUnavailableError):
    """The server answers, but has no bucket or container of that name."""

    code = "storage_missing"


class StoragePermissionError(StorageUnavailableError):
    """The storage refused: wrong credentials, or a right that they lack."""

    code = "storage_permission_denied"


class StorageFullError(StorageError):
    """There is no room left for the file. Nothing of it was kept."""

    code = "storage_full"


class FileNotFoundInStorageError(StorageError):
    """No file is stored under this key."""

    code = "file_not_found"


class FileExistsInStorageError(StorageError):
    """A file is stored under this key already, and was not to be overwritten."""

    code = "file_exists"


class FileChangedInStorageError(StorageError):
    """The file is not the version that was to be replaced: somebody was quicker, or removed it."""

    code = "file_changed"


class FileTooLargeError(StorageError):
    """A file is larger than MAX_FILE_SIZE. Nothing of it was kept."""

    code = "file_too_large"


class ContentMismatchError(StorageError):
    """The content is not what was announced. Nothing of it was kept."""

    code = "content_mismatch"


class InvalidFileError(StorageError):
    """A file is not fit to be stored, for a reason that no more precise class describes. Nothing of it was kept."""

    code = "file_invalid"


class EmptyFileError(InvalidFileError):
    """A file has no bytes."""

    code = "file_empty"


class FileTypeNotAllowedError(InvalidFileError):
    """The content is of a type that may not be stored (ALLOWED_FILE_TYPES), or of none that is known."""

    code = "file_type_not_allowed"


class FileTypeMismatchError(InvalidFileError):
    """The content is of another type than was declared."""

    code = "file_type_mismatch"


class CorruptFileError(InvalidFileError):
    """The content is cut off or damaged."""

    code = "file_corrupt"


class PolyglotFileError(InvalidFileError):
    """There are bytes behind the end of the content: the file could pass for one of another type."""

    code = "file_polyglot"


class ActiveContentError(InvalidFileError):
    """A drawing holds what a browser would execute or fetch: a script, an event handler, a reference to elsewhere."""

    code = "file_active_content"


class ImageTooLargeError(InvalidFileError):
    """An image has more pixels or frames than may be decoded (IMAGE_MAX_PIXELS, IMAGE_MAX_FRAMES)."""

    code = "image_too_large"


class ImageTimeoutError(InvalidFileError):
    """An image took too long to decode (IMAGE_TIME_LIMIT)."""

    code = "image_timeout"


class InvalidFileNameError(InvalidFileError):
    """A file name holds a path, or what cannot be a name."""

    code = "file_name_invalid"


class InvalidStorageKeyError(StorageError):
    """A storage key is empty, too long, or would leave the storage folder."""

    code = "storage_key_invalid"


class InvalidSignatureError(StorageError):
    """A signed URL has expired, was altered, or was made for something else."""

    code = "signature_invalid"


class NotSupportedByStorageError(StorageError):
    """This backend, or the server behind it, cannot do what was asked. Nothing was done."""

    code = "storage_not_supported"


class PublicStorageError(StorageError):
    """A bucket or container can be read by everybody, which nobody allowed."""

    code = "storage_public"
