"""``data.designs``: the design systems of a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from data_layer.entities import AuditLog, DesignSystem
from data_layer.entities.changes import changed_values
from data_layer.entities.enums import AuditAction
from data_layer.errors import (
    ChangedMeanwhileError,
    InvalidValueError,
    LimitReachedError,
    NotFoundError,
    ValueTooLongError,
)
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.designs import DesignSystemChanges, DesignSystemView
from data_layer.services.arguments import checks_arguments
from data_layer.services.permissions import Permission, as_of_now, is_allowed, require

MAXIMUM_SIZE = 128 * 1024
"""Largest content of a design system, in bytes of UTF-8: it becomes part of every prompt."""

MAXIMUM_NUMBER = 100
"""Most design systems of one person; a list returns all of them."""


@checks_arguments
class DesignSystemService:
    """Design systems, each of one person. To everybody else, administrators included, it is like a missing one."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def create(self, actor: Actor, *, name: str, content: str, owner_id: UUID | None = None) -> DesignSystemView:
        """Add a design system.

        Args:
            actor: the owner.
            name: one line, without blanks at its ends; two may have the same name.
            content: the text for the model; it may be empty.
            owner_id: whose it will be, by default the actor's.

        Raises:
            InvalidValueError: the name is empty, or a value cannot be stored; ``field`` says which.
            ValueTooLongError: the content has more than 128 KiB, or the name more than 255 characters.
            LimitReachedError: the person has 100 design systems already.
            PermissionDeniedError: the actor may not do this for that person.
        """
        owner_id = _owner(actor, owner_id)
        design = DesignSystem(user_id=owner_id, name=_clean_name(name), content=_checked_content(content))
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.CHANGE_DESIGN_SYSTEMS, owner=owner_id)
            # Two that are created at the same moment are counted one after the other.
            await tx.users.get(owner_id, lock=True)
            if await tx.designs.count(user_id=owner_id) >= MAXIMUM_NUMBER:
                raise LimitReachedError(f"a person may have {MAXIMUM_NUMBER} design systems; delete one first")
            tx.add(design)
            tx.add(_entry(AuditAction.DESIGN_CREATE, design, "Added a design system", new_values=_picture(design)))
            await tx.flush()
            return DesignSystemView.model_validate(design)

    async def get(self, actor: Actor, design_id: UUID) -> DesignSystemView:
        """Return a design system.

        Raises:
            NotFoundError: the actor has none with this id.
        """
        async with self._transactions() as tx:
            return DesignSystemView.model_validate(
                await _load_authorized(tx, actor, design_id, Permission.READ_DESIGN_SYSTEMS, lock=False)
            )

    async def list(self, actor: Actor, *, owner_id: UUID | None = None) -> Sequence[DesignSystemView]:
        """Return all design systems of a person, by default of the actor, in the order of their creation.

        Raises:
            PermissionDeniedError: they belong to somebody else.
        """
        owner_id = _owner(actor, owner_id, Permission.READ_DESIGN_SYSTEMS)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.READ_DESIGN_SYSTEMS, owner=owner_id)
            designs = await tx.designs.list(user_id=owner_id, limit=MAXIMUM_NUMBER)
        return [DesignSystemView.model_validate(design) for design in designs]

    async def update(
        self, actor: Actor, design_id: UUID, changes: DesignSystemChanges, *, expected: datetime | None = None
    ) -> DesignSystemView:
        """Change the name, the content or both.

        Args:
            actor: the owner.
            design_id: which one.
            changes: what is not given stays.
            expected: the ``updated_at`` that the caller has seen; without it the last change wins.

        Raises:
            NotFoundError: the actor has none with this id.
            ChangedMeanwhileError: it was changed after the caller read it.
            InvalidValueError, ValueTooLongError: see ``create``.
        """
        async with self._transactions() as tx:
            design = await _load_authorized(tx, actor, design_id, Permission.CHANGE_DESIGN_SYSTEMS)
            _require_unchanged(design, expected)
            before = _picture(design)
            same_content = changes.content is None or changes.content == design.content
            if changes.name is not None:
                design.name = _clean_name(changes.name)
            if changes.content is not None:
                design.content = _checked_content(changes.content)
            after = _picture(design)
            if before != after or not same_content:
                changed = changed_values(before, after)
                tx.add(_entry(AuditAction.DESIGN_UPDATE, design, "Changed a design system", **changed._asdict()))
            await tx.flush()
            return DesignSystemView.model_validate(design)

    async def delete(self, actor: Actor, design_id: UUID, *, expected: datetime | None = None) -> None:
        """Remove a design system. Generations that used it keep their own copy of its text.

        Raises:
            NotFoundError: the actor has none with this id.
            ChangedMeanwhileError: ``expected`` is not its ``updated_at``.
        """
        async with self._transactions() as tx:
            design = await _load_authorized(tx, actor, design_id, Permission.CHANGE_DESIGN_SYSTEMS)
            _require_unchanged(design, expected)
            tx.add(_entry(AuditAction.DESIGN_DELETE, design, "Deleted a design system", old_values=_picture(design)))
            await tx.designs.delete(design)


def _owner(actor: Actor, owner_id: UUID | None, permission: Permission = Permission.CHANGE_DESIGN_SYSTEMS) -> UUID:
    """Whose design systems are meant; after a first check, which needs no database."""
    owner_id = owner_id or actor.user_id
    require(actor, permission, owner=owner_id)
    if owner_id is None:
        raise InvalidValueError("owner_id is missing: the system has no design systems", field="owner_id")
    return owner_id


async def _load_authorized(
    tx: UnitOfWork, actor: Actor, design_id: UUID, permission: Permission, *, lock: bool = True
) -> DesignSystem:
    actor = await as_of_now(tx, actor)
    try:
        design = await tx.designs.get(design_id, lock=lock)
    except NotFoundError:
        raise _missing(design_id) from None
    if not is_allowed(actor, permission, owner=design.user_id):
        raise _missing(design_id)
    return design


def _missing(design_id: UUID) -> NotFoundError:
    return NotFoundError(f"no design system has the id {design_id}")


def _require_unchanged(design: DesignSystem, expected: datetime | None) -> None:
    if expected is not None and design.updated_at != expected:
        raise ChangedMeanwhileError(
            f"the design system was changed at {design.updated_at:%Y-%m-%d %H:%M:%S}; read it again",
            current=DesignSystemView.model_validate(design).model_dump(),
        )


def _clean_name(name: str) -> str:
    if not isinstance(name, str):
        raise InvalidValueError(f"name must be text, not {type(name).__name__}", field="name")
    if not name.strip():
        raise InvalidValueError("name is empty; give the design system one", field="name")
    return name.strip()


def _checked_content(content: str) -> str:
    if not isinstance(content, str):
        raise InvalidValueError(f"content must be text, not {type(content).__name__}", field="content")
    size = len(content.encode(errors="replace"))
    if size > MAXIMUM_SIZE:
        raise ValueTooLongError(
            f"a design system may have {MAXIMUM_SIZE} bytes at most; this one has {size}", field="content"
        )
    return content


def _picture(design: DesignSystem) -> dict[str, Any]:
    """What the audit trail, which outlives the account, may keep: no content."""
    return {"name": design.name, "content_size": len(design.content.encode())}


def _entry(action: AuditAction, design: DesignSystem, description: str, **fields: Any) -> AuditLog:
    return AuditLog.data_action(action, design.user_id, "design_system", design.id, description, **fields)
