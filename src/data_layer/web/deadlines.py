"""How long a request may take, how it waits for the database, and how long callers wait who never repeat theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping
from functools import partial
from types import TracebackType, coroutine
from typing import TYPE_CHECKING, Any, Self, TypeVar

from data_layer.context import Patience, Priority
from data_layer.errors import DeadlineExceededError

if TYPE_CHECKING:
    from starlette.types import Message, Receive

    from data_layer.settings.service import ServiceSettings


Result = TypeVar("Result")

ORDINARY = Patience(Priority.ORDINARY)
"""How requests wait whose callers repeat them."""
PROBE = Patience(Priority.PROBE)
UNREPEATED = Patience(Priority.SHED_LAST)
"""How requests wait that nobody sends again, and that have no deadline."""
_SHARE = 0.75
TRY_AGAIN = "a server that is needed for it is slow or away; try again in a moment"
"""What people are advised where no request has an Idempotency-Key."""
_ADVICE = "what it was to change may have happened: look, or send it again with the same Idempotency-Key"


def seconds_for(settings: ServiceSettings, *, takes_long: bool) -> float | None:
    """The time that a request has (REQUEST_DEADLINE); None: any."""
    return None if takes_long else settings.request_deadline or None


class Deadline:
    """Cancels what a block awaits when its time is over; an asynchronous context manager.

    Args:
        seconds: its time; None: any.
        advice: what the caller is advised to do when it is over.
    """

    __slots__ = ("_advice", "_is_paused", "_limit", "_seconds")

    def __init__(self, seconds: float | None, advice: str = _ADVICE) -> None:
        self._seconds = seconds
        self._advice = advice
        self._is_paused = False
        self._limit: asyncio.Timeout | None = None

    async def __aenter__(self) -> Self:
        self._limit = asyncio.timeout(None if self._is_paused else self._seconds)
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the block.

        Raises:
            DeadlineExceededError: it was cancelled because its time was over.
        """
        limit, self._limit = self._limit, None
        try:
            if limit is not None:
                await limit.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise DeadlineExceededError(
                f"the request was cancelled after {self._seconds:g} s; {self._advice}"
            ) from None

    def patience(self) -> Patience:
        """How a request waits that is shed last: for most of the time that it has left, so that 503 comes before."""
        return Patience(Priority.SHED_LAST, self._most_of_what_is_left)

    def without(self, receive: Receive) -> Receive:
        """Receive the messages of a request without its time running: connections have limits of their own."""
        if self._seconds is None:
            return receive
        seconds = self._seconds

        async def receive_in_time() -> Message:
            self._run_until(None)
            try:
                return await receive()
            finally:
                self._run_until(asyncio.get_running_loop().time() + seconds)

        return receive_in_time

    def _most_of_what_is_left(self) -> float | None:
        moment = None if self._limit is None else self._limit.when()
        if moment is None:  # It does not run.
            return None if self._seconds is None else _SHARE * self._seconds
        return _SHARE * max(0.0, moment - asyncio.get_running_loop().time())

    def _run_until(self, moment: float | None) -> None:
        self._is_paused = moment is None
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(moment)


async def within(seconds: float | None, work: Callable[[Deadline], Coroutine[Any, Any, Result]]) -> Result:
    """Return what work returns, which is cancelled when its time is over.

    Its time begins when it waits for something. Most reads never do, because the cache answers, and need no timer.

    Args:
        seconds: its time; None: any.
        work: begins it.

    Raises:
        DeadlineExceededError: its time was over.
    """
    deadline = Deadline(seconds)
    working = work(deadline)
    try:
        waits_for = working.send(None)
    except StopIteration as ended:
        result: Result = ended.value
        return result
    async with deadline:
        return await _rest_of(working, waits_for)


@coroutine
def _rest_of(work: Coroutine[Any, Any, Result], waits_for: Any) -> Generator[Any, Any, Result]:
    """What a coroutine still does that was started and waits for something, as ``yield from`` would have it."""
    while True:
        try:
            got = yield waits_for
        except BaseException as error:  # noqa: BLE001  (a cancellation, too, is for what waits)
            step: Callable[[], Any] = partial(work.throw, error)
        else:
            step = partial(work.send, got)
        try:
            waits_for = step()
        except StopIteration as ended:
            result: Result = ended.value
            return result


STORE = "/generations/store"
STORE_IMAGE_DATA = "/assets/store_image_data"
STORE_IMAGE_URL = "/assets/store_image_url"
HAS_CREDITS = "/credits/has_credits"
"""It is repeated, but not after an answer, and any answer but yes stops what a person does."""

PATIENCE: Mapping[str, float] = {STORE: 10.0, STORE_IMAGE_DATA: 45.0, STORE_IMAGE_URL: 45.0, HAS_CREDITS: 60.0}

HELD_SECONDS: Mapping[str, float] = {
    **{path: seconds - 1 for path, seconds in PATIENCE.items()},
    # Its caller waits for ten seconds, and loses the page whatever it hears then. A request that was sent whole is
    # there also when its caller has gone, and is stored as soon as somebody can.
    STORE: 60.0,
}
"""For how many seconds a call waits for a process that is starting: until its caller is about to give up, so that it
sees the reason; a page for as long as anything is tried for it."""
