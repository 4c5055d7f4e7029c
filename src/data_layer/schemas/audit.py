"""What can be seen of an audit entry: without the details of the person, for compliance, all of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, Field

from data_layer.entities.enums import AuditAction, AuditCategory, AuditLevel
from data_layer.schemas.base import View


class AuditSecure(View):
    """What happened, without from where and without the values."""

    id: UUID
    user_id: UUID | None
    action: AuditAction
    level: AuditLevel
    category: AuditCategory
    description: str
    resource_type: str | None
    resource_id: str | None
    is_success: bool
    created_at: datetime


class AuditCompliance(AuditSecure):
    """What an auditor needs: also from where, with which outcome, and what changed."""

    ip_address: str | None
    user_agent: str | None
    correlation_id: str | None
    source: str | None
    old_values: dict[str, Any]
    new_values: dict[str, Any]
    error_message: str | None
    duration: float | None


class AuditFull(AuditCompliance):
    """Everything."""

    details: str | None
    session_id: str | None
    context: dict[str, Any]
    metadata: dict[str, Any] = Field(validation_alias=AliasChoices("metadata_", "metadata"))
