"""The role and status of an actor, as the database has them now."""

from __future__ import annotations

from uuid import UUID

from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, UserStatus
from data_layer.errors import InvalidValueError, PermissionDeniedError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor

LONGEST_REASON = 1000
"""Most characters of the reason why somebody else's work is read."""


async def as_of_now(tx: UnitOfWork, actor: Actor) -> Actor:
    """The actor with the role that the account has now: an ``Actor`` may be older than the last change of it.

    Raises:
        PermissionDeniedError: the account is gone, or not active.
    """
    if actor.user_id is None:
        return actor
    role, status = await tx.users.standing(actor.user_id) or (None, None)
    if role is None or status is not UserStatus.ACTIVE:
        raise acting_account_inactive()
    return Actor.user(actor.user_id, role, actor.scopes)


def acting_account_inactive() -> PermissionDeniedError:
    """What an actor gets whose account is gone, or not active."""
    return PermissionDeniedError("the acting account is not active")


def reading_entry(
    actor: Actor, owner_id: UUID, description: str, reason: object, *, resource_type: str, resource_id: str
) -> AuditLog:
    """The audit entry of a moderator who reads somebody else's work.

    Raises:
        InvalidValueError: the reason is empty or has more than 1000 characters.
    """
    if not isinstance(reason, str) or not reason.strip() or len(reason) > LONGEST_REASON:
        raise InvalidValueError(f"reason must say why, in 1 to {LONGEST_REASON} characters", field="reason")
    return AuditLog.admin_action(
        AuditAction.ADMIN_DATA_EXPORT,
        actor.user_id,
        description,
        details=reason,
        resource_type=resource_type,
        resource_id=resource_id,
        metadata_={"owner_id": str(owner_id)},
    )
