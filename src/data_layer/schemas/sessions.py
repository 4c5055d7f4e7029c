"""What can be seen of a session: by its owner, by administrators; by neither the token or its data."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, Field

from data_layer.entities.enums import SessionStatus, SessionType
from data_layer.schemas.base import View


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
    """What administrators see besides."""

    user_id: UUID
    user_agent: str | None
    device_id: str | None
    request_count: int
    revoked_at: datetime | None
    revoked_reason: str | None
    metadata: dict[str, Any] = Field(validation_alias=AliasChoices("metadata_", "metadata"))
    updated_at: datetime
