"""Keeps the index of the search up to date with what triggers note.

Nothing that changes a project waits for the index: a trigger notes the project in the same transaction, and each
search indexes what has changed before it answers. Maintenance does the same for everybody.

==========================================  ===========================================================================
it happens                                  what follows
==========================================  ===========================================================================
the process dies while it indexes           the note stays, and the next search or round of maintenance does it again
the project changes while it is indexed     the change has a note of its own, which stays
two processes index a project at once       the second one to store finds another revision; its notes stay
the page has more words than fit            it is indexed without them
==========================================  ===========================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

from data_layer.entities import GeneratedCode, Project
from data_layer.errors import DataLayerError, MissingReferenceError, ValueTooLongError
from data_layer.observability.log import get_log
from data_layer.repositories.project_search import IndexedTexts, IndexState
from data_layer.services.search.languages import dictionary_of
from data_layer.services.search.page_text import LONGEST_TEXT, visible_text
from data_layer.services.search.vector import SearchedText, searched_words
from data_layer.services.search.words import cut

if TYPE_CHECKING:
    from data_layer.repositories.unit_of_work import Transactions

log = get_log(__name__)

_BATCH = 100
_MOST_PROMPTS, _LONGEST_PROMPT = 100, 4_000
# Together with the page these stay below what fits into a vector, in three forms each.
_LONGEST_TEXT = 32 * 1024


@dataclass(frozen=True, slots=True)
class _Source:
    """What was read of a project."""

    project: Project
    dictionary: str | None
    prompts: Sequence[str]
    page: GeneratedCode | None


class SearchIndex:
    """The index over names, tags, descriptions, instructions, prompts and the visible text of pages."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def update(self, user_id: UUID | None, *, seconds: float) -> int:
        """Index what has changed, for about as long as this; how many projects.

        Args:
            user_id: only the projects of this person; None: everybody's.
            seconds: after them the rest waits for the next time.
        """
        end = monotonic() + seconds
        count = 0
        last: UUID | None = None
        while True:
            async with self._transactions() as tx:
                changed = await tx.project_search.find_changed(user_id, after=last, limit=_BATCH)
            for project_id in changed:
                last = project_id  # One that cannot be indexed is not tried again, nor does it keep others waiting.
                count += await self._try_to_index(project_id)
                if monotonic() >= end:
                    return count
            if len(changed) < _BATCH:
                return count

    async def _try_to_index(self, project_id: UUID) -> bool:
        try:
            await self._index(project_id)
        except MissingReferenceError:
            pass  # The project was removed meanwhile; the next time that is seen.
        except DataLayerError as error:
            log.warning("project_not_indexed", project_id=str(project_id), code=error.code, reason=str(error))
            return False
        return True

    async def _index(self, project_id: UUID) -> None:
        async with self._transactions() as tx:
            state = await tx.project_search.state(project_id)
            project = await tx.projects.find_one(id=project_id)
            if project is None:
                await tx.project_search.forget(project_id, state)
                return
            owner = await tx.users.find_one(id=project.user_id)
            source = _Source(
                project,
                dictionary_of(owner.preferences if owner else {}),
                await tx.project_search.prompts(project_id, limit=_MOST_PROMPTS, length=_LONGEST_PROMPT),
                await tx.codes.latest(project_id),
            )
        texts = await asyncio.to_thread(_texts, source)
        try:
            await self._store(project_id, state, texts)
        except ValueTooLongError:
            log.warning("page_not_indexed", project_id=str(project_id))
            await self._store(project_id, state, await asyncio.to_thread(_texts, replace(source, page=None)))

    async def _store(self, project_id: UUID, state: IndexState, texts: IndexedTexts) -> None:
        async with self._transactions() as tx:
            await tx.project_search.store(project_id, state, texts)


def _texts(source: _Source) -> IndexedTexts:
    project, page = source.project, source.page
    prompts = cut("\n".join(source.prompts), _LONGEST_TEXT)
    page_text = "" if page is None else visible_text(page.code, page.code_stack)
    public = "\n".join([*project.tags, project.description or ""])
    private = "\n".join([project.instructions or "", prompts])
    vector, reduced = searched_words(
        [
            SearchedText(project.name, _LONGEST_TEXT),
            SearchedText(public, _LONGEST_TEXT),
            SearchedText(private, 2 * _LONGEST_TEXT),
            SearchedText(page_text, LONGEST_TEXT),
        ]
    )
    return IndexedTexts(vector, reduced, source.dictionary, prompts, page_text)
