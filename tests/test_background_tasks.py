"""Work that outlives the request which began it belongs to no request: neither its id nor its patience."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from data_layer.concurrency import RegularFlush
from data_layer.context import Patience, Priority, current_context, current_patience, request_context, set_patience
from data_layer.errors import DataLayerError
from data_layer.services.files.thumbnails import ThumbnailMaker
from data_layer.services.openid.renewal import Renewed
from data_layer.services.sessions.change_stream import ChangeStream
from data_layer.services.sessions.copies import NearCopies
from data_layer.services.sessions.watermark import Watermark

OF_NONE = current_context(), current_patience()
Close = Callable[[], Awaitable[object]]


class Noticed(asyncio.Future[Any]):
    """Stands for whatever a task uses first, and learns on whose behalf it was used."""

    def use(self, *_: object) -> Any:
        if not self.done():
            self.set_result((current_context(), current_patience()))
        raise DataLayerError("this is enough")

    async def use_later(self) -> Any:
        self.use()


class Part:
    """Whatever is done with it notices."""

    def __init__(self, noticed: Noticed) -> None:
        self._noticed = noticed

    def __getattr__(self, _: str) -> Any:
        return self._noticed.use()

    def __call__(self) -> Any:
        return self._noticed.use()


async def follow_sessions(noticed: Noticed) -> Close:
    stream = ChangeStream(noticed.use_later, Watermark(), NearCopies())
    stream.start()
    return stream.close


async def make_thumbnails(noticed: Noticed) -> Close:
    part: Any = Part(noticed)
    maker = ThumbnailMaker(part, part, part, part)
    maker.start()
    maker.add("key")
    return maker.close


async def renew(noticed: Noticed) -> Close:
    now = 0.0
    loads = iter([asyncio.sleep(0, "first"), noticed.use_later()])
    renewed: Renewed[Any] = Renewed("keys", lambda: next(loads), lifetime=1, pause=0, clock=lambda: now)
    assert await renewed.get() == "first"
    now = 2
    assert await renewed.get() == "first"
    return lambda: asyncio.sleep(0)


async def flush_regularly(noticed: Noticed) -> Close:
    flush = RegularFlush(
        noticed.use_later,
        DataLayerError,
        lambda _: None,
        lambda _: None,
        seconds=1000,
        retry_seconds=1000,
        name="flush",
    )
    flush.start()
    flush.wake()
    return flush.close


@pytest.mark.parametrize("begin", [follow_sessions, make_thumbnails, renew, flush_regularly])
async def test_what_goes_on_in_the_background_belongs_to_no_request(
    begin: Callable[[Noticed], Awaitable[Close]],
) -> None:
    noticed = Noticed()

    async def request() -> Close:
        set_patience(Patience(Priority.ORDINARY, lambda: 1.0))
        with request_context(correlation_id="of a request"):
            return await begin(noticed)

    close = await asyncio.create_task(request())
    try:
        async with asyncio.timeout(30):
            assert await noticed == OF_NONE
    finally:
        await close()
