"""The file services of an open data layer, made from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from pydantic import SecretStr

from data_layer.entities.enums import StorageKind
from data_layer.errors import ConfigurationError
from data_layer.repositories.unit_of_work import Transactions
from data_layer.services.files.backends import StorageBackends
from data_layer.services.files.maintenance import FileMaintenance
from data_layer.services.files.removal import FileRemoval
from data_layer.services.files.service import FileService
from data_layer.services.files.serving import LocalFileServer, PublicFileServer
from data_layer.settings.files import FileSettings
from data_layer.settings.storage import StorageSettings
from data_layer.storage.opening import local_url_signer
from data_layer.storage.signing.local import LocalUrlSigner
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import FileLimits, Inspector, canonical_type
from data_layer.storage.validation.inspector import KNOWN_TYPES

_THREADS = 16  # For reading and packing what is uploaded; the storage has threads of its own.


@dataclass(frozen=True, slots=True)
class FileServices:
    """What can be done with files; ``server`` is None where no files are local."""

    service: FileService
    removal: FileRemoval
    maintenance: FileMaintenance
    server: LocalFileServer | None
    public: PublicFileServer


@asynccontextmanager
async def open_files(
    settings: FileSettings,
    storage: StorageSettings,
    session_secret: SecretStr,
    transactions: Transactions,
    backends: StorageBackends,
) -> AsyncIterator[FileServices]:
    """Services with threads of their own, which end with the block.

    Raises:
        ConfigurationError: ALLOWED_FILE_TYPES holds a type that cannot be recognised by content.
    """
    inspector, threads = Inspector(file_limits(settings, storage.max_file_size)), FileThreads(_THREADS)
    removal = FileRemoval(transactions, backends)
    try:
        yield FileServices(
            FileService(
                transactions,
                backends,
                inspector,
                threads,
                removal,
                upload_expires_in=timedelta(seconds=settings.upload_expires_in),
                public_url=storage.public_url or "",
            ),
            removal,
            FileMaintenance(transactions, backends, removal),
            _server(local_url_signer(storage, session_secret), transactions, backends),
            PublicFileServer(transactions, backends),
        )
    finally:
        await inspector.close()
        await threads.close()


def file_limits(settings: FileSettings, max_file_size: int) -> FileLimits:
    """The rules for files.

    Raises:
        ConfigurationError: ALLOWED_FILE_TYPES holds a type that cannot be recognised by content.
    """
    allowed = frozenset(map(canonical_type, settings.allowed_file_types))
    if unknown := allowed - KNOWN_TYPES:
        raise ConfigurationError(
            f"ALLOWED_FILE_TYPES: {', '.join(sorted(unknown))} cannot be recognised by content; "
            f"known are: {', '.join(sorted(KNOWN_TYPES))}"
        )
    return FileLimits(
        max_file_size=max_file_size,
        allowed_types=allowed,
        max_pixels=settings.image_max_pixels,
        max_frames=settings.image_max_frames,
        time_limit=settings.image_time_limit,
        memory_limit=settings.image_memory_limit,
        thumbnail_sizes=settings.image_thumbnail_sizes,
        metadata_removal=settings.image_remove_metadata,
    )


def _server(signer: LocalUrlSigner, transactions: Transactions, backends: StorageBackends) -> LocalFileServer | None:
    if StorageKind.LOCAL not in backends.kinds:
        return None
    return LocalFileServer(transactions, backends.of(StorageKind.LOCAL), signer)
