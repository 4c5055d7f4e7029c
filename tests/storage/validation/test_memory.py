"""Memory that decoding takes, measured in a process of its own: whatever arrives at once, it stays within bounds."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from data_layer.errors import ImageTimeoutError
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import Inspector, receive
from data_layer.storage.validation.images import MemoryBudget
from data_layer.storage.validation.received import FileLimits
from tests.storage.validation.bombs import bombs, webp_chunk
from tests.storage.validation.pictures import webp_of

PROJECT = Path(__file__).parents[3]
IDLE = 130
"""MiB that the service holds before anything is uploaded (deploy/README.md)."""

ALLOWED = 512
"""MiB that it may hold whatever is uploaded."""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
]  # The fixture inspects all of them, for 20 s where nothing else runs.


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bombs")
    files = [folder / name for name in bombs()]
    for file, content in zip(files, bombs().values(), strict=True):
        file.write_bytes(content)
    command = [sys.executable, "-m", "tests.storage.validation.bombs", *map(str, files)]
    # The service sets this itself; an application with the library in it is advised to (deploy/README.md).
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    result = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=280, cwd=PROJECT, env=environment
    )
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_the_service_stays_below_its_limit_of_memory_whatever_is_uploaded(report: dict[str, Any]) -> None:
    assert report["after"] - report["before"] < ALLOWED - IDLE, report
    assert report["after"] - report["before"] > 100, "nothing was decoded"


@pytest.mark.parametrize(
    "name", ["webp that is decoded", "square png", "deep png", "animated gif", "screenshot", "screenshot as jpeg"]
)
def test_what_fits_gets_its_thumbnails(report: dict[str, Any], name: str) -> None:
    assert report["found"][name] == "2 thumbnails"


@pytest.mark.parametrize("name", ["webp of 34 bytes", "largest webp", "png of one row", "interlaced png"])
def test_what_does_not_fit_is_stored_without_thumbnails(report: dict[str, Any], name: str) -> None:
    assert report["found"][name] == "0 thumbnails"


def test_what_is_no_image_is_not_parsed(report: dict[str, Any]) -> None:
    assert report["found"]["json"] == "FileTypeMismatchError"


@pytest.fixture
def budget() -> MemoryBudget:
    return MemoryBudget()


async def test_a_reservation_waits_until_there_is_room(budget: MemoryBudget) -> None:
    entered = threading.Event()

    def reserve() -> None:
        with budget.reserve(60, 100, 30):
            entered.set()

    with budget.reserve(50, 100, 0):
        waiting = asyncio.create_task(asyncio.to_thread(reserve))
        assert not await asyncio.to_thread(entered.wait, 0.2)
        with pytest.raises(ImageTimeoutError), budget.reserve(60, 100, 0.01):
            pass
    await waiting
    assert entered.is_set()
    with budget.reserve(100, 100, 0):
        pass


async def until_waiting(budget: MemoryBudget, number: int) -> None:
    async with asyncio.timeout(30):
        while len(budget._waiting) < number:
            await asyncio.sleep(0.01)


async def test_reservations_are_served_in_turn(budget: MemoryBudget) -> None:
    """A large one is not passed over for ever by small ones."""
    order: list[int] = []

    def reserve(size: int) -> None:
        with budget.reserve(size, 100, 30):
            order.append(size)

    with budget.reserve(50, 100, 0):
        large = asyncio.create_task(asyncio.to_thread(reserve, 90))
        await until_waiting(budget, 1)
        small = asyncio.create_task(asyncio.to_thread(reserve, 10))
        await until_waiting(budget, 2)
        assert order == []
    await asyncio.gather(large, small)
    assert order == [90, 10]


def test_a_container_with_little_memory_decodes_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_layer.storage.validation import images

    limit = tmp_path / "memory.max"
    monkeypatch.setattr(images, "_LIMIT_FILES", (limit, tmp_path / "missing"))
    default = FileLimits(1, frozenset()).memory_limit
    assert images.bounded_by_container(default) == default
    limit.write_text("max\n")
    assert images.bounded_by_container(default) == default
    limit.write_text(f"{512 * 2**20}\n")
    assert images.bounded_by_container(default) == 512 * 2**20 // 3


async def test_a_picture_that_would_hold_the_interpreter_for_long_is_stored_undecoded() -> None:
    """However much memory there is: nothing else runs in the process while a WebP is decoded."""
    limits = FileLimits(2**20, frozenset({"image/webp"}), memory_limit=2**40, thumbnail_sizes=(200,))
    inspector, threads = Inspector(limits), FileThreads(1)
    async with receive(io.BytesIO(webp_of(webp_chunk(3500, 3500))), 2**20, threads) as received:
        found = await inspector.inspect(received, "image/webp")
        thumbnails = await inspector.thumbnails(found)
    assert found.image is not None
    assert (found.image.width, found.image.height, found.image.dominant_color) == (3500, 3500, None)
    assert thumbnails == []
    await inspector.close()
    await threads.close()
