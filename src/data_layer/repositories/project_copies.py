"""Copies of projects, row by row inside the database: codes never travel, however large a project is.

Columns are copied as they are, also those that a later migration adds, except for what ``_REPLACED`` says. Columns that
refer to a copied row refer to its copy; where the row was left out, they are empty.
"""

# ruff: noqa: S608  (only names of the models and texts of this module stand in the statements; values are parameters)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Column, Table
from uuid_utils.compat import uuid7

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import NamedQuery
from data_layer.entities import Entity, FileReference, GeneratedCode, GeneratedImage, Generation, Project

_COPIED: tuple[type[Entity], ...] = (Project, Generation, GeneratedCode, GeneratedImage, FileReference)
_COPIED_TABLES = frozenset(entity.__tablename__ for entity in _COPIED)
_RUNNING = "source.status IN ('pending', 'processing')"
_ENDED_STATUS = f"CASE WHEN {_RUNNING} THEN 'cancelled' ELSE source.status END"

# A text in JSON that is nothing but the id of a copied row becomes that of its copy. Texts stand between quotes; what a
# quote inside of one splits is put together as it was.
_INPUTS = """
coalesce((
    SELECT string_agg(coalesce(known.new::text, piece), '"' ORDER BY place)::jsonb
    FROM unnest(string_to_array(source.inputs::text, '"')) WITH ORDINALITY AS pieces (piece, place)
    LEFT JOIN ids AS known ON known.old::text = piece
    WHERE source.inputs::text ~ '"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"'
), source.inputs)
"""

# None: the database fills it in.
_REPLACED: dict[type[Entity], dict[str, str | None]] = {
    Project: {
        "user_id": "copy.owner_id",
        "name": "copy.name",
        # An archived project returns to the status that it had.
        "status": "CASE WHEN source.status = 'archived' THEN coalesce(source.status_before_archive, 'active') "
        "ELSE source.status END",
        "is_public": "false",
        "is_favorite": "false",
        "view_count": "0",
        "generation_count": "copy.generation_count",
        "last_generated_at": "copy.last_generated_at",
        **dict.fromkeys(("last_viewed_at", "deleted_at", "status_before_archive", "status_before_delete"), "NULL"),
        **dict.fromkeys(("revision", "created_at", "updated_at", "search_vector")),
    },
    Generation: {
        # The application that sent them names the original.
        "external_source": "NULL",
        "external_key": "NULL",
        "inputs": _INPUTS,
        "ended_at": "coalesce(source.ended_at, now())",
    },
    GeneratedCode: {
        "status": _ENDED_STATUS,
        **dict.fromkeys(("lease_until", "writer"), "NULL"),
        **dict.fromkeys(("view_count", "copy_count", "download_count"), "0"),
    },
    GeneratedImage: {
        "status": _ENDED_STATUS,
        **dict.fromkeys(("view_count", "download_count"), "0"),
    },
    FileReference: {
        "owner_id": "copy.owner_id",
        # A permanent address of its own, as long and as random as others.
        "asset_name": "translate(encode(uuid_send(gen_random_uuid()), 'base64'), '+/=', '-_') "
        "|| substring(source.asset_name FROM '[.][a-z0-9]+$')",
        # Codes are copied as they are, so they name the images of the original.
        "earlier_names": "source.earlier_names || coalesce(to_jsonb(source.asset_name), '[]')",
        **dict.fromkeys(("created_at", "updated_at")),
    },
}

# Variants come after what they were made from, which the database looks for when it inserts them. Their numbers do not
# say it: a parent may arrive after its children.
_DEPTHS = """, depths AS (
    SELECT codes.id, 0 AS depth FROM generated_codes AS codes JOIN ids ON ids.old = codes.id
    WHERE NOT EXISTS (SELECT FROM ids AS parents WHERE parents.old = codes.parent_id)
    UNION ALL
    SELECT codes.id, depth + 1 FROM generated_codes AS codes
    JOIN depths ON depths.id = codes.parent_id JOIN ids ON ids.old = codes.id
)"""

# In the same statement as the codes, because a code may be moved into a body between two.
_BODIES = """, packed AS (
    SELECT codes.project_id, codes.body, project.new AS copied_to
    FROM generated_codes AS codes JOIN ids ON ids.old = codes.id JOIN ids AS project ON project.old = codes.project_id
    WHERE codes.body IS NOT NULL
), bodies AS (
    INSERT INTO code_bodies (project_id, sha256, size, encoding, base, bytes)
    SELECT DISTINCT packed.copied_to, found.sha256, found.size, found.encoding, found.base, found.bytes
    FROM packed
    JOIN code_bodies AS own ON own.project_id = packed.project_id AND own.sha256 = packed.body
    JOIN code_bodies AS found ON found.project_id = own.project_id AND found.sha256 IN (own.sha256, own.base)
)"""

