"""Where generations belong in the tree of their project, by the hashes of codes.

A generation that changes a code knows its hash, and what else helps to choose among variants that have it. A *stand-in*
is a generation that was made from the code of a parent that has not arrived; it goes when no child is left.
"""

# ruff: noqa: S608  (only texts of this module stand in the statements; values are passed as parameters)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson

from data_layer.database.entity_session import EntitySession, Rows
from data_layer.database.statements import NamedQuery, Statement
from data_layer.errors import NotFoundError
from data_layer.repositories.generations import read_view, view_statements
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.generations import GenerationRow
from data_layer.schemas.lineage import ParentVariant

_IS_STAND_IN = """parents.lineage @> '{"stand_in": true}'"""
_IS_EARLIER = (
    "(parents.started_at, coalesce(parents.external_key, '') COLLATE \"C\") "
    '< (child.started_at, child.external_key COLLATE "C")'
)
_CHILD = """
    SELECT id, project_id, started_at, coalesce(external_key, '') AS external_key, wanted_parent_hash, lineage
    FROM generations
"""

# The version is the one that was shown as what is changed; or it is that with the same code; then with the same code to
# the byte, with the same variants, with the same conversation; then the variant with the same index; then the last one
# before the child.
_CANDIDATES = f"""candidates AS (
    SELECT codes.*, {_IS_STAND_IN} AS is_stand_in, {_IS_EARLIER} AS is_earlier,
        coalesce(child.lineage -> 'shown' ? codes.id::text, false) AS is_shown,
        coalesce(codes.code_hash = decode(child.lineage ->> 'exact', 'hex'), false) AS is_exact,
        coalesce(child.lineage -> 'variants' = (
            SELECT jsonb_agg(hash ORDER BY hash COLLATE "C") FROM (
                SELECT DISTINCT encode(others.trimmed_hash, 'hex') AS hash FROM generated_codes AS others
                WHERE others.generation_id = parents.id AND others.trimmed_hash IS NOT NULL
            ) AS variants
        ), false) AS has_variants,
        child.lineage ->> 'before' = parents.lineage ->> 'conversation' AS continues,
        coalesce(codes.variant_index = (child.lineage ->> 'index')::integer, false) AS has_index,
        parents.started_at, parents.external_key
    FROM child JOIN generated_codes AS codes ON codes.trimmed_hash = decode(child.wanted_parent_hash, 'hex')
    JOIN generations AS parents ON parents.id = codes.generation_id AND parents.id IS DISTINCT FROM child.id
    WHERE codes.project_id = ANY(ARRAY(%s))
)"""
_ORDER = """
is_shown DESC, is_exact DESC, has_variants DESC, coalesce(continues, false) DESC, has_index DESC, is_earlier DESC,
started_at DESC, external_key COLLATE "C" DESC NULLS LAST, variant_index, id
"""
_WITHOUT_CYCLE = """
NOT EXISTS (
    WITH RECURSIVE above AS (
        SELECT candidates.parent_id, candidates.generation_id
        UNION
        SELECT codes.parent_id, codes.generation_id
        FROM above JOIN generated_codes AS codes ON codes.id = above.parent_id
    )
    SELECT FROM above JOIN child ON child.id = generation_id
)
"""


_IS_UNLINKED = """
NOT EXISTS (SELECT FROM child JOIN generated_codes AS own ON own.generation_id = child.id AND own.parent_id IS NOT NULL)
"""


class Candidates(StrEnum):
    """Which variants may become the parent, in the order in which they are tried.

    Links to earlier generations never make a circle, so the others are looked for when these are known, and only for
    what has no parent then.
    """

    EARLIER = "NOT is_stand_in AND is_earlier"
    LATER = f"NOT is_stand_in AND continues AND {_IS_UNLINKED} AND {_WITHOUT_CYCLE}"
    STAND_INS = f"is_stand_in AND coalesce(continues, true) AND {_IS_UNLINKED} AND {_WITHOUT_CYCLE}"


