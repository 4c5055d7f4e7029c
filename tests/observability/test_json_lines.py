from __future__ import annotations

import io
import logging
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

from data_layer.errors import FileNotFoundInStorageError
from tests.observability.support import Terminal, events, log_to_memory, only_event

log = structlog.get_logger("data_layer.tests")


def test_an_event_is_one_line_with_its_fields_in_a_fixed_order() -> None:
    stream = log_to_memory()
    before = datetime.now(UTC)
    log.info("generation_saved", project="p1", bytes=12_000)
    event = only_event(stream)
    assert list(event) == ["timestamp", "level", "event", "logger", "project", "bytes"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(event["timestamp"]) <= datetime.now(UTC)
    assert event["level"] == "info"
    assert event["event"] == "generation_saved"
    assert event["logger"] == "data_layer.tests"
    assert (event["project"], event["bytes"]) == ("p1", 12_000)


def test_bound_fields_and_positional_arguments_arrive() -> None:
    stream = log_to_memory()
    log.bind(actor="ada").warning("%s of %d failed", "three", 7, reason="timeout")
    event = only_event(stream)
    assert event["event"] == "three of 7 failed"
    assert (event["level"], event["actor"], event["reason"]) == ("warning", "ada", "timeout")


def test_a_field_cannot_replace_what_the_line_begins_with() -> None:
    stream = log_to_memory()
    log.info("sold", level="forged", timestamp="1970", logger="root", exception="none")
    event = only_event(stream)
    assert (event["level"], event["logger"]) == ("info", "data_layer.tests")
    assert event["timestamp"] > "2020"
    assert (event["level_"], event["timestamp_"], event["logger_"]) == ("forged", "1970", "root")


def test_an_exception_is_structured_text() -> None:
    stream = log_to_memory()
    try:
        try:
            raise OSError("the disk is away")  # noqa: TRY301
        except OSError as error:
            raise FileNotFoundInStorageError("images/a.png is not there") from error
    except FileNotFoundInStorageError:
        log.exception("download_failed")
    event = only_event(stream)
    exception = event["exception"]
    assert event["level"] == "error"
    assert exception["type"] == "data_layer.errors.FileNotFoundInStorageError"
    assert exception["code"] == "file_not_found"
    assert exception["message"] == "images/a.png is not there"
    assert exception["traceback"].startswith("Traceback (most recent call last):\n")
    assert "OSError: the disk is away" in exception["traceback"]


def test_an_exception_that_was_never_raised_can_be_logged() -> None:
    stream = log_to_memory()
    log.error("failed", exc_info=ValueError("made, not raised"))
    exception = only_event(stream)["exception"]
    assert (exception["type"], exception["message"]) == ("ValueError", "made, not raised")


def test_exception_outside_of_a_handler_is_an_ordinary_error() -> None:
    stream = log_to_memory()
    log.exception("nothing_to_show")  # noqa: LOG004
    assert "exception" not in only_event(stream)


def test_the_stack_ends_where_the_application_called() -> None:
    stream = log_to_memory()
    log.info("where_am_i", stack_info=True)
    assert only_event(stream)["stack"].rstrip().endswith('log.info("where_am_i", stack_info=True)')


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02 00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (Decimal("1.10"), "1.10"),
        (Path("/srv/files"), "/srv/files"),
        (Colour.RED, "red"),
        (b"plain", "plain"),
        (b"\x89PNG" * 1000, "<4000 bytes>"),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({1: {None: 2.5}}, {"1": {"None": 2.5}}),
        (2**70, str(2**70)),
        (None, None),
        (True, True),
        ("ein Ärger 🦔", "ein Ärger 🦔"),
        ("broken \udc80", "broken \\udc80"),
        (float("nan"), None),
    ],
)
def test_values_become_json(value: Any, expected: Any) -> None:
    stream = log_to_memory()
    log.info("value", value=value)
    assert only_event(stream)["value"] == expected


@pytest.mark.parametrize(
    ("format_", "environment", "stream", "is_json"),
    [
        ("auto", "development", Terminal(), False),
        ("auto", "development", io.StringIO(), True),
        ("auto", "production", Terminal(), True),
        ("json", "development", Terminal(), True),
        ("console", "production", io.StringIO(), False),
    ],
)
def test_the_format_follows_settings_and_terminal(
    format_: str, environment: str, stream: io.StringIO, *, is_json: bool
) -> None:
    stream.truncate(0)
    production = {
        "database_url": "postgresql://app:correct-horse@localhost/app",
        "redis_url": "redis://localhost",
        "session_secret": "ece84960774df5806f9242d2172d9181fed132060553462e2d63bd53ca153d6c",
        "jwt_secret": "ec715fb17c8bb37cfcfa071ec110d7318bce0a76af619965e835851403c77e86",
    }
    log_to_memory(stream, log_format=format_, environment=environment, **production)
    log.info("started")
    assert stream.getvalue().startswith("{") is is_json


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warn", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_levels(level: str, expected: list[str]) -> None:
    stream = log_to_memory(log_level=level)
    stdlib = logging.getLogger("data_layer.tests.stdlib")
    for method in ("debug", "info", "warning", "error", "critical"):
        getattr(log, method)("structlog")
        getattr(stdlib, method)("stdlib")
    for source in ("structlog", "stdlib"):
        assert [event["level"] for event in events(stream) if event["event"] == source] == expected


def test_a_level_can_change_while_the_process_runs() -> None:
    stream = log_to_memory(log_level="info")
    bound = log.bind(part="cache")
    bound.debug("before")
    logging.getLogger("data_layer").setLevel(logging.DEBUG)
    bound.debug("after")
    assert only_event(stream)["event"] == "after"


def test_the_debug_lines_of_other_libraries_are_left_out() -> None:
    stream = log_to_memory(log_level="debug")
    logging.getLogger("httpcore").debug("send_request_headers.started")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("level", "expected"), [(5, "debug"), (25, "info"), (30, "warning"), (60, "critical")])
def test_numeric_levels(level: int, expected: str) -> None:
    stream = log_to_memory(log_level="debug")
    log.log(level, "numbered")
    assert only_event(stream)["level"] == expected
