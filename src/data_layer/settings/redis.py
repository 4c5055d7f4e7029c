"""The settings of Redis or Valkey: a part of ``Settings`` with its own rules."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator

from data_layer.settings.values import HostName, Milliseconds, PlainText, Port, check_url

# They say where the servers are; one of them at most is set.
_ADDRESSES = ("redis_url", "redis_host", "redis_cluster_nodes", "redis_sentinel_nodes")
_SENTINEL_DETAILS = ("REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_USERNAME", "REDIS_SENTINEL_PASSWORD")


class RedisSettings(BaseModel):
    """Where the servers of the cache are, who logs in, and how long is waited for them."""

    # The cache, Redis or Valkey
    redis_url: SecretStr | None = Field(
        None, description="Whole address: redis://, rediss:// (TLS) or unix://; instead of the REDIS_ parts."
    )
    redis_host: HostName | None = Field(
        None, description="Host name. Neither this, nor REDIS_URL, nor cluster or sentinel nodes: embedded Valkey."
    )
    redis_port: Port = Field(6379, description="Port of Redis.")
    redis_database: int = Field(0, ge=0, le=1023, description="Number of the Redis database.")
    redis_username: str | None = Field(None, description="User name (ACL).")
    redis_password: SecretStr | None = Field(None, description="Password.")
    redis_tls: bool = Field(default=False, description="Encrypt connections and verify the server's certificate.")
    redis_tls_ca: Path | None = Field(None, description="File with the authorities to trust. Default: the system's.")
    redis_cluster_nodes: str | None = Field(
        None, description="Some nodes of a cluster, host:port,host:port; they tell where the others are."
    )
    redis_sentinel_nodes: str | None = Field(
        None, description="The sentinels, host:port,host:port; they tell where the primary is."
    )
    redis_sentinel_master: PlainText | None = Field(
        None, description="Name under which the sentinels know the primary, such as mymaster."
    )
    redis_sentinel_username: str | None = Field(
        None, description="User name of the sentinels themselves, where they ask for one."
    )
    redis_sentinel_password: SecretStr | None = Field(None, description="Password of the sentinels themselves.")
    redis_key_prefix: str = Field(
        "stc",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Prefix of all keys, so that applications can share a server.",
    )
    redis_connect_timeout: Milliseconds = Field(10_000, description="Milliseconds to wait for a connection.")
    redis_command_timeout: Milliseconds = Field(1_000, description="Milliseconds to wait for the answer to a command.")
    redis_near_size: int = Field(
        32 * 2**20, ge=0, description="Bytes for copies of cached values in this process, kept true by Redis; 0: none."
    )
    redis_ttl_jitter: float = Field(
        0.1, ge=0, le=0.5, description="Share by which times to live are shortened at random, so that few end at once."
    )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_url(value, ("redis", "rediss", "unix"), "redis://user:password@host:6379/0")
        return value

    @field_validator("redis_cluster_nodes", "redis_sentinel_nodes")
    @classmethod
    def _check_nodes(cls, value: str | None) -> str | None:
        return None if value is None else check_nodes(value)

    @property
    def uses_embedded_cache(self) -> bool:
        """Whether Valkey is to be started from its wheel, because no server is named."""
        return all(getattr(self, name) is None for name in _ADDRESSES)

    def redis_contradictions(self) -> list[str]:
        """What makes the settings unusable anywhere."""
        given = {name.upper() for name, value in dict(self).items() if value is not None}
        problems = []
        addresses = [name.upper() for name in _ADDRESSES if name.upper() in given]
        if len(addresses) > 1:
            both = "both " if len(addresses) == 2 else ""
            problems.append(f"{', '.join(addresses[:-1])} and {addresses[-1]} are {both}set; keep one of them")
        if "REDIS_CLUSTER_NODES" in given and (number := self.redis_database) != 0:
            problems.append(f"REDIS_DATABASE is {number}, but a cluster (REDIS_CLUSTER_NODES) has only 0")
        if "REDIS_SENTINEL_NODES" not in given:
            problems += [
                f"{name} is set, but REDIS_SENTINEL_NODES is not" for name in _SENTINEL_DETAILS if name in given
            ]
        elif "REDIS_SENTINEL_MASTER" not in given:
            problems.append("REDIS_SENTINEL_NODES is set, but REDIS_SENTINEL_MASTER, the name of the primary, is not")
        if "REDIS_TLS_CA" in given and not self._uses_tls:
            problems.append("REDIS_TLS_CA is set, but REDIS_TLS is not, and REDIS_URL does not begin with rediss://")
        return problems

    @property
    def _uses_tls(self) -> bool:
        url = self.redis_url
        return self.redis_tls or (url is not None and urlsplit(url.get_secret_value()).scheme == "rediss")

    def unfit_cache(self) -> list[str]:
        """What production refuses."""
        if not self.uses_embedded_cache:
            return []
        servers = "REDIS_HOST, REDIS_URL, REDIS_CLUSTER_NODES or REDIS_SENTINEL_NODES"
        return [f"{servers} must be set: production does not run the embedded Valkey"]


def check_nodes(text: str) -> str:
    """A list of servers, written as host:port,host:port, without spaces and with each server once.

    Raises:
        ValueError: when one of them is something else. It is not quoted: it may hold a password.
    """
    nodes = [node.strip() for node in text.split(",")]
    for number, node in enumerate(nodes, start=1):
        if not _is_node(node):
            raise ValueError(
                f"server {number} of {len(nodes)} is not host:port; write host:port,host:port, "
                "with an IPv6 address in brackets, without scheme and login"
            )
    return ",".join(dict.fromkeys(nodes))


def _is_node(node: str) -> bool:
    try:
        parts = urlsplit(f"//{node}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    plain = f"[{host}]:{port}" if ":" in (host or "") else f"{host}:{port}"
    return bool(host) and bool(port) and node.lower() == plain
