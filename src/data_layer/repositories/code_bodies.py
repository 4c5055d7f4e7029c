"""The ``code_bodies`` table: codes that are moved out of their rows, and what nobody needs any more."""

# ruff: noqa: S608  (only texts of this module stand in the statements; values are passed as parameters)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from data_layer.database.entity_session import EntitySession
from data_layer.database.migrations import VERSION_TABLE
from data_layer.database.statements import NamedQuery, named
from data_layer.entities.code_body import ENCODING, SMALLEST, CodeBody


@dataclass(frozen=True, slots=True)
class UnpackedCode:
    """A code that can be moved, without its text; ``size`` is in bytes."""

    id: UUID
    project_id: UUID
    version: int
    variant_index: int
    size: int


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A body of a project, with the one that it needs, as far as that is there."""

    project_id: UUID
    body: CodeBody
    base: CodeBody | None


@dataclass(frozen=True, slots=True)
class WrongCodes:
    """Codes of a project with the same text and the same problem; ``sha256`` is what they say of the text."""

    problem: str
    project_id: UUID
    sha256: bytes | None
    ids: Sequence[UUID]
    places: Sequence[tuple[int, int]]


# A variant whose writer may come back is left alone; codes that were added alone never had one.
_IS_UNPACKED = f"""
    lease_until IS NULL AND octet_length(code) >= {SMALLEST}
    AND (status IN ('completed', 'failed', 'cancelled') OR writer IS NULL)
"""
_IS_ORPHAN = """
    NOT EXISTS (
        SELECT FROM generated_codes WHERE generated_codes.project_id = bodies.project_id AND body = bodies.sha256
    ) AND NOT EXISTS (
        SELECT FROM code_bodies AS others WHERE others.project_id = bodies.project_id AND others.base = bodies.sha256
    )
"""
_MAY_PACK = NamedQuery("code_bodies.may_pack", f"SELECT codes_packed_from <= now() FROM {VERSION_TABLE}")
_FIND_UNPACKED = named(
    "generated_codes.find_unpacked",
    text(f"""
    SELECT id, project_id, version, variant_index, octet_length(code) AS size FROM generated_codes
    WHERE {_IS_UNPACKED} AND (project_id, version, variant_index) > (:project_id, :version, :variant_index)
    ORDER BY project_id, version, variant_index LIMIT :limit
    """),
)
_COUNT_UNPACKED = NamedQuery(
    "generated_codes.count_unpacked", f"SELECT count(*) FROM generated_codes WHERE {_IS_UNPACKED}"
)
_READ_TEXTS = named(
    "generated_codes.read_texts",
    text(
        "SELECT id, code FROM generated_codes WHERE id = ANY(:ids) AND code IS NOT NULL ORDER BY version, variant_index"
    ),
)
_FIND_BASES = named(
    "code_bodies.find_bases",
    text("""
    SELECT sha256, size, base, bytes FROM code_bodies AS bodies
    JOIN (
        SELECT project_id, body, max(version) AS version FROM generated_codes
        WHERE project_id = :project_id AND body IS NOT NULL GROUP BY project_id, body
    ) AS codes ON codes.project_id = bodies.project_id AND codes.body = bodies.sha256
    WHERE base IS NULL ORDER BY codes.version DESC, sha256 LIMIT :limit
    """),
)
# A removal of the project waits until the codes of a batch are moved; one that is being removed is left alone.
_KEEP_PROJECT = NamedQuery(
    "code_bodies.keep_project", "SELECT id FROM projects WHERE id = %s FOR KEY SHARE SKIP LOCKED"
)
_ADD = NamedQuery(
    "code_bodies.insert",
    f"""
INSERT INTO code_bodies (project_id, sha256, size, encoding, base, bytes)
SELECT %s, sha256, size, '{ENCODING}', base, bytes
FROM unnest(%s::bytea[], %s::integer[], %s::bytea[], %s::bytea[]) AS bodies (sha256, size, base, bytes)
ON CONFLICT DO NOTHING
""",
)
# A row that somebody is changing, or has changed since it was read, keeps its text.
_MOVE = NamedQuery(
    "generated_codes.pack",
    """
