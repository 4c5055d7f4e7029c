"""Bodies in gzip and zstd, both ways (RFC 9110, 8.4 and 12.5.3).

| body | |
| --- | --- |
| JSON, text or a page of 1 KiB or more | compressed as the client prefers, zstd before gzip; longer ones in a thread |
| server-sent events, progress | each piece alone, once for all streams that get it; rather in gzip: see ``_Events`` |
| images, parts of files, what is encoded already | as it is |
| a request's body | decompressed up to the limit of the route, in a thread; what has more is refused with 413 |

An encoded answer is another representation, so a strong ETag gets the name of its encoding: ``"r3"`` becomes
``"r3+zstd"``. Routes never see that: the name is taken away from ``If-Match`` and ``If-None-Match``.
"""

from __future__ import annotations

import asyncio
import re
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import zstandard
from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_layer.text_cache import cached_by_text
from data_layer.web.conditions import qualities

SMALLEST = 1024
_LARGE = 64 * 1024
_LEVELS = {"zstd": 3, "gzip": 5}
_TYPES = (b"application/json", b"application/problem+json", b"text/")
_EVENTS = b"text/event-stream"
_CONDITIONS = (b"if-match", b"if-none-match")
_TAGGED = re.compile(rb'\+(?:gzip|zstd)"')
_GZIP = 16  # Added to the number of bits of zlib's window.
_ZSTD_FOR_EVENTS = zstandard.ZstdCompressionParameters(
    window_log=10, hash_log=6, chain_log=6, search_log=1, min_match=4, strategy=zstandard.STRATEGY_FAST
)


class Compressor(Protocol):
    """Compresses a stream."""

    def compress(self, data: bytes, /) -> bytes:
        """What is ready of it."""

    def flush(self, mode: int = ..., /) -> bytes:
        """The rest, of what came so far or of all."""


