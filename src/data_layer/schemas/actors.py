"""Who asks a service to do something."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from data_layer.entities.enums import UserRole


@dataclass(frozen=True, slots=True)
class Actor:
    """A user whom a session or an access token has proved, nobody in particular, or the system itself.

    What an actor may do is decided in ``services.permissions`` and nowhere else.
    """

    user_id: UUID | None = None
    role: UserRole | None = None
    is_system: bool = False

    @classmethod
    def user(cls, user_id: UUID, role: UserRole = UserRole.USER) -> Actor:
        """Someone who is logged in."""
        return cls(user_id=user_id, role=role)


ANONYMOUS = Actor()
"""Nobody in particular: a caller who has not proved anything. It may do nothing that needs a permission."""

SYSTEM = Actor(is_system=True)
"""The operator's commands and scheduled work. Never make it from a request."""
