"""The ``generated_codes`` and ``generated_images`` tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from typing_extensions import override

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import CompiledStatement, NamedQuery, named
from data_layer.entities import FileReference, GeneratedCode, GeneratedImage, Generation
from data_layer.entities.enums import GenerationStatus
from data_layer.repositories.files import keys_attached_to
from data_layer.repositories.repository import Repository, ViewRows
from data_layer.schemas.codes import GeneratedCodeSummary

_CODE_SIZE = func.coalesce(GeneratedCode.body_size, func.octet_length(GeneratedCode.code))


@cache
def code_summaries() -> ViewRows[GeneratedCodeSummary]:
    """How variants are read without their code."""
    return ViewRows(GeneratedCodeSummary, GeneratedCode, code_size=_CODE_SIZE)


def summaries_where(condition: ColumnElement[bool]) -> Select[tuple[Any, ...]]:
    """The query for variants without their code, oldest first."""
    query = select(*code_summaries().columns).where(condition)
    return query.order_by(GeneratedCode.version, GeneratedCode.variant_index)


_SUMMARIES = CompiledStatement(
    "generated_codes.summaries", lambda: summaries_where(GeneratedCode.project_id == bindparam("project_id"))
)
SUMMARIES_OF = CompiledStatement(
    "generated_codes.summaries_of",
    lambda: summaries_where(GeneratedCode.generation_id == any_(bindparam("generation_ids", type_=ARRAY(Uuid())))),
)


class GeneratedCodeRepository(Repository[GeneratedCode]):
    """Rows of ``generated_codes``. A version that others were made from is not removed alone."""

    entity = GeneratedCode
    compared_by_value = frozenset({"code"})

    def __init__(self, session: EntitySession, discard: Callable[..., None]) -> None:
        super().__init__(session)
        self._discard = discard

    @override
    async def delete(self, entity: GeneratedCode) -> None:
        """Remove the version; its files go after the commit.

        Raises:
            NotFoundError: when it is gone already.
            StillReferencedError: while others were made from it.
        """
        self._discard(*(await keys_attached_to(self._session, FileReference.code_id == entity.id)))
        await super().delete(entity)

    async def counts(self, project_ids: Sequence[UUID]) -> dict[UUID, int]:
        """How many versions each of these projects has; a project without any is left out."""
        statement = (
            select(GeneratedCode.project_id, func.count(GeneratedCode.version.distinct()).label("versions"))
            .where(GeneratedCode.project_id.in_(project_ids))
            .group_by(GeneratedCode.project_id)
        )
        return {row.project_id: row.versions for row in await self._session.execute(statement)}

    async def summaries(self, project_id: UUID) -> Sequence[GeneratedCodeSummary]:
        """All variants of all versions of a project without their code, oldest first."""
        [rows] = await self._session.fetch_all(_SUMMARIES.given(project_id=project_id))
        return code_summaries().read(rows)

    async def summaries_of(self, generation_ids: Sequence[UUID]) -> Sequence[GeneratedCodeSummary]:
        """All variants of these generations without their code, oldest first."""
        [rows] = await self._session.fetch_all(SUMMARIES_OF.given(generation_ids=list(generation_ids)))
        return code_summaries().read(rows)

    async def texts(self, code_ids: Sequence[UUID]) -> dict[UUID, str]:
        """The codes of these variants; those that are gone are left out."""
        statement = select(GeneratedCode.id, GeneratedCode.code).where(GeneratedCode.id.in_(code_ids))
        rows = await self._session.execute(named("generated_codes.texts", statement))
        return {row.id: row.code for row in rows}

    async def latest(self, project_id: UUID) -> GeneratedCode | None:
        """Of the last generation with a complete variant the selected one, or else the first that is complete."""
        statement = _latest(select(GeneratedCode), project_id)
        found = await self._session.find(named("generated_codes.latest", statement))
        return found[0] if found else None

    async def latest_id(self, project_id: UUID) -> UUID | None:
        """Its id, without reading the code."""
        statement = _latest(select(GeneratedCode.id), project_id)
        found = await self._session.execute(named("generated_codes.latest_id", statement))
        return found.scalar_one_or_none()


def _latest(columns: Select[Any], project_id: UUID) -> Select[Any]:
    is_selected = GeneratedCode.variant_index == Generation.selected_variant
    return (
        columns.join(Generation, Generation.id == GeneratedCode.generation_id)
        .where(
            Generation.project_id == project_id,
            GeneratedCode.project_id == project_id,
            GeneratedCode.status == GenerationStatus.COMPLETED,
        )
        .order_by(GeneratedCode.version.desc(), is_selected.desc(), GeneratedCode.variant_index)
        .limit(1)
    )


_STORED_UNDER = NamedQuery(
    "generated_images.stored_under",
    """
SELECT coalesce(array_agg(DISTINCT storage_key), '{}') FROM generated_images
WHERE project_id = %s AND storage_key = ANY(%s)
""",
)


class GeneratedImageRepository(Repository[GeneratedImage]):
    """Rows of ``generated_images``."""

    entity = GeneratedImage

    def __init__(self, session: EntitySession, discard: Callable[..., None]) -> None:
        super().__init__(session)
        self._discard = discard

    async def page(
        self, project_id: UUID, wanted: dict[str, Any], after: UUID | None, limit: int
    ) -> Sequence[GeneratedImage]:
        """The images of a project that fit, the latest first, and one more if another page follows."""
        statement = self._select({"project_id": project_id, **wanted})
        if after is not None:
            statement = statement.where(GeneratedImage.id < after)
        statement = statement.order_by(GeneratedImage.id.desc()).limit(limit + 1)
        return await self._session.find(named("generated_images.page", statement))

    async def stored_under(self, project_id: UUID, keys: Sequence[str]) -> set[str]:
        """Those of these keys of the storage that images of a project have."""
        row = await self._session.fetch_one(_STORED_UNDER, (project_id, list(keys)))
        return set(row[0]) if row else set()

    @override
    async def delete(self, entity: GeneratedImage) -> None:
        """Remove the image; its files go after the commit.

        Raises:
            NotFoundError: when it is gone already.
        """
        attached = await keys_attached_to(self._session, FileReference.image_id == entity.id)
        await super().delete(entity)
        self._discard(*{*attached, *([entity.storage_key] if entity.storage_key is not None else ())})
