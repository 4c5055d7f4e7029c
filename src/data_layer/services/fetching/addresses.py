"""Which addresses are public, and which addresses a name has."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

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
