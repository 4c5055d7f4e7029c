"""What the settings of Redis may say: which servers, and what contradicts what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESSES = ("redis_url", "redis_host", "redis_cluster_nodes", "redis_sentinel_nodes")
"""The settings that say where the servers are; one of them at most is set."""

_SENTINEL_DETAILS = ("REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_USERNAME", "REDIS_SENTINEL_PASSWORD")


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


def contradictions(settings: Mapping[str, Any]) -> list[str]:
    """One line for each contradiction among the settings, given by their names in small letters."""
    given = {name.upper() for name, value in settings.items() if value is not None}
    problems = []
    addresses = [name.upper() for name in ADDRESSES if name.upper() in given]
    if len(addresses) > 1:
        both = "both " if len(addresses) == 2 else ""
        problems.append(f"{', '.join(addresses[:-1])} and {addresses[-1]} are {both}set; keep one of them")
    if "REDIS_CLUSTER_NODES" in given and (number := settings["redis_database"]) != 0:
        problems.append(f"REDIS_DATABASE is {number}, but a cluster (REDIS_CLUSTER_NODES) has only 0")
    if "REDIS_SENTINEL_NODES" not in given:
        problems += [f"{name} is set, but REDIS_SENTINEL_NODES is not" for name in _SENTINEL_DETAILS if name in given]
    elif "REDIS_SENTINEL_MASTER" not in given:
        problems.append("REDIS_SENTINEL_NODES is set, but REDIS_SENTINEL_MASTER, the name of the primary, is not")
    if "REDIS_TLS_CA" in given and not settings["redis_tls"]:
        problems.append("REDIS_TLS_CA is set, but REDIS_TLS is not")
    return problems
