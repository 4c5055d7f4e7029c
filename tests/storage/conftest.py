from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from data_layer.storage import LocalStorage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture(params=["attributes", "sidecars"])
async def storage(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LocalStorage]:
    """A storage that keeps metadata in extended attributes, and one whose file system has none."""
    if request.param == "sidecars":
        monkeypatch.setattr(os, "setxattr", _not_supported, raising=False)
    storage = LocalStorage(folder, max_file_size=512 * 1024 * 1024)
    await storage.initialize()
    yield storage
    await storage.close()


def _not_supported(*_: Any) -> NoReturn:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
