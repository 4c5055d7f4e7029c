"""Errors of the storage."""

from __future__ import annotations

from data_layer.errors.base import DataLayerError


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
