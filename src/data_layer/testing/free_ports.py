"""Ports for servers of tests."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

# Below the range from which Linux and macOS take the ports of outgoing connections: there a client that calls a dead
# server again and again would one day be given the server's port and be connected to itself.
_FIRST, _LAST = 15_000, 32_000
_given: set[int] = set()
_random = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that is free now and that this process has not been given before.

    Never the same one twice, because a server that is being restarted does not hold its port for a moment. For the same
    reason no other process of this user is given it before this one has ended.
    """
    while True:
        port = _random.randint(_FIRST, _LAST)
        if port not in _given and _claim(port) and _is_free(port):
            _given.add(port)
            return port


def _claim(port: int) -> bool:
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _claims() -> int:
    """A file whose byte at each port is locked by the process that has been given the port."""
    path = Path(tempfile.gettempdir(), f"data-layer-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
