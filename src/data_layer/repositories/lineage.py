"""Where generations belong in the tree of their project, by the hashes of codes.

A generation that changes a code knows its hash, and what else helps to choose among variants that have it. A *stand-in*
is a generation that was made from the code of a parent that has not arrived; it goes when no child is left.
"""

# ruff: noqa: S608  (only texts of this module stand in the statements; values are passed as parameters)
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from data_layer.database.statements import Sql
from data_layer.schemas.lineage import ParentVariant

if TYPE_CHECKING:
    from data_layer.database.entity_session import EntitySession

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


class Candidates(StrEnum):
    """Which variants may become the parent, in the order in which they are tried.

    Links to earlier generations never make a circle, so the others are looked for when these are known.
    """

    EARLIER = "NOT is_stand_in AND is_earlier"
    LATER = f"NOT is_stand_in AND continues AND {_WITHOUT_CYCLE}"
    STAND_INS = f"is_stand_in AND coalesce(continues, true) AND {_WITHOUT_CYCLE}"


_LINK = {
    kind: Sql(
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
_FIND_PARENT = Sql(
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

# What waits for one of these codes, unless it belongs to another conversation.
_FIND_WAITING = Sql(
    "generations.find_waiting",
    f"""
SELECT project_id FROM generations
WHERE project_id IN ({_PROJECTS}) AND wanted_parent_hash = ANY(%s)
    AND coalesce(lineage ->> 'before' = %s, true)
ORDER BY lineage ->> 'before' IS NULL, started_at, id LIMIT 1
""",
)
# The conversation that was begun last with a request; for the request itself one that is not long ago.
_FIND_CONVERSATION = Sql(
    "generations.find_conversation",
    f"""
SELECT project_id FROM generations
WHERE project_id IN ({_PROJECTS}) AND lineage ->> 'root' = %s
    AND (%s OR started_at BETWEEN %s::timestamptz - interval '7 days' AND %s::timestamptz + interval '7 days')
ORDER BY started_at DESC, id DESC LIMIT 1
""",
)
_HAS_CODE = Sql(
    "generated_codes.has_hash",
    "SELECT id FROM generated_codes WHERE project_id = %s AND trimmed_hash = decode(%s, 'hex') LIMIT 1",
)
_CHILDREN = Sql(
    "generations.wanting",
    """
SELECT coalesce(array_agg(id), '{}') FROM generations WHERE project_id = %s AND wanted_parent_hash IN (
    SELECT encode(trimmed_hash, 'hex') FROM generated_codes WHERE generation_id = %s AND trimmed_hash IS NOT NULL
)
""",
)
_UNLINK = Sql(
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
_SORT = Sql(
    "generations.sort",
    """
SELECT array_agg(id ORDER BY started_at, coalesce(external_key, '') COLLATE "C", id) FROM generations
WHERE id = ANY(%s)
""",
)

_LOCK = Sql("users.lock_lineage", "SELECT pg_advisory_xact_lock(hashtextextended('lineage ' || %s::text, 0))")
_LOCK_PROJECT = Sql("projects.lock_numbers", "SELECT id FROM projects WHERE id = %s FOR NO KEY UPDATE")

# What somebody has named, rated, marked or shared stays.
_REMOVE_STAND_IN = Sql(
    "generations.remove_stand_in",
    f"""
DELETE FROM generations AS removed WHERE id = (
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
)
RETURNING number
""",
)
# The last generation takes the number that became free, so that none is missing.
_CLOSE_GAP = (
    Sql(
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
    Sql(
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

    async def lock(self, owner_id: UUID) -> None:
        """Let one transaction at a time change the lineage of a person's projects."""
        await self._session.run((_LOCK, (owner_id,)))

    async def find_parent(
        self,
        owner_id: UUID,
        project_id: UUID | None,
        *,
        at: datetime,
        key: str,
        wanted: str,
        lineage: dict[str, Any],
    ) -> ParentVariant | None:
        """The variant that a generation changes which is not stored yet, in one or all projects of a person."""
        child = at, key, wanted, orjson.dumps(lineage).decode()
        [row] = await self._session.run((_FIND_PARENT, (*child, owner_id, project_id, project_id)))
        return None if row is None else ParentVariant(**dict(zip(ParentVariant.model_fields, row, strict=True)))

    async def find_waiting(self, owner_id: UUID, hashes: Sequence[str], conversation: str | None) -> UUID | None:
        """The project of a person in which a generation waits for one of these codes."""
        [row] = await self._session.run((_FIND_WAITING, (owner_id, None, None, list(hashes), conversation)))
        return row[0] if row else None

    async def find_conversation(self, owner_id: UUID, root: str, *, is_first: bool, at: datetime) -> UUID | None:
        """The project of a person in which a conversation was begun with this request; the last one of several.

        Args:
            owner_id: the person.
            root: the hash of the request.
            is_first: it is looked for by this very request, which was made again, and not by one that follows it.
            at: when that was.
        """
        values = (owner_id, None, None, root, not is_first, at, at)
        [row] = await self._session.run((_FIND_CONVERSATION, values))
        return row[0] if row else None

    async def has_code(self, project_id: UUID, wanted: str) -> bool:
        """Whether a variant of a project has this code."""
        return await self._session.run((_HAS_CODE, (project_id, wanted))) != [None]

    async def to_link(self, project_id: UUID, generation_id: UUID) -> Sequence[UUID]:
        """What has to be linked when variants of a generation have arrived, in the order of their times.

        It, those that want its codes, and those that have only a makeshift parent, which lose it.
        """
        rows = await self._session.run((_CHILDREN, (project_id, generation_id)), (_UNLINK, (project_id,)))
        chosen = {generation_id}.union(*(row[0] for row in rows if row))
        [row] = await self._session.run((_SORT, (list(chosen),)))
        return row[0] if row else ()

    async def link(self, generation_id: UUID, candidates: Candidates) -> bool:
        """Give a generation the best parent among these, if there is one."""
        return await self._session.run((_LINK[candidates], (generation_id,))) != [None]

    async def remove_stand_ins(self, project_id: UUID) -> int:
        """Remove the stand-ins of a project that nothing was made from; how many there were."""
        await self._session.run((_LOCK_PROJECT, (project_id,)))
        count = 0
        while True:
            [row] = await self._session.run((_REMOVE_STAND_IN, (project_id,)))
            if row is None:
                return count
            count += 1
            [number] = row
            close, recount = _CLOSE_GAP
            await self._session.run((close, (project_id, number, number, number)), (recount, (project_id,)))
