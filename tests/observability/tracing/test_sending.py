"""Spans leave the process: with OTLP, to Application Insights, through an application's own provider, or not at all."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from data_layer import DataLayer, Settings
from data_layer.errors import ConfigurationError
from data_layer.observability.tracing.tracing import FLUSH_SECONDS, Tracing
from tests.observability.conftest import logging_as_before
from tests.observability.support import events, log_to_memory
from tests.observability.tracing.receivers import Receiver, take_all

__all__ = ["logging_as_before"]

TALKATIVE = (
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
)
KEY = "00000000-1111-2222-3333-444455556666"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("OTEL_", "APPLICATIONINSIGHTS_"))]:
        monkeypatch.delenv(name)
    # What the exporter of Azure finds as defaults is set by the library; afterwards it is as before.
    for name in TALKATIVE:
        monkeypatch.setenv(name, "true")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class TestOtlp:
    @pytest.fixture
    def settings(self, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Settings:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret-api-key")
        return settings.replaced(enable_traces=True)

    async def test_spans_arrive_when_the_data_layer_is_closed(self, settings: Settings, receiver: Receiver) -> None:
        async with DataLayer(settings) as data:
            await data.projects.recent()
        assert ("data-layer", "projects.recent") in receiver.otlp_names()
        assert ("data-layer", "projects.last_changed") in receiver.otlp_names()
        assert receiver.requests[0][1]["api-key"] == "secret-api-key"

    async def test_the_standard_variables_hold(
        self, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", "screenshots")
        async with DataLayer(settings) as data:
            await data.projects.recent()
        assert {service for service, _ in receiver.otlp_names()} == {"screenshots"}
        receiver.requests.clear()
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        async with DataLayer(settings) as data:
            await data.projects.recent()
        assert receiver.requests == []

    async def test_a_receiver_that_is_gone_disturbs_nobody(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret-api-key")
        stream = log_to_memory()
        async with DataLayer(settings) as data:
            for _ in range(5):
                await data.projects.recent()
            started = time.monotonic()
        assert time.monotonic() - started < FLUSH_SECONDS + 20
        assert "secret-api-key" not in stream.getvalue()

    async def test_background_work_is_nobodys_trace(self, settings: Settings, receiver: Receiver) -> None:
        async with DataLayer(settings) as data:
            async with data.transaction() as tx:
                await tx.users.count()
            await data.cache.get("missing")
        assert receiver.requests == []


async def test_the_end_waits_for_a_receiver_only_so_long() -> None:
    from opentelemetry.sdk.trace import TracerProvider

    released = asyncio.Event()
    loop = asyncio.get_running_loop()
    stream = log_to_memory()

    def hang() -> None:
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result(60)

    await asyncio.wait_for(Tracing(TracerProvider(shutdown_on_exit=False), lambda: None, hang).close(), 30)
    released.set()
    assert [event["event"] for event in events(stream) if event["logger"].startswith("data_layer")] == ["traces_lost"]


class TestApplicationInsights:
    async def test_spans_arrive(self, settings: Settings) -> None:
        with Receiver(take_all) as receiver:
            text = f"InstrumentationKey={KEY};IngestionEndpoint={receiver.url}/"
            given = settings.replaced(applicationinsights_connection_string=SecretStr(text))
            async with DataLayer(given) as data:
                await data.projects.recent()
            assert (KEY, "projects.recent") in receiver.azure_names()
            assert {path.replace("//", "/") for path, _, _ in receiver.requests} == {"/v2.1/track"}
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("OtelPeriodic")]

    @pytest.mark.parametrize("text", ["nonsense-with-secret-words", "InstrumentationKey=secret-words", ";;;=="])
    async def test_an_unusable_address_is_told_without_it(self, settings: Settings, text: str) -> None:
        given = settings.replaced(applicationinsights_connection_string=SecretStr(text))
        with pytest.raises(ConfigurationError, match="APPLICATIONINSIGHTS_CONNECTION_STRING cannot be used") as caught:
            await DataLayer(given).open()
        assert "secret-words" not in f"{caught.value!r} {caught.value.__cause__!r}"

    def test_its_key_is_masked_in_the_log(self) -> None:
        stream = io.StringIO()
        text = f"InstrumentationKey={KEY};IngestionEndpoint=https://westeurope.in.applicationinsights.azure.com/"
        log_to_memory(stream, applicationinsights_connection_string=text)
        logging.getLogger("azure").warning("sending to %s as %s", text, KEY)
        assert KEY not in stream.getvalue()


# A program in a process of its own: what is global there is nobody else's.
PROGRAM = """
import asyncio, json, os, sys
{before}
from data_layer import DataLayer, Settings

