"""What can be seen of a session: by the services that it is shown to, by its owner, by administrators.

The token is in none of them but ``NewSession``, which is handed out once, and never in its text.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, Field, SecretStr

from data_layer.entities.enums import SessionStatus, SessionType, UserRole
from data_layer.schemas.actors import Actor
from data_layer.schemas.base import Input, JsonObject, View


class ActiveSession(View):
    """An accepted session: the person and their role.

    ``expires_at`` is when it ends if nothing more is done in it; use moves that on.
    """

    id: UUID
    user_id: UUID
    role: UserRole
    type: SessionType
    created_at: datetime
    expires_at: datetime

    @property
    def actor(self) -> Actor:
        """Who acts in this session, as services ask for it."""
        return _actor(self.user_id, self.role)


@lru_cache(maxsize=4096)
def _actor(user_id: UUID, role: UserRole) -> Actor:
    """Make an actor once for many requests: it checks what it gets."""
    return Actor.user(user_id, role)


class NewSession(View):
    """A session that has just begun. ``token`` is for the client alone and cannot be had again."""

    token: SecretStr
    session: ActiveSession


class TokenPair(View):
    """What a client without cookies holds: a JWT for each call, and a token to exchange once for the next pair.

    ``access_expires_in`` is in seconds. Neither token can be had again.
    """

    access_token: SecretStr
    access_expires_in: int
    refresh_token: SecretStr
    refresh_expires_at: datetime
    session_id: UUID


class SessionData(View):
    """What an application keeps for a session; ``version`` must be shown to replace it."""

    values: dict[str, Any]
    version: int


class GeoLocation(Input):
    """Where a client seems to be, as far as somebody knows."""

    country: str | None = None
    city: str | None = None
    timezone: str | None = None


class SessionSecure(View):
    """What its owner may see, to recognise a device."""

    id: UUID
    status: SessionStatus
    type: SessionType
    expires_at: datetime
    last_active_at: datetime
    ip_address: str | None
    device_type: str | None
    browser: str | None
    browser_version: str | None
    operating_system: str | None
    os_version: str | None
    country: str | None
    city: str | None
    timezone: str | None
    created_at: datetime


class SessionAdmin(SessionSecure):
    """What administrators also see."""

    user_id: UUID
    user_agent: str | None
    device_id: str | None
    request_count: int
    revoked_at: datetime | None
    revoked_reason: str | None
    metadata: JsonObject = Field(validation_alias=AliasChoices("metadata_", "metadata"))
    updated_at: datetime
