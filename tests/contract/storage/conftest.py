"""Every backend that the contract is proved on. A new one joins by a line in ``BACKENDS``."""

from __future__ import annotations

import errno
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from data_layer.storage import LocalStorage, StorageBackend

from .helpers import MEBIBYTE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .helpers import Opened

DESCRIPTORS = Path("/proc/self/fd")
MAX_FILE_SIZE = 8 * MEBIBYTE


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


BACKENDS = [local_with_attributes, local_with_sidecars]


@pytest.fixture(params=BACKENDS, ids=lambda opened: opened.__name__)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens a storage, empty at first; ``max_file_size`` may be given."""
    return lambda **options: request.param(tmp_path, **options)


@pytest.fixture
async def storage(opened: Opened) -> AsyncIterator[StorageBackend]:
    async with opened() as storage:
        yield storage


@pytest.fixture(autouse=True)
async def no_descriptor_is_left_open(opened: Opened) -> AsyncIterator[None]:
    async with opened():
        before = _descriptors()
    yield
    assert _descriptors() <= before


def _descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0
