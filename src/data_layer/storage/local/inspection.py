"""What an operator wants to know of a storage folder. These calls block, and hang where a disk or mount hangs."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data_layer.storage.local.attributes import Attributes, attach
from data_layer.storage.local.folder import METADATA, TEMPORARY, create_file, write_all

_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """A folder. ``file_system`` is its name on Linux, and nothing elsewhere; ``inodes`` are those that are free."""

    mode: int
    is_own: bool
    free_size: int
    total_size: int
    inodes: int | None
    file_system: str | None
    is_one_disk: bool


def read_folder(root: Path) -> FolderFacts:
    """What the folder is like.

    Raises:
        OSError: it is not there, no folder, or closed to this user.
    """
    status, disk = root.stat(), os.statvfs(root)
    os.scandir(root).close()
    inner = [place.stat().st_dev for part in (TEMPORARY, METADATA) if (place := root.joinpath(*part)).is_dir()]
    return FolderFacts(
        mode=stat.S_IMODE(status.st_mode),
        is_own=status.st_uid == os.geteuid(),
        free_size=disk.f_bavail * disk.f_frsize,
        total_size=disk.f_blocks * disk.f_frsize,
        inodes=disk.f_favail if disk.f_files else None,
        file_system=_file_system(status.st_dev),
        is_one_disk=all(device == status.st_dev for device in inner),
    )


def try_to_write(root: Path) -> bool:
    """Write a tiny file, sync and remove it; whether it could bear metadata as an extended attribute.

    Raises:
        OSError: that cannot be done.
    """
    place = root.joinpath(*TEMPORARY)
    folder = os.open(place if place.is_dir() else root, os.O_RDONLY | os.O_DIRECTORY)
    name = f"doctor-{secrets.token_hex(8)}"
    try:
        descriptor = create_file(folder, name)
        try:
            write_all(descriptor, name.encode())
            os.fsync(descriptor)
            return attach(descriptor, Attributes(len(name), 0, "", "text/plain", {}))
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def _file_system(device: int) -> str | None:
    """Its type by the number of its device (proc_pid_mountinfo(5)): the third field, and the first behind the dash."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
            front, _, back = line.partition(" - ")
            if front.split()[2] == wanted:
                return back.split()[0]
    return None
