"""A process that streams a large file in and out, and reports by how many MiB it grew.

``python -m tests.storage.streaming_process --mebibytes 1024`` does it on every backend, with servers of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

from data_layer.storage import AzureLocation, AzureStorage, LocalStorage, S3Location, S3Storage, StorageBackend
from data_layer.storage.signing.s3 import S3Credentials
from data_layer.testing.storage_servers import AzuriteServer, RcloneServer

MEBIBYTE = 1024 * 1024
CHUNK = bytes(range(256)) * 256
BUCKET = "memory"
PROJECT = Path(__file__).parents[2]
LIMIT_OF_A_PROCESS = 1800


def make(kind: str, where: list[str], size: int) -> StorageBackend:
    if kind == "local":
        return LocalStorage(Path(where[0]), max_file_size=size)
    if kind == "azure":
        return AzureStorage(AzureLocation.of_connection_string(where[0], BUCKET), max_file_size=size)
    return S3Storage(S3Location(BUCKET, endpoint=where[0], credentials=S3Credentials(*where[1:])), max_file_size=size)


def most() -> int:
    """The largest size so far, in MiB. Not ru_maxrss, which on Linux begins with that of the parent process."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MEBIBYTE
    (line,) = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


async def stream(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // len(CHUNK)):
        yield CHUNK


async def grow(kind: str, where: list[str], size: int) -> int:
    """By how many MiB this process grows."""
    storage = make(kind, where, size)
    await storage.initialize()

    async def through(length: int) -> int:
        await storage.upload(stream(length), "large", "video/mp4")
        async with storage.open("large") as file:
            return sum([len(chunk) async for chunk in file.chunks])

    await through(4 * MEBIBYTE)
    before = most()
    assert await through(size) == size
    await storage.close()
    return most() - before


def growth_of_a_process(kind: str, where: list[str], size: int) -> int:
    """By how many MiB a new process grows."""
    command = [sys.executable, "-W", "error", "-m", "tests.storage.streaming_process", kind, str(size), *where]
    result = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=LIMIT_OF_A_PROCESS, cwd=PROJECT
    )
    return int(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024)
    size = parser.parse_args().mebibytes * MEBIBYTE
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="streaming-"))
        places = {"local": [folder]}
        rclone, azurite = stack.enter_context(RcloneServer()), stack.enter_context(AzuriteServer())
        for server in (rclone, azurite):
            server.make_bucket(BUCKET)
        key = rclone.credentials
        places |= {"s3": [rclone.address, key.access_key_id, key.secret_access_key]}
        places |= {"azure": [azurite.connection_string]}
        for kind, where in places.items():
            print(f"{kind}: grew by {growth_of_a_process(kind, where, size)} MiB", flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in {"local", "s3", "azure"}:
        print(asyncio.run(grow(sys.argv[1], sys.argv[3:], int(sys.argv[2]))))  # noqa: T201
    else:
        main()
