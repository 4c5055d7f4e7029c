"""What this process gets from its machine or pod. A service in another pod may get something else."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_layer.schemas.doctor import Text
from data_layer.services.doctor.checks import Check, CheckResult, ok, readable_size, warning

PART = "process"
_OLDEST_PYTHON = (3, 11)
_FILES_BESIDE_THE_POOL = 512  # HTTP clients, Redis, storage, and what libraries hold.
_LITTLE_MEMORY = 256 * 2**20
_CONTROL_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class UsedFolder:
    """A folder that the process writes to; ``wanted`` is how many bytes should be free there."""

    path: Path
    purpose: Text
    wanted: int


def process_checks(pool_size: int, folders: Sequence[UsedFolder]) -> list[Check]:
    """Return the checks of this process; none needs a server.

    Args:
        pool_size: connections to the database, each of which is an open file
        folders: what the settings have the process write to
    """

    async def look_at_folders() -> list[CheckResult]:
        return await asyncio.to_thread(lambda: [_folder(folder) for folder in folders])

    async def memory() -> CheckResult:
        return await asyncio.to_thread(_memory)

    async def files() -> CheckResult:
        return _open_files(pool_size)

    async def python() -> CheckResult:
        return _python()

    async def clock() -> CheckResult:
        return _clock()

    return [
        Check(PART, "python", python),
        Check(PART, "open_files", files),
        Check(PART, "memory", memory),
        Check(PART, "folders", look_at_folders),
        Check(PART, "clock", clock),
    ]


def _python() -> CheckResult:
    version = sys.version.split()[0]
    if sys.version_info < _OLDEST_PYTHON:
        return warning("Python %(version)s is older than what is tested", "use Python 3.11 or later", version=version)
    return ok("Python %(version)s", version=version)


def _open_files(pool_size: int) -> CheckResult:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = pool_size + _FILES_BESIDE_THE_POOL
    if limit != resource.RLIM_INFINITY and limit < needed:
        return warning(
            "this process may open %(limit)s files and sockets, and under load it needs about %(needed)s",
            "raise it: ulimit -n %(enough)s, or LimitNOFILE= of systemd",
            limit=limit,
            needed=needed,
            enough=str(max(4096, needed)),
        )
    return ok(
        "any number may be open, about %(needed)s are needed"
        if limit == resource.RLIM_INFINITY
        else "%(limit)s may be open, about %(needed)s are needed",
        limit=limit,
        needed=needed,
    )


def _memory() -> CheckResult:
    available = [size for size in (_free_in_group(), _free_in_machine()) if size is not None]
    if not available:
        return ok("this system does not report how much memory is free")
    free = min(available)
    if free < _LITTLE_MEMORY:
        return warning(
            "%(size)s are free, so the process may be killed",
            "give the pod or machine more",
            size=readable_size(free),
        )
    return ok("%(size)s are free", size=readable_size(free))


def _free_in_group() -> int | None:
    try:
        limit = (_CONTROL_GROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CONTROL_GROUP / "memory.current").read_text(encoding="ascii"))
        cached = (_CONTROL_GROUP / "memory.stat").read_text(encoding="ascii").partition("inactive_file ")[2].split()
    except (OSError, ValueError):
        return None
    # Pages of files are given up before anybody is killed.
    return None if limit == "max" else int(limit) - used + (int(cached[0]) if cached else 0)


def _free_in_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _folder(folder: UsedFolder) -> CheckResult:
    name = Text("%(folder)s (%(purpose)s)", {"folder": str(folder.path), "purpose": folder.purpose})
    existing = next(place for place in (folder.path, *folder.path.parents) if place.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return warning(
            "%(folder)s cannot be written", "give this user the right to, or name another folder", folder=name
        )
    free = shutil.disk_usage(existing).free
    if free < folder.wanted:
        return warning(
            "%(folder)s has %(free)s left of %(wanted)s",
            "make room there",
            folder=name,
            free=readable_size(free),
            wanted=readable_size(folder.wanted),
        )
    return ok("%(folder)s: %(free)s left", folder=name, free=readable_size(free))


def _clock() -> CheckResult:
    installed = Path(__file__).stat().st_mtime
    if time.time() < installed:
        return warning(
            "the clock of this machine shows a time before this program was installed",
            "set the clock, and see that it is kept by NTP",
        )
    return ok("%(moment)s UTC, which is plausible", moment=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()))
