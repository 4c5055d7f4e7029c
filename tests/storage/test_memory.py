"""A large file passes through in flat memory, in both directions, on every backend."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import asyncio, pathlib, resource, sys
from data_layer.storage import AzurePlace, AzureStorage, LocalStorage, S3Place, S3Storage
from data_layer.storage.signing.s3 import S3Credentials

SIZE, CHUNK = 128 * 1024 * 1024, bytes(range(256)) * 256
kind, *where = sys.argv[1:]

def make():
    limit = {"max_file_size": 2 * SIZE}
    if kind == "local":
        return LocalStorage(pathlib.Path(where[0]), **limit)
    if kind == "azure":
        return AzureStorage(AzurePlace.of_connection_string(where[0], "memory"), **limit)
    return S3Storage(S3Place("memory", endpoint=where[0], credentials=S3Credentials(*where[1:])), **limit)

def most():
    # In MiB. Not ru_maxrss, which on Linux begins with that of the process that started this one.
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 // 1024
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

async def stream(size):
    for _ in range(size // len(CHUNK)):
        yield CHUNK

async def main():
    storage = make()
    await storage.initialize()
    async def through(size):
        await storage.upload(stream(size), "large", "video/mp4")
        async with storage.open("large") as file:
            return sum([len(chunk) async for chunk in file.chunks])
    await through(4 * 1024 * 1024)
    before = most()
    assert await through(SIZE) == SIZE
    print(most() - before)
    await storage.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["local", "s3", "azure"])
def test_128_mebibytes_grow_the_process_by_less_than_64(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    where = [str(tmp_path / "uploads")]
    if kind == "s3":
        server = request.getfixturevalue("rclone_server")
        where = [server.address, server.credentials.access_key_id, server.credentials.secret_access_key]
        server.make_bucket("memory")
    elif kind == "azure":
        server = request.getfixturevalue("azurite_server")
        where = [server.connection_string]
        server.make_bucket("memory")
    command = [sys.executable, "-W", "error", "-c", PROGRAM, kind, *where]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    grown = int(result.stdout.splitlines()[-1])
    assert grown < 64, f"{grown} MiB"
    print(f"{kind}: grew by {grown} MiB")  # noqa: T201  (shown with -s)
