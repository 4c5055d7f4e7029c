"""URLs that may be fetched, read once and strictly, so what was checked is connected to; and which hosts are public."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NoReturn
from urllib.parse import quote, urljoin, urlsplit

import idna

from data_layer.errors import InvalidUrlError

IPAddress = IPv4Address | IPv6Address
AddressPolicy = Callable[[IPAddress], bool]
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a name, as text; raises OSError where it has none."""

# https://www.iana.org/assignments/iana-ipv4-special-registry, with multicast. Also the globally reachable ones: they
# lead to relays and to whatever is nearest, never to somebody's images.
_SPECIAL_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
# https://www.iana.org/assignments/iana-ipv6-special-registry, as far as it is inside of 2000::/3. 2001::/23 holds
# Teredo; 3ffe::/16 was returned.
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_SPECIAL_IPV6 = tuple(
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20")
)
# The last 64 bits of an ISATAP address (RFC 5214, section 6.1) but for the IPv4 address that it leads to.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
_THREADS = 4


def is_public(address: IPAddress) -> bool:
    """Whether an address belongs to the public internet, and to nothing that leads elsewhere through another address.

    Of IPv6 that is 2000::/3 alone, which leaves out what embeds an IPv4 address (mapped, compatible, NAT64); 6to4,
    Teredo and ISATAP, which embed one too, are refused inside of it.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    return (
        address in _GLOBAL_IPV6
        and address.scope_id is None
        and not any(address in network for network in _SPECIAL_IPV6)
        and (int(address) >> 32) & 0xFFFFFFFF not in _ISATAP
    )


def parse_address(text: str) -> IPAddress | None:
    """An address in the notation of RFC 4291 or with four decimal numbers; None for a name and everything else."""
    try:
        return ip_address(text)
    except ValueError:
        return None


class SystemResolver:
    """Asks the system for the addresses of a name.

    In threads of its own: names whose servers do not answer must not occupy the threads that everything else needs.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolver")

    async def __call__(self, name: str) -> Sequence[str]:
        """The addresses of a name, in the order in which they should be tried."""
        # The dot keeps the search list of resolv.conf out: evil.example is not evil.example.our-cluster.
        job = self._threads.submit(socket.getaddrinfo, f"{name}.", None, type=socket.SOCK_STREAM)
        found = await asyncio.wrap_future(job)
        return [str(sockaddr[0]) for *_, sockaddr in found]

    def close(self) -> None:
        """Start nothing more; a question that is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


_LONGEST = 4096  # Signed addresses of S3 and Azure have about 1500 characters.
_LONGEST_HOST = 253
_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@]+))(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# What inet_aton and browsers take for a number, as in 0x7f.1, 2130706433 and 0177.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SAFE = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True)
class Url:
    """Where to connect to, and what to ask for.

    Attributes:
        scheme: http or https.
        host: in lower case, in ASCII, without a dot at its end; an IPv6 address without brackets.
        port: of TCP.
        target: the path with the query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def address(self) -> IPAddress | None:
        """The host, where it is an address."""
        return parse_address(self.host)

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def joined(self, location: str, ports: Collection[int]) -> Url:
        """Where a redirect from here leads to; checked like any other URL.

        Raises:
            InvalidUrlError: it may not be fetched.
        """
        _check_text(location)
        try:
            joined = urljoin(f"{self.scheme}://{self.authority}{self.target}", location)
        except ValueError:
            _refuse("cannot be read")
        return parse_url(joined, ports)


def parse_url(text: str, ports: Collection[int]) -> Url:
    """Read a URL.

    Raises:
        InvalidUrlError: it is none that may be fetched. The message says why, and does not quote it: its query may
            hold a signature.
    """
    _check_text(text)
    try:
        parts = urlsplit(text)
    except ValueError:
        _refuse("cannot be read")
    if parts.scheme not in _PORTS:
        _refuse("must begin with http:// or https://")
    if "@" in parts.netloc:
        _refuse("must not contain a user name or a password")
    authority = _AUTHORITY.fullmatch(parts.netloc)
    if authority is None:
        _refuse("names no host, or no port that can be")
    address, name, given_port = authority.groups()
    port = int(given_port or _PORTS[parts.scheme])
    if port not in ports:
        _refuse(f"must use one of the ports {', '.join(map(str, sorted(ports)))}")
    host = _host(name) if address is None else _address(address)
    query = f"?{parts.query}" if parts.query else ""
    try:
        return Url(parts.scheme, host, port, quote((parts.path or "/") + query, safe=_SAFE).replace("#", "%23"))
    except UnicodeEncodeError:
        _refuse("contains a character that cannot be sent")


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        _refuse(f"must be text, not {type(text).__name__}")
    if len(text) > _LONGEST:
        _refuse(f"has more than {_LONGEST} characters")
    if _FORBIDDEN.search(text):
        _refuse("contains a space, a backslash or a control character")


def _address(text: str) -> str:
    """An IPv6 address, as it is written in brackets."""
    address = parse_address(text)
    if not isinstance(address, IPv6Address):
        _refuse("has something in brackets that is not an IPv6 address")
    return str(address)


def _host(name: str) -> str:
    """A name in lower case and ASCII, or an IPv4 address in its one usual notation."""
    if len(name) > _LONGEST_HOST + 1:
        _refuse("names a host that no domain can be called")
    try:
        ascii_name = name.lower() if name.isascii() else idna.encode(name, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        _refuse("names a host that no domain can be called")
    host = ascii_name.removesuffix(".")
    labels = host.split(".")
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        _refuse("names a host that no domain can be called")
    if _NUMBER.fullmatch(labels[-1]) and str(parse_address(host)) != host:
        _refuse("names a host by a number; write an IPv4 address as four decimal numbers")
    return host


def _refuse(why: str) -> NoReturn:
    raise InvalidUrlError(f"the URL {why}", field="url")
