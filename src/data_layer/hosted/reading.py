"""Large bodies, read off the event loop: JSON, a prompt that is JSON in a text of it, images in Base64 in that.

A body may have 64 MiB, and four of one request come at once, with the same images. So two at most are taken apart at a
time, what was taken apart is let go, and equal images are one object for as long as any call works with them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakValueDictionary

import orjson
from fastapi import HTTPException

from data_layer.hosted import protocol
from data_layer.hosted.protocol import StoredGeneration
from data_layer.services.transfer.conversations import read_prompt

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)?(?:;[a-z0-9-]+=[^;,]*)*;base64,", re.IGNORECASE)
_PIECE = 3 * 2**18
"""Characters of Base64 that are decoded at once: other threads run in between."""
_AT_ONCE = 2


class Medium:
    """An image or a video out of a data URL, and its hash."""

    __slots__ = ("__weakref__", "content", "sha256")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content).digest()


@dataclass(frozen=True, slots=True)
class ReadStore:
    """A body of /generations/store, taken apart.

    Attributes:
        generation: what is to be stored; its prompt has no media any more.
        media: its images and its video, each once.
        addresses: of media that were named by an address.
        unreadable: how many data URLs could not be read.
    """

    generation: StoredGeneration
    media: tuple[Medium, ...]
    addresses: tuple[str, ...]
    unreadable: int


class _Share(Protocol):
    def __call__(self, content: bytes) -> Medium: ...


class BodyReader:
    """Parses bodies in threads, a few at once; equal images are one object."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._media: WeakValueDictionary[bytes, Medium] = WeakValueDictionary()

    async def store(self, body: bytearray) -> ReadStore:
        """Read a body of /generations/store.

        Raises:
            HTTPException: 400 for anything but a JSON object.
            InvalidValueError: what a page cannot be stored without is missing.
        """
        async with self._slots:
            return await asyncio.to_thread(_read_store, body, self._shared)

    async def object(self, body: bytearray) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            HTTPException: 400 for everything else.
        """
        async with self._slots:
            return await asyncio.to_thread(_read_object, body)

    async def medium(self, url: str) -> Medium | None:
        """Read a data URL; None for one that cannot be read."""
        async with self._slots:
            return await asyncio.to_thread(_decode, url, self._shared)

    def _shared(self, content: bytes) -> Medium:
        medium = Medium(content)
        return self._media.setdefault(medium.sha256, medium)


def _read_store(body: bytearray, share: _Share) -> ReadStore:
    values = _read_object(body)
    text = values.pop("prompt", None)
    prompt = read_prompt(_load(text) if isinstance(text, str) else text)
    generation = protocol.read_store(values, replace(prompt, media=()))
    urls = [*prompt.media, *([] if generation.video is None else [generation.video])]
    media, addresses, unreadable = _read_media(urls, share)
    return ReadStore(replace(generation, video=None), media, addresses, unreadable)


def _read_media(urls: list[str], share: _Share) -> tuple[tuple[Medium, ...], tuple[str, ...], int]:
    media: dict[bytes, Medium] = {}
    addresses, unreadable = [], 0
    for url in urls:
        if url[:5].lower() != "data:":
            addresses.append(url[:2048])
            continue
        medium = _decode(url, share)
        if medium is None:
            unreadable += 1
        else:
            media[medium.sha256] = medium
    return tuple(media.values()), tuple(dict.fromkeys(addresses)), unreadable


def _decode(url: str, share: _Share) -> Medium | None:
    start = _DATA_URL.match(url)
    if start is None or not url.isascii():
        return None
    content = bytearray()
    try:
        for place in range(start.end(), len(url), _PIECE):
            content += base64.b64decode(url[place : place + _PIECE], validate=True)
    except binascii.Error:
        return None
    return share(bytes(content)) if content else None


def _read_object(body: bytearray) -> dict[str, Any]:
    value = _load(body)
    if not isinstance(value, Mapping):
        raise HTTPException(400, "the body must be a JSON object")
    return dict(value)


def _load(text: str | bytearray) -> Any:
    """The value of a JSON text, with the halves of surrogate pairs that only Python's own module reads and writes.

    None for anything but JSON.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
