"""Processes of the servers: started with a clean environment and tied to the guardian, found again, and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

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


_PROC = Path("/proc")


def exists(pid: int) -> bool:
    """Whether the number is in use, be it by a process that has ended and was not collected by its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not collected by its parent does not."""
    if not exists(pid):
        return False
    try:
        state = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return not _has_proc()
    return state not in {b"Z", b"X"}


def serves(pid: int, data_folder: Path) -> bool:
    """Whether the process is alive and was started for this data folder."""
    return is_alive(pid) and os.fsencode(data_folder) in _command_line(pid)


def _command_line(pid: int) -> bytes:
    if _has_proc():
        try:
            return (_PROC / str(pid) / "cmdline").read_bytes()
        except OSError:
            return b""
    listing = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(listing, capture_output=True, check=False, timeout=5).stdout  # noqa: S603 (a fixed command)


def _has_proc() -> bool:
    return (_PROC / "self" / "cmdline").exists()


async def kill_all_in(folder: Path) -> None:
    """Kill every process whose working directory is the folder, where the system shows them (Linux)."""
    found = _all_in(folder)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in found:
        await wait_until_gone(pid, 2)


def _all_in(folder: Path) -> list[int]:
    return [int(entry.name) for entry in _PROC.glob("[0-9]*") if _works_in(entry, folder)]


def _works_in(entry: Path, folder: Path) -> bool:
    try:
        return (entry / "cwd").readlink() == folder and int(entry.name) != os.getpid()
    except OSError:
        return False


async def wait_until_gone(pid: int, seconds: float) -> bool:
    """Wait for the end of a process that is not our child; False when it is still there after ``seconds``."""
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


async def stop_stranger(pid: int, data_folder: Path, steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """End a process that serves this data folder, by each signal in turn, waiting the seconds that belong to it."""
    for number, seconds in steps:
        if not serves(pid, data_folder):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if await wait_until_gone(pid, seconds):
            return
