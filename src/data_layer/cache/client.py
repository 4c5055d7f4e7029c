"""From an address and settings to a redis-py client: pool, time limits, and how connections are secured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from data_layer.cache.wire.connect import tls_context

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from data_layer.cache.address import CacheAddress, ServerAddress
    from data_layer.config import Settings

MAXIMUM_CONNECTIONS = 32


class VerifiedTlsConnection(SSLConnection):
    """TLS with a context that all connections share.

    redis-py would build one for each connection, which reads the system's authorities from disk every time, and
    would trust those even where the settings name an authority of one's own.
    """

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


def create_client(cache: CacheAddress, settings: Settings) -> Redis:
    """A client with a bounded pool. It connects with the first command, and repeats nothing by itself.

    Raises:
        ConfigurationError: when REDIS_TLS_CA holds no certificate.
    """
    address = cache.nodes[0]
    command_timeout = settings.redis_command_timeout / 1000
    pool = BlockingConnectionPool(
        max_connections=MAXIMUM_CONNECTIONS,
        timeout=command_timeout,
        db=address.database,
        username=address.username,
        password=address.password,
        protocol=3,
        legacy_responses=False,
        socket_timeout=command_timeout,
        socket_connect_timeout=settings.redis_connect_timeout / 1000,
        retry=Retry(NoBackoff(), 0),
        # They exist only in Redis Enterprise, and while they are on redis-py does not notice that an idle
        # connection was closed.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        **_transport(address, settings.redis_tls_ca),
    )
    return Redis.from_pool(pool)


def _transport(address: ServerAddress, authority: Path | None) -> dict[str, Any]:
    if address.socket_path is not None:
        return {"connection_class": UnixDomainSocketConnection, "path": address.socket_path}
    endpoint = {"host": address.host, "port": address.port}
    if not address.tls:
        return endpoint | {"connection_class": Connection}
    return endpoint | {"connection_class": VerifiedTlsConnection, "context": tls_context(authority)}
