"""Errors of the storage."""

from __future__ import annotations

from data_layer.errors.base import DataLayerError


class StorageError(DataLayerError):
    """The storage refused or failed in a way that no more precise class describes."""

    code = "storage_error"


class StorageUnavailableError(StorageError):
    """The storage could not be reached or used: a missing right, a read-only disk, a broken mount."""

    code = "storage_unavailable"


class StorageFullError(StorageError):
    """There is no room left for the file. Nothing of it was kept."""

    code = "storage_full"


class FileNotFoundInStorageError(StorageError):
    """No file is stored under this key."""

    code = "file_not_found"


class FileTooLargeError(StorageError):
    """A file is larger than MAX_FILE_SIZE. Nothing of it was kept."""

    code = "file_too_large"


class InvalidStorageKeyError(StorageError):
    """A storage key is empty, too long, or would leave the storage folder."""

    code = "storage_key_invalid"
