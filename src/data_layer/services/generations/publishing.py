"""Send what writers receive to Redis or Valkey, for followers in any process, and read it there.

Nobody waits for it: each generation has one entry under way at a time, and what arrives meanwhile becomes the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

from data_layer.cache import Cache
from data_layer.cache.streams import Stream
from data_layer.concurrency import cancel_and_wait
from data_layer.errors import CacheError, InvalidCacheValueError
from data_layer.services.generations.live import (
    LIVE_SECONDS,
    LIVE_TIME_TO_LIVE,
    Change,
    LiveEntry,
    Unpublished,
    live_key,
    new_tag,
    pack_entry,
    unpack_entry,
)

_RETRY_SECONDS = 1.0
_ENTRY_SIZE = 2**20
_CLOSE_SECONDS = 2.0


class PublishedVariant(Protocol):
    """A variant that is being written."""

    unpublished: Unpublished

    @property
    def is_published(self) -> bool:
        """Whether followers know everything."""

    def take_change(self) -> Change:
        """What they do not know yet."""


class LiveStreams:
    """The streams of running generations."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._tasks: set[asyncio.Task[None]] = set()

    def stream(self, generation_id: UUID) -> Stream:
        """The stream of a generation."""
        return self._cache.stream(live_key(generation_id), ttl=LIVE_TIME_TO_LIVE)

    def sender(self, generation_id: UUID, writer: str, variants: Sequence[PublishedVariant]) -> Sender:
        """What sends the changes of these variants."""
        return Sender(self, self.stream(generation_id), new_tag(writer), variants)

    def announce(self, generation_id: UUID, ended: Sequence[int]) -> None:
        """Have followers look for the end of these variants, which is stored; without it they look a little later."""

        async def announce() -> None:
            with suppress(CacheError):
                await self.stream(generation_id).append(pack_entry("", [], ended))

        if ended:
            self.run(announce())

    async def entries(self, generation_id: UUID) -> list[LiveEntry]:
        """Everything that is in a stream; nothing if the server cannot be reached."""
        try:
            found, _ = await read_all(self.stream(generation_id))
        except CacheError:
            return []
        return found

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this in the background."""
        task = asyncio.create_task(work, name="generation-publishing")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give what is under way a moment."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        await cancel_and_wait(*self._tasks)


class Sender:
    """Publishes the variants of one generation."""

    def __init__(self, streams: LiveStreams, stream: Stream, tag: str, variants: Sequence[PublishedVariant]) -> None:
        self._streams = streams
        self._stream = stream
        self._tag = tag
        self._variants = variants
        self._is_sending = False
        self._not_before = 0.0

    def send(self, *, at_once: bool = False) -> None:
        """Begin to send what is new, unless something is under way, or was sent just now."""
        now = monotonic()
        if self._is_sending or (now < self._not_before and not at_once):
            return
        if not all(variant.is_published for variant in self._variants):
            self._is_sending = True
            self._not_before = now + LIVE_SECONDS
            self._streams.run(self._send())

    async def _send(self) -> None:
        try:
            waiting = [variant for variant in self._variants if not variant.is_published]
            while waiting:
                waiting = waiting[await self._send_some(waiting) :]
        except (CacheError, InvalidCacheValueError):
            self._not_before = monotonic() + _RETRY_SECONDS
        finally:
            self._is_sending = False

    async def _send_some(self, waiting: Sequence[PublishedVariant]) -> int:
        """Send as many as fit into one entry; how many they were."""
        size = 0
        taken: list[Change] = []
        for variant in waiting:
            taken.append(variant.take_change())
            size += len(taken[-1].text or "") + sum(len(payload) for _, _, payload in taken[-1].events)
            if size > _ENTRY_SIZE:
                break
        try:
            await self._stream.append(pack_entry(self._tag, taken))
        except BaseException:
            for variant, change in zip(waiting, taken, strict=False):
                variant.unpublished.put_back(change)
            raise
        return len(taken)


async def read_all(stream: Stream, after: str | None = None) -> tuple[list[LiveEntry], str | None]:
    """The entries that follow, and the id of the last one.

    Raises:
        CacheError: the server cannot be reached.
    """
    entries: list[LiveEntry] = []
    while found := await stream.read(after):
        entries += [
            entry._replace(at=int(each.id.partition("-")[0]))
            for each in found
            if (entry := unpack_entry(each.value)) is not None
        ]
        after = found[-1].id
    return entries, after
