"""Where the next page of a list begins, as text that callers hand back unread."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from data_layer.entities.columns import check_text
from data_layer.errors import InvalidTextError, InvalidValueError
from data_layer.repositories.projects import Position
from data_layer.schemas.projects import ProjectOrder, ProjectSummary

_LONGEST = 2048  # A name has 255 characters of at most 4 bytes.
_LARGEST_COUNT = 2**31 - 1


def encode_cursor(project: ProjectSummary, order: ProjectOrder, *, is_descending: bool) -> str:
    """The cursor of the page that begins after a project."""
    value = _value_of(project, order)
    if isinstance(value, datetime):
        value = value.astimezone(UTC).isoformat()
    content = json.dumps([order, is_descending, value, str(project.id)], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, order: ProjectOrder, *, is_descending: bool) -> Position:
    """The position that a cursor names.

    Raises:
        InvalidValueError: it is none of ours, or of a list in another order.
    """
    try:
        made_for, direction, value, project_id = _content(cursor)
        if made_for != order or direction is not is_descending:
            raise InvalidValueError(
                "after is the cursor of a list in another order; start again without it", field="after"
            )
        return _checked(order, value), UUID(project_id)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, binascii.Error, InvalidTextError):
        raise InvalidValueError("after is not a cursor of a list of projects", field="after") from None


def _content(cursor: str) -> list[Any]:
    if len(cursor) > _LONGEST:
        raise ValueError
    raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    content = json.loads(raw.decode())
    if not isinstance(content, list):
        raise TypeError
    return content


def _checked(order: ProjectOrder, value: Any) -> str | int | datetime | None:
    match order, value:
        case ProjectOrder.NAME, str():
            check_text("after", value)
            return value
        case ProjectOrder.VIEWS, int() if not isinstance(value, bool) and 0 <= value <= _LARGEST_COUNT:
            return value
        case ProjectOrder.LAST_GENERATED, None:
            return None
        case ((ProjectOrder.UPDATED | ProjectOrder.CREATED | ProjectOrder.LAST_GENERATED), str()):
            time = datetime.fromisoformat(value)
            if time.tzinfo is not UTC:
                raise ValueError
            return time
        case _:
            raise ValueError


def _value_of(project: ProjectSummary, order: ProjectOrder) -> str | int | datetime | None:
    match order:
        case ProjectOrder.UPDATED:
            return project.updated_at
        case ProjectOrder.CREATED:
            return project.created_at
        case ProjectOrder.NAME:
            return project.name
        case ProjectOrder.VIEWS:
            return project.view_count
        case ProjectOrder.LAST_GENERATED:
            return project.last_generated_at
