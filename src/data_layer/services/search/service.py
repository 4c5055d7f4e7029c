"""Finds projects by words, and shows where the words stand."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from data_layer.concurrency import cancel_and_wait
from data_layer.entities import Project
from data_layer.entities.columns import check_text
from data_layer.entities.enums import ProjectStatus
from data_layer.errors import DataLayerError, InvalidValueError
from data_layer.observability.log import get_log
from data_layer.repositories.project_search import Found, Scope, Wanted
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.projects import ProjectPublic, ProjectSummary
from data_layer.schemas.search import ProjectHit, SearchedField, SearchPage
from data_layer.services.search.highlights import Texts, candidates, highlights_of
from data_layer.services.search.index import SearchIndex
from data_layer.services.search.query import LONGEST_QUERY, Query, parse_query
from data_layer.services.search.words import dictionaries, dictionary_of

log = get_log(__name__)

MOST_HITS = 100
"""The longest page."""

_SECONDS_TO_INDEX = 0.1
_SECONDS_TO_CATCH_UP = 600.0
_PUBLIC_WEIGHTS = "AB"
_SHORTEST_SIMILAR = 4
_EMPTY = SearchPage(hits=(), next=None)

Position = tuple[float, UUID]


class ProjectSearch:
    """The search over projects, for a service that has checked the caller."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._index = SearchIndex(transactions)
        self._catching_up: asyncio.Task[None] | None = None
        self._searches = 0
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()

    async def search(
        self, text: str, scope: Scope, *, language_of: UUID | None, after: str | None, limit: int
    ) -> SearchPage:
        """Find the projects in a scope that fit best.

        Args:
            text: what somebody typed.
            scope: whose projects.
            language_of: whose language the text is in.
            after: ``next`` of the page before.
            limit: the length of the page.

        Raises:
            InvalidValueError: the text is too long, or the cursor or the limit cannot be; ``field`` says which.
        """
        _check(text, limit)
        position = None if after is None else _decode(after)
        query = parse_query(text)
        if not query.wanted:
            return _EMPTY
        with self._somebody_waits():
            return await self._search(query, scope, position, language_of=language_of, limit=limit)

    async def _search(
        self, query: Query, scope: Scope, position: Position | None, *, language_of: UUID | None, limit: int
    ) -> SearchPage:
        await self._bring_up_to_date(scope)
        async with self._transactions() as tx:
            person = None if language_of is None else await tx.users.find_one(id=language_of)
            own = dictionary_of(person.preferences if person else {})
            wanted, marked = await _compose(tx, query, dictionaries(own))
            found = await tx.project_search.find(wanted, scope, after=position, limit=limit) if wanted.query else ()
            shown = found[:limit]
            projects = await _projects(tx, shown)
            texts = await tx.project_search.texts(list(projects))
            fields = {
                each.project_id: _fields(projects[each.project_id], *texts.get(each.project_id, ("", "")), each)
                for each in shown
                if each.project_id in projects
            }
            views = [_view(projects[each.project_id], each) for each in shown if each.project_id in projects]
        words = await asyncio.to_thread(candidates, query, list(fields.values()))
        matching = await self._matching(words, marked, own)
        highlights = await asyncio.to_thread(
            lambda: {project_id: highlights_of(texts, query, matching) for project_id, texts in fields.items()}
        )
        ranks = {each.project_id: each.rank for each in shown}
        return SearchPage(
            hits=tuple(ProjectHit(project=view, rank=ranks[view.id], highlights=highlights[view.id]) for view in views),
            next=_encode(shown[-1]) if len(found) > limit else None,
        )

    @contextmanager
    def _somebody_waits(self) -> Iterator[None]:
        self._searches += 1
        self._nobody_waits.clear()
        try:
            yield
        finally:
            self._searches -= 1
            if not self._searches:
                self._nobody_waits.set()

    async def _matching(self, words: Sequence[str], query: str, dictionary: str | None) -> frozenset[str]:
        if not words:
            return frozenset()
        async with self._transactions() as tx:
            return await tx.project_search.matching(words, query, dictionary)

    async def _bring_up_to_date(self, scope: Scope) -> None:
        """Index what has changed, so that people find what they have just written; a search does not fail over it."""
        try:
            is_complete = (await self._index.update(scope.owner_id, seconds=_SECONDS_TO_INDEX)).is_complete
            if scope.has_public:
                is_complete &= (await self._index.update(None, seconds=_SECONDS_TO_INDEX)).is_complete
        except DataLayerError as error:
            log.warning("search_index_behind", code=error.code, reason=str(error))
            return
        if not is_complete and (self._catching_up is None or self._catching_up.done()):
            self._catching_up = asyncio.create_task(self._catch_up(), name="search-index")

    async def _catch_up(self) -> None:
        """Index the rest, after an import for example; the search is answered already, and others go first."""
        try:
            await self._index.update(None, seconds=_SECONDS_TO_CATCH_UP, turn=self._nobody_waits.wait)
        except DataLayerError as error:
            log.warning("search_index_behind", code=error.code, reason=str(error))

    async def close(self) -> None:
        """Stop indexing; the notes of what is left stay."""
        await cancel_and_wait(self._catching_up)


