"""Who asks a service to do something."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from data_layer.entities.enums import UserRole
from data_layer.errors import InvalidValueError

_ROLES = tuple(UserRole)  # A set would ask what is given for its hash.


@dataclass(frozen=True, slots=True)
class Actor:
    """A user whom a session or an access token has proved, nobody in particular, or the system itself.

    What an actor may do is decided in ``services.permissions`` and nowhere else.
    """

    user_id: UUID | None = None
    role: UserRole | None = None
    is_system: bool = False

    def __post_init__(self) -> None:
        """Refuse what is neither a user nor a role, before anybody acts with it."""
        if not isinstance(self.user_id, UUID | None):
            raise InvalidValueError(f"user_id must be a UUID, not {type(self.user_id).__name__}", field="user_id")
        if self.role is not None and self.role not in _ROLES:
            raise InvalidValueError(f"role must be one of: {', '.join(UserRole)}", field="role")

    @classmethod
    def user(cls, user_id: UUID, role: UserRole = UserRole.USER) -> Actor:
        """Someone who is logged in."""
        return cls(user_id=user_id, role=role)


ANONYMOUS = Actor()
"""Nobody in particular: a caller who has not proved anything. It may do nothing that needs a permission."""

SYSTEM = Actor(is_system=True)
"""The operator's commands and scheduled work. Never make it from a request."""
