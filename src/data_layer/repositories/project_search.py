"""The index of the search over projects: what it does not know yet, its rows, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    cast,
    false,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import NamedQuery, named
from data_layer.entities import Project, User, project_search, project_search_changes
from data_layer.entities.enums import CodeStack, ProjectStatus, UserStatus
from data_layer.repositories.repository import is_any

_CHANGES = project_search_changes.c
_INDEX = project_search.c

# What a word weighs that stands in page, prompts, tags and name.
_WEIGHTS: ColumnElement[Any] = literal_column("'{0.05, 0.2, 0.4, 1.0}'::real[]")
_EXACT = "simple"
_MOST_RANKED = 10_000
"""Of the projects of everybody so many are ranked at most; a search that finds more of them is too broad to be one."""
_SIMILAR_ENOUGH = 0.5
_WORTH_OF_SIMILARITY = 0.001

_STATE = NamedQuery(
    "project_search.state",
    """
SELECT coalesce((SELECT revision FROM project_search WHERE project_id = %s), 0),
    ARRAY(SELECT transaction_id FROM project_search_changes WHERE project_id = %s)
""",
)
_PROMPTS = NamedQuery(
    "generations.prompts",
    """
SELECT left(prompt, %s) FROM generations
WHERE project_id = %s AND prompt IS NOT NULL ORDER BY number DESC LIMIT %s
""",
)
# As ``GeneratedCodeRepository.latest`` chooses it.
_PAGE = NamedQuery(
    "project_search.page",
    """
SELECT code.id, code.code_stack, coalesce(code.body_size, octet_length(code.code))
FROM generated_codes AS code JOIN generations AS generation ON generation.id = code.generation_id
WHERE code.project_id = %s AND code.status = 'completed'
ORDER BY code.version DESC, code.variant_index = generation.selected_variant DESC, code.variant_index LIMIT 1
""",
)
# No word is a dot: it keeps phrases from going on from one text to the next.
_REDUCED = " || ".join(
    f"setweight('.:2'::tsvector || to_tsvector('english', %s) || '.:2'::tsvector || to_tsvector(%s::regconfig, %s), "
    f"'{weight}')"
    for weight in "ABCD"
)
# The changes go with the row that knows them, or stay. What was changed after they were read has rows of its own.
_STORE = NamedQuery(
    "project_search.store",
    f"""
WITH stored AS (
    INSERT INTO project_search AS known (project_id, revision, prompts, page_text, vector)
    VALUES (%s, 1, %s, %s, %s::tsvector || {_REDUCED})
    ON CONFLICT (project_id) DO UPDATE SET revision = known.revision + 1, prompts = excluded.prompts,
        page_text = excluded.page_text, vector = excluded.vector, indexed_at = now()
    WHERE known.revision = %s
    RETURNING project_id
)
DELETE FROM project_search_changes AS changes USING stored
WHERE changes.project_id = stored.project_id AND changes.transaction_id = ANY (%s)
""",  # noqa: S608  (made of constants)
)
_FORGET = NamedQuery(
    "project_search_changes.delete",
    "DELETE FROM project_search_changes WHERE project_id = %s AND transaction_id = ANY (%s)",
)
# A search takes less time than workers take to start. PostgreSQL cannot estimate how many projects have a word that
# begins like this one, takes them for many, and would start workers to find a single one.
_WITHOUT_WORKERS = NamedQuery("project_search.without_workers", "SET LOCAL max_parallel_workers_per_gather = 0")
_PARSE = NamedQuery(
    "project_search.parse",
    """
SELECT to_regprocedure('word_similarity(text, text)') IS NOT NULL,
    ARRAY(
        SELECT to_tsquery(dictionary::regconfig, operand)::text
        FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS leaf (dictionary, operand, place) ORDER BY place
    )
""",
)
_MATCHING = NamedQuery(
    "project_search.matching",
    """
