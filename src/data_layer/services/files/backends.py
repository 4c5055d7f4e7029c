"""The backends in which files are, and the keys that they get there."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from data_layer.entities.enums import FileEncoding, StorageKind
from data_layer.errors import ContentMismatchError, DamagedFileError, FileTooLargeError, StorageUnavailableError
from data_layer.storage import FileInformation, StorageBackend
from data_layer.storage.validation import ReceivedFile

UPLOADS = "uploads/"
"""Where direct uploads wait until they are verified. Nothing there can be read."""

FILES = "files/"
"""Where saved files are. What is there or among the uploads, and in no row, is an orphan."""

EXPORTS = "exports/"
"""Where archives of everything about a person are. What is there and in no row is an orphan."""

PUBLIC_PATH = "/a/"
"""Where files with a permanent address are served."""

CACHE_CONTROL = "private, max-age=3600"
"""How the answer for a saved file may be kept."""

_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
    "text/html": "html",
    "text/css": "css",
    "text/javascript": "js",
    "text/markdown": "md",
    "text/csv": "csv",
    "application/json": "json",
    "application/pdf": "pdf",
    "application/zip": "zip",
}


class Described(Protocol):
    """What a row says about a stored file. Where the storage says something else, the row is right."""

    @property
    def content_type(self) -> str:
        """What a reader gets."""

    @property
    def encoding(self) -> str | None:
        """How the stored bytes are encoded."""

    @property
    def stored_size(self) -> int:
        """Their number."""


class Placed(Described, Protocol):
    """What a row says about an object, and where it is."""

    @property
    def backend(self) -> StorageKind:
        """In which storage."""

    @property
    def key(self) -> str:
        """Under which name."""

    @property
    def owner_id(self) -> UUID | None:
        """Whose it is."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is about to be stored, before there is a row."""

    backend: StorageKind
    key: str
    owner_id: UUID | None
    content_type: str
    encoding: FileEncoding | None
    stored_size: int


def headers_of(row: Described) -> dict[str, Any]:
    """What belongs beside an object in the storage, or into an answer with its bytes."""
    return {
        "content_type": row.content_type,
        "content_encoding": row.encoding,
        "cache_control": CACHE_CONTROL,
    }


def require_size(row: Described, stored: FileInformation) -> None:
    """See that the storage has as many bytes as were saved.

    Raises:
        DamagedFileError: it has more or fewer.
    """
    if stored.size != row.stored_size:
        raise DamagedFileError(
            f"the file stored under {stored.key!r} has {stored.size} bytes instead of {row.stored_size}: "
            "`data-layer storage check --deep --apply` repairs what can be repaired, and the rest is in a backup"
        )


def require_announced_size(arrived: int, announced: int, *, is_complete: bool = True) -> None:
    """See that a direct upload has as many bytes as were announced.

    Raises:
        FileTooLargeError: more have arrived.
        ContentMismatchError: fewer have, and no further ones will.
    """
    if arrived > announced:
        raise FileTooLargeError(f"{arrived} bytes have arrived, but {announced} were announced")
    if is_complete and arrived < announced:
        raise ContentMismatchError(f"{arrived} bytes have arrived, but {announced} were announced")


class StorageBackends:
    """The backend that new files go to, and others that files may still be in while they are migrated."""

    def __init__(
        self, kind: StorageKind, storage: StorageBackend, others: Mapping[StorageKind, StorageBackend]
    ) -> None:
        self.kind = kind
        self.storage = storage
        self._all = {**(others or {}), kind: storage}

    @property
    def kinds(self) -> tuple[StorageKind, ...]:
        """All backends that are configured, the one for new files first."""
        return (self.kind, *(kind for kind in self._all if kind != self.kind))

    def of(self, kind: StorageKind) -> StorageBackend:
        """The backend of this kind.

        Raises:
            StorageUnavailableError: it is not configured.
        """
        if kind not in self._all:
            raise StorageUnavailableError(
                f"a file is in the storage {kind.value!r}, which is not configured: set STORAGE_SECOND_BACKEND to it "
                "until everything has been migrated"
            )
        return self._all[kind]

    async def put(self, row: Placed, file: ReceivedFile) -> None:
        """Store the bytes of a row. What was in memory is hashed in the meantime.

        Raises:
            StorageError: they could not be stored.
        """
        await self.of(row.backend).upload(
            file.to_upload(),
            row.key,
            metadata={"owner": str(row.owner_id)} if row.owner_id else None,
            sha256=None if file.is_in_memory else file.sha256,
            **headers_of(row),
        )

    async def delete(self, objects: Iterable[tuple[StorageKind, str]]) -> None:
        """Remove objects wherever they are; harmless to repeat."""
        keys: dict[StorageKind, list[str]] = {}
        for kind, key in objects:
            keys.setdefault(kind, []).append(key)
        for kind, some in keys.items():
            await self.of(kind).delete_many(some)


THUMBNAIL_TYPE = "image/webp"


def new_place() -> str:
    """Where one file goes, or the thumbnails of one: random, spread over 256 folders.

    None has a folder of its own, which a local disk would have to make durable with each file.
    """
    name = secrets.token_hex(16)
    return f"{FILES}{name[:2]}/{name}"


PUBLIC_NAME = r"[A-Za-z0-9_-]{22}\.[a-z0-9]{1,8}"
"""The form of the ends of permanent addresses, as a regular expression."""


def public_name(content_type: str) -> str:
    """A name that cannot be guessed (128 random bits), with the extension that belongs to the type."""
    return f"{secrets.token_urlsafe(16)}.{_EXTENSIONS.get(content_type, 'txt')}"


def is_public_name(name: str) -> bool:
    """Whether a permanent address may end so."""
    return re.fullmatch(PUBLIC_NAME, name) is not None


def original_key(place: str, content_type: str) -> str:
    """The key of the file itself. Its name comes from its type, never from a user."""
    return f"{place}.{_EXTENSIONS.get(content_type, 'txt')}"


def thumbnail_key(place: str, size: int) -> str:
    """The key of a thumbnail; ``size`` is its longest side in pixels."""
    return f"{place}-thumbnail-{size}.webp"


def export_key() -> str:
    """The key of an archive that is about to be made."""
    return f"{EXPORTS}{secrets.token_hex(16)}.zip"


def upload_key() -> str:
    """The key of a direct upload before it is verified."""
    return f"{UPLOADS}{secrets.token_hex(16)}"
