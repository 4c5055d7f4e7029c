from __future__ import annotations

import io
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from tests.observability.support import events, log_to_memory, only_event

log = structlog.get_logger("data_layer.tests")


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no representation")

    def __str__(self) -> str:
        raise RuntimeError("no text")


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class HostileDictionary(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("changed size during iteration")


class Liar:
    @property  # type: ignore[misc]  # A liar.
    def __class__(self) -> Any:
        raise RuntimeError("no class")


def cycle() -> Any:
    value: dict[str, Any] = {"list": []}
    value["list"] = [value] * 50
    return value


def deep() -> Any:
    value: Any = "bottom"
    for _ in range(10_000):
        value = [value]
    return value


VALUES: dict[str, Callable[[], Any]] = {
    "representation raises": Hostile,
    "exception without text": HostileError,
    "items raise": lambda: HostileDictionary(a=1),
    "class raises": Liar,
    "class": lambda: Hostile,
    "cycle": cycle,
    "deep": deep,
    "long number": lambda: 10**5_000,
    "nested hostility": lambda: OrderedDict(a=Hostile(), b={Hostile(): 1}),
    "infinity": lambda: float("inf"),
    "surrogate": lambda: "\ud800",
    "no UTF-8": lambda: b"\xff\xfe",
    "memory": lambda: memoryview(b"x"),
    "iterator": lambda: iter([1]),
    "long text": lambda: "x" * 10_000_000,
    "long list": lambda: [{"a": "y" * 1_000}] * 10_000,
    "wide tree": lambda: [[["z" * 100] * 100] * 100] * 3,
}


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_any_value_can_be_logged_in_bounded_time_and_space(make: Callable[[], Any], log_format: str) -> None:
    value = make()
    stream = log_to_memory(log_format=log_format)
    began = time.process_time()
    log.info("seen", value=value, nested=[value])
    log.info("seen %s", value)
    log.error("seen too", exc_info=ValueError(value))
    assert time.process_time() - began < 2
    assert len(stream.getvalue()) < 1_000_000
    assert stream.getvalue().count("seen") >= 3


def test_an_exception_without_text() -> None:
    stream = log_to_memory()
    error = HostileError()
    error.__notes__ = Hostile()  # type: ignore[assignment]
    log.error("failed", exc_info=error)
    exception = only_event(stream)["exception"]
    assert exception["message"] == "<unreadable>"


def test_a_deep_recursion_gives_a_short_traceback() -> None:
    stream = log_to_memory()

    def first(depth: int) -> None:
        second(depth + 1)

    def second(depth: int) -> None:
        first(depth + 1)

    try:
        first(0)
    except RecursionError:
        log.exception("failed")
    assert len(stream.getvalue()) < 20_000


def test_arguments_that_do_not_fit() -> None:
    stream = log_to_memory()
    log.info("%s and %s", "one")  # noqa: PLE1206
    logging.getLogger("driver").warning("%d", "no number")
    assert [event["event"] for event in events(stream)] == ["%s and %s", "%d"]


class FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_that_fails_is_no_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_memory(FullDisk())
    log.info("lost")
    closed = log_to_memory()
    closed.close()
    log.info("lost")
    logging.getLogger("driver").error("lost")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_stream_of_another_encoding(log_format: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    log_to_memory(stream, log_format=log_format)  # type: ignore[arg-type]
    log.info("seen", value="Ärger 🦔")
    written = raw.getvalue().decode("ascii")
    if log_format == "json":
        assert only_event(io.StringIO(written))["value"] == "Ärger 🦔"
    assert "\\u00c4rger" in written


def test_a_handler_of_somebody_else_that_raises() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(f"cannot deliver {record.name}")

    stream = log_to_memory()
    logging.getLogger("data_layer.tests").addHandler(Broken())
    log.info("seen", value=1)
    lost = only_event(stream)
    assert (lost["event"], lost["lost"]) == ("log_event_lost", "seen")
    assert lost["exception"]["message"] == "cannot deliver data_layer.tests"


def test_lines_of_many_threads_do_not_mix() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as writer:
        log_to_memory(writer)  # type: ignore[arg-type]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: log.info("seen", number=number, text="x" * 100), range(200)))
        writer.close()
        lines = io.StringIO(reader.read())
    assert {event["number"] for event in events(lines)} == set(range(200))