WITH free AS (
    SELECT id FROM generated_codes WHERE id = ANY(%s) FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE generated_codes AS codes SET code = NULL, body = texts.sha256, body_size = texts.size
    FROM unnest(%s::uuid[], %s::bytea[], %s::integer[]) AS texts (id, sha256, size) JOIN free ON free.id = texts.id
    WHERE codes.id = texts.id AND codes.lease_until IS NULL AND sha256(convert_to(codes.code, 'UTF8')) = texts.sha256
    RETURNING codes.id
)
SELECT count(*) FROM moved
""",
)
_COUNT_ORPHANS = NamedQuery(
    "code_bodies.count_orphans", f"SELECT count(*) FROM code_bodies AS bodies WHERE {_IS_ORPHAN}"
)
# What is locked here gets no new reference, so the second statement decides for good.
_LOCK_ORPHANS = named(
    "code_bodies.lock_orphans",
    text(f"""
    SELECT project_id, sha256 FROM code_bodies AS bodies WHERE {_IS_ORPHAN} LIMIT :limit FOR UPDATE SKIP LOCKED
    """),
)
_REMOVE_ORPHANS = NamedQuery(
    "code_bodies.remove_orphans",
    f"""
WITH removed AS (
    DELETE FROM code_bodies AS bodies USING unnest(%s::uuid[], %s::bytea[]) AS found (project_id, sha256)
    WHERE bodies.project_id = found.project_id AND bodies.sha256 = found.sha256 AND {_IS_ORPHAN}
    RETURNING bodies.sha256
)
SELECT count(*) FROM removed
""",
)
_COLUMNS = """
    own.project_id, own.sha256, own.size, own.base, own.bytes, base.size AS base_size, base.base AS base_base,
    base.bytes AS base_bytes
    FROM code_bodies AS own
    LEFT JOIN code_bodies AS base ON base.project_id = own.project_id AND base.sha256 = own.base
"""
_READ_PAGE = named(
    "code_bodies.read_page",
    text(f"""
    SELECT {_COLUMNS} WHERE (own.project_id, own.sha256) > (:project_id, :sha256)
    ORDER BY own.project_id, own.sha256 LIMIT :limit
    """),
)
_READ_COPIES = named("code_bodies.read_copies", text(f"SELECT {_COLUMNS} WHERE own.sha256 = :sha256 LIMIT 100"))
_READ_PLAIN = NamedQuery(
    "generated_codes.read_plain",
    f"""
SELECT code FROM generated_codes
WHERE octet_length(code) >= {SMALLEST} AND sha256(convert_to(code, 'UTF8')) = %s LIMIT 1
""",
)
_REPLACE = NamedQuery(
    "code_bodies.replace",
    f"""
