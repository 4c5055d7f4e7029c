"""Audit entries in bulk, past the ORM: many at once with COPY, and a second time without harm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from data_layer.database.engine import Database, driver_connection
from data_layer.database.statements import DIALECT, NamedQuery
from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, AuditCategory, AuditLevel

Row = tuple[
    str,  # id
    str | None,  # user_id
    AuditAction,
    AuditLevel,
    AuditCategory,
    str,  # description
    str | None,  # details
    str | None,  # resource_type
    str | None,  # resource_id
    str | None,  # old_values, as JSON
    str | None,  # new_values, as JSON
    str | None,  # ip_address
    str | None,  # user_agent
    str | None,  # session_id
    str | None,  # correlation_id
    str | None,  # source
    str | None,  # context, as JSON
    str | None,  # metadata, as JSON
    bool,  # is_success
    str | None,  # error_message
    float | None,  # duration
]
"""One entry as it waits to be written, in the order of ``COLUMNS``; ``created_at`` is the time in its id."""

COLUMNS = tuple(column.name for column in AuditLog.__table__.columns if column.name != "created_at")
_JSON_PLACES = tuple(
    place for place, name in enumerate(COLUMNS) if name in {"old_values", "new_values", "context", "metadata"}
)
_MARKS = "\\\t\n\r"
_ESCAPES = str.maketrans(dict(zip(_MARKS, ("\\\\", "\\t", "\\n", "\\r"), strict=True)))
_TIME_DIGITS = len("00000000-0000")
"""The 48 bits of an id that are its time, as they stand in its text."""
_NULL = "\\N"
_CHUNK = 500  # Rows that are made ready in one go; the event loop runs in between.


def _copy_into(columns: Iterable[str]) -> NamedQuery:
    # Only names of columns stand in these texts.
    return NamedQuery("audit_logs.copy", f"COPY audit_logs ({', '.join(columns)}) FROM STDIN")


COPY_NOW = _copy_into(COLUMNS)
"""For ``texts_of``, in a transaction; the database gives the time."""
_TYPES = {column.name: column.type.compile(DIALECT) for column in AuditLog.__table__.columns}
_RECORD = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
_VALUES = ", ".join(
    f"coalesce({name}, '{{}}')" if place in _JSON_PLACES else name for place, name in enumerate(COLUMNS)
)
_INSERT = NamedQuery(
    "audit_logs.insert_again",
    f"INSERT INTO audit_logs ({', '.join(COLUMNS)}, created_at) "  # noqa: S608  (see above)
    f"SELECT {_VALUES}, created_at FROM jsonb_to_recordset(%s::jsonb) AS entry({_RECORD}) ON CONFLICT (id) DO NOTHING",
)
_NUMBERED_VALUES = _VALUES.replace(
    "coalesce(new_values, '{}')", "coalesce(new_values, '{}') || jsonb_build_object('number', number)"
)
INSERT_NUMBERED = NamedQuery(
    "audit_logs.insert_numbered",
    f"INSERT INTO audit_logs ({', '.join(COLUMNS)}) "  # noqa: S608  (see above)
    f"SELECT {_NUMBERED_VALUES} FROM jsonb_to_recordset(%s::jsonb) AS entry({_RECORD}), "
    "(SELECT number FROM generations WHERE generations.id = %s) AS generation",
)
"""For an entry as ``line_of`` makes it, in a list; its new values get the number of a generation."""


def texts_of(row: Row) -> list[str | None]:
    """The values of an entry as PostgreSQL reads them, in the order of ``COLUMNS``."""
    values = [None if value is None else str(value) for value in row]
    for place in _JSON_PLACES:
        values[place] = values[place] or "{}"
    return values


async def copy_rows(database: Database, rows: Sequence[Row]) -> None:
    """Write new entries, all or none.

    Raises:
        DataLayerError: none was written, or, when the connection broke, perhaps all.
    """
    places = _places_in_use(rows)
    statement = _copy_into([*(COLUMNS[place] for place in places), "created_at"])
    async with driver_connection(database) as driver:
        with database.observation.timed((statement, None)):
            async with driver.cursor().copy(statement.encode()) as copy:
                for start in range(0, len(rows), _CHUNK):
                    await copy.write(_copy_text(rows[start : start + _CHUNK], places))


async def insert_lines(database: Database, lines: Iterable[bytes]) -> None:
    """Write entries that may be there already, each a line as ``line_of`` makes them; all or none.

    Raises:
        DataLayerError: none was written, or, when the connection broke, perhaps all.
    """
    entries = f"[{b','.join(lines).decode(errors='replace')}]"
    async with driver_connection(database) as driver:
        with database.observation.timed((_INSERT, (entries,))):
            await driver.execute(_INSERT.encode(), (entries,))


def line_of(row: Row) -> bytes:
    """An entry as a JSON object, without what is empty."""
    fields: dict[str, Any] = {name: value for name, value in zip(COLUMNS, row, strict=True) if value is not None}
    for place in _JSON_PLACES:
        if row[place] is not None:
            fields[COLUMNS[place]] = orjson.Fragment(str(row[place]))
    fields["created_at"] = _time_in(row[0][:_TIME_DIGITS])
    return orjson.dumps(fields)


def without_user(line: bytes) -> bytes | None:
    """The same entry with its user named in ``context`` only; ``None`` for one that names none."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict) or "user_id" not in fields:
        return None
    context = fields.get("context")
    fields["context"] = (context if isinstance(context, dict) else {}) | {"unknown_user_id": fields.pop("user_id")}
    return orjson.dumps(fields)


def _places_in_use(rows: Sequence[Row]) -> list[int]:
    """The columns that some entry has a value in; the others get their defaults from the database."""
    return [place for place, values in enumerate(zip(*rows, strict=True)) if values.count(None) < len(values)]


def _copy_text(rows: Sequence[Row], places: Sequence[int]) -> str:
    """Entries as COPY reads them, made column by column: what is rare is looked for in all of a column at once."""
    columns = list(zip(*rows, strict=True))
    texts = [_column_text(columns[place], "{}" if place in _JSON_PLACES else _NULL) for place in places]
    times = [_time_in(identifier[:_TIME_DIGITS]) for identifier in columns[0]]
    return "".join([f"{line}\n" for line in map("\t".join, zip(*texts, times, strict=True))])


def _column_text(values: Sequence[Any], missing: str) -> Sequence[str]:
    if values.count(None):
        return [missing if value is None else _escaped(str(value)) for value in values]
    if not isinstance(values[0], str):
        return [str(value) for value in values]
    everything = "".join(values)
    return [_escaped(value) for value in values] if any(mark in everything for mark in _MARKS) else values


def _escaped(value: str) -> str:
    return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)


@lru_cache(maxsize=64)
def _time_in(digits: str) -> str:
    """The time in an id, by its first digits; entries of the same millisecond share it."""
    seconds, milliseconds = divmod(int(digits.replace("-", ""), 16), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03}+00:00"
