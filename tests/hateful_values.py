"""Values that nobody passes on purpose, and that arrive all the same: for every field and every argument."""

from __future__ import annotations

import ipaddress
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from hypothesis import strategies as st

from data_layer.entities.enums import AuditAction, StorageKind

NOW = datetime(2026, 11, 29, 4, 20, tzinfo=UTC)


class Text(str):
    """A text of a subclass, as libraries hand out."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


def nested(levels: int) -> Any:
    value: Any = "inside"
    for _ in range(levels):
        value = {"a": value}
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["itself"] = value
    return value


CORNERS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400),
    *(0.0, -0.0, 0.5, -0.5, 1e16, 1.2345678901234567e19, 1e23, 1e308, 5e-324, math.nan, math.inf, -math.inf),
    *("", " ", "a", "ä" * 100, "x" * 256, "\0", "a\0b", "\ud800", "\U0001f600", "data:image/png;base64,AA", Text("a")),
    *("a@example.com", "127.0.0.1", "::1", "::ffff:1.2.3.4", "fe80::1%eth0", "1.2.3.4/8", "active", "1024x1024"),
    *(b"", b"bytes", Decimal(1), Decimal("NaN"), 1j, object(), date(2026, 1, 1), timedelta(1)),
    *(datetime(2026, 1, 1), NOW, NOW.astimezone(timezone(timedelta(hours=-12)))),  # noqa: DTZ001  (without a zone)
    *(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),
    *(UUID(int=0), uuid4(), str(uuid4()), AuditAction.USER_LOGIN, StorageKind.LOCAL, ipaddress.ip_address("::1")),
    *({}, [], (), set(), frozenset(), {"a": 1}, ["a"], ["a", 1], [{}], [None], ("a",), {"a"}),
    *({1: "a", "1": "b"}, {None: 1}, {"a": {1}}, {"a": (1,)}, {"a": math.nan}, {"a": [math.inf]}, {"a": NOW}),
    *({"a\0": 1}, {"a": "\0"}, {"\ud800": 1}, {"a": ["\udfff"]}, {"a": 2**64}, {"a": 10**5000}, {"a": 1e23}),
    *({"a": 1.2345678901234567e19}, {"a": -0.0}, {"a": 5e-324}, {"a": b"b"}, {"a": Decimal(1)}, {Text("k"): Text("v")}),
    *(nested(50), nested(98), nested(101), nested(2000), cyclic(), [["a"]], "x" * 6_000_000, {"a": "x" * 6_000_000}),
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.uuids()
times = st.datetimes() | st.datetimes(timezones=st.timezones()) | st.dates() | st.timedeltas()
keys = st.text() | st.integers() | st.booleans() | st.none()
anything = st.recursive(
    scalars | times | st.decimals() | st.integers(0, len(CORNERS) - 1).map(lambda number: CORNERS[number]),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


def shown(value: Any) -> str:
    """A value in the message of a test, at a length that can be read; some cannot even be shown."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that has no text"
