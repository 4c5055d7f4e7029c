"""Brings commands to the right server, whatever stands in the way, and comes back with the answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hiredis import ReplyError

from data_layer.cache.errors import LineFailure, LineLost, translate
from data_layer.cache.wire.line import pack
from data_layer.errors import CacheError, CacheTimeoutError, CacheUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_layer.cache.wire.line import Line
    from data_layer.cache.wire.parcel import Parcel
    from data_layer.cache.wire.primary import Primary
    from data_layer.cache.wire.routing import Routing

_MAXIMUM_DETOURS = 8
_ASKING = pack(("ASKING",))


class Delivery:
    """Sends parcels, and repeats them where that is allowed.

    A parcel whose connection broke is sent once more if it is repeatable. One that was certainly not carried out is
    sent again and again, within the time limit: it was not even written, or the server is no primary any more, or refused it
    because another one holds its keys.

    Args:
        time_limit: seconds for a parcel with all that may have to be done for it.
    """

    def __init__(self, routing: Routing, time_limit: float) -> None:
        self._routing = routing
        self._time_limit = time_limit

    async def deliver(self, parcel: Parcel, answers: list[Any] | None = None) -> list[Any]:
        """The answers, among them ``ReplyError``; ``answers`` are those of a first attempt that has been made.

        Raises:
            CacheError: when there are no answers.
        """
        try:
            async with asyncio.timeout(self._time_limit):
                answers = await self._insist(parcel, answers)
        except TimeoutError:
            name = parcel.primary.name if parcel.primary is not None else "its address"
            raise CacheTimeoutError(f"Redis at {name} did not answer within REDIS_COMMAND_TIMEOUT") from None
        finally:
            parcel.leave(answers[-1] if answers else None)
        return answers

    async def deliver_all(self, parcels: Sequence[Parcel]) -> list[list[Any] | CacheError]:
        """The same for many, which travel together to each server; an error takes the place of answers."""
        try:
            if any(self._routing.find(parcel.key) is None for parcel in parcels):
                await self._routing.discover()
        except CacheError as error:
            return [error] * len(parcels)
        groups: dict[Primary | None, list[Parcel]] = {}
        for parcel in parcels:
            primary = self._routing.find(parcel.key)
            groups.setdefault(primary, []).append(parcel)
            if primary is not None:
                _begin(parcel, primary, primary.gate.line)
        try:
            return await self._finish_all(parcels, groups)
        finally:
            for parcel in parcels:
                parcel.leave()

    async def _finish_all(
        self, parcels: Sequence[Parcel], groups: dict[Primary | None, list[Parcel]]
    ) -> list[list[Any] | CacheError]:
        work = [self._finish_group(primary, group) for primary, group in groups.items()]
        # One server is the common case, and needs no task.
        ended = [await work[0]] if len(work) == 1 else await asyncio.gather(*work)
        outcomes = {id(parcel): outcome for group in ended for parcel, outcome in group}
        return [outcomes[id(parcel)] for parcel in parcels]

    async def _finish_group(
        self, primary: Primary | None, group: Sequence[Parcel]
    ) -> list[tuple[Parcel, list[Any] | CacheError]]:
        if primary is not None:
            await _begin_the_rest(primary, group)
        outcomes: list[tuple[Parcel, list[Any] | CacheError]] = []
        in_vain: CacheError | None = None
        for parcel in group:
            outcome = await self._finish(parcel, in_vain)
            if isinstance(outcome, CacheUnavailableError | CacheTimeoutError):
                in_vain = outcome
            outcomes.append((parcel, outcome))
        return outcomes

    async def _finish(self, parcel: Parcel, in_vain: CacheError | None) -> list[Any] | CacheError:
        """With a server that just failed it is not tried again for each of hundreds of commands."""
        answers = [await waiter for waiter in parcel.waiters] if parcel.waiters is not None else None
        if answers is not None and not any(isinstance(answer, Exception) for answer in answers):
            return answers
        if in_vain is not None and (answers is None or isinstance(answers[0], LineFailure)):
            return in_vain
        try:
            return await self.deliver(parcel, answers)
        except CacheError as error:
            return error

    async def _insist(self, parcel: Parcel, answers: list[Any] | None) -> list[Any]:
        was_repeated = asking = False
        primary = parcel.primary
        for _ in range(_MAXIMUM_DETOURS):
            if answers is None:
                primary = primary or await self._find(parcel)
                answers = await self._attempt(parcel, primary, asking=asking)
                asking = False
            assert primary is not None  # noqa: S101  (answers came from somewhere)
            failure = next((answer for answer in answers if isinstance(answer, LineFailure)), None)
            if failure is not None:
                if not isinstance(failure, LineLost) or (
                    failure.was_written and (was_repeated or not parcel.repeatable)
                ):
                    raise translate(failure, primary.name)
                was_repeated = was_repeated or failure.was_written
                primary, answers = None, None
                continue
            refusal = next((answer for answer in answers if isinstance(answer, ReplyError)), None)
            detour = None if refusal is None else await self._routing.detour(refusal, primary, parcel.key)
            if detour is None:
                return answers
            answers, primary, asking = None, detour.primary, detour.asking
        name = "its address" if primary is None else primary.name
        raise CacheUnavailableError(
            f"Redis at {name} and the servers that it points to send a command from one to another without end"
        )

    async def _find(self, parcel: Parcel) -> Primary:
        primary = self._routing.find(parcel.key)
        if primary is None:
            await self._routing.discover()
            primary = self._routing.find(parcel.key)
        if primary is None:
            raise CacheUnavailableError("No server of the Redis cluster holds the slot of this key")
        return primary

    async def _attempt(self, parcel: Parcel, primary: Primary, *, asking: bool) -> list[Any]:
        parcel.primary = primary
        packed = [_ASKING, *parcel.packed] if asking else parcel.packed
        try:
            if parcel.is_large_for(primary):
                parcel.enter(primary)
                answers = await primary.send_large(packed)
            else:
                line = primary.gate.line or await primary.wait_for_turn()
                answers = [await waiter for waiter in [line.send(command) for command in packed]]
        except CacheUnavailableError as error:
            if not primary.is_closed:
                raise
            # It was found to be no primary any more; nothing was sent.
            return [LineLost(str(error), was_written=False)]
        return answers[1:] if asking and not isinstance(answers[0], Exception) else answers


def _begin(parcel: Parcel, primary: Primary, line: Line | None) -> None:
    """Hands the parcel over if that needs no waiting; if it has to wait, others on its keys wait too."""
    parcel.primary = primary
    if parcel.is_large_for(primary):
        parcel.enter(primary)
    elif line is not None:
        parcel.waiters = [line.send(command) for command in parcel.packed]


async def _begin_the_rest(primary: Primary, group: Sequence[Parcel]) -> None:
    rest = [parcel for parcel in group if parcel.waiters is None and not parcel.is_large_for(primary)]
    if not rest:
        return
    try:
        line = await primary.admit()
    except CacheError:
        return  # ``deliver`` meets the same, and knows what to do about it.
    for parcel in rest:
        _begin(parcel, primary, line)
