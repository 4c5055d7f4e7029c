"""Every backend that the contract is proved on."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from data_layer.storage import AzureLocation, AzureStorage, LocalStorage, S3Location, S3Storage, StorageBackend
from data_layer.testing.storage_servers import AzuriteServer, MotoServer, RcloneServer

from .helpers import MEBIBYTE, Opened

DESCRIPTORS = Path("/proc/self/fd")
MAX_FILE_SIZE = 32 * MEBIBYTE
NUMBERS = itertools.count(1)


@asynccontextmanager
async def local_with_attributes(folder: Path, **options: Any) -> AsyncIterator[StorageBackend]:
    storage: StorageBackend = LocalStorage(folder / "uploads", **{"max_file_size": MAX_FILE_SIZE, **options})
    await storage.initialize()
    try:
        yield storage
    finally:
        await storage.close()


@asynccontextmanager
async def local_with_sidecars(folder: Path, **options: Any) -> AsyncIterator[StorageBackend]:
    """As on a file system without extended attributes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "setxattr", _not_supported, raising=False)
        async with local_with_attributes(folder, **options) as storage:
            yield storage


def _not_supported(*_: Any) -> NoReturn:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


@asynccontextmanager
async def s3(server: RcloneServer | MotoServer, bucket: str, **options: Any) -> AsyncIterator[StorageBackend]:
    place = S3Location(bucket, server.region, server.address, server.credentials)
    async with opened_backend(S3Storage(place, **{"max_file_size": MAX_FILE_SIZE, **options})) as storage:
        yield storage


@asynccontextmanager
async def azure(server: AzuriteServer, container: str, **options: Any) -> AsyncIterator[StorageBackend]:
    place = AzureLocation.of_connection_string(server.connection_string, container)
    async with opened_backend(AzureStorage(place, **{"max_file_size": MAX_FILE_SIZE, **options})) as storage:
        yield storage


@asynccontextmanager
async def opened_backend(storage: StorageBackend) -> AsyncIterator[StorageBackend]:
    await storage.initialize()
    try:
        yield storage
    finally:
        await storage.close()


BACKENDS = ["local_with_attributes", "local_with_sidecars", "s3_rclone", "s3_moto", "azurite"]
LOCAL = {"local_with_attributes": local_with_attributes, "local_with_sidecars": local_with_sidecars}


@pytest.fixture(params=BACKENDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens a storage, empty at first; ``max_file_size`` may be given."""
    backend: str = request.param
    if backend in LOCAL:
        return lambda **options: LOCAL[backend](tmp_path, **options)
    server = request.getfixturevalue(
        {"s3_rclone": "rclone_server", "s3_moto": "moto_server"}.get(backend, "azurite_server")
    )
    bucket = f"test-{next(NUMBERS)}"
    server.make_bucket(bucket)
    connect: Any = azure if backend == "azurite" else s3
    return lambda **options: connect(server, bucket, **options)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Which one of ``BACKENDS`` the test runs on."""
    name: str = request.node.callspec.params["opened"]
    return name


@pytest.fixture
async def storage(opened: Opened) -> AsyncIterator[StorageBackend]:
    async with opened() as storage:
        yield storage


@pytest.fixture(autouse=True)
async def no_descriptor_is_left_open(opened: Opened) -> AsyncIterator[None]:
    async with opened():
        before = _descriptors()
    yield
    # The connections of a client are closed by its own threads: a moment later, or when they were idle for 90 s.
    for attempt in range(5000):
        if _descriptors() <= before:
            return
        if attempt % 50 == 10:  # Seldom needed, and it takes longer than most tests.
            gc.collect()
        await asyncio.sleep(0.02)
    assert _descriptors() <= before


def _descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0