SELECT ARRAY(
    SELECT word FROM unnest(%s::text[]) AS word
    WHERE (('''' || '=' || word || '''')::tsvector || to_tsvector('english', word) || to_tsvector(%s::regconfig, word))
        @@ %s::tsquery
)
""",
)


class IndexState(NamedTuple):
    """What is known of a project: the revision of its row, 0 without one, and the changes that it does not know."""

    revision: int
    changes: Sequence[int]


class PageSize(NamedTuple):
    """The code that is the page of a project, and its size in bytes."""

    code_id: UUID
    code_stack: CodeStack
    size: int


@dataclass(frozen=True, slots=True)
class IndexedTexts:
    """What is indexed of a project.

    Attributes:
        vector: the words as they are, as text for ``tsvector``.
        reduced: the words for dictionaries, in four texts, the one that weighs most first.
        dictionary: that of the owner's language, if it is not the English one, which is always there.
        prompts: for highlights.
        page_text: for highlights.
    """

    vector: str
    reduced: Sequence[str]
    dictionary: str | None
    prompts: str
    page_text: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose projects are searched.

    Attributes:
        owner_id: all of this person.
        has_public: and what is public of the projects of others.
        is_everything: those of everybody instead.
    """

    owner_id: UUID | None = None
    has_public: bool = False
    is_everything: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for.

    Attributes:
        query: for PostgreSQL.
        public_query: the same in public fields only.
        similar: a text that a name may also be similar to, if the server has trigrams.
    """

    query: str
    public_query: str
    similar: str | None = None


class Found(NamedTuple):
    """A project that was found; of one that is not ``is_full`` only public fields were searched."""

    project_id: UUID
    rank: float
    is_full: bool


class ProjectSearchRepository:
    """Rows of ``project_search`` and ``project_search_changes``."""

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    async def find_changed(self, user_id: UUID | None, *, after: UUID | None, limit: int) -> Sequence[UUID]:
        """Projects that have changed since they were indexed, of this person or of anybody; also removed ones.

        Args:
            user_id: whose.
            after: the last project of the page before; the newest projects come first.
            limit: the length of the page.
        """
        project_id: ColumnElement[Any] = _CHANGES.project_id
        statement = select(project_id).group_by(project_id)
        if user_id is not None:
            has_changed = select(_CHANGES.project_id).where(_CHANGES.project_id == Project.id).exists()
            project_id = Project.id.expression
            statement = select(project_id).where(Project.user_id == user_id, has_changed)
        if after is not None:
            statement = statement.where(project_id < after)
        statement = statement.order_by(project_id.desc()).limit(limit)
        return (await self._session.execute(named("project_search.find_changed", statement))).scalars().all()

    async def count_changed(self) -> int:
        """How many projects have changed since they were indexed."""
        statement = select(func.count(_CHANGES.project_id.distinct()))
        return int((await self._session.execute(statement)).scalar_one())

    async def states(self, project_ids: Sequence[UUID]) -> Mapping[UUID, IndexState]:
        """What is known of each project; whatever is read after it is at least as new."""
        rows = await self._session.run(*((_STATE, (each, each)) for each in project_ids))
        return {
            project_id: IndexState(*row) if row else IndexState(0, ())
            for project_id, row in zip(project_ids, rows, strict=True)
        }

    async def prompts(self, project_ids: Sequence[UUID], *, limit: int, length: int) -> Mapping[UUID, Sequence[str]]:
        """The beginnings of the last prompts of each project, the last one first."""
        found = await self._session.fetch_all(*((_PROMPTS, (length, each, limit)) for each in project_ids))
        return {project_id: [prompt for (prompt,) in rows] for project_id, rows in zip(project_ids, found, strict=True)}

    async def pages(self, project_ids: Sequence[UUID]) -> Mapping[UUID, PageSize]:
        """Which code is the page of each project, and how large it is; without those that have none."""
        found = await self._session.fetch_all(*((_PAGE, (each,)) for each in project_ids))
        return {
            project_id: PageSize(rows[0][0], CodeStack(rows[0][1]), rows[0][2])
            for project_id, rows in zip(project_ids, found, strict=True)
            if rows
        }

    async def store(self, projects: Sequence[tuple[UUID, IndexState, IndexedTexts]]) -> None:
        """Index projects, except for those that another process has indexed meanwhile.

        All go in one round trip. In whatever order they are given, they are stored in that of their ids, so that two
        processes wait for each other and do not deadlock.

        Raises:
            ValueTooLongError: PostgreSQL has no room for so many words.
            MissingReferenceError: a project was removed.
        """
        statements = []
        for project_id, state, texts in sorted(projects, key=lambda each: each[0]):
            own = texts.dictionary
            words = [value for text in texts.reduced for value in (text, own or _EXACT, text if own else "")]
            values = (project_id, texts.prompts, texts.page_text, texts.vector, *words)
            statements.append((_STORE, (*values, state.revision, list(state.changes))))
        await self._session.run(*statements)

    async def forget(self, projects: Mapping[UUID, IndexState]) -> None:
        """Forget the changes of projects that were removed."""
        await self._session.run(*((_FORGET, (key, list(state.changes))) for key, state in sorted(projects.items())))

    async def parse(self, leaves: Sequence[tuple[str, str]]) -> tuple[bool, Mapping[tuple[str, str], str]]:
        """Whether the server has trigrams, and what it makes of each word; of one without meaning an empty text.

        The statements that follow in this transaction run without parallel workers.
        """
        values = [leaf[0] for leaf in leaves], [leaf[1] for leaf in leaves]
        _, row = await self._session.run((_WITHOUT_WORKERS, ()), (_PARSE, values))
        has_trigrams, parsed = row or (False, ())
        return has_trigrams, dict(zip(leaves, parsed, strict=True))

    async def find(
        self, wanted: Wanted, scope: Scope, *, after: tuple[float, UUID] | None, limit: int
    ) -> Sequence[Found]:
        """The projects that fit best, and one more if there is another page."""
        parts = []
        if scope.owner_id is not None:
            parts.append(_matches(wanted.query, wanted.similar).where(Project.user_id == scope.owner_id))
        if scope.is_everything:
            parts.append(_matches(wanted.query).limit(_MOST_RANKED))
        if scope.has_public:
            public = _matches(wanted.public_query, is_full=False).join(User, User.id == Project.user_id)
            public = public.where(Project.is_public, Project.status != ProjectStatus.ARCHIVED)
            public = public.where(User.status == UserStatus.ACTIVE)
            if scope.owner_id is not None:
                public = public.where(Project.user_id != scope.owner_id)
            parts.append(public.limit(_MOST_RANKED))
        if not parts:
            return ()
        matches = union_all(*(select(part.subquery()) for part in parts)).subquery()
        statement = select(matches.c.id, matches.c.rank, matches.c.is_full)
        if after is not None:
            statement = statement.where(tuple_(matches.c.rank, matches.c.id) < tuple_(*after))
        statement = statement.order_by(matches.c.rank.desc(), matches.c.id.desc()).limit(limit + 1)
        rows = await self._session.execute(named("project_search.find", statement))
        return [Found(row.id, row.rank, row.is_full) for row in rows]

    async def texts(self, project_ids: Sequence[UUID]) -> Mapping[UUID, tuple[str, str]]:
        """Prompts and the text of the page of each project."""
        statement = select(_INDEX.project_id, _INDEX.prompts, _INDEX.page_text)
        statement = statement.where(is_any(_INDEX.project_id, project_ids))
        rows = await self._session.execute(named("project_search.texts", statement))
        return {row.project_id: (row.prompts, row.page_text) for row in rows}

    async def matching(self, words: Sequence[str], query: str, dictionary: str | None) -> frozenset[str]:
        """Those of some words that a query finds, with the dictionary of a language beside the English one."""
        row = await self._session.fetch_one(_MATCHING, (list(words), dictionary or _EXACT, query))
        return frozenset(row[0] if row else ())


def _matches(query: str, similar: str | None = None, *, is_full: bool = True) -> Select[Any]:
    asked = cast(literal(query), TSQUERY)
    rank: ColumnElement[Any] = cast(func.ts_rank(_WEIGHTS, _INDEX.vector, asked), Float)
    fits: ColumnElement[bool] = _INDEX.vector.bool_op("@@")(asked)
    if similar is not None:
        similarity = func.word_similarity(similar, Project.name)
        rank = rank + cast(similarity, Float) * _WORTH_OF_SIMILARITY
        fits = fits | (similarity >= _SIMILAR_ENOUGH)
    return (
        select(Project.id, rank.label("rank"), (true() if is_full else false()).label("is_full"))
        .join(project_search, _INDEX.project_id == Project.id)
        .where(fits, Project.status != ProjectStatus.DELETED)
    )
