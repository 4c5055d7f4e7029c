"""Bytes in and out: the ``Storage`` port, its rules, and one adapter for each backend."""

from data_layer.settings.azure_location import AzureLocation
from data_layer.storage.local import LocalStorage
from data_layer.storage.object_store.azure import AzureStorage
from data_layer.storage.object_store.limits import Limits
from data_layer.storage.object_store.s3 import S3Storage
from data_layer.storage.object_store.s3_location import S3Location
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
    UnusableKeyHandler,
    UnusableKeys,
)

__all__ = [
    "AzureLocation",
    "AzureStorage",
    "FileContent",
    "FileInformation",
    "Limits",
    "ListedFile",
    "LocalStorage",
    "OpenFile",
    "S3Location",
    "S3Storage",
    "SignedMethod",
    "SignedUrl",
    "Storage",
    "StorageAdministration",
    "StorageBackend",
    "StorageMoves",
    "StorageStatistics",
    "StorageUrls",
    "UnusableKeyHandler",
    "UnusableKeys",
]