async def _compose(tx: UnitOfWork, query: Query, names: Sequence[str]) -> tuple[Wanted, str]:
    """The query for PostgreSQL, and one for each single word that is to be highlighted."""
    marks = Query(tuple((term,) for term in query.wanted))
    leaves = {*query.leaves(names, ""), *query.leaves(names, _PUBLIC_WEIGHTS)}
    has_trigrams, parsed = await tx.project_search.parse(sorted(leaves))
    wanted = Wanted(
        query.compose(parsed, names, ""),
        query.compose(parsed, names, _PUBLIC_WEIGHTS),
        _similar(query) if has_trigrams else None,
    )
    return wanted, marks.compose(parsed, names, "")


def _similar(query: Query) -> str | None:
    """What a name may also be similar to: nothing if the search says more than a few words."""
    if len(query.alternatives) > 1 or any(term.is_excluded or term.is_exact for term in query.alternatives[0]):
        return None
    text = " ".join(word for term in query.wanted for word in term.words)
    return text if len(text) >= _SHORTEST_SIMILAR else None


async def _projects(tx: UnitOfWork, found: Sequence[Found]) -> dict[UUID, Project]:
    if not found:
        return {}
    projects = await tx.projects.list(id=[each.project_id for each in found], limit=len(found))
    return {project.id: project for project in projects if project.status is not ProjectStatus.DELETED}


def _view(project: Project, found: Found) -> ProjectSummary | ProjectPublic:
    return (ProjectSummary if found.is_full else ProjectPublic).model_validate(project)


def _fields(project: Project, prompts: str, page_text: str, found: Found) -> Texts:
    public = {
        SearchedField.NAME: project.name,
        SearchedField.TAGS: ", ".join(project.tags),
        SearchedField.DESCRIPTION: project.description or "",
    }
    if not found.is_full:
        return public
    private = {
        SearchedField.INSTRUCTIONS: project.instructions or "",
        SearchedField.PROMPT: prompts,
        SearchedField.PAGE: page_text,
    }
    return public | private


def _check(text: object, limit: object) -> None:
    if not isinstance(text, str):
        raise InvalidValueError(f"text must be text, not {type(text).__name__}", field="text")
    if len(text) > LONGEST_QUERY:
        raise InvalidValueError(f"text may have {LONGEST_QUERY} characters at most", field="text")
    check_text("text", text)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_HITS:
        raise InvalidValueError(f"limit must be a number from 1 to {MOST_HITS}", field="limit")


def _encode(found: Found) -> str:
    content = json.dumps([found.rank, str(found.project_id)], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def _decode(cursor: str) -> Position:
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        rank, project_id = json.loads(raw.decode())
        return _finite(rank), UUID(project_id)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, binascii.Error):
        raise InvalidValueError("after is not a cursor of a search", field="after") from None


def _finite(rank: object) -> float:
    if isinstance(rank, bool) or not isinstance(rank, int | float) or not math.isfinite(rank):
        raise ValueError
    return float(rank)