INSERT INTO code_bodies (size, bytes, project_id, sha256, encoding) VALUES (%s, %s, %s, %s, '{ENCODING}')
ON CONFLICT (project_id, sha256) DO UPDATE SET size = excluded.size, base = NULL, bytes = excluded.bytes
""",
)
_READ_PLACES = named(
    "generated_codes.read_places",
    text("""
    SELECT version, variant_index FROM generated_codes WHERE project_id = :project_id AND body = :sha256
    ORDER BY version, variant_index LIMIT 100
    """),
)
_FIND_ORPHANS = named(
    "code_bodies.find_orphans",
    text(f"""
    SELECT project_id, sha256 FROM code_bodies AS bodies WHERE {_IS_ORPHAN} ORDER BY project_id, sha256 LIMIT :limit
    """),
)
# Texts of white space alone have no hash, and what is still written has none yet.
_FIND_WRONG = named(
    "generated_codes.find_wrong",
    text("""
    SELECT problem, project_id, sha256, array_agg(id ORDER BY version, variant_index) AS ids,
        array_agg(version ORDER BY version, variant_index) AS versions,
        array_agg(variant_index ORDER BY version, variant_index) AS variants
    FROM (
        SELECT codes.id, codes.project_id, version, variant_index, coalesce(codes.body, code_hash) AS sha256, CASE
            WHEN codes.code IS NULL AND bodies.sha256 IS NULL THEN 'missing'
            WHEN codes.body IS NOT NULL AND codes.body_size IS DISTINCT FROM bodies.size THEN 'wrong_size'
            WHEN code_hash <> coalesce(codes.body, sha256(convert_to(codes.code, 'UTF8'))) THEN 'wrong_hash'
        END AS problem
        FROM generated_codes AS codes
        LEFT JOIN code_bodies AS bodies ON bodies.project_id = codes.project_id AND bodies.sha256 = codes.body
        WHERE lease_until IS NULL
    ) AS checked
    WHERE problem IS NOT NULL GROUP BY problem, project_id, sha256 ORDER BY problem, project_id, sha256 LIMIT :limit
    """),
)
_CORRECT = NamedQuery(
    "generated_codes.correct",
    """
UPDATE generated_codes AS codes SET body_size = bodies.size,
    code_hash = CASE WHEN codes.code_hash IS NULL THEN NULL ELSE codes.body END
FROM code_bodies AS bodies
WHERE codes.id = ANY(%s) AND bodies.project_id = codes.project_id AND bodies.sha256 = codes.body
""",
)
# Without its hash, the trigger ``hash_code`` makes both again.
_HASH_AGAIN = NamedQuery(
    "generated_codes.hash_again",
    """
