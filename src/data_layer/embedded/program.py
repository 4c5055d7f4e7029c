"""Runs the programs of the servers: tied to the guardian, with a clean environment, in a process group of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAUNCH = Path(__file__).with_name("launch.py")
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


async def start_program(
    command: Sequence[str],
    *,
    folder: Path,
    output: int | IO[bytes],
    identity: str = "same",
    death_signal: signal.Signals = signal.SIGKILL,
) -> asyncio.subprocess.Process:
    """Start a program in the folder; ``death_signal`` reaches it when the guardian is killed."""
    steps = [identity, str(int(death_signal)), str(os.getpid()), str(folder)]
    # Not the caller's environment: it holds PG… variables, which programs obey, and secrets.
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LC_ALL": "C"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(_LAUNCH), *steps, *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


async def run_program(
    command: Sequence[str], *, folder: Path, identity: str = "same", seconds: float = 30
) -> tuple[int, str]:
    """Run a program to its end and return its exit status and what it said.

    Raises:
        TimeoutError: it did not end in ``seconds`` and was killed.
    """
    process = await start_program(command, folder=folder, output=asyncio.subprocess.PIPE, identity=identity)
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            kill_group(process)
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")


def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill a program and what it started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
