"""Which headers of a request may be believed: those that trusted proxies add, and only to find the client's address."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from starlette.types import Scope

Address = IPv4Address | IPv6Address
Headers = list[tuple[bytes, bytes]]

UNIX_SOCKET = "unix"
"""Stands for a proxy that is connected by a Unix socket, and so has no address."""

_MOST_HOPS = 32
_BRACKETED = re.compile(r"\[([^\]]*)\](:\d+)?")
_WITH_PORT = re.compile(r"([0-9.]+):\d+")
_SCHEMES = frozenset({"http", "https"})
_SCHEMES_OF_WEBSOCKETS = {"http": "ws", "https": "wss"}


class TrustedProxies:
    """What may be believed of the headers that proxies add.

    A proxy adds the address of its client to the right of what that client has sent, so the list is read from the
    right, for as long as the addresses are those of trusted proxies: the first other one is the client. What stands
    to the left of it anybody can have written. Only one header is read: a proxy passes on the other one as its client
    wrote it.

    Args:
        trusted: addresses and networks, and ``unix``.
        header: the one that the proxies add to: x-forwarded-for, or forwarded (RFC 7239).
    """

    def __init__(self, trusted: tuple[str, ...], header: str = "x-forwarded-for") -> None:
        self._networks = [network_of_proxies(each) for each in trusted if each != UNIX_SOCKET]
        self._trusts_sockets = UNIX_SOCKET in trusted
        self._header = header.encode()

    def trusts(self, peer: str | None) -> bool:
        """Whether a peer is one of the proxies; None is one without an address."""
        if peer is None:
            return self._trusts_sockets
        if not self._networks:
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def origin(self, peer: str | None, headers: Headers) -> tuple[str | None, str | None]:
        """The address and the scheme of the client; None for the scheme where no proxy says it."""
        if not self.trusts(peer):
            return peer, None
        hops = self._hops(headers)
        client = peer
        for hop, _ in hops[:_MOST_HOPS]:
            address = _address(hop)
            if address is None:
                break  # Unknown, or made up: the proxy that was asked by it is all that is known.
            client = str(address)
            if not self.trusts(client):
                break
        return client, self._scheme(hops, headers)

    def put_origin(self, scope: Scope) -> bool:
        """Put the client's own address and scheme into a request, if a trusted proxy has sent it; whether one has."""
        peer = scope["client"][0] if scope.get("client") else None
        if not self.trusts(peer):
            return False
        address, scheme = self.origin(peer, scope["headers"])
        scope["client"] = None if address is None else (address, 0)
        if scheme is not None:
            scope["scheme"] = _SCHEMES_OF_WEBSOCKETS[scheme] if scope["type"] == "websocket" else scheme
        return True

    def _hops(self, headers: Headers) -> list[tuple[str, str | None]]:
        """Addresses with schemes, the last proxy's first."""
        text = b",".join(value for name, value in headers if name == self._header).decode("latin-1")
        elements = [element.strip(" \t") for element in text.split(",")]
        if self._header == b"forwarded":
            return [_read_element(element) for element in reversed(elements) if element]
        return [(element, None) for element in reversed(elements) if element]

    def _scheme(self, hops: list[tuple[str, str | None]], headers: Headers) -> str | None:
        if self._header == b"forwarded":
            scheme = hops[0][1] if hops else None
        else:
            text = b",".join(value for name, value in headers if name == b"x-forwarded-proto").decode("latin-1")
            scheme = text.rpartition(",")[2].strip(" \t")
        return scheme.lower() if scheme is not None and scheme.lower() in _SCHEMES else None


def network_of_proxies(text: str) -> IPv4Network | IPv6Network:
    """The network that an address or a network stands for; one of mapped IPv4 addresses is one of IPv4."""
    network = ipaddress.ip_network(text, strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.ip_network((mapped, network.prefixlen - 96), strict=False)
    return network


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    """An address, with or without a port or a zone; a mapped IPv4 address is one of IPv4."""
    match = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((match[1] if match else text).partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _read_element(element: str) -> tuple[str, str | None]:
    """The address and the scheme of an element of Forwarded."""
    pairs = {}
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        pairs[name.strip(" \t").lower()] = value.strip(" \t").removeprefix('"').removesuffix('"')
    return pairs.get("for", ""), pairs.get("proto")
