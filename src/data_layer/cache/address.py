"""Where the servers are and who logs in: from settings or from a URL, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pydantic import SecretStr

from data_layer.errors import ConfigurationError
from data_layer.settings.redis import RedisSettings

_SCHEMES = ("redis", "rediss", "unix")


class Topology(StrEnum):
    """How the servers of the cache belong together."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True)
class ServerAddress:
    """One server: a host and port, or the path of a Unix socket; and the login."""

    host: str = "localhost"
    port: int = 6379
    socket_path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    def __str__(self) -> str:
        if self.socket_path is not None:
            return self.socket_path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class CacheAddress:
    """Where the cache is: one server, or the servers that know where the others are.

    Args:
        topology: how the servers belong together.
        nodes: the server itself, or the sentinels with their own login, or some nodes of the cluster.
        login: database, login and encryption of each server that holds data; its host and port mean nothing.
        sentinel_master: the name under which the sentinels know the primary.
    """

    topology: Topology
    nodes: tuple[ServerAddress, ...]
    login: ServerAddress
    sentinel_master: str | None = None

    def server(self, host: str, port: int) -> ServerAddress:
        """A server that holds data, found by asking the nodes."""
        return replace(self.login, host=host, port=port)

    def __str__(self) -> str:
        nodes = ",".join(str(node) for node in self.nodes)
        return nodes if self.sentinel_master is None else f"{self.sentinel_master} at {nodes}"


def find_cache(settings: RedisSettings, url: str | None = None) -> CacheAddress:
    """The cache that the URL names, or else the settings.

    A login in REDIS_URL wins over REDIS_USERNAME and REDIS_PASSWORD; a URL handed over as argument stands alone.

    Raises:
        ConfigurationError: when no server is named, or the URL cannot be used.
    """
    if url is not None:
        return _single(_from_url(url, "The address of the cache"))
    if settings.redis_url is not None:
        return _single(_from_url_in_settings(settings, settings.redis_url.get_secret_value()))
    login = ServerAddress(
        database=settings.redis_database,
        username=settings.redis_username,
        password=_secret(settings.redis_password),
        tls=bool(settings.redis_tls),
    )
    if settings.redis_cluster_nodes is not None:
        return CacheAddress(Topology.CLUSTER, _nodes(settings.redis_cluster_nodes, login), login)
    if settings.redis_sentinel_nodes is not None:
        return _sentinels(settings, settings.redis_sentinel_nodes, login)
    if settings.redis_host is None:
        raise ConfigurationError(
            "REDIS_HOST, REDIS_URL, REDIS_CLUSTER_NODES or REDIS_SENTINEL_NODES must be set, "
            "or an address be handed to the cache"
        )
    host, port = settings.host_and_port
    if host.startswith("/"):
        return _single(replace(login, socket_path=host, tls=False))
    return _single(replace(login, host=host, port=port))


def _single(server: ServerAddress) -> CacheAddress:
    return CacheAddress(Topology.SINGLE, (server,), server)


def _sentinels(settings: RedisSettings, nodes: str, login: ServerAddress) -> CacheAddress:
    sentinel_login = ServerAddress(
        username=settings.redis_sentinel_username,
        password=_secret(settings.redis_sentinel_password),
        tls=bool(settings.redis_tls),
    )
    return CacheAddress(Topology.SENTINEL, _nodes(nodes, sentinel_login), login, settings.redis_sentinel_master)


def _nodes(nodes: str, login: ServerAddress) -> tuple[ServerAddress, ...]:
    """The settings have checked each of them to be host:port."""
    pairs = (node.rpartition(":") for node in nodes.split(","))
    return tuple(replace(login, host=host.strip("[]"), port=int(port)) for host, _, port in pairs)


def _from_url_in_settings(settings: RedisSettings, url: str) -> ServerAddress:
    address = _from_url(url, "REDIS_URL")
    if address.password is not None:
        return address
    return replace(
        address, username=address.username or settings.redis_username, password=_secret(settings.redis_password)
    )


def _from_url(url: str, name: str) -> ServerAddress:
    """Stricter than redis-py, which would obey ``ssl_cert_reqs=none`` and read a misspelt database as 0.

    The messages quote nothing: a password with an unescaped ``/`` or ``?`` may be anywhere in the parts.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        raise ConfigurationError(
            f"{name} is not an address; are the special characters in the password escaped?"
        ) from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"{name} must begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    is_socket = parts.scheme == "unix"
    if is_socket and not parts.path:
        raise ConfigurationError(f"{name} names no socket; write unix:///path/of/the/socket")
    return ServerAddress(
        host=parts.hostname or "localhost",
        port=port,
        socket_path=unquote(parts.path) if is_socket else None,
        database=_database(parts, name),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "rediss",
    )


def _database(parts: SplitResult, name: str) -> int:
    options = parse_qs(parts.query, keep_blank_values=True)
    if parts.fragment or options.keys() - {"db"}:
        raise ConfigurationError(f"{name} has options other than db; time limits and TLS have settings of their own")
    number = options["db"][-1] if options else "" if parts.scheme == "unix" else parts.path.strip("/")
    if number and not (number.isascii() and number.isdecimal()):
        raise ConfigurationError(f"{name} names a database that is not a number; write it as redis://host:6379/0")
    return int(number or 0)


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None