async def main():
    settings = Settings(environment="testing", database_url=os.environ["TEST_DATABASE"],
                        redis_url=os.environ["TEST_REDIS"], local_storage_path=sys.argv[1])
    async with DataLayer(settings) as data:
        await data.projects.recent()
        await data.cache.set("key", 1, ttl=60)
        print(json.dumps({result}))

asyncio.run(main())
"""


def run(settings: Settings, before: str, result: str, **environment: str) -> subprocess.CompletedProcess[str]:
    assert settings.database.database_url
    assert settings.redis.redis_url
    places = {
        "TEST_DATABASE": settings.database.database_url.get_secret_value(),
        "TEST_REDIS": settings.redis.redis_url.get_secret_value(),
    }
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before, result=result), str(settings.storage.local_storage_path)],
        env=os.environ | places | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answer(settings: Settings, before: str, result: str, **environment: str) -> object:
    done = run(settings, before, result, **environment)
    assert done.returncode == 0, done.stderr
    found: object = json.loads(done.stdout)
    return found


def test_an_applications_own_provider_gets_our_spans(settings: Settings) -> None:
    before = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""
    names = answer(settings, before, "[span.name for span in exporter.get_finished_spans()]")
    assert isinstance(names, list)
    assert {"projects.recent", "projects.last_changed"} <= set(names)


def test_off_means_that_nothing_of_it_is_there(settings: Settings) -> None:
    result = """{
        "imported": [name for name in sys.modules if name.startswith("opentelemetry")],
        "observers": [type(each).__name__ for each in data.database.observation.observers],
        "storage": data.storage_counters.observer is None,
        "runner": type(data.cache._parts.runner).__name__,
        "services": [type(each).__module__ + "." + type(each).__name__ for each in (data.projects, data.sessions)],
        "method": data.sessions.validate.__func__.__code__.co_filename.endswith("sessions/service.py"),
        "tracing": data.tracing is None,
    }"""
    assert answer(settings, "", result) == {
        "imported": [],
        "observers": ["DatabaseCounters"],
        "storage": True,
        "runner": "CommandRunner",
        "services": [
            "data_layer.services.projects.service.ProjectService",
            "data_layer.services.sessions.service.SessionService",
        ],
        "method": True,
        "tracing": True,
    }


@pytest.mark.parametrize(
    ("missing", "variable", "value", "advice"),
    [
        ("opentelemetry", "ENABLE_TRACES", "true", "data-layer[otel]"),
        ("opentelemetry", "APPLICATIONINSIGHTS_CONNECTION_STRING", f"InstrumentationKey={KEY}", "data-layer[otel]"),
        (
            "azure.monitor",
            "APPLICATIONINSIGHTS_CONNECTION_STRING",
            f"InstrumentationKey={KEY}",
            "data-layer[otel,azure-monitor]",
        ),
    ],
)
def test_what_is_not_installed_is_told(
    settings: Settings, missing: str, variable: str, value: str, advice: str
) -> None:
    before = f"""
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r} or name.startswith({missing!r} + "."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
    done = run(settings, before, "None", **{variable: value})
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.strip().startswith(f"- {variable} is set, but")
    assert advice in last
    assert KEY not in done.stderr
