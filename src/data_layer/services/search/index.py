"""Keeps the index of the search up to date with what triggers note.

Nothing that changes a project waits for the index: a trigger notes the project in the same transaction, and each
search indexes what has changed before it answers; of very much only the newest, and the rest after it has answered.
Maintenance does the same for everybody.

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
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from data_layer.entities import Project
from data_layer.errors import DataLayerError, MissingReferenceError, ValueTooLongError
from data_layer.observability.log import get_log
from data_layer.repositories.project_search import IndexedTexts, IndexState, PageSize
from data_layer.repositories.unit_of_work import Transactions
from data_layer.services.search.page_text import LONGEST_TEXT, visible_text
from data_layer.services.search.words import cut, dictionary_of, exact_lexeme, is_alone, words_of

log = get_log(__name__)

_LISTED = 1_000
_FIRST_BATCH, _LARGEST_BATCH = 20, 50
"""Projects; what else the process and the database are asked for waits for a batch at most."""
_LARGEST_GROUP = 4 * 2**20
_MOST_PROMPTS, _LONGEST_PROMPT = 100, 4_000
# Together with the page these stay below what fits into a vector, in three forms each.
_LONGEST_TEXT = 32 * 1024
_WEIGHTS = "ABCD"
_GAP = 2  # Between two texts, so that no phrase goes from one to the next.
_LAST_PLACE = 16_383
"""PostgreSQL knows no places behind it: words are found there, phrases are not."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many projects were indexed, and whether that was everything that had changed."""

    count: int
    is_complete: bool


class _Pace:
    """How many projects the next batch has, so that a search that indexes takes about as long as it may."""

    def __init__(self, seconds: float) -> None:
        self._end = monotonic() + seconds
        self._begun = 0.0
        self._next = _FIRST_BATCH

    def begin(self) -> int:
        """The size of the batch that begins now; None when the time is up."""
        self._begun = monotonic()
        return self._next

    def end(self, count: int) -> None:
        """Note that a batch of so many is done."""
        now = monotonic()
        fitting = int((self._end - now) * count / max(now - self._begun, 1e-6))
        self._next = min(fitting, _LARGEST_BATCH) if fitting >= _FIRST_BATCH else 0


async def _at_once() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True)
class _Source:
    """What was read of a project; the page comes later."""

    project: Project
    state: IndexState
    dictionary: str | None
    prompts: Sequence[str]
    page: PageSize | None


