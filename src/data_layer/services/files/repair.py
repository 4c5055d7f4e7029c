"""Storing an object again as its row describes it, when its bytes are still there in some form.

A copy of a storage loses what stands beside the bytes (``rsync`` without ``-X``, ``tar`` without ``--xattrs``, an S3
copy that replaces metadata), and some tools decompress on the way. The hash in the row decides what the right bytes
are.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from data_layer.entities.enums import StorageKind
from data_layer.errors import ContentMismatchError, DamagedFileError, FileNotFoundInStorageError
from data_layer.observability.log import get_log
from data_layer.repositories.stored_objects import ObjectRecord
from data_layer.services.files.backends import StorageBackends, headers_of
from data_layer.services.files.packing import pack, unpack
from data_layer.storage import FileContent, Storage
from data_layer.storage.validation import ReceivedFile

log = get_log(__name__)


class FileRepair:
    """Repairs one object at a time. What cannot be repaired stays as it is."""

    def __init__(self, backends: StorageBackends) -> None:
        self._backends = backends

    async def repair(self, kind: StorageKind, record: ObjectRecord) -> bool:
        """Store the right bytes with the right headers; whether they were there."""
        storage = self._backends.of(kind)
        try:
            if record.encoding is None:
                async with storage.open(record.key) as file:
                    if file.information.size != record.size:
                        return False
                    await self._store(storage, record, file.chunks, record.sha256)
            else:
                packed = await _packed(storage, record)
                if packed is None:
                    return False
                await self._store(storage, record, packed, hashlib.sha256(packed).hexdigest())
        except (ContentMismatchError, DamagedFileError, FileNotFoundInStorageError):
            return False
        log.info("file_repaired", key=record.key, backend=kind.value)
        return True

    async def _store(self, storage: Storage, record: ObjectRecord, content: FileContent, sha256: str | None) -> None:
        metadata = {"owner": str(record.owner_id)} if record.owner_id else None
        await storage.upload(
            content,
            record.key,
            metadata=metadata,
            sha256=sha256,
            max_size=record.size,
            **headers_of(record),
        )


async def _packed(storage: Storage, record: ObjectRecord) -> bytes | None:
    """The compressed bytes, also where something decompressed them; None where neither is what was saved."""
    async with storage.open(record.key) as file:
        if file.information.size not in {record.size, record.original_size}:
            return None
        content = b"".join([chunk async for chunk in file.chunks])
    if len(content) == record.size:
        plain = b"".join([piece async for piece in unpack(_once(content), record.original_size)])
        return content if _has_hash(plain, record) else None
    if not _has_hash(content, record):
        return None
    packed, _ = await asyncio.to_thread(pack, ReceivedFile.of_bytes(content))
    # Another version of zlib may compress to another size, which the row does not know.
    return packed.read() if packed.size == record.size else None


def _has_hash(content: bytes, record: ObjectRecord) -> bool:
    return hashlib.sha256(content).hexdigest() == record.sha256


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
