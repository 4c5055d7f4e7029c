"""A service that cannot run says why in a few clear lines, exits with 1, and leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.embedded.test_refusals import LIMIT_AND_RUN, with_small_disk

from .support import Service


@pytest.mark.slow
def test_a_data_folder_that_is_a_file(new_folder: Path) -> None:
    file = new_folder / "data"
    file.touch()
    with Service(new_folder, DATA_FOLDER="data") as service:
        said = service.fail()
    assert str(file) in said
    assert "is a file; remove the file, or set DATA_FOLDER" in said


@pytest.mark.slow
def test_a_data_folder_that_cannot_be_written(new_folder: Path) -> None:
    with Service(new_folder, DATA_FOLDER="/proc/data-layer") as service:
        said = service.fail()
    assert "the data folder /proc/data-layer cannot be used" in said
    assert "DATA_FOLDER" in said


@pytest.mark.slow
def test_an_upload_folder_that_cannot_be_written(new_folder: Path) -> None:
    with Service(new_folder, LOCAL_STORAGE_PATH="/proc/uploads", **nowhere()) as service:
        said = service.fail()
    assert "storage_unavailable" in said
    assert "/proc/uploads" in said


def nowhere() -> dict[str, Any]:
    """Servers that are not there, for failures that come before they are needed."""
    return {"DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}


@pytest.mark.slow
@pytest.mark.parametrize("size", ["300k", "10m"])
def test_a_full_disk(new_folder: Path, size: str) -> None:
    data = new_folder / ".data-layer"
    data.mkdir()
    with Service(new_folder, before=with_small_disk(data, size)) as service:
        assert f"There is no space left on the disk that holds {data}" in service.fail()


@pytest.mark.slow
def test_a_disk_that_is_full_of_uploads(new_folder: Path) -> None:
    uploads = new_folder / "uploads"
    uploads.mkdir()
    with Service(new_folder, before=with_small_disk(uploads, "300k")) as service:
        said = service.fail()
    assert "storage_full" in said
    assert "Press Ctrl-C" not in said


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(new_folder: Path) -> None:
    before: Sequence[str] = [sys.executable, "-c", LIMIT_AND_RUN, str(100 * 1024)]
    with Service(new_folder, before=before) as service:
        assert "PostgreSQL could not be set up" in service.fail()


def test_a_database_that_cannot_be_reached(new_folder: Path) -> None:
    with Service(new_folder, "start", **nowhere()) as service:
        said = service.fail()
    assert "database_unavailable" in said
    assert "127.0.0.1" in said
    assert not (new_folder / ".data-layer").exists()
