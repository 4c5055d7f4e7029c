"""Counters of views, added to for many rows in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import NamedQuery
from data_layer.entities import GeneratedCode, GeneratedImage, Project

Viewed = type[Project] | type[GeneratedCode] | type[GeneratedImage]

# Rows are locked in the order of their ids, so that two processes never wait for each other in a circle. It is no
# change of the row's content, so the time of its last change stays.
_STATEMENT = """
WITH seen AS (
    SELECT * FROM unnest(%s::uuid[], %s::integer[], %s::float8[]) AS seen (id, views, seconds)
), locked AS MATERIALIZED (
    SELECT id FROM {table} WHERE id IN (SELECT id FROM seen) ORDER BY id FOR NO KEY UPDATE
)
UPDATE {table} SET {changes} FROM seen JOIN locked USING (id) WHERE {table}.id = seen.id
"""
_COUNT = "view_count = view_count + views"
_LAST = "last_viewed_at = greatest(last_viewed_at, now() - make_interval(secs => seconds))"
_ADD: dict[Viewed, NamedQuery] = {
    Project: NamedQuery("projects.add_views", _STATEMENT.format(table="projects", changes=f"{_COUNT}, {_LAST}")),
    GeneratedCode: NamedQuery("generated_codes.add_views", _STATEMENT.format(table="generated_codes", changes=_COUNT)),
    GeneratedImage: NamedQuery(
        "generated_images.add_views", _STATEMENT.format(table="generated_images", changes=_COUNT)
    ),
}


class Views(NamedTuple):
    """How often a row was viewed, and how many seconds ago it was for the last time."""

    id: UUID
    views: int
    seconds: float


class ViewCountRepository:
    """The counters of views of projects, codes and images."""

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    async def add(self, kind: Viewed, views: Sequence[Views]) -> None:
        """Add to the counters of rows; those that are gone are left out."""
        ids, added, seconds = map(list, zip(*views, strict=True)) if views else ([], [], [])
        await self._session.run((_ADD[kind], (ids, added, seconds)))
