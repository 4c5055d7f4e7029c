"""Who acts, as the database has it now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.entities.enums import UserStatus
from data_layer.errors import PermissionDeniedError
from data_layer.schemas.actors import Actor

if TYPE_CHECKING:
    from data_layer.repositories.unit_of_work import UnitOfWork


async def as_of_now(tx: UnitOfWork, actor: Actor) -> Actor:
    """The actor with the role that the account has now: an ``Actor`` may be older than the last change of it.

    Raises:
        PermissionDeniedError: the account is gone, or not active.
    """
    if actor.user_id is None:
        return actor
    user = await tx.users.find_one(id=actor.user_id)
    if user is None or user.status is not UserStatus.ACTIVE:
        raise PermissionDeniedError("the acting account is not active")
    return Actor.user(user.id, user.role)
