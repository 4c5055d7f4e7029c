"""Pages of a person are stored one request after the other, and variants of a request that wait in one transaction.

The database lets one transaction at a time change the lineage of a person's projects. Calls that wait for that wait
here, without a connection. Four variants that complete together are two transactions: the first one's, and that of the
three that waited for it.

Calls are never repeated, so while what they need is away they are held instead of being refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from data_layer.concurrency import Backoff
from data_layer.errors import (
    DamagedCodeError,
    DatabaseError,
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DataLayerError,
    MigrationError,
    SchemaMismatchError,
    StorageUnavailableError,
)
from data_layer.observability.log import get_log
from data_layer.schemas.generations import GenerationView
from data_layer.schemas.lineage import ReceivedGeneration

Receive = Callable[[ReceivedGeneration, UUID], Awaitable[GenerationView]]


class _Call:
    """A page that is to be stored, and what became of it."""

    def __init__(self, received: ReceivedGeneration) -> None:
        self.received = received
        self.outcome: GenerationView | DataLayerError | None = None


class _Line:
    """The calls of a person that are under way, in the order in which they came; one at a time stores pages."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.turn = asyncio.Lock()


class Turns:
    """Stores pages.

    Args:
        receive: stores a request with any number of variants for a person; it may be repeated.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._lines: dict[UUID, _Line] = {}

    async def store(self, received: ReceivedGeneration, owner_id: UUID) -> GenerationView:
        """Store a page when it is its turn, unless a call before has taken it along.

        Raises:
            DataLayerError: it could not be stored now.
        """
        line = self._lines.setdefault(owner_id, _Line())
        call = _Call(received)
        line.calls.append(call)
        try:
            async with line.turn:
                if call.outcome is None:
                    await self._store(_same_request(call, line.calls), owner_id)
        finally:
            line.calls.remove(call)
            if not line.calls:
                del self._lines[owner_id]
        if isinstance(call.outcome, GenerationView):
            return call.outcome
        raise call.outcome or RuntimeError("the page was neither stored nor refused")

    async def _store(self, calls: list[_Call], owner_id: UUID) -> None:
        outcome: GenerationView | DataLayerError
        try:
            outcome = await self._receive(_merged([call.received for call in calls]), owner_id)
        except DatabaseError as error:
            outcome = error
        except DataLayerError as error:
            if len(calls) > 1:  # What is wrong with one page must not refuse the others.
                await self._store(calls[:1], owner_id)
                return
            outcome = error
        for call in calls:
            call.outcome = outcome


def _same_request(first: _Call, calls: list[_Call]) -> list[_Call]:
    """A call, and those that bring other variants of its request."""
    chosen = {_index(first): first}
    for call in calls:
        is_same = (call.received.source, call.received.key) == (first.received.source, first.received.key)
        if is_same and call.outcome is None:
            chosen.setdefault(_index(call), call)
    return list(chosen.values())


def _index(call: _Call) -> tuple[int, ...]:
    return tuple(variant.index for variant in call.received.variants)


def _merged(received: list[ReceivedGeneration]) -> ReceivedGeneration:
    """A request with the variants and images of all."""
    images = {image.file_id: image for each in received for image in each.images}
    variants = tuple(variant for each in received for variant in each.variants)
    return received[0].model_copy(update={"variants": variants, "images": tuple(images.values())})


log = get_log(__name__)
Result = TypeVar("Result")

_PASSING = (DatabaseError, StorageUnavailableError)
_LASTING = (
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DamagedCodeError,
    MigrationError,
    SchemaMismatchError,
)
"""What no waiting heals."""


async def held(
    attempt: Callable[[], Awaitable[Result]],
    seconds: float,
    *,
    and_for: tuple[type[DataLayerError], ...] = (),
) -> Result:
    """Try until it works, or until that many seconds are over.

    Args:
        attempt: may be repeated harmlessly, also after it has worked without anybody having learnt it.
        seconds: how long no further attempt is begun.
        and_for: errors after which it is repeated, in addition to those of a database or a storage that is away.

    Raises:
        DataLayerError: of the last attempt.
    """
    clock = asyncio.get_running_loop().time
    deadline, pauses = clock() + seconds, Backoff(0.1, 1.0, jitter=0.3)
    while True:
        try:
            return await attempt()
        except DataLayerError as error:
            pause = pauses.next()
            if (
                not isinstance(error, (*_PASSING, *and_for))
                or isinstance(error, _LASTING)
                or clock() + pause > deadline
            ):
                raise
            log.warning("hosted_call_held", reason=error.code)
            await asyncio.sleep(pause)
