"""The settings of Redis or Valkey: a part of ``Settings`` with its own rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, SecretStr, field_validator

from data_layer.environment import Address, host_and_port, is_local, split_host
from data_layer.settings.part import COMMA_SEPARATED, Host, Milliseconds, PlainText, Port, SettingsPart, check_url
from data_layer.settings.strength import HOW_TO_MAKE_ONE, password_weakness

# They say where the servers are; one of them at most is set.
_ADDRESSES = ("redis_url", "redis_host", "redis_cluster_nodes", "redis_sentinel_nodes")
_SENTINEL_DETAILS = ("REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_USERNAME", "REDIS_SENTINEL_PASSWORD")


class RedisSettings(SettingsPart):
    """Where the servers of the cache are, who logs in, and how long is waited for them."""

    harmless: ClassVar[dict[str, Any]] = {
        "redis_url": "redis://localhost",
        "redis_cluster_nodes": "localhost:6379",
        "redis_sentinel_nodes": "localhost:26379",
    }

    # The cache, Redis or Valkey
    redis_url: SecretStr | None = Field(
        None, description="Whole address: redis://, rediss:// (TLS) or unix://; instead of the REDIS_ parts."
    )
    redis_host: Host | None = Field(
        None,
        description="Host, or host:port, or the path of a Unix socket. Neither this, nor REDIS_URL, nor cluster or "
        "sentinel nodes: embedded Valkey.",
    )
    redis_port: Port = Field(6379, description="Port of Redis.")
    redis_database: int = Field(0, ge=0, le=1023, description="Number of the Redis database.")
    redis_username: str | None = Field(None, description="User name (ACL).")
    redis_password: SecretStr | None = Field(None, description="Password.")
    redis_tls: bool | None = Field(
        None,
        description="Encrypt connections and verify the server's certificate. Default: false; production must choose, "
        "by this or by rediss:// in REDIS_URL.",
    )
    redis_tls_ca: Path | None = Field(None, description="File with the authorities to trust. Default: the system's.")
    redis_cluster_nodes: Annotated[str | None, COMMA_SEPARATED] = Field(
        None, description="Some nodes of a cluster, host:port,host:port; they know where the others are."
    )
    redis_sentinel_nodes: Annotated[str | None, COMMA_SEPARATED] = Field(
        None, description="The sentinels, host:port,host:port; they know where the primary is."
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
            address = check_url(value, ("redis", "rediss", "unix"), "redis://user:password@host:6379/0")
            if address.scheme == "unix" and any(address.hosts):
                raise ValueError("names a host before the socket; write unix:///path/of/the/socket")
            if len(address.hosts) > 1:
                raise ValueError("names several servers; use REDIS_CLUSTER_NODES or REDIS_SENTINEL_NODES")
        return value

    @field_validator("redis_cluster_nodes", "redis_sentinel_nodes")
    @classmethod
    def _check_nodes(cls, value: str | None) -> str | None:
        return None if value is None else check_nodes(value)

    @property
    def is_embedded(self) -> bool:
        """Whether Valkey is to be started from its wheel, because no server is named."""
        return all(getattr(self, name) is None for name in _ADDRESSES)

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The parts of REDIS_HOST, of which the first is a path if it begins with a slash."""
        return host_and_port(self.redis_host or "", self.redis_port)

    def contradictions(self) -> list[str]:
        """Return what makes the settings unusable anywhere."""
        return self.address_contradictions() + self.missing_files("redis_tls_ca")

    def address_contradictions(self) -> list[str]:
        """Return what leaves open where the servers are and who logs in."""
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
        if "REDIS_TLS_CA" in given and not self.is_encrypted:
            problems.append("REDIS_TLS_CA is set, but REDIS_TLS is not, and REDIS_URL does not begin with rediss://")
        scheme = self._address.scheme if self._address else None
        if self.redis_tls and scheme == "redis":
            problems.append("REDIS_TLS is true, but REDIS_URL does not begin with rediss://")
        if self.redis_tls is False and scheme == "rediss":
            problems.append("REDIS_TLS is false, but REDIS_URL begins with rediss://")
        return problems + self._names_without_passwords() + self._port_beside_host()

    @property
    def is_encrypted(self) -> bool:
        """Whether connections to the servers are encrypted."""
        return bool(self.redis_tls) or (self._address is not None and self._address.scheme == "rediss")

    def unfit(self) -> list[str]:
        """Return what production refuses."""
        if self.is_embedded:
            servers = "REDIS_HOST, REDIS_URL, REDIS_CLUSTER_NODES or REDIS_SENTINEL_NODES"
            return [f"{servers} must be set: production does not run the embedded Valkey"]
        names = self.guessable_names()
        problems = [
            f"{'the password in ' if name.endswith('_URL') else ''}{name} {weakness}; {HOW_TO_MAKE_ONE}"
            for name, password in self.passwords()
            if (weakness := password_weakness(password, names))
        ]
        if all(map(is_local, self._hosts())):
            return problems
        if not any(name != "REDIS_SENTINEL_PASSWORD" for name, _ in self.passwords()):
            problems.append("REDIS_PASSWORD is missing: anyone who reaches the server could read and change everything")
        if self.redis_tls is None and not self.is_encrypted:
            problems.append("REDIS_TLS must be chosen: true, or false to accept unencrypted connections")
        return problems

    def passwords(self) -> list[tuple[str, str]]:
        """Return the passwords with the names of their settings."""
        settings = {
            "REDIS_PASSWORD": self.redis_password,
            "REDIS_SENTINEL_PASSWORD": self.redis_sentinel_password,
        }
        passwords = [(name, value.get_secret_value()) for name, value in settings.items() if value is not None]
        if self._address is not None and self._address.password:
            passwords.append(("REDIS_URL", self._address.password))
        return passwords

    def guessable_names(self) -> set[str]:
        """Return what an attacker knows or guesses, and tries as a password."""
        usernames = {self.redis_username, self.redis_sentinel_username, self.redis_sentinel_master}
        if self._address is not None:
            usernames.add(self._address.username)
        return {name for name in (*usernames, *self._hosts(), "redis", "valkey") if name}

    @property
    def _address(self) -> Address | None:
        return Address(self.redis_url.get_secret_value()) if self.redis_url else None

    def _hosts(self) -> list[str | None]:
        if self._address is not None:
            return list(self._address.hosts)
        nodes = (self.redis_host, self.redis_cluster_nodes, self.redis_sentinel_nodes)
        return [split_host(node)[0] for node in ",".join(filter(None, nodes)).split(",") if node]

    def _names_without_passwords(self) -> list[str]:
        """Redis would take such a login for that of its default user."""
        url = self._address
        problems = []
        if self.redis_username is not None and self.redis_password is None and not (url and url.password):
            problems.append("REDIS_USERNAME is set, but REDIS_PASSWORD is not: the default user would log in")
        if url and url.username and not url.password and self.redis_password is None:
            problems.append("REDIS_URL has a user name, but no password: the default user would log in")
        has_name = self.redis_sentinel_nodes is not None and self.redis_sentinel_username is not None
        if has_name and self.redis_sentinel_password is None:
            problems.append(
                "REDIS_SENTINEL_USERNAME is set, but REDIS_SENTINEL_PASSWORD is not: the default user would log in"
            )
        return problems

    def _port_beside_host(self) -> list[str]:
        port = split_host(self.redis_host)[1] if self.redis_host else None
        if port in {None, self.redis_port} or "redis_port" not in self.model_fields_set:
            return []
        return [f"REDIS_HOST names port {port}, but REDIS_PORT is {self.redis_port}; keep one of them"]


def check_nodes(text: str) -> str:
    """A list of servers, written as host:port,host:port, without spaces and with each server once.

    Raises:
        ValueError: when one of them is something else. It is not quoted: it may hold a password.
    """
    nodes = text.split(",")
    for number, node in enumerate(nodes, start=1):
        if not _is_node(node):
            raise ValueError(
                f"server {number} of {len(nodes)} is not host:port; write host:port,host:port, "
                "with an IPv6 address in brackets, without scheme and login"
            )
    return ",".join(dict.fromkeys(nodes))


def _is_node(node: str) -> bool:
    try:
        host, port = split_host(node)
    except ValueError:
        return False
    return port is not None and not host.startswith("/")
