"""Every error that this library raises on purpose.

Each class has a stable ``code`` that programs may compare and clients may see; messages are for people, name the
thing that was wrong and what to do, and never hold a secret.

::

    DataLayerError
    ├── ConfigurationError                 configuration_invalid
    ├── NotInitializedError                not_initialized
    ├── EmbeddedServerError                embedded_server_failed
    │   └── FolderInUseError               folder_in_use
    ├── WorkerFailedError                  worker_failed
    ├── NotFoundError                      not_found
    ├── OverloadedError                    overloaded
    ├── TooManyRequestsError               too_many_requests
    ├── PermissionDeniedError              permission_denied
    ├── AuthenticationError                authentication_failed
    │   ├── InvalidCredentialsError        invalid_credentials
    │   ├── TooManyAttemptsError           too_many_attempts
    │   ├── InvalidOneTimeTokenError       one_time_token_invalid
    │   ├── UnverifiedIdentityError        identity_unverified
    │   ├── EmailNotVerifiedError          email_not_verified
    │   ├── AccountInactiveError           account_inactive
    │   ├── AccountSuspendedError          account_suspended
    │   ├── InvalidSessionError            session_invalid
    │   └── InvalidTokenError              token_invalid
    │       ├── ExpiredTokenError          token_expired
    │       └── ReusedTokenError           token_reused
    ├── CacheError                         cache_error
    │   ├── CacheUnavailableError          cache_unavailable
    │   │   └── CacheReadOnlyError         cache_read_only
    │   ├── CacheFullError                 cache_full
    │   ├── CacheLoginError                cache_login_failed
    │   ├── CacheTimeoutError              cache_timeout
    │   ├── InvalidCacheKeyError           cache_key_invalid
    │   ├── InvalidCacheValueError         cache_value_invalid
    │   ├── InvalidTimeToLiveError         cache_ttl_invalid
    │   ├── LockNotAcquiredError           cache_lock_not_acquired
    │   └── LockLostError                  cache_lock_lost
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
    ├── StorageError                       storage_error
    │   ├── StorageUnavailableError        storage_unavailable
    │   │   ├── StorageMissingError        storage_missing
    │   │   └── StoragePermissionError     storage_permission_denied
    │   ├── StorageFullError               storage_full
    │   ├── FileNotFoundInStorageError     file_not_found
    │   ├── FileExistsInStorageError       file_exists
    │   ├── FileChangedInStorageError      file_changed
    │   ├── FileTooLargeError              file_too_large
    │   ├── ContentMismatchError           content_mismatch
    │   ├── InvalidFileError               file_invalid
    │   │   ├── EmptyFileError             file_empty
    │   │   ├── FileTypeNotAllowedError    file_type_not_allowed
    │   │   ├── FileTypeMismatchError      file_type_mismatch
    │   │   ├── CorruptFileError           file_corrupt
    │   │   ├── PolyglotFileError          file_polyglot
    │   │   ├── ActiveContentError         file_active_content
    │   │   ├── ImageTooLargeError         image_too_large
    │   │   ├── ImageTimeoutError          image_timeout
    │   │   └── InvalidFileNameError       file_name_invalid
    │   ├── InvalidStorageKeyError         storage_key_invalid
    │   ├── InvalidSignatureError          signature_invalid
    │   ├── NotSupportedByStorageError     storage_not_supported
    │   └── PublicStorageError             storage_public
    ├── InvalidValueError                  invalid_value
    │   ├── ValueTooLongError              value_too_long
    │   ├── InvalidTextError               invalid_text
    │   ├── IllegalStatusMoveError         illegal_status_move
    │   └── WeakPasswordError              weak_password
    └── ConflictError                      conflict
        ├── DuplicateError                 duplicate
        ├── MissingReferenceError          missing_reference
        ├── StillReferencedError           still_referenced
        ├── AppendOnlyError                append_only
        ├── ChangedMeanwhileError          changed_meanwhile
        ├── LastAdminError                 last_admin
        └── LastLoginMethodError           last_login_method
"""

from __future__ import annotations

