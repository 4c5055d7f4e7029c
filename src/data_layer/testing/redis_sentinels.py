"""A primary, its two replicas, and three sentinels that watch over them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis

from data_layer.testing.redis_server import RedisGroup, RedisServer, TlsFiles, wait_until

_SENTINELS = 3
_QUORUM = 2
_WAITING_SECONDS = 60
# Milliseconds between what sentinels do every few seconds; tests have no time for that. Two have a lower limit:
# a replica is fit for promotion if its last INFO is younger than five pings, and one that was just promoted is made a
# replica again after four publications, unless its INFO, once a second, has said so.
_PERIODS = {
    "info-period": 100,
    "ping-period": 400,
    "ask-period": 100,
    "publish-period": 500,
    "min-link-reconnect-period": 100,
    # A sentinel does nothing for so long after its clock jumped, because the machine was busy.
    "tilt-period": 1000,
}
_FAILOVER_MILLISECONDS = 2000


class Sentinel(RedisServer):
    """One sentinel. It keeps what it has learnt in its configuration."""

    _ready = "+monitor"

    def _command(self) -> list[str]:
        return [*super()._command(), "--sentinel"]

    def _write_configuration(self) -> None:
        if not self._configuration.exists():
            super()._write_configuration()

    def _choose_ports(self) -> None:
        super()._choose_ports()
        self._configuration.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        return [line for line in super()._lines() if not line.startswith(("save", "appendonly"))]


class RedisSentinels(RedisGroup):
    """One primary with two replicas, and three sentinels of which two must agree, for a ``with`` block.

    Args:
        binary: see ``RedisGroup``, as for all that follow but these.
        master: the name under which the sentinels know the primary.
        sentinel_username: the only user of the sentinels; without one nobody logs in.
        sentinel_password: that user's password.
        down_after: milliseconds of silence after which a server counts as gone.
    """

    def __init__(
        self,
        binary: str | Path | None = None,
        *,
        tls: TlsFiles | None = None,
        username: str | None = None,
        password: str = "",
        options: Iterable[str] = (),
        master: str = "main",
        sentinel_username: str | None = None,
        sentinel_password: str = "",
        down_after: int = 1000,
    ) -> None:
        super().__init__(binary, tls=tls, username=username, password=password, options=options)
        self.master = master
        self.servers: tuple[RedisServer, ...] = ()
        self.sentinels: tuple[Sentinel, ...] = ()
        self._sentinel_username = sentinel_username
        self._sentinel_password = sentinel_password
        self._down_after = down_after

    @property
    def nodes(self) -> str:
        """The sentinels, as REDIS_SENTINEL_NODES takes them."""
        return ",".join(sentinel.address for sentinel in self.sentinels)

    @property
    def settings(self) -> dict[str, Any]:
        """What ``Settings`` need to reach the group."""
        nodes = {"redis_sentinel_nodes": self.nodes, "redis_sentinel_master": self.master}
        if self._sentinel_username:
            nodes["redis_sentinel_username"] = self._sentinel_username
            nodes["redis_sentinel_password"] = self._sentinel_password
        return super().settings | nodes

    @property
    def primary(self) -> RedisServer:
        """The server that most sentinels hold for the primary, be it alive or not."""
        ports = [port for sentinel in self.sentinels if (port := self._primary_port(sentinel)) is not None]
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == port)

    @property
    def replicas(self) -> tuple[RedisServer, ...]:
        """All servers but the primary."""
        primary = self.primary
        return tuple(server for server in self.servers if server is not primary)

    def fail_over(self) -> RedisServer:
        """Let the sentinels make a replica the primary, and wait until all agree; the old one becomes a replica."""
        old = self.primary
        wait_until(lambda: self._fail_over(old), "another server was the primary", seconds=_WAITING_SECONDS)
        return self.primary

    def wait_for_new_primary(self, old: RedisServer) -> RedisServer:
        """Wait until all running sentinels agree on a primary that is not this one, and it is one."""
        wait_until(lambda: self._agree_on_other_than(old), "another server was the primary", seconds=_WAITING_SECONDS)
        return self.primary

    def wait_for_replicas(self, number: int = 2) -> None:
        """Wait until so many replicas follow the primary, and the sentinels know them as good."""
        wait_until(
            lambda: all(self._knows_replicas(sentinel, number) for sentinel in self._awake()),
            f"{number} replicas followed the primary",
            seconds=_WAITING_SECONDS,
        )

    def _start(self) -> None:
        # The primary's port is needed by the others; they try again until it is there.
        first = self._make_server()
        (primary,) = self._enter([first])
        followed = [f"replicaof 127.0.0.1 {primary.port}"]
        started = self._enter([*(self._make_server(followed) for _ in range(2)), *self._make_sentinels(primary.port)])
        self.servers = (primary, *(server for server in started if not isinstance(server, Sentinel)))
        self.sentinels = tuple(server for server in started if isinstance(server, Sentinel))
        for sentinel in self.sentinels:
            sentinel.execute("SENTINEL", "DEBUG", *(word for period in _PERIODS.items() for word in period))
        self.wait_for_replicas()
        wait_until(self._know_each_other, "the sentinels knew each other", seconds=_WAITING_SECONDS)

    def _make_server(self, options: Iterable[str] = ()) -> RedisServer:
        return RedisServer(
            self._binary,
            tls=self._tls,
            username=self._username,
            password=self._password,
            options=[*self._options, *options],
        )

    def _make_sentinels(self, primary_port: int) -> list[Sentinel]:
        lines = [
            f"sentinel monitor {self.master} 127.0.0.1 {primary_port} {_QUORUM}",
            f"sentinel down-after-milliseconds {self.master} {self._down_after}",
            # Twice as long passes before the next attempt, when the sentinels could not agree who leads the first one.
            f"sentinel failover-timeout {self.master} {_FAILOVER_MILLISECONDS}",
            f"sentinel parallel-syncs {self.master} 2",
            *self._tls_options(),
        ]
        if self._username:
            lines += [
                f"sentinel auth-user {self.master} {self._username}",
                f"sentinel auth-pass {self.master} {self._password}",
            ]
        if self._sentinel_username:
            lines += [
                f"sentinel sentinel-user {self._sentinel_username}",
                f"sentinel sentinel-pass {self._sentinel_password}",
            ]
        return [
            Sentinel(
                self._binary,
                tls=self._tls,
                username=self._sentinel_username,
                password=self._sentinel_password,
                options=lines,
            )
            for _ in range(_SENTINELS)
        ]

    def _awake(self) -> list[Sentinel]:
        return [sentinel for sentinel in self.sentinels if sentinel.is_awake]

    def _primary_port(self, sentinel: Sentinel) -> int | None:
        try:
            return int(sentinel.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master)[1])
        except redis.ConnectionError:
            return None

    def _fail_over(self, old: RedisServer) -> bool:
        """Order a failover unless one is under way or done; whether it is done.

        A sentinel gives one up on a machine that is too busy, and does not begin again unless the primary is down.
        """
        sentinel = self._awake()[0]
        known = sentinel.execute("SENTINEL", "MASTER", self.master)
        state = dict(zip(known[::2], known[1::2], strict=True))
        if int(state["port"]) == old.port and "failover_in_progress" not in state["flags"]:
            sentinel.execute("SENTINEL", "FAILOVER", self.master)
        return self._agree_on_other_than(old)

    def _agree_on_other_than(self, old: RedisServer) -> bool:
        ports = {self._primary_port(sentinel) for sentinel in self._awake()}
        if len(ports) != 1 or ports == {old.port}:
            return False
        return self.primary.info("replication")["role"] == "master"

    def _knows_replicas(self, sentinel: Sentinel, number: int) -> bool:
        found = sentinel.execute("SENTINEL", "REPLICAS", self.master)
        replicas = [dict(zip(each[::2], each[1::2], strict=True)) for each in found]
        good = [each for each in replicas if each["flags"] == "slave" and each["master-link-status"] == "ok"]
        return len(good) >= number

    def _know_each_other(self) -> bool:
        return all(
            len(sentinel.execute("SENTINEL", "SENTINELS", self.master)) == _SENTINELS - 1 for sentinel in self.sentinels
        )
