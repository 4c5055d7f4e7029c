"""What can be done with one variant, by its id."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import orjson

from data_layer.entities import GeneratedCode
from data_layer.errors import InvalidValueError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.codes import GeneratedCodeFull
from data_layer.schemas.generations import CodeDiff, GenerationView, VariantReplay
from data_layer.schemas.projects import ProjectFull
from data_layer.services.generations.access import open_code
from data_layer.services.generations.copies import copy_version
from data_layer.services.generations.differences import difference
from data_layer.services.generations.replay import TimedEvent, check_moment, code_at_moment, replay_of
from data_layer.services.generations.trees import Trees
from data_layer.services.generations.versions import require_complete, restore_code
from data_layer.services.permissions import Permission

MOST_REPLAYED = 2000
"""Events that a replay holds."""

_MOST_EVENT_BYTES = 4 * 2**20
_EVENTS_AT_ONCE = 200


class Variants(Trees):
    """Variants by their ids, wherever they are in their projects."""

    async def open_variant(self, actor: Actor, code_id: UUID, *, reason: str | None = None) -> GeneratedCodeFull:
        """A variant with its code; the view is counted, see ``version``.

        Args:
            actor: the owner of the project.
            code_id: which variant.
            reason: why, where a moderator looks at somebody else's; it is recorded.

        Raises:
            NotFoundError: the actor has no such variant.
        """
        async with self._transactions() as tx:
            _, code = await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason)
            view = GeneratedCodeFull.model_validate(code)
        self._views.count(GeneratedCode, code_id)
        return view

    async def compare(
        self, actor: Actor, code_id: UUID, against_id: UUID | None = None, *, reason: str | None = None
    ) -> CodeDiff:
        """What a variant changes of another one.

        Args:
            actor: the owner of both projects, which may be one.
            code_id: which variant.
            against_id: the other one, by default the one that it was made from.
            reason: see ``open_variant``.

        Raises:
            NotFoundError: the actor has no such variant.
            InvalidValueError: it was made from none, so that ``against_id`` is needed.
        """
        async with self._transactions() as tx:
            _, code = await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason)
            other_id = against_id or code.parent_id
            if other_id is None:
                raise InvalidValueError("the variant was made from no other one; say against which", field="against")
            _, other = await open_code(tx, actor, other_id, Permission.READ_CODE, reason=reason)
        return await asyncio.to_thread(difference, other, code)

    async def replay(self, actor: Actor, code_id: UUID, *, reason: str | None = None) -> VariantReplay:
        """How a variant was made, as far as that was kept: how its code grew, and what happened meanwhile.

        Of a variant that runs it is what is stored, which is two seconds old at most. No view is counted.

        Args:
            actor: the owner of the project.
            code_id: which variant.
            reason: see ``open_variant``.

        Raises:
            NotFoundError: the actor has no such variant.
        """
        async with self._transactions() as tx:
            _, code = await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason)
            growth = (await tx.generations.growths([code_id])).get(code_id)
            events, has_more = await _events(tx, code_id)
        return await asyncio.to_thread(replay_of, code, growth, events, has_more_events=has_more)

    async def state_at(self, actor: Actor, code_id: UUID, at: int, *, reason: str | None = None) -> str:
        """The code of a variant as it was at a moment. No view is counted.

        Args:
            actor: the owner of the project.
            code_id: which variant.
            at: milliseconds since it began.
            reason: see ``open_variant``.

        Raises:
            NotFoundError: the actor has no such variant.
            GrowthUnknownError: it was not kept how its code grew.
            InvalidValueError: ``at`` is less than 0.
        """
        check_moment(at)
        async with self._transactions() as tx:
            _, code = await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason)
            growth = (await tx.generations.growths([code_id])).get(code_id)
        return await asyncio.to_thread(code_at_moment, code, growth, at)

    async def restore_variant(self, actor: Actor, code_id: UUID) -> GenerationView:
        """Make a variant the last version of its project again; see ``restore``.

        Raises:
            NotFoundError: the actor has no such variant.
            InvalidValueError: it is not complete.
        """
        async with self._transactions() as tx:
            project, code = await open_code(tx, actor, code_id, Permission.CHANGE_CODE)
            return await restore_code(tx, actor, project, require_complete(code, "code_id"))

    async def fork_variant(self, actor: Actor, code_id: UUID, *, name: str | None = None) -> ProjectFull:
        """Begin a new project with a variant; see ``fork``.

        Raises:
            NotFoundError: the actor has no such variant.
            InvalidValueError: it is not complete, or the name cannot be one.
        """
        async with self._transactions() as tx:
            project, code = await open_code(tx, actor, code_id, Permission.COPY_PROJECT)
            return await copy_version(tx, actor, project, require_complete(code, "code_id"), name=name)


async def _events(tx: UnitOfWork, code_id: UUID) -> tuple[Sequence[TimedEvent], bool]:
    """The events of a variant, and whether there are more."""
    found: list[TimedEvent] = []
    size = 0
    while len(found) < MOST_REPLAYED and size < _MOST_EVENT_BYTES:
        after = found[-1][1] if found else 0
        page = await tx.generation_events.timed_page(code_id, after=after, limit=_EVENTS_AT_ONCE)
        found += page
        size += sum(len(orjson.dumps(payload)) for *_, payload in page)
        if len(page) < _EVENTS_AT_ONCE:
            return found, False
    return found, True
