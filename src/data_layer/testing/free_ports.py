"""Ports for servers of tests."""

from __future__ import annotations

import random
import socket

# Below the range from which Linux and macOS take the ports of outgoing connections: there a client that calls a dead
# server again and again would one day be given the server's port and be connected to itself.
_FIRST, _LAST = 15_000, 32_000
_given: set[int] = set()
_random = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that is free now and that this process has not been given before.

    Never the same one twice, because a server that is being restarted does not hold its port for a moment.
    """
    while True:
        port = _random.randint(_FIRST, _LAST)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