# An object that only a key in a column names gets a reference too, so that the copy keeps it when the original is gone.
_CONTENTS = NamedQuery(
    "projects.contents",
    """
WITH given AS (
    SELECT %s::uuid AS project_id, %s::integer AS last, %s::uuid AS code_id
), project AS (
    SELECT id, generation_count, original_image FROM projects WHERE id = (SELECT project_id FROM given) FOR KEY SHARE
), numbers AS (
    SELECT generations.id, created_at FROM generations JOIN project ON project.id = project_id
    WHERE number <= (SELECT last FROM given)
), codes AS (
    SELECT id, input_image_url, result_image_url FROM generated_codes WHERE generation_id IN (SELECT id FROM numbers)
), images AS (
    SELECT images.id, storage_key, image_url FROM generated_images AS images JOIN project ON project.id = project_id
), files AS (
    SELECT files.id, file_id FROM file_references AS files
    JOIN stored_files ON stored_files.id = file_id AND stored_files.state = 'stored'
    WHERE project_id IN (SELECT id FROM project)
        OR image_id IN (SELECT id FROM images) OR code_id IN (SELECT id FROM codes)
        OR code_id = (SELECT code_id FROM given)
), keys AS (
    SELECT original_image AS key FROM project
    UNION SELECT unnest(ARRAY[storage_key, image_url]) FROM images
    UNION SELECT unnest(ARRAY[input_image_url, result_image_url]) FROM codes
)
SELECT
    least(generation_count, (SELECT last FROM given)), (SELECT max(created_at) FROM numbers),
    ARRAY(SELECT id FROM numbers ORDER BY id), ARRAY(SELECT id FROM codes ORDER BY id),
    ARRAY(SELECT id FROM images ORDER BY id), ARRAY(SELECT id FROM files ORDER BY id),
    ARRAY(
        SELECT stored_files.id FROM stored_files JOIN keys USING (key)
        WHERE state = 'stored' AND parent_id IS NULL AND stored_files.id NOT IN (SELECT file_id FROM files)
    )
FROM project
""",
)
_HOLD = NamedQuery(
    "file_references.hold",
    """
INSERT INTO file_references (id, file_id, owner_id, project_id)
SELECT held.id, file_id, projects.user_id, projects.id
FROM projects, unnest(%s::uuid[], %s::uuid[]) AS held (id, file_id) WHERE projects.id = %s
""",
)


@dataclass(frozen=True, slots=True)
class ProjectContents:
    """What is copied of a project, by ids. ``objects`` are held by nothing but the keys in its columns."""

    project_id: UUID
    generation_count: int
    last_generated_at: datetime | None
    generations: Sequence[UUID]
    codes: Sequence[UUID]
    images: Sequence[UUID]
    files: Sequence[UUID]
    objects: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class ProjectCopy:
    """A copy that is being made; ``ids`` holds those of its rows by those of their originals."""

    contents: ProjectContents
    owner_id: UUID
    name: str
    ids: dict[UUID, UUID]

    @property
    def id(self) -> UUID:
        """The id of the new project."""
        return self.ids[self.contents.project_id]

    @property
    def values(self) -> Sequence[Any]:
        """What the statements take."""
        counted = self.contents.generation_count, self.contents.last_generated_at
        return list(self.ids), list(self.ids.values()), self.owner_id, self.name, *counted


class ProjectCopyRepository:
    """Makes copies of projects."""

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    async def contents(self, project_id: UUID, *, last: int, code_id: UUID | None = None) -> ProjectContents | None:
        """What a copy of a project will hold; None when it is gone. It cannot be removed until the transaction ends.

        Args:
            project_id: the project.
            last: the number of the last generation of the copy; 0 for none.
            code_id: a variant whose files are copied although its generation is not.
        """
        [row] = await self._session.run((_CONTENTS, (project_id, last, code_id)))
        return None if row is None else ProjectContents(project_id, *row)

    async def begin(self, contents: ProjectContents, *, owner_id: UUID, name: str) -> ProjectCopy:
        """Insert the project alone."""
        rows = (contents.project_id, *contents.generations, *contents.codes, *contents.images, *contents.files)
        copy = ProjectCopy(contents, owner_id, name, {row: uuid7() for row in rows})
        await self._session.run((_COPY[Project], copy.values))
        return copy

    async def fill(self, copy: ProjectCopy) -> None:
        """Insert what belongs to the project."""
        contents = copy.contents
        below = (Generation, GeneratedCode, GeneratedImage, FileReference)
        chosen = below if contents.generations else below[2:]
        held = [uuid7() for _ in contents.objects], list(contents.objects), copy.id
        await self._session.run(*((_COPY[entity], copy.values) for entity in chosen), (_HOLD, held))


def _copy(entity: type[Entity]) -> NamedQuery:
    """The statement that copies rows of a table whose ids are among those given."""
    replaced = _REPLACED[entity]
    table = cast("Table", entity.__table__)
    columns = [column for column in table.columns if replaced.get(column.name, "") is not None]
    joins = [column.name for column in columns if _refers_to_copy(column)]
    values = [
        "own.new"
        if column.name == "id"
        else f"{column.name}.new"
        if column.name in joins
        else replaced.get(column.name, f"source.{column.name}")
        for column in columns
    ]
    return NamedQuery(
        f"{table.name}.copy",
        f"""
WITH RECURSIVE ids AS MATERIALIZED (
    SELECT * FROM unnest(%s::uuid[], %s::uuid[]) AS ids (old, new)
), copy AS (
    SELECT %s::uuid AS owner_id, %s::text AS name, %s::integer AS generation_count,
        %s::timestamptz AS last_generated_at
){_DEPTHS + _BODIES if entity is GeneratedCode else ""}
INSERT INTO {table.name} ({", ".join(column.name for column in columns)})
SELECT {", ".join(map(str, values))}
FROM ids AS own JOIN {table.name} AS source ON source.id = own.old CROSS JOIN copy
{"JOIN depths ON depths.id = own.old" if entity is GeneratedCode else ""}
{" ".join(f"LEFT JOIN ids AS {name} ON {name}.old = source.{name}" for name in joins)}
ORDER BY {"depth, " if entity is GeneratedCode else ""}own.new
""",
    )


def _refers_to_copy(column: Column[Any]) -> bool:
    return any(key.column.table.name in _COPIED_TABLES for key in column.foreign_keys)


_COPY = {entity: _copy(entity) for entity in _COPIED}
