"""What an error of the operating system means to someone who uses the storage."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from data_layer.errors import (
    FileNotFoundInStorageError,
    InvalidStorageKeyError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_NAMEABLE = frozenset({errno.ENAMETOOLONG, errno.EILSEQ})
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR}) | _NOT_NAMEABLE
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST})


@contextmanager
def translated_for_reading(key: str) -> Iterator[None]:
    """Turn errors of the operating system into errors of the storage, while a file is read."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise FileNotFoundInStorageError(f"No file is stored under {key!r}") from error
        raise _general(error, f"read {key!r}") from error


@contextmanager
def translated_for_writing(key: str) -> Iterator[None]:
    """Turn errors of the operating system into errors of the storage, while a file is written or removed."""
    try:
        yield
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise InvalidStorageKeyError(
                f"The storage key {key!r} cannot be used: it, or a part of it, is the name of something else in the "
                "storage folder (a folder of other files, a file, or a symbolic link, which is never followed)"
            ) from error
        if error.errno in _NOT_NAMEABLE:
            raise InvalidStorageKeyError(
                f"The storage key {key!r} cannot be used: the disk does not take such a name ({error.strerror})"
            ) from error
        raise _general(error, f"write {key!r}") from error


@contextmanager
def translated_for_operators(action: str) -> Iterator[None]:
    """Turn errors of the operating system into errors of the storage, while it is looked after."""
    try:
        yield
    except OSError as error:
        raise _general(error, action) from error


def _general(error: OSError, action: str) -> StorageError:
    if error.errno in _NO_ROOM:
        return StorageFullError(
            f"There is no room to {action} ({error.strerror}): free some space, or raise the quota or the limit "
            "on file sizes"
        )
    return StorageUnavailableError(
        f"The storage could not {action} ({error.strerror}): see that the folder LOCAL_STORAGE_PATH exists, belongs "
        "to the user that runs this, and can be written to"
    )
