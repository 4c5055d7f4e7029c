"""A program: import every module of data_layer and print, one per line, what became alive by it."""

import gc
import importlib
import os
import sys
import threading
from typing import Any

FORBIDDEN = {
    "_thread.start_new_thread",
    "os.fork",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.system",
    "socket.__new__",
    "socket.bind",
    "socket.connect",
    "subprocess.Popen",
}
"""Audit events, by their names in the standard library's manual."""
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LIVE = {
    "Settings",
    "DataLayer",
    "Engine",
    "AsyncEngine",
    "Redis",
    "RedisCluster",
    "Sentinel",
    "ConnectionPool",
    "FastAPI",
}

importing = ""
found: list[str] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not importing:
        return
    opens_for_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & FOR_WRITING
    if event in FORBIDDEN or opens_for_writing:
        found.append(f"{importing}: {event} {arguments[:2]}")


sys.addaudithook(watch)
for importing in sys.argv[1:]:
    importlib.import_module(importing)
importing = ""
found += [f"a thread: {thread.name}" for thread in threading.enumerate() if thread is not threading.main_thread()]
found += [
    f"an object: {base.__name__}"
    for thing in gc.get_objects()
    for base in type(thing).__mro__
    if base.__name__ in LIVE and not base.__module__.startswith("click.")  # Its constants are of a class Sentinel.
]
sys.stdout.write("\n".join(found))
