"""Walking through the stored files in the order of their keys."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from data_layer.storage.keys import MAX_KEY_SIZE, is_key
from data_layer.storage.local.attributes import time_of
from data_layer.storage.local.folder import StorageFolder, open_folder
from data_layer.storage.port import ListedFile, StorageStatistics

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


def walk(folder: StorageFolder, folders: Sequence[str] = (), beginning: str = "") -> Generator[ListedFile]:
    """The files below some folders whose next segment has this beginning, in the order of their keys' bytes.

    Reads one folder at a time, when its turn comes. What no key can name, such as hidden files and links, is left out.
    """
    with suppress(FileNotFoundError, NotADirectoryError), folder.opened(folders) as descriptor:
        yield from _walk(descriptor, "".join(f"{name}/" for name in folders), beginning)


def measure(folder: StorageFolder) -> StorageStatistics:
    """Count the files and their bytes."""
    count = size = 0
    for file in walk(folder):
        count += 1
        size += file.size
    return StorageStatistics(count, size, folder.free_size())


def _walk(folder: int, path: str, beginning: str) -> Generator[ListedFile]:
    for name in _names(folder, beginning):
        if name.endswith("/"):
            yield from _walk_inner(folder, name[:-1], path + name)
        elif is_key(path + name):
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                yield ListedFile(path + name, status.st_size, time_of(status))


def _walk_inner(folder: int, name: str, path: str) -> Generator[ListedFile]:
    if len(path) > MAX_KEY_SIZE:
        return
    try:
        inner = open_folder(folder, name)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        yield from _walk(inner, path, "")
    finally:
        os.close(inner)


def _names(folder: int, beginning: str) -> list[str]:
    """The names in a folder, those of inner folders with ``/`` at the end: sorted so, the keys come in order."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.startswith(beginning):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(f"{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
    return sorted(names, key=os.fsencode)
