"""What can be seen of an API key. The key itself is in ``NewApiKey`` alone, which is handed out once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import SecretStr

from data_layer.entities.enums import ApiScope, UserRole
from data_layer.schemas.actors import Actor
from data_layer.schemas.base import View


class ApiKeyView(View):
    """A key, without what a program shows: ``prefix`` is how it begins. ``last_used_at`` may be some seconds old."""

    id: UUID
    name: str
    prefix: str
    scopes: tuple[ApiScope, ...]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class NewApiKey(View):
    """A key that was just made. ``secret`` is for the program alone and cannot be had again."""

    key: ApiKeyView
    secret: SecretStr


class ActiveApiKey(View):
    """A key that is accepted: who acts with it, as what, and for what it is good."""

    id: UUID
    user_id: UUID
    role: UserRole
    scopes: frozenset[ApiScope]

    @property
    def actor(self) -> Actor:
        """Who acts with this key, as services ask for it."""
        return Actor.user(self.user_id, self.role, self.scopes)
