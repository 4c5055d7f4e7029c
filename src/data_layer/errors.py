"""Every error that this library raises on purpose.

Each class has a stable ``code`` that programs may compare and clients may see. A message is for people: it says what
was wrong with which thing and what to do, and never holds a secret.

::

    DataLayerError
    ├── ConfigurationError                 configuration_invalid
    ├── MissingExtraError                  extra_missing
    ├── NotInitializedError                not_initialized
    ├── EmbeddedServerError                embedded_server_failed
    │   └── FolderInUseError               folder_in_use
    ├── WorkerFailedError                  worker_failed
    ├── NotFoundError                      not_found
    │   ├── GrowthUnknownError             growth_unknown
    │   └── PictureMissingError            picture_missing
    ├── FetchError                         fetch_failed
    │   ├── FetchAddressError              fetch_address_not_public
    │   └── FetchTimeoutError              fetch_timeout
    ├── MailError                          mail_failed
    │   ├── MailRefusedError               mail_refused
    │   ├── MailDeferredError              mail_deferred
    │   ├── MailServerError                mail_server_unavailable
    │   └── MailTemplateError              mail_template_invalid
    ├── OverloadedError                    overloaded
    ├── DeadlineExceededError              deadline_exceeded
    ├── TooManyRequestsError               too_many_requests
    ├── PermissionDeniedError              permission_denied
    │   └── MissingScopeError              scope_missing
    ├── AuthenticationError                authentication_failed
    │   ├── InvalidCredentialsError        invalid_credentials
    │   ├── TooManyAttemptsError           too_many_attempts
    │   ├── SecondFactorRequiredError      second_factor_required
    │   ├── InvalidSecondFactorError       second_factor_invalid
    │   ├── InvalidOneTimeTokenError       one_time_token_invalid
    │   ├── UnverifiedIdentityError        identity_unverified
    │   ├── EmailNotVerifiedError          email_not_verified
    │   ├── AccountInactiveError           account_inactive
    │   ├── AccountSuspendedError          account_suspended
    │   ├── InvalidLoginError              login_invalid
    │   ├── LoginDeniedError               login_denied
    │   ├── InvalidSessionError            session_invalid
    │   ├── InvalidApiKeyError             api_key_invalid
    │   └── InvalidTokenError              token_invalid
    │       ├── ExpiredTokenError          token_expired
    │       └── ReusedTokenError           token_reused
    ├── ServiceCallError                   service_call_failed
    │   ├── ServiceUnreachableError        service_unreachable
    │   ├── UnexpectedAnswerError          answer_unexpected
    │   └── ProblemError                   problem
    │       ├── RequestProblemError        problem_of_request
    │       ├── LoginProblemError          problem_of_login
    │       ├── PermissionProblemError     problem_of_permission
    │       ├── NotFoundProblemError       problem_not_found
    │       ├── ConflictProblemError       problem_of_conflict
    │       ├── ChangedMeanwhileProblemError  problem_changed_meanwhile
    │       ├── LimitProblemError          problem_of_limit
    │       └── ServiceProblemError        problem_of_service
    ├── IssuerError                        issuer_failed
    │   └── IssuerUnavailableError         issuer_unavailable
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
    │   │   └── DatabaseOverloadedError    database_overloaded
    │   ├── StatementTimeoutError          database_statement_timeout
    │   ├── CommitUnknownError             commit_unknown
    │   ├── ConcurrentChangeError          concurrent_change
    │   ├── DamagedCodeError               code_damaged
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
    │   │   ├── StoragePermissionError     storage_permission_denied
    │   │   └── StorageRefusedError        storage_refused
    │   ├── StorageFullError               storage_full
    │   ├── FileNotFoundInStorageError     file_not_found
    │   ├── DamagedFileError               file_damaged
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
    │   ├── IdempotencyKeyReusedError      idempotency_key_reused
    │   ├── InvalidTextError               invalid_text
    │   ├── InvalidUrlError                url_invalid
    │   ├── IllegalStatusMoveError         illegal_status_move
    │   └── WeakPasswordError              weak_password
    └── ConflictError                      conflict
        ├── DuplicateError                 duplicate
        ├── MissingReferenceError          missing_reference
        ├── StillReferencedError           still_referenced
        ├── AppendOnlyError                append_only
        ├── ChangedMeanwhileError          changed_meanwhile
        ├── StillRunningError              still_running
        ├── AnswerNotKeptError             answer_not_kept
        ├── LimitReachedError              limit_reached
        ├── BudgetExceededError            budget_exceeded
        ├── GenerationEndedError           generation_ended
        ├── WriterReplacedError            generation_writer_replaced
        ├── LastAdminError                 last_admin
        └── LastLoginMethodError           last_login_method
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal
    from typing import Any


class DataLayerError(Exception):
    """The root: catching it catches everything that the data layer raises on purpose.

    Errors can be copied and pickled, as process pools do, with their attributes and their cause; a cause that cannot be
    pickled is replaced by an exception that quotes it.
    """

    code: ClassVar[str] = "data_layer_error"

    def __reduce__(self) -> tuple[object, ...]:
        """Without calling ``__init__``, whose arguments are not those that Exception keeps."""
        cause = {"__cause__": _portable(self.__cause__), "__suppress_context__": self.__suppress_context__}
        return _without_init, (type(self), self.args), vars(self) | cause


def _without_init(kind: type[DataLayerError], arguments: tuple[object, ...]) -> DataLayerError:
    return kind.__new__(kind, *arguments)


def _portable(cause: BaseException | None) -> BaseException | None:
    try:
        pickle.loads(pickle.dumps(cause))  # noqa: S301  (what was just written)
    except Exception:  # noqa: BLE001  (whatever the cause's own code raises)
        return Exception(f"{type(cause).__qualname__}: {cause}")
    return cause


class ConfigurationError(DataLayerError):
    """The settings cannot be used. ``problems`` holds every problem found, not only the first."""

    code = "configuration_invalid"

    def __init__(self, *problems: str) -> None:
        super().__init__("The configuration cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = problems


class MissingExtraError(DataLayerError):
    """Something needs packages of an extra that is not installed; the message names it."""

    code = "extra_missing"


class NotInitializedError(DataLayerError):
    """The data layer was used before it was opened or after it was closed."""

    code = "not_initialized"


class EmbeddedServerError(DataLayerError):
    """An embedded PostgreSQL or Valkey could not be started or stopped."""

    code = "embedded_server_failed"


class FolderInUseError(EmbeddedServerError):
    """Another service already runs on the same data folder."""

    code = "folder_in_use"


class WorkerFailedError(DataLayerError):
    """A worker of the service exited unexpectedly; ``code`` is that of its error, if it reported one."""

    code = "worker_failed"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            vars(self)["code"] = code  # That of an error of another process, whose class is not known here.


class NotFoundError(DataLayerError):
    """No row has this id, or the caller may not know that it exists."""

    code = "not_found"


class GrowthUnknownError(NotFoundError):
    """The variant is there, and it was not kept how its code grew."""

    code = "growth_unknown"


class PictureMissingError(NotFoundError):
    """What was asked for is there, and has no picture."""

    code = "picture_missing"


class FetchError(DataLayerError):
    """A file could not be fetched from its URL: the server cannot be reached, or does not answer with a file."""

    code = "fetch_failed"


class FetchAddressError(FetchError):
    """The host of a URL, or one that it redirects to, has no address or an address that is not public."""

    code = "fetch_address_not_public"


class FetchTimeoutError(FetchError):
    """A file did not arrive in time. Nothing of it was kept."""

    code = "fetch_timeout"


class MailError(DataLayerError):
    """A mail was not sent."""

    code = "mail_failed"


class MailRefusedError(MailError):
    """The mail server will never take this mail, for its receiver or its content."""

    code = "mail_refused"


class MailDeferredError(MailError):
    """The mail server does not take this mail at the moment."""

    code = "mail_deferred"


class MailServerError(MailError):
    """The mail server takes no mail: it cannot be reached, is not trusted, or refuses the login or the sender."""

    code = "mail_server_unavailable"


class MailTemplateError(MailError):
    """A template of a mail cannot be filled, or has no subject. The message never quotes what was filled in."""

    code = "mail_template_invalid"


class OverloadedError(DataLayerError):
    """More passwords are queued than this process can check in time. Try again in a few seconds."""

    code = "overloaded"


class DeadlineExceededError(DataLayerError):
    """A request took longer than it may, and was cancelled (REQUEST_DEADLINE)."""

    code = "deadline_exceeded"


class TooManyRequestsError(DataLayerError):
    """A person, an API key or a network sent more requests than it may.

    ``retry_after`` says after how many seconds to try again. ``limit`` is there where requests of one kind are limited:
    which kind, to how many, in how many seconds.
    """

    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after: float, limit: tuple[str, int, int] | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.limit = limit


class PermissionDeniedError(DataLayerError):
    """The actor may not do this. Permissions are checked before any lookup, so this reveals nothing that exists."""

    code = "permission_denied"


class MissingScopeError(PermissionDeniedError):
    """The API key is not good for this, whatever its owner may do. Use one with the scope that the message names."""

    code = "scope_missing"


class AuthenticationError(DataLayerError):
    """The caller could not be authenticated."""

    code = "authentication_failed"


class InvalidCredentialsError(AuthenticationError):
    """The address is unknown or the password is wrong; which of the two is never disclosed."""

    code = "invalid_credentials"


class TooManyAttemptsError(AuthenticationError):
    """Too many failed logins; nothing was checked. ``retry_after`` says after how many seconds to try again."""

    code = "too_many_attempts"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SecondFactorRequiredError(AuthenticationError):
    """The password is right, and a second factor is needed: answer ``challenge`` with ``accounts.finish_log_in``.

    Attributes:
        challenge: what is answered within five minutes; a ``schemas.factors.FactorChallenge``, and from the client of
            the HTTP API a ``client.values.SecondFactorNeeded`` with the same fields.
    """

    code = "second_factor_required"

    def __init__(self, message: str, *, challenge: Any) -> None:
        super().__init__(message)
        self.challenge = challenge


class InvalidSecondFactorError(AuthenticationError):
    """The code, or the answer of the passkey, is not right, or was used before."""

    code = "second_factor_invalid"


class InvalidOneTimeTokenError(AuthenticationError):
    """A one-time token is malformed, unknown, expired or used; which of these is never disclosed."""

    code = "one_time_token_invalid"


class UnverifiedIdentityError(AuthenticationError):
    """An external identity cannot be used: its address is not verified, or the account must link it first."""

    code = "identity_unverified"


class EmailNotVerifiedError(AuthenticationError):
    """The password is right, but the account waits for its e-mail address to be verified."""

    code = "email_not_verified"


class AccountInactiveError(AuthenticationError):
    """The password is right, but the account is deactivated."""

    code = "account_inactive"


class AccountSuspendedError(AuthenticationError):
    """The password is right, but the account is suspended."""

    code = "account_suspended"


class InvalidLoginError(AuthenticationError):
    """A login by an issuer was not begun in this browser, took too long, or was used before. Begin again."""

    code = "login_invalid"


class LoginDeniedError(AuthenticationError):
    """The person, or the issuer, has refused the login."""

    code = "login_denied"


class InvalidSessionError(AuthenticationError):
    """The session is unknown, expired or revoked; which of these is never disclosed. The user has to log in again."""

    code = "session_invalid"


class InvalidApiKeyError(AuthenticationError):
    """The API key is unknown, expired or revoked; which of these is never disclosed. Make another one."""

    code = "api_key_invalid"


class InvalidTokenError(AuthenticationError):
    """An access or refresh token is malformed, forged, not meant for us, or its session has ended. Log in again."""

    code = "token_invalid"


class ExpiredTokenError(InvalidTokenError):
    """An access token has expired. Exchange the refresh token for a new pair."""

    code = "token_expired"


class ReusedTokenError(InvalidTokenError):
    """A refresh token was used twice, so it may have been stolen; its session was ended."""

    code = "token_reused"


class ServiceCallError(DataLayerError):
    """A call of the HTTP API by ``data_layer.client`` failed."""

    code = "service_call_failed"


class ServiceUnreachableError(ServiceCallError):
    """The service did not answer, or its answer broke off. What changes something may have been done or not."""

    code = "service_unreachable"


class UnexpectedAnswerError(ServiceCallError):
    """The service answered with something that the description of its API does not promise."""

    code = "answer_unexpected"


class ProblemError(ServiceCallError):
    """The service answered with a failure (RFC 9457).

    Attributes:
        code: that of the error in the service, such as ``budget_exceeded``; the one of this class if there was none.
        status: of HTTP.
        request_id: what the log of the service calls the request.
        fields: what is wrong with values, by their paths.
        current: what another change has stored meanwhile.
        retry_after: seconds after which it may be tried again.
    """

    code = "problem"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        problem_code: str | None = None,
        request_id: str = "",
        fields: Mapping[str, str] | None = None,
        current: Mapping[str, object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.fields = dict(fields or {})
        self.current = None if current is None else dict(current)
        self.retry_after = retry_after
        if problem_code is not None:
            vars(self)["code"] = problem_code


class RequestProblemError(ProblemError):
    """The request does not fit (400, 413, 415, 422, 428 and others): ``fields`` says where."""

    code = "problem_of_request"


class LoginProblemError(ProblemError):
    """The token or the password is not accepted (401)."""

    code = "problem_of_login"


class PermissionProblemError(ProblemError):
    """This person may not do that (403)."""

    code = "problem_of_permission"


class NotFoundProblemError(ProblemError):
    """It does not exist, or this person may not see it (404)."""

    code = "problem_not_found"


class ConflictProblemError(ProblemError):
    """It does not go with what is there (409)."""

    code = "problem_of_conflict"


class ChangedMeanwhileProblemError(ProblemError):
    """Somebody else has changed it since it was read (412); ``current`` is what is stored now."""

    code = "problem_changed_meanwhile"


class LimitProblemError(ProblemError):
    """Too many requests (429); ``retry_after`` says when the next one may come."""

    code = "problem_of_limit"


class ServiceProblemError(ProblemError):
    """Something failed in the service (5xx). What changes something may have been done or not."""

    code = "problem_of_service"


class IssuerError(DataLayerError):
    """An OpenID Connect issuer gave an answer that cannot be used; ``status`` is that of HTTP where it is the cause."""

    code = "issuer_failed"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class IssuerUnavailableError(IssuerError):
    """An OpenID Connect issuer cannot be reached, or did not answer in time. Try again later."""

    code = "issuer_unavailable"


class CacheError(DataLayerError):
    """The cache refused or failed in a way that no more precise class describes."""

    code = "cache_error"


class CacheUnavailableError(CacheError):
    """Redis or Valkey could not be reached, or the connection broke."""

    code = "cache_unavailable"


class CacheReadOnlyError(CacheUnavailableError):
    """The server is a replica, which takes no writes."""

    code = "cache_read_only"


class CacheFullError(CacheError):
    """Redis or Valkey has reached its memory limit and evicts nothing."""

    code = "cache_full"


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
    """A cache value cannot be represented as JSON, or is too large."""

    code = "cache_value_invalid"


class InvalidTimeToLiveError(CacheError):
    """A time to live is zero, negative, not finite or too long."""

    code = "cache_ttl_invalid"


class LockNotAcquiredError(CacheError):
    """Another holder kept the lock for as long as the caller was willing to wait."""

    code = "cache_lock_not_acquired"


class LockLostError(CacheError):
    """A lock ended before the work that it protected; another holder may have begun the same work."""

    code = "cache_lock_lost"


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


class DatabaseOverloadedError(PoolTimeoutError):
    """Every connection is in use, and as much waits for one as may (DB_POOL_QUEUE). Repeat it in a few seconds."""

    code = "database_overloaded"


class StatementTimeoutError(DatabaseError):
    """A statement ran, or waited for a lock, longer than it may (DB_STATEMENT_TIMEOUT)."""

    code = "database_statement_timeout"


class CommitUnknownError(DatabaseError):
    """The connection broke while COMMIT was under way: the change may or may not be stored. Read before repeating."""

    code = "commit_unknown"


class ConcurrentChangeError(DatabaseError):
    """Another transaction changed the same rows first (serialization failure or deadlock). Repeating may succeed."""

    code = "concurrent_change"


class DamagedCodeError(DatabaseError):
    """A stored code is not the text that was stored, by its hash. Other codes are not concerned."""

    code = "code_damaged"


class MigrationError(DatabaseError):
    """A migration could not be carried out; the schema is as it was before it."""

    code = "migration_failed"


class SchemaMismatchError(DatabaseError):
    """The tables in the database are not those that this version of the code needs."""

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
    """A transaction was misused."""

    code = "transaction_misused"


class NestedTransactionError(TransactionError):
    """A transaction was begun inside another transaction of the same task."""

    code = "transaction_nested"


class TransactionClosedError(TransactionError):
    """A transaction was used before it began or after it ended."""

    code = "transaction_closed"


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


class StorageRefusedError(StorageUnavailableError):
    """The server refused a request, and will refuse it again: a setting is wrong, or it expects another form."""

    code = "storage_refused"


class StorageFullError(StorageError):
    """The storage is full. Nothing of the file was kept."""

    code = "storage_full"


class FileNotFoundInStorageError(StorageError):
    """No file is stored under this key."""

    code = "file_not_found"


class DamagedFileError(StorageError):
    """What is stored is not what was saved: it has another size or hash, or cannot be decompressed."""

    code = "file_damaged"


class FileExistsInStorageError(StorageError):
    """A file is already stored under this key, and overwriting was not allowed."""

    code = "file_exists"


class FileChangedInStorageError(StorageError):
    """The file is not the version that was to be replaced: another writer changed or removed it."""

    code = "file_changed"


class FileTooLargeError(StorageError):
    """A file is larger than MAX_FILE_SIZE. Nothing of it was kept."""

    code = "file_too_large"


class ContentMismatchError(StorageError):
    """The content is not what was announced. Nothing of it was kept."""

    code = "content_mismatch"


class InvalidFileError(StorageError):
    """A file cannot be stored, for a reason that no more precise class describes. Nothing of it was kept."""

    code = "file_invalid"


class EmptyFileError(InvalidFileError):
    """A file has no bytes."""

    code = "file_empty"


class FileTypeNotAllowedError(InvalidFileError):
    """The type of the content is unknown or not allowed (ALLOWED_FILE_TYPES)."""

    code = "file_type_not_allowed"


class FileTypeMismatchError(InvalidFileError):
    """The content is of another type than was declared."""

    code = "file_type_mismatch"


class CorruptFileError(InvalidFileError):
    """The content is cut off or damaged."""

    code = "file_corrupt"


class PolyglotFileError(InvalidFileError):
    """Bytes follow the end of the content, so the file could pass for one of another type."""

    code = "file_polyglot"


class ActiveContentError(InvalidFileError):
    """A drawing contains what a browser would execute or fetch: a script, an event handler, an external reference."""

    code = "file_active_content"


class ImageTooLargeError(InvalidFileError):
    """An image has more pixels or frames than may be decoded (IMAGE_MAX_PIXELS, IMAGE_MAX_FRAMES)."""

    code = "image_too_large"


class ImageTimeoutError(InvalidFileError):
    """An image took too long to decode (IMAGE_TIME_LIMIT)."""

    code = "image_timeout"


class InvalidFileNameError(InvalidFileError):
    """A file name contains a path, or cannot be a name."""

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
    """A bucket or container is publicly readable, and the settings do not allow that."""

    code = "storage_public"


class InvalidValueError(DataLayerError):
    """A value breaks a rule of its field. ``field`` names it where one field is to blame."""

    code = "invalid_value"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ValueTooLongError(InvalidValueError):
    """A text is longer than its column, or a row larger than its limit."""

    code = "value_too_long"


class IdempotencyKeyReusedError(InvalidValueError):
    """A key that was sent with one request came with another one."""

    code = "idempotency_key_reused"


class InvalidTextError(InvalidValueError):
    """A text contains what PostgreSQL cannot store: a NUL character or a lone surrogate."""

    code = "invalid_text"


class InvalidUrlError(InvalidValueError):
    """A URL may not be fetched: it is malformed, not http(s), or has credentials, a strange port or a strange host."""

    code = "url_invalid"


class IllegalStatusMoveError(InvalidValueError):
    """The row's status cannot change to this one."""

    code = "illegal_status_move"


