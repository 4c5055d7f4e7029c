"""URLs that may be fetched: read once, strictly, so that what was checked is what is connected to."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NoReturn
from urllib.parse import quote, urljoin, urlsplit

import idna

from data_layer.errors import InvalidUrlError
from data_layer.services.fetching.addresses import IPAddress, parse_address

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