UPDATE generated_codes SET code = code, code_hash = NULL
WHERE id = ANY(%s) AND code IS NOT NULL AND lease_until IS NULL
""",
)
_FIRST = UUID(int=0)


class CodeBodyRepository:
    """Bodies of codes. Readers of codes need none of this: ``GeneratedCode.code`` is the text wherever it is."""

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    async def may_pack(self) -> bool:
        """Whether no process can be left of a version that does not know bodies."""
        row = await self._session.fetch_one(_MAY_PACK, ())
        return bool(row and row[0])

    async def count_unpacked(self) -> int:
        """How many codes can be moved."""
        return await self._count(_COUNT_UNPACKED)

    async def unpacked(self, after: UnpackedCode | None, limit: int) -> Sequence[UnpackedCode]:
        """The next codes that can be moved, by project and version."""
        place = {
            "project_id": after.project_id if after else _FIRST,
            "version": after.version if after else 0,
            "variant_index": after.variant_index if after else -1,
        }
        rows = await self._session.execute(_FIND_UNPACKED.bindparams(**place, limit=limit))
        return [UnpackedCode(row.id, row.project_id, row.version, row.variant_index, row.size) for row in rows]

    async def texts(self, ids: Sequence[UUID]) -> Sequence[tuple[UUID, str]]:
        """The codes that still are in their rows, oldest first."""
        rows = await self._session.execute(_READ_TEXTS.bindparams(ids=list(ids)))
        return [(row.id, row.code) for row in rows]

    async def bases(self, project_id: UUID, limit: int) -> Sequence[CodeBody]:
        """The whole bodies of a project that its last versions have, oldest first."""
        rows = await self._session.execute(_FIND_BASES.bindparams(project_id=project_id, limit=limit))
        return [CodeBody(row.sha256, row.size, row.base, row.bytes) for row in reversed(rows.all())]

    async def move(self, project_id: UUID, bodies: Sequence[CodeBody], ids: Sequence[tuple[UUID, bytes, int]]) -> int:
        """Store bodies, and let rows refer to them that still hold the same text.

        Args:
            project_id: the project of all of them.
            bodies: what is to be stored, unless it is there.
            ids: of codes, each with the SHA-256 and the size of its text.

        Returns: how many rows were changed.
        """
        [kept] = await self._session.run((_KEEP_PROJECT, (project_id,)))
        if kept is None:
            return 0
        added = [list(values) for values in zip(*((b.sha256, b.size, b.base, b.data) for b in bodies), strict=True)]
        texts = [list(values) for values in zip(*ids, strict=True)]
        _, row = await self._session.run((_ADD, (project_id, *added)), (_MOVE, (texts[0], *texts)))
        return int(row[0]) if row else 0

    async def count_orphans(self) -> int:
        """How many bodies are needed by no code and no other body."""
        return await self._count(_COUNT_ORPHANS)

    async def orphans(self, limit: int) -> Sequence[tuple[UUID, bytes]]:
        """The first bodies that are needed by no code and no other body: project and hash."""
        rows = await self._session.execute(_FIND_ORPHANS.bindparams(limit=limit))
        return [(row.project_id, row.sha256) for row in rows]

    async def wrong_codes(self, limit: int) -> Sequence[WrongCodes]:
        """Codes that have no text, or say another size or hash than that of their text; all codes are read."""
        rows = await self._session.execute(_FIND_WRONG.bindparams(limit=limit))
        return [
            WrongCodes(
                row.problem, row.project_id, row.sha256, row.ids, list(zip(row.versions, row.variants, strict=True))
            )
            for row in rows
        ]

    async def correct(self, codes: WrongCodes) -> None:
        """Set size and hashes to those of the text."""
        ids = list(codes.ids)
        await self._session.run((_CORRECT, (ids,)), (_HASH_AGAIN, (ids,)))

    async def remove_orphans(self, limit: int) -> int:
        """Remove some of the bodies that nothing needs; how many."""
        found = (await self._session.execute(_LOCK_ORPHANS.bindparams(limit=limit))).all()
        if not found:
            return 0
        [row] = await self._session.run((_REMOVE_ORPHANS, [list(values) for values in zip(*found, strict=True)]))
        return int(row[0]) if row else 0

    async def page(self, after: StoredBody | None, limit: int) -> Sequence[StoredBody]:
        """The next bodies, by project and hash."""
        place = {"project_id": after.project_id if after else _FIRST, "sha256": after.body.sha256 if after else b""}
        rows = await self._session.execute(_READ_PAGE.bindparams(**place, limit=limit))
        return [_stored_body(row) for row in rows]

    async def copies(self, sha256: bytes) -> Sequence[StoredBody]:
        """All bodies of a text, whatever their project."""
        rows = await self._session.execute(_READ_COPIES.bindparams(sha256=sha256))
        return [_stored_body(row) for row in rows]

    async def plain(self, sha256: bytes) -> bytes | None:
        """A text with this hash that is in a row of its own, whatever the project; all such rows are read."""
        [row] = await self._session.run((_READ_PLAIN, (sha256,)))
        return str(row[0]).encode() if row else None

    async def replace(self, project_id: UUID, body: CodeBody) -> None:
        """Store a body again, whole; also one that is gone."""
        await self._session.run((_REPLACE, (body.size, body.data, project_id, body.sha256)))

    async def places(self, project_id: UUID, sha256: bytes) -> Sequence[tuple[int, int]]:
        """Which versions and variants have this text."""
        rows = await self._session.execute(_READ_PLACES.bindparams(project_id=project_id, sha256=sha256))
        return [(row.version, row.variant_index) for row in rows]

    async def _count(self, sql: NamedQuery) -> int:
        row = await self._session.fetch_one(sql, ())
        return int(row[0]) if row else 0


def _stored_body(row: Row[Any]) -> StoredBody:
    base = None if row.base_bytes is None else CodeBody(row.base, row.base_size, row.base_base, row.base_bytes)
    return StoredBody(row.project_id, CodeBody(row.sha256, row.size, row.base, row.bytes), base)
