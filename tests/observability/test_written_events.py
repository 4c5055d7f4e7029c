"""Events of ours are written without a record, as records are; what each request says last is written together."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from data_layer.context import request_context
from data_layer.errors import InvalidValueError
from data_layer.observability.log import EventHandler, get_log
from tests.observability.support import events, log_as, log_to_memory, settings

log = get_log("data_layer.tests")


class WritesCounted(io.StringIO):
    """A stream that knows how often it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str, /) -> int:
        self.writes += 1
        return super().write(text)


def log_alone(stream: io.StringIO | None = None, **values: Any) -> io.StringIO:
    """Log to memory, without the handlers of pytest, which want records."""
    stream = log_to_memory(stream, **values)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if isinstance(handler, EventHandler)]
    assert len(root.handlers) == 1
    return stream


@contextmanager
def records_wanted() -> Iterator[None]:
    """Somebody else's handler, for which records have to be made."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


FIELDS: list[dict[str, Any]] = [
    {},
    {"method": "GET", "path": "/v1/accounts/me", "status": 200, "client": "127.0.0.1", "duration_ms": 1.25},
    {"password": "hunter2", "url": "postgresql://me:hunter2@host/db", "note": "token=hunter2 and 'correct horse'"},
    {"level": "mine", "timestamp": "mine", "logger": "mine", "correlation_id": "mine"},
    {"at": datetime(2026, 1, 1, tzinfo=UTC), "id": uuid.UUID(int=7), "path": Path("a/b"), "big": 2**70, "none": None},
    {
        "deep": {"authorization": ["Bearer hunter2hunter2"], "list": [1, (2, {"secret": "hunter2"})]},
        "text": "ä\ud800\n",
    },
    {f"field_{number}": number for number in range(120)},
]


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("form", ["json", "console"])
def test_an_event_is_written_as_its_record_is(fields: dict[str, Any], form: str) -> None:
    stream = log_alone(redis_password="correct horse", redis_host="localhost", log_format=form)
    structlog.contextvars.bind_contextvars(tenant="acme", api_key="hunter2")
    try:
        with request_context(correlation_id="a request"):
            for _ in range(2):  # What was seen before goes another way.
                log.info("something_happened", **fields)
                log.error("something_failed", exc_info=InvalidValueError("password=hunter2", field="x"), **fields)
                with records_wanted():
                    log.info("something_happened", **fields)
                    log.error("something_failed", exc_info=InvalidValueError("password=hunter2", field="x"), **fields)
    finally:
        structlog.contextvars.clear_contextvars()
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "correct horse" not in text
    if form == "json":
        found = [{**event, "timestamp": "", "exception": _without_lines(event)} for event in events(stream)]
        first, second = found[0::2], found[1::2]
        assert all(event == first[0] and list(event) == list(first[0]) for event in first)
        assert all(event == second[0] and list(event) == list(second[0]) for event in second)
        assert (first[0]["event"], first[0]["level"]) == ("something_happened", "info")
        assert first[0]["tenant"] == "acme"
    else:
        lines = [line.partition("Z ")[2] for line in text.splitlines() if "something_happened" in line]
        assert len(lines) == 4
        assert len(set(lines)) == 1


def _without_lines(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.get("exception", {}).items() if name != "traceback"}


def test_filters_and_levels_of_handlers_are_heeded() -> None:
    stream = log_alone()
    [handler] = logging.getLogger().handlers
    handler.setLevel(logging.ERROR)
    log.warning("too_low")
    handler.setLevel(logging.NOTSET)
    handler.addFilter(lambda record: record.getMessage() != "unwanted")
    log.warning("unwanted")
    log.warning("wanted")
    assert [event["event"] for event in events(stream)] == ["wanted"]


class TestWhatMayWait:
    async def test_is_written_together_when_the_loop_turns(self) -> None:
        stream = WritesCounted()
        log_alone(stream)
        for number in range(3):
            log.info_often("answered", number=number)
        assert stream.writes == 0
        await asyncio.sleep(0)
        assert stream.writes == 1
        assert [event["number"] for event in events(stream)] == [0, 1, 2]
        log.info_often("answered", number=3)
        await asyncio.sleep(0)
        assert [event["number"] for event in events(stream)] == [0, 1, 2, 3]

    async def test_goes_before_any_other_line_which_does_not_wait(self) -> None:
        stream = log_alone()
        log.info_often("answered")
        log.info("begun")
        assert [event["event"] for event in events(stream)] == ["answered", "begun"]
        log.info_often("answered")
        logging.getLogger("somebody.else").info("a record")
        assert [event["event"] for event in events(stream)] == ["answered", "begun", "answered", "a record"]

    async def test_is_written_in_pieces_that_a_pipe_takes_as_a_whole(self) -> None:
        stream = WritesCounted()
        log_alone(stream)
        for number in range(100):
            log.info_often("answered", number=number, text="ä" * 50)
        await asyncio.sleep(0)
        written = stream.getvalue()
        assert [event["number"] for event in events(stream)] == list(range(100))
        assert len(written.encode()) / 4096 < stream.writes < 100

    async def test_goes_to_the_file_as_well(self, tmp_path: Path) -> None:
        path = tmp_path / "service.log"
        stream = log_alone()
        log_as(settings(log_file=path), stream=stream, to_file=True)
        log.info_often("answered", number=1)
        log.info_often("answered", number=2)
        assert path.read_text() == ""
        await asyncio.sleep(0)
        assert path.read_text() == stream.getvalue()
        assert [event["number"] for event in events(stream)] == [1, 2]

    def test_is_written_at_once_without_a_loop(self) -> None:
        stream = log_alone()
        log.info_often("answered")
        assert len(events(stream)) == 1

    def test_is_written_when_its_loop_has_ended_without_a_turn(self) -> None:
        stream = log_alone()

        async def end_at_once() -> None:
            log.info_often("answered")
            asyncio.get_running_loop().stop()

        for _ in range(2):
            loop = asyncio.new_event_loop()
            loop.call_soon(loop.create_task, end_at_once())
            loop.run_forever()
            loop.close()
        log.info("ended")
        assert [event["event"] for event in events(stream)] == ["answered", "answered", "ended"]

    async def test_is_written_at_the_end_of_the_program(self) -> None:
        program = (
            "import asyncio, sys\n"
            "from tests.observability.support import log_as, settings\n"
            "from data_layer.observability.log import get_log\n"
            "async def answer():\n"
            "    get_log('data_layer.tests').info_often('answered')\n"
            "    sys.exit(3)\n"
            "log_as(settings())\n"
            "asyncio.run(answer())\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}
        )
        _, output = await process.communicate()
        assert process.returncode == 3
        assert b'"answered"' in output
