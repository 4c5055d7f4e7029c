"""Writers that are killed at random moments, and a look at what they left: run by ``test_crashes``.

Imports once and forks for each round, because a new interpreter would take longer than the writing. Prints one JSON
object; exits with 1 and a message when anything is torn.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

from data_layer.errors import FileNotFoundInStorageError
from data_layer.storage import LocalStorage
from tests.support import forked

KEYS = ("a", "b/c", "b/d/e")
CHANCE = random.Random(1)


def payload(version: int) -> bytes:
    return hashlib.sha256(str(version).encode()).digest() * (version * 7919 % 6000)


async def chunked(content: bytes) -> AsyncIterator[bytes]:
    for position in range(0, len(content), 50_000):
        yield content[position : position + 50_000]


async def write(folder: Path, acknowledgements: int, first: int) -> None:
    """Overwrite every key for ever, and report each upload that has returned."""
    storage = LocalStorage(folder, max_file_size=10_000_000)
    await storage.initialize()

    async def overwrite(key: str) -> None:
        for version in range(first, first + 1_000_000):
            content = payload(version)
            source = content if version % 3 else chunked(content)
            await storage.upload(source, key, f"image/v{version}", metadata={"version": str(version)})
            os.write(acknowledgements, f"{key} {version}\n".encode())

    await asyncio.gather(*(overwrite(key) for key in KEYS))


async def verify(folder: Path, acknowledged: dict[str, int], results: int) -> None:
    """See that every file is whole and not older than what was acknowledged."""
    storage = LocalStorage(folder, max_file_size=10_000_000)
    await storage.initialize()
    found = {}
    for key in KEYS:
        try:
            async with storage.open(key) as file:
                content = b"".join([chunk async for chunk in file.chunks])
        except FileNotFoundInStorageError:
            assert key not in acknowledged, f"{key} was lost"
            continue
        version = int(file.information.metadata["version"])
        assert content == payload(version), f"{key}: torn"
        assert file.information.content_type == f"image/v{version}", f"{key}: metadata of another version"
        assert file.information.sha256 == hashlib.sha256(content).hexdigest(), f"{key}: hash of another version"
        assert version >= acknowledged.get(key, 0), f"{key}: an acknowledged version was lost"
        found[key] = version
    listed = [file.key async for file in storage.list()]
    assert listed == sorted(found), f"orphans: {listed}"
    os.write(results, json.dumps(found).encode())


def kill_one(folder: Path, first: int, writers: int) -> dict[str, int]:
    """Start writers, kill them all at a random moment; what was acknowledged until then."""
    reading, writing = os.pipe()
    processes = [forked(lambda: write(folder, writing, first)) for _ in range(writers)]
    os.close(writing)
    time.sleep(CHANCE.uniform(0.005, 0.06))
    for process in processes:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    with os.fdopen(reading) as lines:
        acknowledged = [line.split() for line in lines]
    return (
        {key: int(version) for key, version in acknowledged}
        if writers == 1
        else dict.fromkeys((key for key, _ in acknowledged), 0)
    )


def look(folder: Path, acknowledged: dict[str, int]) -> dict[str, int]:
    reading, writing = os.pipe()
    process = forked(lambda: verify(folder, acknowledged, writing))
    os.close(writing)
    with os.fdopen(reading) as results:
        found = results.read()
    if os.waitpid(process, 0)[1]:
        sys.exit(1)
    versions: dict[str, int] = json.loads(found)
    return versions


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--writers", type=int, default=1)
    parser.add_argument("--sidecars", action="store_true")
    options = parser.parse_args()
    if options.sidecars:
        vars(os)["setxattr"] = _not_supported
    acknowledged: dict[str, int] = {}
    versions: dict[str, int] = {}
    torn = 0
    for _ in range(options.rounds):
        first = max(versions.values(), default=0) + 1
        acknowledged |= kill_one(options.folder, first, options.writers)
        torn += len(list(options.folder.glob(".storage/temporary/*")))
        versions = look(options.folder, acknowledged)
    sys.stdout.write(json.dumps({"acknowledged": acknowledged, "versions": versions, "killed_while_writing": torn}))


def _not_supported(*_: Any) -> NoReturn:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


if __name__ == "__main__":
    main()
