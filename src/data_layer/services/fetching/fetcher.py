"""Fetches a file from a URL that a person or a model provider named, and that may be hostile."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import cached_property

from data_layer.errors import FetchAddressError, FetchError, FetchTimeoutError, FileTooLargeError, InvalidUrlError
from data_layer.services.fetching.http import (
    HEAD_LIMIT,
    Head,
    ProtocolError,
    announced_size,
    read_body,
    read_head,
    request,
)
from data_layer.services.fetching.urls import (
    AddressPolicy,
    IPAddress,
    Resolve,
    SystemResolver,
    Url,
    is_public,
    parse_address,
    parse_url,
)

_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_ADDRESSES = 3
"""How many addresses of a name are tried, one after the other."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fetcher:
    """Fetches files over HTTP and HTTPS from public addresses only.

    | what a URL could be used for | why it does not work |
    | --- | --- |
    | reach an address of our own network | every address that the name has must be public |
    | change the name's address after the check | it is looked up once, and what was checked is what is connected to |
    | pass the check in a strange notation | numbers that are not a usual IPv4 address are refused |
    | redirect inside | each redirect is checked like the first URL, and there are few |
    | reach other services | only the ports 80 and 443, one GET without credentials, no proxy of the environment |
    | read another's answer | HTTPS needs a certificate that is valid for the name, and does not redirect to HTTP |
    | fill memory or disk | the size is limited as it arrives, and nothing is decompressed |
    | stay for ever | one limit of time for everything, however slowly it arrives |
    | map our network | a name without an address fails exactly as one with an internal address |

    Args:
        max_size: most bytes of a file.
        time_limit: seconds for everything from the first lookup to the last byte.
        max_redirects: how many redirects are followed.
        max_concurrent: how many files are fetched at once; others wait, within their limit of time.
        ports: those that a URL may name.
        is_allowed: which addresses may be reached.
        resolve: looks up the addresses of a name, by default by asking the system.
        tls: how certificates are verified, by default with the system's authorities.
    """

    def __init__(
        self,
        *,
        max_size: int,
        time_limit: float = 20.0,
        max_redirects: int = 3,
        max_concurrent: int = 32,
        ports: Collection[int] = (80, 443),
        is_allowed: AddressPolicy = is_public,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._max_size = max_size
        self._time_limit = time_limit
        self._max_redirects = max_redirects
        self._slots = asyncio.Semaphore(max_concurrent)
        self._ports = frozenset(ports)
        self._is_allowed = is_allowed
        self._system = SystemResolver()
        self._resolve = resolve or self._system
        self._given_tls = tls

    def close(self) -> None:
        """End the threads that look up names."""
        self._system.close()

    async def fetch(self, url: str) -> AsyncGenerator[bytes]:
        """The file at a URL, in pieces. What it is, only its bytes say: declared types and names are not believed.

        Close the generator if you do not read it to its end.

        Raises:
            InvalidUrlError: the URL may not be fetched, whatever is behind it.
            FetchAddressError: its host, or one that it redirects to, has no public address.
            FetchTimeoutError: it took longer than the limit of time.
            FetchError: the server could not be reached, or its answer is not a file.
            FileTooLargeError: the file is larger than the limit.
        """
        start = parse_url(url, self._ports)
        deadline = asyncio.get_running_loop().time() + self._time_limit
        async with aclosing(self._pieces(start)) as pieces:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        piece = await anext(pieces, None)
                except TimeoutError:
                    raise FetchTimeoutError(
                        f"{start.host} did not send the file within {self._time_limit:g} seconds; try again"
                    ) from None
                if piece is None:
                    return
                yield piece

    async def _pieces(self, start: Url) -> AsyncGenerator[bytes]:
        async with self._slots, self._answer(start) as (reader, head):
            size = announced_size(head)
            if size is not None and size > self._max_size:
                raise self._too_large(start)
            arrived = 0
            async for piece in read_body(reader, head):
                arrived += len(piece)
                if arrived > self._max_size:
                    raise self._too_large(start)
                yield piece

    @asynccontextmanager
    async def _answer(self, start: Url) -> AsyncIterator[tuple[asyncio.StreamReader, Head]]:
        """The first answer that is not a redirect; what goes wrong while it is read is translated here too.

        Messages name the host that was asked for, and not the hosts that it redirects to.
        """
        url = start
        for _ in range(self._max_redirects + 1):
            reader, writer = await self._connect(url, start)
            try:
                writer.write(request(url))
                head = await read_head(reader)
                if head.status not in _REDIRECTS:
                    if head.status != _OK:
                        raise FetchError(f"{start.host} answered with the status {head.status} instead of a file")
                    yield reader, head
                    return
                url = self._redirected(url, head, start)
            except (ProtocolError, EOFError, OSError) as error:
                raise _failed(start, error) from None
            finally:
                writer.transport.abort()
        raise FetchError(f"{start.host} redirects more than {self._max_redirects} times")

    def _redirected(self, url: Url, head: Head, start: Url) -> Url:
        location = head.one("location")
        if location is None:
            raise ProtocolError("redirects to nowhere")
        try:
            target = url.joined(location, self._ports)
        except InvalidUrlError:
            raise FetchError(f"{start.host} redirects to a URL that may not be fetched") from None
        if url.scheme == "https" and target.scheme != "https":
            raise FetchError(f"{start.host} redirects from https to http")
        return target

    async def _connect(self, url: Url, start: Url) -> Connection:
        reason: Exception = OSError()
        for address in (await self._addresses(url, start))[:_MOST_ADDRESSES]:
            try:
                async with asyncio.timeout(self._time_limit / (_MOST_ADDRESSES + 1)):
                    return await asyncio.open_connection(
                        *(str(address), url.port),
                        limit=HEAD_LIMIT,
                        ssl=self._tls if url.scheme == "https" else None,
                        server_hostname=url.host if url.scheme == "https" else None,
                    )
            except OSError as error:
                reason = error
        raise _failed(start, reason) from None

    async def _addresses(self, url: Url, start: Url) -> Sequence[IPAddress]:
        """All addresses of the host, if each of them may be reached: one that may not is a trap."""
        addresses: list[IPAddress | None] = [url.address]
        if url.address is None:
            addresses = []
            # A name that is unknown must look like one that is known inside only.
            with suppress(OSError, UnicodeError):
                addresses = [parse_address(text) for text in dict.fromkeys(await self._resolve(url.host))]
        allowed = [address for address in addresses if address is not None and self._is_allowed(address)]
        if not allowed or len(allowed) < len(addresses):
            where = start.host if url is start else f"a host that {start.host} redirects to"
            raise FetchAddressError(f"{where} has no public address, so nothing is fetched from it")
        return allowed

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made when it is first needed, because it reads the authorities from the disk."""
        return self._given_tls or ssl.create_default_context()

    def _too_large(self, start: Url) -> FileTooLargeError:
        return FileTooLargeError(f"the file at {start.host} is larger than {self._max_size} bytes (MAX_FILE_SIZE)")


def _failed(start: Url, error: Exception) -> FetchError:
    match error:
        case ProtocolError():
            return FetchError(f"{start.host} {error}")
        case EOFError():
            return FetchError(f"{start.host} closed the connection before the file was complete")
        case ssl.SSLCertVerificationError():
            return FetchError(f"{start.host} has no valid certificate")
        case ssl.SSLError():
            return FetchError(f"{start.host} does not speak TLS as it should")
        case _:  # Of a system's error the text names the address that was connected to.
            return FetchError(f"{start.host} cannot be reached")
