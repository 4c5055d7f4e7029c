"""A large file passes through in flat memory, in both directions."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import asyncio, pathlib, resource, sys
from data_layer.storage import LocalStorage

SIZE, CHUNK = 256 * 1024 * 1024, bytes(range(256)) * 256

async def stream(size):
    for _ in range(size // len(CHUNK)):
        yield CHUNK

async def main():
    storage = LocalStorage(pathlib.Path(sys.argv[1]), max_file_size=2 * SIZE)
    await storage.initialize()
    async def through(size):
        await storage.upload(stream(size), "large", "video/mp4")
        async with storage.open("large") as file:
            return sum([len(chunk) async for chunk in file.chunks])
    await through(4 * 1024 * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert await through(SIZE) == SIZE
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    await storage.close()

asyncio.run(main())
"""


def test_256_mebibytes_grow_the_process_by_less_than_64(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path / "uploads")]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    assert int(result.stdout.splitlines()[-1]) < 64