@dataclass(frozen=True, slots=True)
class KnownGeneration:
    """A generation that has arrived before, and what its variants have in common."""

    id: UUID
    project_id: UUID
    owner_id: UUID
    indexes: Sequence[int]
    parent_id: UUID | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """By what the parent of a generation is found, and its project; all codes by their hashes.

    Attributes:
        at: when it was made.
        key: the application's.
        base: the code that it changes.
        lineage: what distinguishes its parent from others with that code.
        turns: codes of earlier turns of its conversation, each with the conversation to there, the last one first.
        siblings: all codes of the version that it changes.
        before: the conversation before it.
        codes: its own.
        conversation: with its own request.
        root: the request with which the conversation began, if that can be looked for.
        is_first: it is that request.
    """

    at: datetime
    key: str
    base: str | None
    lineage: dict[str, Any]
    turns: Sequence[tuple[str, str | None]] = ()
    siblings: Sequence[str] = ()
    before: str | None = None
    codes: Sequence[str] = ()
    conversation: str | None = None
    root: str | None = None
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """How a generation stands in its project.

    Attributes:
        unlinked: what has to be linked, in the order of their times; it is among them if it has no parent.
        has_idle_stand_in: whether a stand-in is there that nothing was made from.
        generation: it.
        variants: its variants.
    """

    unlinked: Sequence[UUID]
    has_idle_stand_in: bool
    generation: GenerationRow
    variants: Sequence[GeneratedCodeSummary]


_LINK = {
    kind: NamedQuery(
        "generations.link",
        f"""
WITH child AS ({_CHILD} WHERE id = %s), {_CANDIDATES % "SELECT project_id FROM child"}, best AS (
    SELECT id FROM candidates WHERE {kind.value} ORDER BY {_ORDER} LIMIT 1
), linked AS (
    UPDATE generated_codes SET parent_id = best.id, updated_at = now() FROM best
    WHERE generation_id = (SELECT id FROM child) AND parent_id IS DISTINCT FROM best.id
)
SELECT id FROM best
""",
    )
    for kind in Candidates
}

_PROJECTS = "SELECT id FROM projects WHERE user_id = %s AND status <> 'deleted' AND (%s::uuid IS NULL OR id = %s)"
_FIND_PARENT = NamedQuery(
    "generations.find_parent",
    f"""
WITH child AS (
    SELECT NULL::uuid AS id, %s::timestamptz AS started_at, %s::text AS external_key, %s::text AS wanted_parent_hash,
        %s::jsonb AS lineage
), {_CANDIDATES % _PROJECTS}
SELECT id, project_id, generation_id, version, variant_index FROM candidates
WHERE is_earlier OR continues OR (is_stand_in AND continues IS NULL)
ORDER BY is_shown DESC, is_stand_in, is_earlier DESC, {_ORDER} LIMIT 1
""",
)
_PROJECT_OF_PARENT = NamedQuery("generations.find_ancestor", f"SELECT project_id FROM ({_FIND_PARENT}) AS ancestor")

# What waits for one of these codes, unless it belongs to another conversation.
_FIND_WAITING = NamedQuery(
    "generations.find_waiting",
    f"""
SELECT project_id FROM generations
WHERE project_id IN ({_PROJECTS}) AND wanted_parent_hash = ANY(%s)
    AND coalesce(lineage ->> 'before' = %s, true)
ORDER BY lineage ->> 'before' IS NULL, started_at, id LIMIT 1
""",
)
# The conversation that was begun last with a request; for the request itself one that is not long ago.
_FIND_CONVERSATION = NamedQuery(
    "generations.find_conversation",
    f"""
SELECT project_id FROM generations
WHERE project_id IN ({_PROJECTS}) AND lineage ->> 'root' = %s
    AND (%s OR started_at BETWEEN %s::timestamptz - interval '7 days' AND %s::timestamptz + interval '7 days')
ORDER BY started_at DESC, id DESC LIMIT 1
""",
)
_KNOWN = NamedQuery(
    "generations.known",
    """
SELECT generations.id, project_id, user_id,
    ARRAY(SELECT variant_index FROM generated_codes WHERE generation_id = generations.id),
    (SELECT parent_id FROM generated_codes WHERE generation_id = generations.id ORDER BY variant_index LIMIT 1)
FROM generations JOIN projects ON projects.id = project_id
WHERE external_source = %s AND external_key = %s
""",
)
_MISSING_CODES = NamedQuery(
    "generated_codes.missing_hashes",
    """
SELECT coalesce(array_agg(hash), '{}') FROM unnest(%s::text[]) AS hash WHERE NOT EXISTS (
    SELECT FROM generated_codes WHERE project_id = %s AND trimmed_hash = decode(hash, 'hex')
)
""",
)
_CHILDREN = NamedQuery(
    "generations.wanting",
    """
SELECT coalesce(array_agg(id), '{}') FROM generations WHERE project_id = %s AND wanted_parent_hash IN (
    SELECT encode(trimmed_hash, 'hex') FROM generated_codes WHERE generation_id = %s AND trimmed_hash IS NOT NULL
)
""",
)
_UNLINK = NamedQuery(
    "generations.unlink_unresolved",
    f"""
WITH unresolved AS MATERIALIZED (
    SELECT DISTINCT child.id
    FROM ({_CHILD}) AS child JOIN generated_codes AS own ON own.generation_id = child.id
    JOIN generated_codes AS made_from ON made_from.id = own.parent_id
    JOIN generations AS parents ON parents.id = made_from.generation_id
    WHERE child.project_id = %s AND child.wanted_parent_hash IS NOT NULL AND ({_IS_STAND_IN} OR NOT {_IS_EARLIER})
), unlinked AS (
    UPDATE generated_codes SET parent_id = NULL WHERE generation_id IN (SELECT id FROM unresolved)
)
SELECT coalesce(array_agg(id), '{{}}') FROM unresolved
""",
)
_SORT = NamedQuery(
    "generations.sort",
    """
SELECT array_agg(id ORDER BY started_at, coalesce(external_key, '') COLLATE "C", id) FROM generations
WHERE id = ANY(%s)
""",
)