class SearchIndex:
    """The index over names, tags, descriptions, instructions, prompts and the visible text of pages.

    A batch takes about eight round trips, however many projects are in it: after an import of thousands it is the
    round trips that take the time.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def update(
        self, user_id: UUID | None, *, seconds: float, turn: Callable[[], Awaitable[object]] = _at_once
    ) -> Progress:
        """Index what has changed, the newest projects first, for about as long as this, but a small batch at least.

        Args:
            user_id: only the projects of this person; None: everybody's.
            seconds: after them the rest waits for the next time.
            turn: awaited before each batch, by what has time.
        """
        pace = _Pace(seconds)
        count = 0
        last: UUID | None = None
        while True:
            async with self._transactions() as tx:
                changed = await tx.project_search.find_changed(user_id, after=last, limit=_LISTED)
            place = 0
            while place < len(changed):
                await turn()
                batch = changed[place : place + pace.begin()]
                if not batch:
                    return Progress(count, is_complete=False)
                count += await self._try_to_index(batch)
                pace.end(len(batch))
                place += len(batch)
            if len(changed) < _LISTED:
                return Progress(count, is_complete=True)
            last = changed[-1]  # One that cannot be indexed is not tried again, nor does it keep others waiting.

    async def _try_to_index(self, project_ids: Sequence[UUID]) -> int:
        """Index projects together, or one by one if that fails, so that one keeps no others from it."""
        try:
            await self._index(project_ids)
        except DataLayerError as error:
            if len(project_ids) > 1:
                return sum([await self._try_to_index([each]) for each in project_ids])
            if not isinstance(error, MissingReferenceError):  # Else it was removed meanwhile; the next time sees that.
                log.warning("project_not_indexed", project_id=str(project_ids[0]), code=error.code, reason=str(error))
                return 0
        return len(project_ids)

    async def _index(self, project_ids: Sequence[UUID]) -> None:
        for group in _groups(await self._read(project_ids)):
            async with self._transactions() as tx:
                codes = await tx.codes.texts([source.page.code_id for source in group if source.page is not None])
            try:
                await self._store(await asyncio.to_thread(_texts_of, group, codes))
            except ValueTooLongError:
                if len(group) > 1:
                    raise
                log.warning("page_not_indexed", project_id=str(group[0].project.id))
                await self._store(await asyncio.to_thread(_texts_of, group, {}))

    async def _read(self, project_ids: Sequence[UUID]) -> list[_Source]:
        async with self._transactions() as tx:
            states = await tx.project_search.states(project_ids)
            # A search may have indexed some since they were listed.
            project_ids = [project_id for project_id in project_ids if states[project_id].changes]
            if not project_ids:
                return []
            projects = await tx.projects.list(id=list(project_ids), limit=len(project_ids))
            known = [project.id for project in projects]
            gone = {project_id: states[project_id] for project_id in project_ids if project_id not in known}
            if gone:
                await tx.project_search.forget(gone)
            if not known:
                return []
            owners = await tx.users.list(id=list({project.user_id for project in projects}), limit=len(projects))
            dictionaries = {owner.id: dictionary_of(owner.preferences) for owner in owners}
            prompts = await tx.project_search.prompts(known, limit=_MOST_PROMPTS, length=_LONGEST_PROMPT)
            pages = await tx.project_search.pages(known)
        return [
            _Source(
                project,
                states[project.id],
                dictionaries.get(project.user_id, dictionary_of({})),
                prompts[project.id],
                pages.get(project.id),
            )
            for project in projects
        ]

    async def _store(self, projects: Sequence[tuple[UUID, IndexState, IndexedTexts]]) -> None:
        async with self._transactions() as tx:
            await tx.project_search.store(projects)


def _groups(sources: Sequence[_Source]) -> Iterator[Sequence[_Source]]:
    """Divide projects so that the pages of each group fit into memory together."""
    group: list[_Source] = []
    size = 0
    for source in sources:
        size += 0 if source.page is None else source.page.size
        if group and size > _LARGEST_GROUP:
            yield group
            group, size = [], 0 if source.page is None else source.page.size
        group.append(source)
    if group:
        yield group


def _texts_of(group: Sequence[_Source], codes: Mapping[UUID, str]) -> Sequence[tuple[UUID, IndexState, IndexedTexts]]:
    return [(source.project.id, source.state, _texts(source, codes)) for source in group]


def _texts(source: _Source, codes: Mapping[UUID, str]) -> IndexedTexts:
    project, page = source.project, source.page
    prompts = cut("\n".join(source.prompts), _LONGEST_TEXT)
    page_text = "" if page is None else visible_text(codes.get(page.code_id, ""), page.code_stack)
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


class SearchedText(NamedTuple):
    """A text, and how many bytes of its words are searched."""

    text: str
    limit: int


def searched_words(texts: Sequence[SearchedText]) -> tuple[str, list[str]]:
    """What goes into the search vector of a project: a vector as text for ``tsvector``, and words for dictionaries.

    The words as they are become lexemes with an equals sign before them, with the places where they stand; what the
    dictionaries of PostgreSQL make of the words has none. So a quoted word is not found by what another is reduced to.

    Args:
        texts: four, the one that weighs most first.
    """
    places: dict[str, list[str]] = defaultdict(list)
    reduced: list[str] = []
    place = 0
    for (text, limit), weight in zip(texts, _WEIGHTS, strict=True):
        words: list[str] = []
        room = limit
        for word in words_of(text):
            room -= len(word.text.encode()) + 1
            if room < 0:
                break
            place += 1
            places[word.text].append(f"{min(place, _LAST_PLACE)}{weight}")
            if not is_alone(word.text):
                words.append(word.text)
        reduced.append(" ".join(words))
        place += _GAP
    return " ".join(f"'{exact_lexeme(word)}':{','.join(found)}" for word, found in places.items()), reduced