class WeakPasswordError(InvalidValueError):
    """A new password is too short, too common, or too close to the person's own data.

    ``reason`` names the rule: ``too_long``, ``untypable``, ``too_short``, ``common``, ``repetitive`` or ``personal``.
    """

    code = "weak_password"

    def __init__(self, message: str, *, field: str | None = None, reason: str | None = None) -> None:
        super().__init__(message, field=field)
        self.reason = reason


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
    """A row refers to a row that does not exist."""

    code = "missing_reference"


class StillReferencedError(ConflictError):
    """A row cannot be removed while others refer to it."""

    code = "still_referenced"


class AppendOnlyError(ConflictError):
    """An entry of the audit trail or of the usage cannot be changed or removed; the database refuses it."""

    code = "append_only"


class ChangedMeanwhileError(ConflictError):
    """Another writer changed the row since the caller read it. Read it again, then decide again.

    Where the service knows them, ``wanted`` holds the values that the caller wanted to store and ``current`` those that
    are stored, by the names of their fields.
    """

    code = "changed_meanwhile"

    def __init__(
        self, message: str, *, wanted: dict[str, object] | None = None, current: dict[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.wanted = wanted or {}
        self.current = current or {}


class StillRunningError(ConflictError):
    """The same request is being carried out already. ``retry_after`` says after how many seconds to send it again."""

    code = "still_running"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AnswerNotKeptError(ConflictError):
    """A repeated request was carried out the first time, and how it was answered is not known any more."""

    code = "answer_not_kept"


class LimitReachedError(ConflictError):
    """There are as many things of a kind as there may be; remove one first."""

    code = "limit_reached"


class BudgetExceededError(ConflictError):
    """The person's budget of this month does not have as much left. ``remaining`` says how much it has."""

    code = "budget_exceeded"

    def __init__(self, message: str, *, remaining: Decimal) -> None:
        super().__init__(message)
        self.remaining = remaining


class GenerationEndedError(ConflictError):
    """The variant has ended, so nothing can be added to it. ``status`` says how."""

    code = "generation_ended"

    def __init__(self, message: str, *, status: str) -> None:
        super().__init__(message)
        self.status = status


class WriterReplacedError(ConflictError):
    """Another writer has the variant now; what this one sends is not stored."""

    code = "generation_writer_replaced"


class LastAdminError(ConflictError):
    """The change would leave the system without an active administrator."""

    code = "last_admin"


class LastLoginMethodError(ConflictError):
    """The change would leave an account without any way to log in."""

    code = "last_login_method"
