"""Walking through the stored files in the order of their keys."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import suppress

from data_layer.storage.keys import MAX_SEGMENTS, is_key
from data_layer.storage.local.attributes import time_of
from data_layer.storage.local.folder import OWN_FOLDER, StorageFolder, open_folder
from data_layer.storage.port import ListedFile, StorageStatistics, UnusableKeys


def walk(folder: StorageFolder, folders: Sequence[str] = (), beginning: str = "") -> Generator[ListedFile]:
    """The files below some folders whose next segment has this beginning, in the order of their keys' bytes.

    Reads one folder at a time, when its turn comes. Files that no key can name, such as hidden ones, are included;
    links, pipes and our own folders are not. Where folders are deeper than a key can be, one stands for all it holds.
    """
    with suppress(FileNotFoundError, NotADirectoryError), folder.opened(folders) as descriptor:
        yield from _walk(descriptor, "".join(f"{name}/" for name in folders), beginning)


def measure(folder: StorageFolder) -> StorageStatistics:
    """Count the files and their bytes."""
    count = size = 0
    unusable = UnusableKeys()
    for file in walk(folder):
        if is_key(file.key):
            count += 1
            size += file.size
        else:
            unusable.add(file)
    return StorageStatistics(count, size, folder.free_size(), unusable.count, unusable.names)


def _walk(folder: int, path: str, beginning: str) -> Generator[ListedFile]:
    for name in _names(folder, beginning):
        if name.endswith("/") and path.count("/") < MAX_SEGMENTS:
            if path + name != OWN_FOLDER:
                yield from _walk_inner(folder, name[:-1], path + name)
        else:
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                yield ListedFile(path + name, status.st_size, time_of(status))


def _walk_inner(folder: int, name: str, path: str) -> Generator[ListedFile]:
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
            if not entry.name.startswith(beginning):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(f"{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
    return sorted(names, key=os.fsencode)
