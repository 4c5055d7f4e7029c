"""What can be seen of a user: by the user, by anyone, by administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, Field

from data_layer.entities.enums import AuthProvider, UserRole, UserStatus
from data_layer.schemas.base import View


class UserPublic(View):
    """What anyone may see."""

    id: UUID
    display_name: str | None
    avatar: str | None


class UserFull(UserPublic):
    """What users see of themselves."""

    email: str
    first_name: str
    last_name: str
    status: UserStatus
    role: UserRole
    auth_provider: AuthProvider
    email_verified: bool
    email_verified_at: datetime | None
    last_login_at: datetime | None
    preferences: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class UserAdmin(UserFull):
    """What administrators see besides: how and from where the account is used."""

    azure_id: str | None
    google_id: str | None
    github_id: str | None
    last_login_ip: str | None
    last_login_user_agent: str | None
    login_count: int
    failed_login_count: int
    locked_until: datetime | None
    password_changed_at: datetime | None
    metadata: dict[str, Any] = Field(validation_alias=AliasChoices("metadata_", "metadata"))
