"""As much of HTTP/1.1 as a client needs that asks once on each connection: RFC 9112, strictly, without compression."""

from __future__ import annotations

import re
from asyncio import LimitOverrunError, StreamReader
from collections.abc import AsyncIterator
from dataclasses import dataclass

from data_layer.services.fetching.urls import Url

HEAD_LIMIT = 32 * 1024
"""Most bytes of a status line with its headers. It is the limit of the ``StreamReader`` that is read from."""

_PIECE = 64 * 1024
_LONGEST_CHUNK_LINE = 256
_MOST_INTERIM_RESPONSES = 5
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n\x00]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*?)[ \t]*")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}")
_SWITCHING_PROTOCOLS, _FIRST_FINAL_STATUS = 101, 200


class ProtocolError(Exception):
    """The server sent something that cannot be used; the text says what, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer; names of headers are in lower case."""

    status: int
    headers: dict[str, list[str]]

    def one(self, name: str) -> str | None:
        """The value of a header that may occur once.

        Raises:
            ProtocolError: it has several values that differ.
        """
        values = set(self.headers.get(name, ()))
        if len(values) > 1:
            raise ProtocolError(f"sent several values of the header {name}")
        return values.pop() if values else None


def request(url: Url) -> bytes:
    """The request, which asks for the bytes as they are and for one answer."""
    lines = (
        f"GET {url.target} HTTP/1.1",
        f"Host: {url.authority}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "User-Agent: data-layer",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


async def read_head(reader: StreamReader) -> Head:
    """The beginning of the final answer.

    Raises:
        ProtocolError: it is not one.
        EOFError: the connection ended.
    """
    for _ in range(_MOST_INTERIM_RESPONSES):
        head = await _read_head(reader)
        if head.status == _SWITCHING_PROTOCOLS:
            break
        if head.status >= _FIRST_FINAL_STATUS:
            return head
    raise ProtocolError("sent no final answer")


async def _read_head(reader: StreamReader) -> Head:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except LimitOverrunError:
        raise ProtocolError(f"sent headers of more than {HEAD_LIMIT} bytes") from None
    first, *lines = raw[:-4].split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise ProtocolError("did not answer with HTTP/1.1")
    headers: dict[str, list[str]] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise ProtocolError("sent a header that cannot be read")
        headers.setdefault(header[1].decode().lower(), []).append(header[2].decode(errors="replace"))
    return Head(int(status_line[1]), headers)


def announced_size(head: Head) -> int | None:
    """The size of the body, where the server says it in advance.

    Raises:
        ProtocolError: it is not a number, or the body is compressed or packed in an unknown way.
    """
    if (head.one("content-encoding") or "identity").lower() != "identity":
        raise ProtocolError("compressed its answer, which it was asked not to do")
    if head.one("transfer-encoding") is not None:
        return None
    length = head.one("content-length")
    if length is None:
        return None
    if _LENGTH.fullmatch(length) is None:
        raise ProtocolError("sent a length that is not a number")
    return int(length)


async def read_body(reader: StreamReader, head: Head) -> AsyncIterator[bytes]:
    """The body in pieces; nobody limits here how many there are.

    Raises:
        ProtocolError: it is broken.
        EOFError: the connection ended before the body did.
    """
    encoding = head.one("transfer-encoding")
    size = announced_size(head)
    if encoding is not None:
        if encoding.lower() != "chunked":
            raise ProtocolError("packed its answer in an unknown way")
        async for piece in _chunked(reader):
            yield piece
    elif size is not None:
        async for piece in _exactly(reader, size):
            yield piece
    else:
        while piece := await reader.read(_PIECE):
            yield piece


async def _chunked(reader: StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await reader.readuntil(b"\r\n")
        except LimitOverrunError:
            line = b""
        chunk = _CHUNK_LINE.fullmatch(line) if len(line) <= _LONGEST_CHUNK_LINE else None
        if chunk is None:
            raise ProtocolError("sent a chunk that cannot be read")
        size = int(chunk[1], 16)
        if size == 0:
            return  # Trailers may follow, which nobody reads.
        async for piece in _exactly(reader, size):
            yield piece
        if await reader.readexactly(2) != b"\r\n":
            raise ProtocolError("sent a chunk that cannot be read")


async def _exactly(reader: StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await reader.read(min(size, _PIECE))
        if not piece:
            raise EOFError
        size -= len(piece)
        yield piece
