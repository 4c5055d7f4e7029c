"""CSV (RFC 4180) that spreadsheets read, and in which they calculate nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

import orjson

_CALCULATED = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_bytes(rows: Iterable[Iterable[str]]) -> bytes:
    """The lines of some rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def csv_cell(value: object) -> str:
    """A value as text. What a spreadsheet would calculate gets an apostrophe in front."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case dict() | list():
            return json_bytes(value).decode()
        case Decimal():
            return f"{value:f}"
        case int() | float():
            return str(value)
        case _:
            text = str(value)
            return f"'{text}" if text.startswith(_CALCULATED) else text


def json_bytes(value: object) -> bytes:
    """JSON with times in UTC, as in the API."""
    try:
        return orjson.dumps(value, option=orjson.OPT_UTC_Z)
    except TypeError:  # PostgreSQL keeps numbers of any size, such as 1e23, and orjson only integers of 64 bits.
        return json.dumps(value, default=lambda part: orjson.loads(orjson.dumps(part))).encode()
