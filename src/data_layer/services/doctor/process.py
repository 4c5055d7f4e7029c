"""What this process gets from its machine or pod. A service in another pod may get something else."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
import time
from pathlib import Path

from data_layer.config import Settings
from data_layer.services.doctor.checks import Check, CheckResult, ok, readable_size, warning

PART = "process"
_OLDEST_PYTHON = (3, 11)
_FILES_BESIDE_THE_POOL = 512  # HTTP clients, Redis, storage, and what libraries hold.
_LITTLE_MEMORY = 256 * 2**20
_LITTLE_DISK = 1 * 2**30
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def process_checks(settings: Settings) -> list[Check]:
    """The checks of this process; none needs a server."""

    async def folders() -> list[CheckResult]:
        return await asyncio.to_thread(_folders, settings)

    async def memory() -> CheckResult:
        return await asyncio.to_thread(_memory)

    async def files() -> CheckResult:
        return _open_files(settings)

    async def python() -> CheckResult:
        return _python()

    async def clock() -> CheckResult:
        return _clock()

    return [
        Check(PART, "python", python),
        Check(PART, "open_files", files),
        Check(PART, "memory", memory),
        Check(PART, "folders", folders),
        Check(PART, "clock", clock),
    ]


def _python() -> CheckResult:
    running = f"Python {sys.version.split()[0]}"
    if sys.version_info < _OLDEST_PYTHON:
        return warning(f"{running} is older than what is tested", "use Python 3.11 or later")
    return ok(running)


def _open_files(settings: Settings) -> CheckResult:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.db_max_connections + _FILES_BESIDE_THE_POOL
    if limit != resource.RLIM_INFINITY and limit < needed:
        return warning(
            f"this process may open {limit} files and sockets, and under load it needs about {needed}",
            f"raise it: ulimit -n {max(4096, needed)}, or LimitNOFILE= of systemd",
        )
    return ok(f"{'any number' if limit == resource.RLIM_INFINITY else limit} may be open, about {needed} are needed")


def _memory() -> CheckResult:
    available = [size for size in (_free_in_group(), _free_in_machine()) if size is not None]
    if not available:
        return ok("this system does not tell how much memory is free")
    free = min(available)
    if free < _LITTLE_MEMORY:
        return warning(f"{readable_size(free)} are free, so the process may be killed", "give the pod or machine more")
    return ok(f"{readable_size(free)} are free")


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


def _folders(settings: Settings) -> list[CheckResult]:
    spill = settings.audit_spill_folder or settings.data_folder / "audit-spill"
    found = [
        _folder(spill.absolute(), "audit entries wait here while the database is away", settings.audit_spill_limit)
    ]
    if settings.uses_embedded_database or settings.uses_embedded_cache:
        found.append(_folder(settings.data_folder.absolute(), "the data of the embedded servers", _LITTLE_DISK))
    return found


def _folder(folder: Path, purpose: str, wanted: int) -> CheckResult:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return warning(f"{folder} ({purpose}) cannot be written", "give this user the right to, or name another folder")
    free = shutil.disk_usage(existing).free
    if free < wanted:
        return warning(
            f"{folder} ({purpose}) has {readable_size(free)} left of {readable_size(wanted)}", "make room there"
        )
    return ok(f"{folder} ({purpose}): {readable_size(free)} left")


def _clock() -> CheckResult:
    installed = Path(__file__).stat().st_mtime
    if time.time() < installed:
        return warning(
            "the clock of this machine shows a time before this program was installed",
            "set the clock, and see that it is kept by NTP",
        )
    return ok(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC, which is plausible")
