"""Ends servers whose test process was killed, and removes their folders.

Servers are children of the process that runs the tests, and outlive it when it is killed. The kernel's death signal is
no remedy: it comes with the end of the *thread* that started the server. So each such process has one watcher, which
learns over a pipe what to end and acts when the pipe closes. Run by path, the watcher imports nothing of the project.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

_lock = threading.Lock()
_watchers: dict[int, subprocess.Popen[bytes]] = {}


def watch(pid: int, folder: Path) -> None:
    """From now on, kill the process and remove the folder when this process ends without saying ``forget``."""
    _tell(f"+{pid} {_birth(pid)} {folder}")


def forget(pid: int) -> None:
    """The process has ended; its number may belong to another one soon."""
    _tell(f"-{pid}")


def _tell(line: str) -> None:
    with _lock:
        own = os.getpid()
        if own not in _watchers:
            _watchers[own] = _start_watcher()
            atexit.register(_dismiss, own)
        pipe = _watchers[own].stdin
        # A watcher that was itself killed must not make a test fail.
        with suppress(BrokenPipeError):
            if pipe is not None:
                pipe.write(f"{line}\n".encode())


def _start_watcher() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (this file)
        [sys.executable, "-I", "-S", __file__],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _dismiss(own: int) -> None:
    """At the end of the process; a fork of it leaves its parent's watcher alone."""
    if own == os.getpid():
        _watchers.pop(own).communicate()


def _birth(pid: int) -> str:
    """When the process began, by the system's clock; numbers are given again, also to threads. "0" if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "0"


def _run_watcher() -> None:
    servers: dict[int, tuple[str, Path]] = {}
    for line in sys.stdin:
        pid, *rest = line[1:].rstrip("\n").split(" ", 2)
        if line[0] == "+":
            servers[int(pid)] = rest[0], Path(rest[1])
        else:
            servers.pop(int(pid), None)
    for pid, (birth, folder) in servers.items():
        if _birth(pid) == birth:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _run_watcher()
