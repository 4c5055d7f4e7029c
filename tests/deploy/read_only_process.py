"""``data-layer`` on a file system that is read-only but for the folders in WRITABLE, as Python itself sees it.

Rust and C write past this, which is why the real thing was tried by hand too; what they write here are stored files.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_WRITABLE = [Path(folder) for folder in os.environ["WRITABLE"].split(":")] + [Path("/dev"), Path("/proc")]


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        changes = isinstance(flags, int) and flags & _WRITING
    else:
        path, changes = arguments[0] if arguments else None, event in _CHANGES
    if not changes or not isinstance(path, str | bytes | os.PathLike):
        return
    place = Path(os.fsdecode(path))
    # What is relative may be meant from an open folder; the test looks at the working directory itself.
    if place.is_absolute() and not any(place.is_relative_to(folder) for folder in _WRITABLE):
        sys.stderr.write(f"read-only: {event} {place}\n")
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(place))


if __name__ == "__main__":
    from data_layer.cli import main

    sys.addaudithook(_refuse)
    sys.argv[0] = "data-layer"
    main()
