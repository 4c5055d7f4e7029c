"""An entry that belongs to no transaction, made quickly and never refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict
from uuid import UUID

import orjson
import uuid_utils

from data_layer.context import current_context
from data_layer.entities.audit_log import USUAL_CASES
from data_layer.entities.changes import masked
from data_layer.entities.enums import AuditAction, AuditCategory, AuditLevel
from data_layer.errors import InvalidValueError
from data_layer.repositories.audit_rows import Row

_LONGEST_JSON = 65_536
_LONGEST_TEXT = 10_000
_DESCRIPTION, _RESOURCE_TYPE, _RESOURCE_ID = 255, 100, 255


def _check_duration(name: str, value: object) -> None:
    """Any number will do: one that cannot be stored is left out, and the event recorded."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise InvalidValueError(f"{name} must be a number of seconds", field=name)


class EventFields(TypedDict, total=False):
    """What can be said of an event in addition to what happened."""

    user_id: UUID | None
    level: AuditLevel | None
    category: AuditCategory | None
    is_success: bool | None
    resource_type: str | None
    resource_id: UUID | str | None
    details: str | None
    error_message: str | None
    duration: Annotated[float | None, _check_duration]
    context: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None


def make_row(
    action: AuditAction,
    description: str,
    *,
    user_id: UUID | None = None,
    level: AuditLevel | None = None,
    category: AuditCategory | None = None,
    is_success: bool | None = None,
    resource_type: str | None = None,
    resource_id: UUID | str | None = None,
    details: str | None = None,
    error_message: str | None = None,
    duration: float | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    new_values: Mapping[str, Any] | None = None,
) -> Row:
    """The entry, with what the request's context knows; texts are shortened to their columns, secrets masked."""
    request = current_context()
    usual = USUAL_CASES[action]
    user = user_id or request.actor_id
    if user_id is not None and request.actor_id is not None and request.actor_id != user_id:
        context = {**(context or {}), "actor_id": str(request.actor_id)}
    if request.actor_role is not None and request.actor_role != "user":
        context = {**(context or {}), "actor_role": str(request.actor_role)}
    return (
        str(uuid_utils.uuid7()),
        None if user is None else str(user),
        action,
        level or usual.level,
        category or usual.category,
        _fit(description, _DESCRIPTION) or "",
        _fit(details, _LONGEST_TEXT),
        _fit(resource_type, _RESOURCE_TYPE),
        None if resource_id is None else _fit(str(resource_id), _RESOURCE_ID),
        None,
        _json(new_values),
        request.ip_address,
        request.user_agent,
        None if request.session_id is None else str(request.session_id),
        request.correlation_id,
        request.source,
        _json(context),
        _json(metadata),
        usual.is_success if is_success is None else is_success,
        _fit(error_message, _LONGEST_TEXT),
        duration if duration is not None and abs(duration) <= sys.float_info.max else None,
    )


def _fit(text: str | None, length: int) -> str | None:
    if text is None or (text.isprintable() and len(text) <= length):
        return text
    return text[:length].replace("\0", "").encode(errors="replace").decode()


def _json(value: Mapping[str, Any] | None) -> str | None:
    """As PostgreSQL takes it. What JSON cannot carry, or what is too large, is said to be left out."""
    if not value:
        return None
    try:
        encoded = orjson.dumps(masked("", value)).decode()
    except (TypeError, ValueError, RecursionError):
        return '{"left_out": "JSON cannot carry it"}'
    if len(encoded) > _LONGEST_JSON:
        return '{"left_out": "too large"}'
    # NUL, which PostgreSQL refuses; an escaped backslash before it is changed as well, which harms nobody.
    return encoded.replace("\\u0000", "")