from data_layer.errors.accounts import (
    AccountInactiveError,
    AccountSuspendedError,
    AuthenticationError,
    EmailNotVerifiedError,
    ExpiredTokenError,
    InvalidCredentialsError,
    InvalidOneTimeTokenError,
    InvalidSessionError,
    InvalidTokenError,
    PermissionDeniedError,
    ReusedTokenError,
    TooManyAttemptsError,
    UnverifiedIdentityError,
)
from data_layer.errors.base import (
    ConfigurationError,
    DataLayerError,
    EmbeddedServerError,
    FolderInUseError,
    NotFoundError,
    NotInitializedError,
    OverloadedError,
    TooManyRequestsError,
    WorkerFailedError,
)
from data_layer.errors.cache import (
    CacheError,
    CacheFullError,
    CacheLoginError,
    CacheReadOnlyError,
    CacheTimeoutError,
    CacheUnavailableError,
    InvalidCacheKeyError,
    InvalidCacheValueError,
    InvalidTimeToLiveError,
    LockLostError,
    LockNotAcquiredError,
)
from data_layer.errors.database import (
    CommitUnknownError,
    ConcurrentChangeError,
    DatabaseError,
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DatabaseUnavailableError,
    ForeignSchemaError,
    MigrationError,
    NestedTransactionError,
    PoolTimeoutError,
    SchemaAheadError,
    SchemaBehindError,
    SchemaMismatchError,
    StatementTimeoutError,
    TransactionClosedError,
    TransactionError,
)
from data_layer.errors.storage import (
    ActiveContentError,
    ContentMismatchError,
    CorruptFileError,
    EmptyFileError,
    FileChangedInStorageError,
    FileExistsInStorageError,
    FileNotFoundInStorageError,
    FileTooLargeError,
    FileTypeMismatchError,
    FileTypeNotAllowedError,
    ImageTimeoutError,
    ImageTooLargeError,
    InvalidFileError,
    InvalidFileNameError,
    InvalidSignatureError,
    InvalidStorageKeyError,
    NotSupportedByStorageError,
    PolyglotFileError,
    PublicStorageError,
    StorageError,
    StorageFullError,
    StorageMissingError,
    StoragePermissionError,
    StorageUnavailableError,
)
from data_layer.errors.values import (
    AppendOnlyError,
    ChangedMeanwhileError,
    ConflictError,
    DuplicateError,
    IllegalStatusMoveError,
    InvalidTextError,
    InvalidValueError,
    LastAdminError,
    LastLoginMethodError,
    MissingReferenceError,
    StillReferencedError,
    ValueTooLongError,
    WeakPasswordError,
)

__all__ = [
    "AccountInactiveError",
    "AccountSuspendedError",
    "ActiveContentError",
    "AppendOnlyError",
    "AuthenticationError",
    "CacheError",
    "CacheFullError",
    "CacheLoginError",
    "CacheReadOnlyError",
    "CacheTimeoutError",
    "CacheUnavailableError",
    "ChangedMeanwhileError",
    "CommitUnknownError",
    "ConcurrentChangeError",
    "ConfigurationError",
    "ConflictError",
    "ContentMismatchError",
    "CorruptFileError",
    "DataLayerError",
    "DatabaseError",
    "DatabaseLoginError",
    "DatabaseMissingError",
    "DatabasePermissionError",
    "DatabaseUnavailableError",
    "DuplicateError",
    "EmailNotVerifiedError",
    "EmbeddedServerError",
    "EmptyFileError",
    "ExpiredTokenError",
    "FileChangedInStorageError",
    "FileExistsInStorageError",
    "FileNotFoundInStorageError",
    "FileTooLargeError",
    "FileTypeMismatchError",
    "FileTypeNotAllowedError",
    "FolderInUseError",
    "ForeignSchemaError",
    "IllegalStatusMoveError",
    "ImageTimeoutError",
    "ImageTooLargeError",
    "InvalidCacheKeyError",
    "InvalidCacheValueError",
    "InvalidCredentialsError",
    "InvalidFileError",
    "InvalidFileNameError",
    "InvalidOneTimeTokenError",
    "InvalidSessionError",
    "InvalidSignatureError",
    "InvalidStorageKeyError",
    "InvalidTextError",
    "InvalidTimeToLiveError",
    "InvalidTokenError",
    "InvalidValueError",
    "LastAdminError",
    "LastLoginMethodError",
    "LockLostError",
    "LockNotAcquiredError",
    "MigrationError",
    "MissingReferenceError",
    "NestedTransactionError",
    "NotFoundError",
    "NotInitializedError",
    "NotSupportedByStorageError",
    "OverloadedError",
    "PermissionDeniedError",
    "PolyglotFileError",
    "PoolTimeoutError",
    "PublicStorageError",
    "ReusedTokenError",
    "SchemaAheadError",
    "SchemaBehindError",
    "SchemaMismatchError",
    "StatementTimeoutError",
    "StillReferencedError",
    "StorageError",
    "StorageFullError",
    "StorageMissingError",
    "StoragePermissionError",
    "StorageUnavailableError",
    "TooManyAttemptsError",
    "TooManyRequestsError",
    "TransactionClosedError",
    "TransactionError",
    "UnverifiedIdentityError",
    "ValueTooLongError",
    "WeakPasswordError",
    "WorkerFailedError",
]
