"""From an address to an open connection: transport, encryption and login, each within its time limit."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from data_layer.cache.address import ServerAddress
from data_layer.cache.errors import ConnectionFailure, translate
from data_layer.cache.statistics import new_latencies, parse_info
from data_layer.cache.wire.connection import MAXIMUM_WAITING, Command, Connection, OnPush, pack
from data_layer.errors import CacheReadOnlyError, ConfigurationError
from data_layer.settings.redis import RedisSettings

CLIENT_NAME = "data-layer"
"""What CLIENT LIST shows."""


class Connector:
    """Opens connections, with the time limits and the authorities that the settings name.

    Raises:
        ConfigurationError: when REDIS_TLS_CA holds no certificate.
    """

    def __init__(self, settings: RedisSettings, *, tls: bool) -> None:
        self.connect_timeout = settings.redis_connect_timeout / 1000
        self.command_timeout = settings.redis_command_timeout / 1000
        self.latencies = new_latencies()
        """Of the connections to servers that hold data."""
        self._context = tls_context(settings.redis_tls_ca) if tls else None

    async def open(
        self,
        address: ServerAddress,
        *,
        maximum_waiting: int = MAXIMUM_WAITING,
        on_push: OnPush | None = None,
        is_measured: bool = False,
        is_primary: bool = False,
    ) -> Connection:
        """A connection that is logged in and has its database selected.

        Args:
            address: where to.
            maximum_waiting: commands under way before it calls itself full.
            on_push: receives messages that are not answers.
            is_measured: whether its latencies are recorded.
            is_primary: whether to require a primary, and to end the connection when the server is one no longer.

        Raises:
            CacheError: or the subclass that says why there is none.
        """
        latencies = self.latencies if is_measured else None
        connection = Connection(
            str(address), self.command_timeout, maximum_waiting=maximum_waiting, on_push=on_push, latencies=latencies
        )
        try:
            await self._connect(address, connection)
            await _introduce(connection, address, is_primary=is_primary)
        except BaseException:
            # The event loop does not always close it: cancellation at the end of a TLS handshake leaves a
            # connection behind that waits half a minute for the server to say goodbye.
            connection.close()
            raise
        return connection

    async def _connect(self, address: ServerAddress, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.connect_timeout):
                if address.socket_path is not None:
                    await loop.create_unix_connection(lambda: connection, address.socket_path)
                elif not address.tls:
                    await loop.create_connection(lambda: connection, address.host, address.port)
                else:
                    await loop.create_connection(
                        lambda: connection, address.host, address.port, ssl=self._context, server_hostname=address.host
                    )
        except (OSError, UnicodeError) as error:
            # Without the cause, which repeats the text.
            raise translate(error, connection.name) from None


async def _introduce(connection: Connection, address: ServerAddress, *, is_primary: bool) -> None:
    greeting: list[str | int] = ["HELLO", 3]
    if address.password is not None:
        greeting += ["AUTH", address.username or "default", address.password]
    commands: list[Command] = [(*greeting, "SETNAME", CLIENT_NAME)]
    if address.database:
        commands.append(("SELECT", address.database))
    waiters = [connection.send(pack(command)) for command in commands]
    identity = connection.send(pack(("INFO", "server"))) if is_primary else None
    answers = [await waiter for waiter in waiters]
    for answer in answers:
        if isinstance(answer, Exception):
            raise translate(answer, connection.name)
    if identity is None:
        return
    if answers[0].get(b"role") != b"master":
        raise CacheReadOnlyError(
            f"Redis at {connection.name} is a replica, which is read only (READONLY) and may be out of date: "
            "name the primary in REDIS_HOST or REDIS_URL"
        )
    described = await identity
    # Without the right to ask, the connection works, but the near copy cannot verify which server it listens to.
    if isinstance(described, bytes):
        connection.run_id = str(parse_info(described).get("run_id", ""))
    elif isinstance(described, ConnectionFailure):
        raise translate(described, connection.name)
    connection.watch_role()


def tls_context(authority: Path | None) -> ssl.SSLContext:
    """Verify certificate and host name, against this authority or else the system's.

    Raises:
        ConfigurationError: when the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"REDIS_TLS_CA: {str(authority)!r} holds no readable certificate") from error
