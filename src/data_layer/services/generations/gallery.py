"""The requests of a person, newest first and across projects, as an application shows them that knows no projects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from data_layer.entities import AuditLog, GeneratedCode
from data_layer.entities.enums import AuditAction, ProjectStatus
from data_layer.errors import InvalidValueError
from data_layer.repositories.files import PageImage
from data_layer.repositories.generations import HIDDEN
from data_layer.repositories.repository import check_limit, check_number
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import GenerationPage, ShownGeneration, ShownVariant
from data_layer.services.generations.recording import Recording
from data_layer.services.page_images import PageImages
from data_layer.services.permissions import Permission, as_of_now, require
from data_layer.services.project_keys import keys_of_project, project_key
from data_layer.services.project_moves import move_project

MOST_HIDDEN = 1000
"""Variants of one call."""


class Gallery(Recording):
    """What such an application calls."""

    async def shown(self, actor: Actor, *, limit: int = 24, offset: int = 0, base: str | None = None) -> GenerationPage:
        """Return a page of the requests of a person that have a complete variant, those that were made last first.

        Args:
            actor: the person.
            base: where the service is reached, for pages with images that live in the place of codes.
            limit: the length of the page, 1000 at most.
            offset: how many come before it.

        Raises:
            InvalidValueError: a number is out of range.
        """
        check_limit(limit)
        check_number("offset", offset)
        owner_id = _owner(actor, Permission.READ_CODE)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.READ_CODE, owner=owner_id)
            rows, total = await tx.generations.shown(owner_id, limit=limit, offset=offset)
            variants = defaultdict(list)
            images = {} if base is None else await tx.files.assets_of(*{row.project_id for row in rows})
            for variant in await tx.generations.shown_variants([row.id for row in rows]):
                variants[variant.generation_id].append(variant)
        generations = (
            ShownGeneration(
                id=row.id,
                project_id=row.project_id,
                external_key=row.external_key,
                started_at=row.started_at,
                variants=tuple(_pages(variants[row.id], images.get(row.project_id, ()), base or "")),
            )
            for row in rows
        )
        return GenerationPage(generations=tuple(generations), total=total)

    async def hide(self, actor: Actor, code_ids: Collection[UUID]) -> tuple[UUID, ...]:
        """Take variants out of ``shown``; the tree of their project keeps them, because others are made from them.

        A project of which nothing is shown any more is deleted, as ``data.projects.delete`` does it.

        Args:
            actor: the person.
            code_ids: which variants, 1000 at most; those that the person does not have are passed over.

        Returns:
            The ids of those that are hidden now.

        Raises:
            InvalidValueError: there are too many.
        """
        if len(code_ids) > MOST_HIDDEN:
            raise InvalidValueError(f"{MOST_HIDDEN} variants at most can be hidden at once", field="code_ids")
        owner_id = _owner(actor, Permission.CHANGE_CODE)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.CHANGE_CODE, owner=owner_id)
            codes = await tx.generations.lock_variants(owner_id, set(code_ids))
            for code in codes:
                _hide(tx, owner_id, code)
            await tx.flush()
            for project_id in await tx.generations.without_shown({code.project_id for code in codes}):
                await _delete_project(tx, owner_id, project_id)
            hidden = {code.id for code in codes}
            return tuple(code_id for code_id in dict.fromkeys(code_ids) if code_id in hidden)


def _owner(actor: Actor, permission: Permission) -> UUID:
    require(actor, permission, owner=actor.user_id)
    if actor.user_id is None:
        raise InvalidValueError("the system has no generations; act as their owner", field="actor")
    return actor.user_id


def _hide(tx: UnitOfWork, owner_id: UUID, code: GeneratedCode) -> None:
    if HIDDEN in code.metadata_:
        return
    code.metadata_ = {**code.metadata_, HIDDEN: datetime.now(UTC).isoformat()}
    tx.invalidate(project_key(code.project_id))
    tx.add(
        AuditLog.data_action(
            *(AuditAction.CODE_DELETE, owner_id, "generated_code", code.id, "Took a variant out of what is shown"),
            old_values={"version": code.version, "variant_index": code.variant_index},
        )
    )


async def _delete_project(tx: UnitOfWork, owner_id: UUID, project_id: UUID) -> None:
    project = await tx.projects.get(project_id, lock=True)
    move_project(
        *(tx, project, ProjectStatus.DELETED, AuditAction.PROJECT_DELETE),
        by=owner_id,
        description="Deleted a project of which nothing is shown any more",
    )
    tx.invalidate(*keys_of_project(project_id, owner_id))


def _pages(variants: Sequence[ShownVariant], images: Sequence[PageImage], base: str) -> Iterator[ShownVariant]:
    shown = PageImages(images, base)
    for variant in variants:
        yield variant.model_copy(update={"code": shown.page(variant.code, variant.id)})