_LOCK = NamedQuery("users.lock_lineage", "SELECT pg_advisory_xact_lock(hashtextextended('lineage ' || %s::text, 0))")
_LOCK_PROJECT = NamedQuery("projects.lock_numbers", "SELECT id FROM projects WHERE id = %s FOR NO KEY UPDATE")

# What somebody has named, rated, marked or shared stays.
_IDLE_STAND_IN = f"""
SELECT id FROM generations AS parents
WHERE project_id = %s AND {_IS_STAND_IN} AND NOT EXISTS (
    SELECT FROM generated_codes AS own WHERE own.generation_id = parents.id AND (
        own.is_favorite OR own.name IS NOT NULL OR own.rating IS NOT NULL OR own.feedback <> '{{}}'
        OR EXISTS (SELECT FROM generated_codes WHERE parent_id = own.id)
        OR EXISTS (SELECT FROM shares WHERE code_id = own.id)
        OR EXISTS (SELECT FROM file_references WHERE code_id = own.id)
    )
)
ORDER BY number DESC LIMIT 1
"""
_FIND_STAND_IN = NamedQuery("generations.find_idle_stand_in", _IDLE_STAND_IN)
_REMOVE_STAND_IN = NamedQuery(
    "generations.remove_stand_in", f"DELETE FROM generations AS removed WHERE id = ({_IDLE_STAND_IN}) RETURNING number"
)
# The last generation takes the number that became free, so that none is missing.
_CLOSE_GAP = (
    NamedQuery(
        "generations.close_gap",
        """
WITH last AS (
    SELECT id FROM generations WHERE project_id = %s AND number > %s ORDER BY number DESC LIMIT 1
), moved AS (
    UPDATE generations SET number = %s FROM last WHERE generations.id = last.id
)
UPDATE generated_codes SET version = %s FROM last WHERE generation_id = last.id
""",
    ),
    NamedQuery(
        "projects.count_generations",
        """
UPDATE projects SET generation_count = coalesce((SELECT max(number) FROM generations WHERE project_id = projects.id), 0)
WHERE id = %s
""",
    ),
)


