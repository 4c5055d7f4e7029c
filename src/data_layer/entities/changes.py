"""What a transaction is about to change in an entity, for the audit trail: old and new values, secrets masked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import inspect

from data_layer.entities.base import Entity
from data_layer.text_cache import cached_by_text

MASK = "***"
"""Stands for a secret: that it changed is recorded, its value is not."""

LONGEST_VALUE = 1000
"""Longer texts are cut in the trail, in characters: it records what changed, and does not copy the table."""
_SEPARATORS = re.compile(r"[\W_]+")
_SECRET = re.compile(
    "passw|passphrase|pwd|secret|token|authorization|cookie|apikey|accesskey|privatekey|credential|signature|jwt"
    "|hash$|^sessionid$|^sessiondata$|^otp$"
)
# Their names hold a word of the above, but they only measure or date a secret.
_HARMLESS = re.compile("tokens$|(?:expiresat|changedat|verifiedat|count|length)$")
_EMPTY: tuple[Any, ...] = (None, {}, [])


class Changes(NamedTuple):
    """Values by the name of their column, as JSON carries them."""

    old_values: dict[str, Any]
    new_values: dict[str, Any]


def changes_of(entity: Entity, *, without: Sequence[str] = ("updated_at",)) -> Changes:
    """What was assigned to an entity since it was read, or all that a new one holds.

    Call it before the flush that writes the changes, and hand the result to a factory of ``AuditLog``:
    ``AuditLog.user_action(…, **changes_of(user)._asdict())``.

    Args:
        entity: one that was read through the transaction, or that is new.
        without: columns that are not worth recording.
    """
    state = inspect(entity)
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for attribute in state.mapper.column_attrs:
        name = attribute.key
        history = state.attrs[name].history
        if name in without or not history.has_changes():
            continue
        column = attribute.columns[0]
        if history.deleted and (before := history.deleted[0]) is not None:
            old[column.name] = masked(column.name, before)
        if history.added and (history.added[0] not in _EMPTY or column.name in old):
            new[column.name] = masked(column.name, history.added[0])
    return Changes(old, new)


def changed_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """The same from two pictures of a row, for changes that a statement made: only what differs, secrets masked."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return Changes(
        {name: masked(name, old[name]) for name in names if old.get(name) is not None},
        {name: masked(name, new[name]) for name in names if name in new},
    )


def masked(name: str, value: Any) -> Any:
    """A value as JSON carries it, with everything masked whose name announces a secret; long texts are cut."""
    if value is not None and not isinstance(value, bool) and is_secret(name):
        return MASK
    match value:
        case Mapping():
            return {str(key): masked(str(key), item) for key, item in value.items()}
        case str():
            plain = str(value)
            return plain if len(plain) <= LONGEST_VALUE else f"{plain[:LONGEST_VALUE]}…"
        case datetime() | date():
            return value.isoformat()
        case UUID():
            return str(value)
        case list() | tuple() | set() | frozenset():
            return [masked(name, item) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return str(value)


@cached_by_text(4096)
def is_secret(name: str) -> bool:
    """Whether a field of this name holds a secret, in any spelling: ``password_hash``, ``apiKey``."""
    normalised = _SEPARATORS.sub("", name).lower()
    return _SECRET.search(normalised) is not None and _HARMLESS.search(normalised) is None
