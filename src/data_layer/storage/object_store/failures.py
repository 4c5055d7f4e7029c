"""What an error of an object store means to someone who uses the storage.

obstore's messages quote whole addresses, with signatures and tokens in them, and answers of the server. None of that
goes on: only the HTTP status and the error code are picked out, and the chain of exceptions is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from data_layer.errors import (
    FileChangedInStorageError,
    FileNotFoundInStorageError,
    InvalidStorageKeyError,
    NotSupportedByStorageError,
    StorageError,
    StorageMissingError,
    StoragePermissionError,
    StorageRefusedError,
    StorageUnavailableError,
)
from data_layer.storage.arguments import Condition

_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>|expecting '([a-z0-9-]{1,40})'")
_WRONG_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_WRONG_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_ENDED = frozenset({"ExpiredToken", "TokenRefreshRequired"})
_NOT_IMPLEMENTED = frozenset({"NotImplemented", "MethodNotAllowed", "Unimplemented", "XNotImplemented"})
_UNSUPPORTED_STATUSES = frozenset({405, 501})
_MAY_PASS = frozenset({408, 409, 423, 425, 429, 500, 502, 503, 504, 507, 509})
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,80})</Code>")
MISSING_PLACE = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "AccountNotFound"})
_RANGE_NOT_SATISFIABLE = 416
_CONFLICT = 409
_PARTS_REPLACED = "InvalidBlockList"  # Azure: another upload to the same key has ended, which discards these parts.
_REFUSED = frozenset({401, 403})

_LATER = frozenset({408, 429})
_MALFORMED = "invalid DeleteObjects response"

NO_CONDITION = Condition()


@contextmanager
def translated(key: str, action: str, condition: Condition = NO_CONDITION) -> Iterator[None]:
    """Turn errors of obstore into errors of the storage, while something is done with one file."""
    try:
        yield
    except FileNotFoundError as error:
        raise _not_found(key, error, condition) from None
    except InvalidPathError:
        raise InvalidStorageKeyError(f"the server takes no key like {key!r}") from None
    except NotSupportedError:
        raise NotSupportedByStorageError(f"the server of the storage cannot {action} {key!r}: it lacks this") from None
    except BaseError as error:
        if not _is_conflict(error):
            raise _general(error, f"{action} {key!r}") from None
        raise _interfered(key) if condition.is_none else condition.failure(key) from None


@contextmanager
def translated_for_operators(action: str) -> Iterator[None]:
    """Turn errors of obstore into errors of the storage, while the storage as a whole is looked at."""
    try:
        yield
    except FileNotFoundError:
        raise missing_place() from None
    except BaseError as error:
        raise _general(error, action) from None


def missing_place() -> StorageMissingError:
    """The bucket or container is not there."""
    return StorageMissingError(
        "the bucket or container of the storage does not exist: see that AWS_S3_BUCKET or AZURE_STORAGE_CONTAINER_NAME "
        "names it rightly, or make it with `data-layer storage init`"
    )


def _not_found(key: str, error: Exception, condition: Condition) -> StorageError:
    if _code(error) in MISSING_PLACE:
        return missing_place()
    if condition.if_match is not None:
        return condition.failure(key)
    return FileNotFoundInStorageError(f"no file is stored under {key!r}")


def _is_conflict(error: BaseError) -> bool:
    if _code(error) in MISSING_PLACE:
        return False
    return (
        isinstance(error, AlreadyExistsError | PreconditionError)
        or _status(error) == _CONFLICT
        or _code(error) == _PARTS_REPLACED
    )


def _interfered(key: str) -> FileChangedInStorageError:
    return FileChangedInStorageError(
        f"Another upload to {key!r} ended while this one was under way, and this one was discarded; repeat it if it "
        "should win"
    )


def refusal(action: str, *, status: int | None, code: str | None, text: str) -> StorageError | None:
    """What the answer of a server means that will not change by itself; None where it may pass.

    Args:
        action: What was refused.
        status: The HTTP status.
        code: The error code in the answer.
        text: All that the server said, which is searched and not shown.
    """
    reason = f"HTTP status {status}{f', {code}' if code else ''}"
    if code in _WRONG_REGION or "redirect without LOCATION" in text:
        found = _REGION.search(text)
        region = next(filter(None, found.groups()), "") if found else ""
        where = f"in the region {region}, not" if region else "not"
        return StorageRefusedError(
            f"the storage refused to {action} ({code or 'redirected'}): the bucket is {where} in the one that is set; "
            f"set AWS_REGION{f'={region}' if region else ''}, or the right AWS_ENDPOINT_URL"
        )
    if code in _WRONG_CLOCK or "Request date header too old" in text:
        return StoragePermissionError(
            f"the storage refused to {action} ({code}): the clock of this machine and that of the server differ by "
            "too much; set the clock, and have it kept right (NTP)"
        )
    if code in _ENDED:
        return StoragePermissionError(
            f"the storage refused to {action} ({code}): the temporary credentials have expired; get new ones, and a "
            "new AWS_SESSION_TOKEN with them"
        )
    if status in _REFUSED:
        return StoragePermissionError(
            f"the storage refused to {action} ({reason}): see that the credentials are right, have not expired, and "
            "grant this on the bucket or container"
        )
    if status in _UNSUPPORTED_STATUSES or code in _NOT_IMPLEMENTED:
        return NotSupportedByStorageError(f"the server of the storage cannot {action} ({reason}): it lacks this")
    if status is None or status in _MAY_PASS or (status == 404 and code is None):  # A server that just starts, perhaps.
        return None
    return StorageRefusedError(
        f"the storage refused to {action} ({reason}): it will do so again; see that it is set up as the settings say"
    )


def is_refusal(error: BaseException) -> bool:
    """Whether a server that can be reached does not do what it was asked for, or answered in a way of its own."""
    status = _status(error)
    return _MALFORMED in str(error) or status == 501 or (status is not None and status < 500 and status not in _LATER)


def _general(error: BaseError, action: str) -> StorageError:
    reason, code = _reason(error), _code(error)
    if code in MISSING_PLACE:
        return missing_place()
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    status = _status(error) or (403 if refused else None)
    permanent = refusal(action, status=status, code=code, text=str(error))
    if permanent is not None:
        return permanent
    return StorageUnavailableError(
        f"the storage could not {action} ({reason}): see that its server runs and can be reached; this may pass"
    )


def is_about_a_range(error: BaseError) -> bool:
    """Whether the server did not answer with the range of bytes that was asked for."""
    text = str(error)
    return _status(error) == _RANGE_NOT_SATISFIABLE or any(
        sign in text for sign in ("NotPartial", "StartTooLarge", "ParseContentRange")
    )


def _reason(error: BaseException) -> str:
    """The part of an error that is safe to show."""
    text, status, code = str(error), _status(error), _code(error)
    if status is not None:
        return f"HTTP status {status}{f', {code}' if code else ''}"
    if "imed out" in text or "TimedOut" in text or "deadline" in text:
        return "it did not answer in time"
    if "dns error" in text or "lookup address" in text:
        return "the name of its host cannot be resolved"
    if "ertificate" in text:
        return "its certificate is not trusted"
    if "onnection refused" in text:
        return "the connection was refused"
    if "onnect" in text or "IncompleteMessage" in text or "error sending request" in text or "Body" in text:
        return "the connection broke"
    return "its answer was not understood"


def _status(error: BaseException) -> int | None:
    found = _STATUS.search(str(error))
    return int(found.group(1)) if found else None


def _code(error: BaseException) -> str | None:
    found = _CODE.search(str(error))
    return found.group(1) if found else None
