"""What an error of an object store means to someone who uses the storage.

obstore's messages quote whole addresses, with signatures and tokens in them, and answers of the server. None of that
goes on: only the HTTP status and the error code are picked out, and the chain of exceptions is cut.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from data_layer.errors import (
    FileChangedInStorageError,
    FileNotFoundInStorageError,
    InvalidStorageKeyError,
    StorageError,
    StorageMissingError,
    StoragePermissionError,
    StorageUnavailableError,
)
from data_layer.storage.conditions import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,80})</Code>")
_MISSING_PLACE = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "AccountNotFound"})
_RANGE_NOT_SATISFIABLE = 416
_CONFLICT = 409
_PARTS_REPLACED = "InvalidBlockList"  # Azure: another upload to the same key has ended, which discards these parts.
_REFUSED = frozenset({401, 403})

NO_CONDITION = Condition()


@contextmanager
def translated(key: str, action: str, condition: Condition = NO_CONDITION) -> Iterator[None]:
    """Turn errors of obstore into errors of the storage, while something is done with one file."""
    try:
        yield
    except FileNotFoundError as error:
        raise _not_found(key, error, condition) from None
    except InvalidPathError:
        raise InvalidStorageKeyError(f"The server takes no key like {key!r}") from None
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
        "The bucket or container of the storage does not exist: see that AWS_S3_BUCKET or AZURE_STORAGE_CONTAINER_NAME "
        "names it rightly, or make it with `data-layer storage init`"
    )


def _not_found(key: str, error: Exception, condition: Condition) -> StorageError:
    if _code(error) in _MISSING_PLACE:
        return missing_place()
    if condition.if_match is not None:
        return condition.failure(key)
    return FileNotFoundInStorageError(f"No file is stored under {key!r}")


def _is_conflict(error: BaseError) -> bool:
    if _code(error) in _MISSING_PLACE:
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


def _general(error: BaseError, action: str) -> StorageError:
    reason = _reason(error)
    if _code(error) in _MISSING_PLACE:
        return missing_place()
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _status(error) in _REFUSED:
        return StoragePermissionError(
            f"The storage refused to {action} ({reason}): see that the credentials are right, have not expired, and "
            "grant this on the bucket or container"
        )
    return StorageUnavailableError(
        f"The storage could not {action} ({reason}): see that its server runs and can be reached; this may pass"
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
