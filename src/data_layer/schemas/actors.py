"""The callers of services."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from data_layer.entities.enums import ApiScope, UserRole
from data_layer.errors import InvalidValueError

_SCOPES = frozenset(ApiScope)
_ROLES = tuple(UserRole)  # A set would ask what is given for its hash.


@dataclass(frozen=True, slots=True)
class Actor:
    """A user whom a session or an access token has proved, nobody in particular, or the system itself.

    What an actor may do is decided in ``services.permissions`` and nowhere else. ``scopes`` are those of the API key
    with which a program acts for the user; None where the user acts, who may do all that the role allows.
    """

    user_id: UUID | None = None
    role: UserRole | None = None
    is_system: bool = False
    scopes: frozenset[ApiScope] | None = None

    def __post_init__(self) -> None:
        """Refuse what is neither a user nor a role, before anybody acts with it."""
        if not isinstance(self.user_id, UUID | None):
            raise InvalidValueError(f"user_id must be a UUID, not {type(self.user_id).__name__}", field="user_id")
        if self.role is not None and self.role not in _ROLES:
            raise InvalidValueError(f"role must be one of: {', '.join(UserRole)}", field="role")
        if not _are_scopes(self.scopes):
            raise InvalidValueError(f"scopes must be a frozenset of: {', '.join(ApiScope)}", field="scopes")

    @classmethod
    def user(cls, user_id: UUID, role: UserRole = UserRole.USER, scopes: frozenset[ApiScope] | None = None) -> Actor:
        """A person in a session, or a program with their API key."""
        return cls(user_id=user_id, role=role, scopes=scopes)


def _are_scopes(value: object) -> bool:
    return value is None or (isinstance(value, frozenset) and value <= _SCOPES)


ANONYMOUS = Actor()
"""Nobody in particular: a caller who has not proved anything. It may do nothing that needs a permission."""

SYSTEM = Actor(is_system=True)
"""The operator's commands and scheduled work. Never make it from a request."""
