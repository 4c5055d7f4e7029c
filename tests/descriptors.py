"""What this process has open."""

from __future__ import annotations

from pathlib import Path


def opened_below(folder: Path) -> list[Path]:
    """The files and folders below a folder that are open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            path = descriptor.readlink()
        except FileNotFoundError:  # That with which the folder of descriptors was read.
            continue
        if path.is_relative_to(folder):
            found.append(path)
    return found