class CompressionMiddleware:
    """Compresses answers; small ones pass without being touched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepted, known = b"", b""
        for name, value in scope["headers"]:
            if name == b"accept-encoding":
                accepted = value
            elif name in _CONDITIONS and _TAGGED.search(value):
                known = value
        encodings = accepted_encodings(accepted)
        if not encodings and not known:
            await self._app(scope, receive, send)
            return
        if known:
            scope = {**scope, "headers": [_without_encoding(*header) for header in scope["headers"]]}
        await self._app(scope, receive, _Answer(send, encodings, known, is_head=scope["method"] == "HEAD").send)


@cached_by_text(256)
def accepted_encodings(accept_encoding: bytes) -> tuple[str, ...]:
    """The encodings that a client takes and there are here, the one that it wants most first."""
    if not accept_encoding:
        return ()
    wanted = qualities(accept_encoding.decode("latin-1"))
    weights = {name: wanted.get(name, wanted.get("*", 0.0)) for name in _LEVELS}
    found = [name for name, weight in weights.items() if weight > 0 and weight >= wanted.get("identity", 0.0)]
    return tuple(sorted(found, key=lambda name: -weights[name]))


class _Answer:
    """Holds the head of an answer until its first bytes show whether it is worth the work."""

    __slots__ = ("_compressor", "_encodings", "_flush", "_head", "_is_head", "_known", "_send")

    def __init__(self, send: Send, encodings: tuple[str, ...], known: bytes, *, is_head: bool) -> None:
        self._send = send
        self._encodings = encodings
        self._known = known
        self._is_head = is_head
        self._head: Message | None = None
        self._compressor: Compressor | None = None
        self._flush: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self._compressor is not None:
            await self._continue(self._compressor, message)
        elif self._head is not None:
            head, self._head = self._head, None
            await self._decide(head, message)
        else:
            await self._send(message)

    async def _begin(self, head: Message) -> None:
        headers = dict(head.get("headers", ()))
        if head["status"] == 304 and b"etag" in headers:
            _change(head, etag=self._as_known(headers[b"etag"]))
        kind = headers.get(b"content-type", b"")
        is_whole = head["status"] >= 200 and head["status"] not in {204, 206, 304}
        if not self._encodings or not is_whole or not kind.startswith(_TYPES) or _is_settled(headers):
            await self._send(head)
        elif kind.startswith(_EVENTS) or headers.get(b"x-accel-buffering") == b"no":
            # What no proxy may hold back, this does not either.
            encoding = "gzip" if "gzip" in self._encodings else self._encodings[0]
            self._compressor, self._flush = _event_compressor(encoding)
            _announce(head, encoding, None)
            await self._send(head)
        elif self._is_head:
            if int(headers.get(b"content-length", b"0")) >= SMALLEST:
                _announce(head, self._encodings[0], None)
            await self._send(head)
        else:
            self._head = head

    async def _decide(self, head: Message, message: Message) -> None:
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if is_last and len(body) < SMALLEST:
            await self._send(head)
            await self._send(message)
            return
        encoding = self._encodings[0]
        if not is_last:
            self._compressor = _compressor(encoding)
            _announce(head, encoding, None)
            await self._send(head)
            await self._continue(self._compressor, message)
            return
        packed = await _in_thread(_pack, encoding, body) if len(body) >= _LARGE else _pack(encoding, body)
        _announce(head, encoding, len(packed))
        await self._send(head)
        await self._send({**message, "body": packed})

    async def _continue(self, compressor: Compressor, message: Message) -> None:
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        compress = compressor.compress
        packed = await _in_thread(compress, body) if len(body) >= 4 * _LARGE else compress(body)
        if is_last:
            packed += compressor.flush()
        elif self._flush is not None:
            packed += compressor.flush(self._flush)
        if packed or is_last:
            await self._send({**message, "body": packed})

    def _as_known(self, etag: bytes) -> bytes:
        """The tag of what has not changed, as the client has it."""
        tags = (etag[:-1] + b"+" + name.encode() + b'"' for name in _LEVELS)
        return next((tag for tag in tags if tag in self._known), etag)


def _announce(head: Message, encoding: str, length: int | None) -> None:
    headers = dict(head["headers"])
    etag, vary = headers.get(b"etag"), headers.get(b"vary")
    if etag is not None and etag.startswith(b'"'):
        etag = etag[:-1] + b"+" + encoding.encode() + b'"'
    changes = {
        "content-encoding": encoding.encode(),
        "content-length": None if length is None else str(length).encode(),
        "etag": etag,
        "vary": b"accept-encoding" if vary is None else vary + b", accept-encoding",
    }
    _change(head, **changes)


def _without_encoding(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return name, _TAGGED.sub(b'"', value) if name in _CONDITIONS else value


def _is_settled(headers: dict[bytes, bytes]) -> bool:
    """Whether an answer is encoded already, or can be asked for in parts."""
    return b"content-encoding" in headers or b"accept-ranges" in headers


def _change(head: Message, **changes: bytes | None) -> None:
    names = {name.encode() for name in changes}
    kept = [(name, value) for name, value in head["headers"] if name not in names]
    head["headers"] = kept + [(name.encode(), value) for name, value in changes.items() if value is not None]


def _pack(encoding: str, body: bytes) -> bytes:
    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=_LEVELS["zstd"]).compress(body)
    return zlib.compress(body, _LEVELS["gzip"], _GZIP + zlib.MAX_WBITS)


def _compressor(encoding: str) -> Compressor:
    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=_LEVELS["zstd"]).compressobj()
    return zlib.compressobj(_LEVELS["gzip"], zlib.DEFLATED, _GZIP + zlib.MAX_WBITS)


def _event_compressor(encoding: str) -> tuple[Compressor, int]:
    """One that needs little memory, as thousands of streams are open at once; and how it flushes."""
    if encoding == "zstd":
        compressor = zstandard.ZstdCompressor(compression_params=_ZSTD_FOR_EVENTS)
        return compressor.compressobj(), zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return _Events(), zlib.Z_SYNC_FLUSH


class _Events:
    """A stream in gzip (RFC 1952) whose pieces refer to none before them, so that other streams can have them too.

    It keeps eight bytes where a compressor needs twelve thousand, and an event that goes to a hundred followers is
    compressed once. What repeats from one event to the next takes its full place each time.
    """

    __slots__ = ("_checksum", "_has_begun", "_size")

    def __init__(self) -> None:
        self._checksum = self._size = 0
        self._has_begun = False

    def compress(self, data: bytes, /) -> bytes:
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        piece = (_shared_piece if len(data) <= _MOST_SHARED else _piece)(data)
        if self._has_begun:
            return piece
        self._has_begun = True
        return _GZIP_HEAD + piece

    def flush(self, mode: int = zlib.Z_FINISH, /) -> bytes:
        if mode != zlib.Z_FINISH:
            return b""  # Each piece ends at a byte.
        head = b"" if self._has_begun else _GZIP_HEAD
        return head + _LAST_PIECE + struct.pack("<II", self._checksum, self._size % 2**32)


_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # Deflate, no time, an unknown system.
_LAST_PIECE = b"\x03\x00"  # The last block, without content.
_MOST_SHARED = 16 * 1024
_PIECES = 256
_SMALLEST_WINDOW = 9


def _piece(data: bytes) -> bytes:
    """Blocks of deflate that end at a byte, with a window of no more than the data needs."""
    if not data:
        return b""
    bits = min(max(len(data).bit_length(), _SMALLEST_WINDOW), zlib.MAX_WBITS)
    compressor = zlib.compressobj(_LEVELS["gzip"], zlib.DEFLATED, -bits, bits - _SMALLEST_WINDOW + 2)
    return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)


_shared_piece = lru_cache(maxsize=_PIECES)(_piece)


async def _in_thread(work: Callable[..., bytes], *values: Any) -> bytes:
    return await asyncio.to_thread(work, *values)


_FED = 256
"""Bytes of zstd that are decompressed at once: more than 8 MiB never come of them."""
_LARGEST_WINDOW = 8 * 2**20
LARGEST_DECOMPRESSED = 28 * 2**20
"""Bytes of a body that came compressed. It is held in memory whole, unlike the file of a form that comes as it is."""


def decompressed(receive: Receive, content_encoding: str, most: int) -> Receive:
    """The messages of a request whose body came compressed.

    Args:
        receive: the messages as they came.
        content_encoding: the header of the request.
        most: bytes that the body may have, compressed and decompressed; 28 MiB at most.

    Raises:
        HTTPException: 415 for an encoding that is not known here. Reading it: 400 where it is damaged, 413 where it has
            more bytes.
    """
    unpack = {"gzip": _unpack_gzip, "x-gzip": _unpack_gzip, "zstd": _unpack_zstd}.get(content_encoding.strip().lower())
    if unpack is None:
        raise HTTPException(415, "Content-Encoding may be gzip or zstd", {"accept-encoding": "gzip, zstd"})
    most = min(most, LARGEST_DECOMPRESSED)
    is_read = False

    async def receive_decompressed() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        packed = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return message
            packed += message.get("body", b"")
            more = message.get("more_body", False)
        is_read = True
        body = await _in_thread(unpack, bytes(packed), most) if packed else b""
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_decompressed


def _unpack_gzip(packed: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(_GZIP + zlib.MAX_WBITS)
    try:
        body = unpacker.decompress(packed, most + 1)
    except zlib.error:
        raise _damaged("gzip") from None
    return _checked(body, most, is_whole=unpacker.eof and not unpacker.unused_data, encoding="gzip")


def _unpack_zstd(packed: bytes, most: int) -> bytes:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
    body = bytearray()
    start = 0
    try:
        while start < len(packed) and len(body) <= most and not unpacker.eof:
            body += unpacker.decompress(packed[start : start + _FED])
            start += _FED
    except zstandard.ZstdError:
        raise _damaged("zstd") from None
    is_whole = unpacker.eof and not unpacker.unused_data and start >= len(packed)
    return _checked(bytes(body), most, is_whole=is_whole, encoding="zstd")


def _checked(body: bytes, most: int, *, is_whole: bool, encoding: str) -> bytes:
    if len(body) > most:
        raise HTTPException(413, f"the body may have {most} bytes at most, decompressed")
    if not is_whole:
        raise _damaged(encoding)
    return body


def _damaged(encoding: str) -> HTTPException:
    return HTTPException(400, f"the body is not one whole piece of {encoding}")
