"""redis-py's client, for what the cache does not cover: pools, time limits, and how connections are secured."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    RedisCluster,
    Sentinel,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError
from redis.maint_notifications import MaintNotificationsConfig

from data_layer.cache.address import CacheAddress, ServerAddress, Topology
from data_layer.cache.wire.connection import tls_context
from data_layer.settings.redis import RedisSettings

MAXIMUM_CONNECTIONS = 32


class FollowingConnection(Connection):
    """Ends when the server turns out to be a replica, so that the next command looks its name up again."""

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """The next answer."""
        try:
            return await super().read_response(*arguments, **options)
        except ReadOnlyError:
            await self.disconnect()
            raise


class VerifiedTlsConnection(FollowingConnection, SSLConnection):
    """TLS with a context that all connections share.

    redis-py would build one for each connection, which reads the system's authorities from disk every time, and
    would trust those even where the settings name a private authority.
    """

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


class VerifiedSentinelConnection(SentinelManagedConnection, VerifiedTlsConnection):
    """The same to the primary that the sentinels name."""


class OwningSentinelPool(SentinelConnectionPool):
    """Connections to the primary; closing all of them also closes those to the sentinels, which redis-py forgets."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002  (redis-py's signature)
        """Close connections."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def create_client(cache: CacheAddress, settings: RedisSettings) -> Redis | RedisCluster:
    """A client with bounded pools. It connects with the first command, and repeats nothing by itself.

    Raises:
        ConfigurationError: when REDIS_TLS_CA holds no certificate.
    """
    context = tls_context(settings.redis_tls_ca) if cache.login.tls else None
    match cache.topology:
        case Topology.SINGLE:
            return _single_client(cache.nodes[0], settings, context)
        case Topology.SENTINEL:
            return _sentinel_client(cache, settings, context)
        case Topology.CLUSTER:
            return _cluster_client(cache, settings, context)


def _single_client(address: ServerAddress, settings: RedisSettings, context: ssl.SSLContext | None) -> Redis:
    pool = BlockingConnectionPool(
        max_connections=MAXIMUM_CONNECTIONS,
        timeout=settings.redis_command_timeout / 1000,
        **_options(address, settings),
        **_transport(address, context),
    )
    return Redis.from_pool(pool)


def _sentinel_client(cache: CacheAddress, settings: RedisSettings, context: ssl.SSLContext | None) -> Redis:
    options = _options(cache.login, settings) | _keepalive()
    sentinel = Sentinel([])  # type: ignore[no-untyped-call]  # redis-py has no types here
    # Sentinel would make these itself, but with other authorities.
    sentinel.sentinels = [_single_client(node, settings, context) for node in cache.nodes]
    if context is not None:
        options |= {"connection_class": VerifiedSentinelConnection, "context": context}
    client: Redis = sentinel.master_for(
        cache.sentinel_master or "",
        connection_pool_class=OwningSentinelPool,
        max_connections=MAXIMUM_CONNECTIONS,
        **options,
    )
    return client


def _cluster_client(cache: CacheAddress, settings: RedisSettings, context: ssl.SSLContext | None) -> RedisCluster:
    nodes = [ClusterNode(node.host, node.port) for node in cache.nodes]
    options = _options(cache.login, settings) | _keepalive()
    client = RedisCluster(startup_nodes=nodes, max_connections=MAXIMUM_CONNECTIONS, ssl=context is not None, **options)
    if context is not None:
        # Before the first connection, because RedisCluster takes neither a class nor a context.
        secured = {"connection_class": VerifiedTlsConnection, "context": context}
        client.connection_kwargs.update(secured)
        for node in client.nodes_manager.startup_nodes.values():
            node.connection_class = VerifiedTlsConnection
            node.connection_kwargs["context"] = context
    return client


def _options(address: ServerAddress, settings: RedisSettings) -> dict[str, Any]:
    return {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "protocol": 3,
        "legacy_responses": False,
        "socket_timeout": settings.redis_command_timeout / 1000,
        "socket_connect_timeout": settings.redis_connect_timeout / 1000,
        "retry": Retry(NoBackoff(), 0),
        # They exist only in Redis Enterprise, and while they are on redis-py does not notice that an idle
        # connection was closed.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _keepalive() -> dict[str, Any]:
    """Notice within half a minute of idleness what a NAT or a load balancer on the way forgot."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    options = {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def _transport(address: ServerAddress, context: ssl.SSLContext | None) -> dict[str, Any]:
    if address.socket_path is not None:
        return {"connection_class": UnixDomainSocketConnection, "path": address.socket_path}
    endpoint = {"host": address.host, "port": address.port, **_keepalive()}
    if context is None:
        return endpoint | {"connection_class": FollowingConnection}
    return endpoint | {"connection_class": VerifiedTlsConnection, "context": context}
