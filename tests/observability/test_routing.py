from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys
import warnings
from typing import Any

import httpx
import pytest
import structlog
import uvicorn

from tests.observability.support import events, log_as, log_to_memory, only_event, settings

log = structlog.get_logger("data_layer.tests")


@pytest.mark.parametrize("name", ["uvicorn.error", "sqlalchemy.pool", "alembic.runtime.migration", "redis", "asyncio"])
def test_the_records_of_other_libraries_take_the_same_way(name: str) -> None:
    stream = log_to_memory()
    logging.getLogger(name).warning("retrying %s", "redis://:hunter2@cache/0", extra={"attempt": 2, "token": "abc"})
    event = only_event(stream)
    assert event["event"] == "retrying redis://:***@cache/0"
    assert (event["logger"], event["level"], event["attempt"], event["token"]) == (name, "warning", 2, "***")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_of_other_libraries_are_masked(log_format: str) -> None:
    stream = log_to_memory(log_format=log_format, redis_password="correct horse", redis_host="localhost")
    try:
        try:
            raise ConnectionError("host=db password=hunter2 sslmode=require")  # noqa: TRY301
        except ConnectionError as error:
            raise RuntimeError("tried 'correct horse'") from error
    except RuntimeError:
        logging.getLogger("driver").exception("no connection")
    assert "Traceback" in stream.getvalue()
    assert "password=***" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "correct horse" not in stream.getvalue()


def test_warnings_arrive_as_events() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stream = log_to_memory()
        warnings.warn("old, password=hunter2", stacklevel=1)
        logging.captureWarnings(capture=False)
    event = only_event(stream)
    assert event["logger"] == "py.warnings"
    assert "UserWarning: old, password=***" in event["event"]


async def failing_application(scope: Any, receive: Any, send: Any) -> None:
    del receive, send
    if scope["type"] == "http":
        raise RuntimeError("postgresql://app:hunter2@db/app is away")


async def test_uvicorn_logs_here_and_leaves_out_its_access_lines() -> None:
    stream = log_to_memory()
    server = uvicorn.Server(uvicorn.Config(failing_application, port=0, log_config=None, lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/", timeout=10)).status_code == 500
    server.should_exit = True
    await serving
    seen = events(stream)
    assert {"uvicorn.error"} == {event["logger"] for event in seen if event["logger"].startswith("uvicorn")}
    assert not [event for event in seen if "color_message" in event or "GET / " in event["event"]]
    [failure] = [event for event in seen if event["level"] == "error"]
    assert failure["exception"]["message"] == "postgresql://app:***@db/app is away"
    assert "hunter2" not in stream.getvalue()


def test_handlers_that_uvicorn_installed_earlier_are_replaced() -> None:
    uvicorn.Config(failing_application)  # With uvicorn's own logging configuration.
    stream = log_to_memory()
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("httpx").info("HTTP Request: GET https://api.example/users/ann")
    assert only_event(stream)["event"] == "Started"


def test_configuring_again_replaces_the_first_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().addHandler(logging.StreamHandler(io.StringIO()))
    first = log_to_memory()
    second = log_to_memory(log_level="warn")
    log.info("quiet")
    log.warning("loud")
    logging.getLogger("driver").error("loud")
    assert first.getvalue() == ""
    assert [event["event"] for event in events(second)] == ["loud", "loud"]
    assert capsys.readouterr() == ("", "")


def test_collectors_of_others_stay_and_get_plain_records() -> None:
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logging.getLogger().addHandler(Collector())
    log_to_memory()
    log.info("seen", value=1)
    [record] = records
    assert (record.getMessage(), record.name, record.levelname) == ("seen", "data_layer.tests", "INFO")
    assert (record.filename, record.funcName) == (
        "test_routing.py",
        "test_collectors_of_others_stay_and_get_plain_records",
    )


def test_the_default_stream_is_the_standard_error_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    log_as(settings())
    log.info("seen")
    out, err = capsys.readouterr()
    assert out == ""
    assert '"event":"seen"' in err


def test_events_can_still_be_captured_by_tests() -> None:
    log_to_memory()
    with structlog.testing.capture_logs() as captured:
        log.info("seen", value=1)
    assert captured == [{"event": "seen", "value": 1, "log_level": "info"}]


HOST_APPLICATION = """
import logging, pkgutil, sys, warnings, importlib
logging.basicConfig(format="host %(message)s", level=logging.WARNING)
before = [*logging.root.handlers], logging.root.level, warnings.showwarning, logging.getLoggerClass()
import data_layer, structlog
for module in pkgutil.walk_packages(data_layer.__path__, "data_layer."):
    if module.name.startswith(("data_layer.observability", "data_layer.config", "data_layer.errors")):
        importlib.import_module(module.name)
assert before == ([*logging.root.handlers], logging.root.level, warnings.showwarning, logging.getLoggerClass())
assert not structlog.is_configured()
assert logging.getLogger("data_layer").handlers == [] and logging.getLogger("data_layer").level == logging.NOTSET
assert "starlette" not in sys.modules
logging.warning("kept")
"""


def test_importing_leaves_the_logging_of_the_host_application_alone() -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", HOST_APPLICATION], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr, finished.stdout) == (0, "host kept\n", "")
