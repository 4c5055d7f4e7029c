from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import made_once

from .support import assert_no_process, both_servers


@pytest.fixture(scope="session")
def used_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A data folder whose servers have run once; copied for tests that do not care about the first start."""

    async def use(folder: Path) -> None:
        async with both_servers(folder):
            pass

    def run(folder: Path) -> None:
        asyncio.run(use(folder / "data"))

    return made_once("used-servers", run, tmp_path_factory, worker_id) / "data"


@pytest.fixture
def new_folder(tmp_path: Path) -> Iterator[Path]:
    """A data folder that does not exist yet; after the test no process may be left."""
    yield tmp_path / "data"
    assert_no_process(tmp_path)


@pytest.fixture
def folder(new_folder: Path, used_folder: Path) -> Path:
    """A data folder in which the servers have run before, so that they start quickly."""
    shutil.copytree(used_folder, new_folder)
    return new_folder
