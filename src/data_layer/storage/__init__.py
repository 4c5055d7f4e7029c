"""Bytes in and out: the ``Storage`` port, its rules, and one adapter for each backend."""

from data_layer.storage.local import LocalStorage
from data_layer.storage.port import (
    FileContent,
    FileInformation,
    ListedFile,
    OpenFile,
    SignedMethod,
    SignedUrl,
    Storage,
    StorageAdministration,
    StorageBackend,
    StorageMoves,
    StorageStatistics,
    StorageUrls,
)

__all__ = [
    "FileContent",
    "FileInformation",
    "ListedFile",
    "LocalStorage",
    "OpenFile",
    "SignedMethod",
    "SignedUrl",
    "Storage",
    "StorageAdministration",
    "StorageBackend",
    "StorageMoves",
    "StorageStatistics",
    "StorageUrls",
]
