"""``data-layer start`` for ``soak.py``: with projects cached for longer, and with tracemalloc if asked for.

``python soak_service.py SECONDS [traced]``. With tracemalloc, a path on standard input has it write a snapshot there.
"""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from pathlib import Path


def write_snapshots() -> None:
    """Write one for each path, after what is garbage was freed; at first under another name, so it is complete."""
    for line in sys.stdin:
        path = Path(line.strip())
        gc.collect()
        unfinished = path.with_suffix(".part")
        tracemalloc.take_snapshot().dump(str(unfinished))
        unfinished.rename(path)


if __name__ == "__main__":
    seconds, *how = sys.argv[1:]
    if how == ["traced"]:
        tracemalloc.start()  # Before anything else is imported.
        threading.Thread(target=write_snapshots, daemon=True).start()

    from data_layer.cli import main
    from data_layer.services import cached_projects

    cached_projects.CACHED_SECONDS = int(seconds)
    sys.argv[1:] = ["start"]
    main()