class LineageRepository:
    """Links generations to the variants that they were made from."""

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    async def begin(
        self, owner_id: UUID, source: str, wanted: Wanted, *, finds_project: bool
    ) -> tuple[KnownGeneration | None, UUID | None]:
        """Let this transaction alone change the lineage of a person's projects, and look where a generation belongs.

        Args:
            owner_id: the person.
            source: the application.
            wanted: what is known of the generation.
            finds_project: look for its project.

        Returns:
            The generation, where it has arrived before, and else its project, if one is found: that of its parent, of
            an ancestor, of what waits for the same version or for one of its codes, or of the same conversation. Other
            variants of a conversation may come later, and a first request that was made again within a week stands
            beside the one before.
        """
        lock, known = (_LOCK, (owner_id,)), (_KNOWN, (source, wanted.key))
        parent, others = _parent_searches(owner_id, wanted), _other_searches(owner_id, wanted)
        searches = [*parent, *others] if finds_project else []
        _, row, *found = await self._session.run(lock, known, *searches)
        if row is not None:
            return KnownGeneration(*row), None
        if wanted.turns and searches and not any(found[: len(parent)]):
            found = [*await self._session.run(*_ancestor_searches(owner_id, wanted)), *found]
        return None, next((row[0] for row in found if row), None)

    async def find_parent(self, owner_id: UUID, project_id: UUID | None, wanted: Wanted) -> ParentVariant | None:
        """The variant that a generation changes which is not stored yet, in one or all projects of a person."""
        values = _values(owner_id, project_id, wanted, wanted.base, wanted.lineage)
        [row] = await self._session.run((_FIND_PARENT, values))
        return None if row is None else ParentVariant(**dict(zip(ParentVariant.model_fields, row, strict=True)))

    async def missing_codes(self, project_id: UUID, hashes: Sequence[str]) -> set[str]:
        """Those of these codes that no variant of a project has."""
        [row] = await self._session.run((_MISSING_CODES, (list(hashes), project_id)))
        return set(row[0]) if row else set()

    async def place(self, project_id: UUID, generation_id: UUID, *, wants_parent: bool) -> Placement:
        """Insert what is pending, of which variants of a generation are a part, and link it to an earlier parent.

        Whatever wants its codes has to be linked then, and what has only a makeshift parent, which it loses.
        """
        linked, children, unlinked, *state = await self._session.run_all(
            (_LINK[Candidates.EARLIER], (generation_id,)),
            (_CHILDREN, (project_id, generation_id)),
            (_UNLINK, (project_id,)),
            *_state_statements(project_id, generation_id),
        )
        chosen = {*children[0][0], *unlinked[0][0], *((generation_id,) if wants_parent and not linked else ())}
        return _placement(await self._sorted(chosen), *state)

    async def link(self, project_id: UUID, generation_id: UUID, unlinked: Sequence[UUID]) -> Placement:
        """Insert what is pending, and give generations the best parents that there are.

        Args:
            project_id: theirs.
            generation_id: the one whose state is wanted.
            unlinked: as ``place`` returns them, and what was added since.
        """
        statements = [(_LINK[kind], (generation,)) for kind in Candidates for generation in unlinked]
        answers = await self._session.run_all(*statements, *_state_statements(project_id, generation_id))
        linked = {unlinked[place % len(unlinked)] for place in range(len(statements)) if answers[place]}
        return _placement([each for each in unlinked if each not in linked], *answers[len(statements) :])

    async def remove_stand_ins(self, project_id: UUID) -> int:
        """Remove the stand-ins of a project that nothing was made from; how many there were."""
        count = 0
        before: Sequence[Statement] = [(_LOCK_PROJECT, (project_id,))]
        while True:
            *_, row = await self._session.run(*before, (_REMOVE_STAND_IN, (project_id,)))
            if row is None:
                return count
            count += 1
            [number] = row
            close, recount = _CLOSE_GAP
            before = [(close, (project_id, number, number, number)), (recount, (project_id,))]

    async def _sorted(self, generations: set[UUID]) -> Sequence[UUID]:
        if len(generations) < 2:
            return list(generations)
        [row] = await self._session.run((_SORT, (list(generations),)))
        return row[0] if row else ()


def _state_statements(project_id: UUID, generation_id: UUID) -> list[Statement]:
    return [(_FIND_STAND_IN, (project_id,)), *view_statements(generation_id)]


def _placement(unlinked: Sequence[UUID], idle: Rows, rows: Rows, code_rows: Rows) -> Placement:
    generation, variants = read_view(rows, code_rows)
    if generation is None:
        raise NotFoundError("the generation was removed while it was received")
    return Placement(unlinked, bool(idle), generation, variants)


def _parent_searches(owner_id: UUID, wanted: Wanted) -> list[Statement]:
    """What finds the project of the parent."""
    if wanted.base is None:
        return []
    return [(_PROJECT_OF_PARENT, _values(owner_id, None, wanted, wanted.base, wanted.lineage))]


def _ancestor_searches(owner_id: UUID, wanted: Wanted) -> list[Statement]:
    """What finds the project of an ancestor, the latest one first."""
    return [
        (_PROJECT_OF_PARENT, _values(owner_id, None, wanted, code, {"before": conversation}))
        for code, conversation in wanted.turns
    ]


def _other_searches(owner_id: UUID, wanted: Wanted) -> list[Statement]:
    """What finds the project where no ancestor is there, the best one first."""
    waiting = (wanted.siblings, wanted.before), (wanted.codes, wanted.conversation)
    found: list[Statement] = [
        (_FIND_WAITING, (owner_id, None, None, list(codes), conversation)) for codes, conversation in waiting if codes
    ]
    if wanted.root is not None:
        dated = (not wanted.is_first, wanted.at, wanted.at)
        found.append((_FIND_CONVERSATION, (owner_id, None, None, wanted.root, *dated)))
    return found


def _values(
    owner_id: UUID, project_id: UUID | None, wanted: Wanted, code: str | None, lineage: dict[str, Any]
) -> Sequence[Any]:
    child = wanted.at, wanted.key, code, orjson.dumps(lineage).decode()
    return *child, owner_id, project_id, project_id
