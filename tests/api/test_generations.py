"""Generations over HTTP: written by one client, followed by another, also after their end."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.api import event_stream, generations
from data_layer.schemas.generation_stream import CodePatch
from data_layer.server.http_server import HttpServer
from data_layer.server.lifecycle import LifecycleMiddleware
from tests.api.test_projects import create, people, refused
from tests.support import until

__all__ = ["people"]

GENERATIONS = "/v1/generations"
Clients = dict[str, httpx.AsyncClient]


class Started(NamedTuple):
    id: str
    path: str
    project: dict[str, Any]
    writer: dict[str, str]


class Event(NamedTuple):
    id: str
    name: str
    data: dict[str, Any]


async def start(client: httpx.AsyncClient, variants: int = 1) -> Started:
    project = await create(client)
    body = {"project_id": project["id"], "request": {"prompt": "a shop"}, "models": [{"name": "m"}] * variants}
    answer = await client.post(GENERATIONS, json=body)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["number"], len(found["variant_ids"])) == (1, variants)
    return Started(found["id"], f"{GENERATIONS}/{found['id']}", project, {"Writer-Token": found["writer_token"]})


async def write(client: httpx.AsyncClient, started: Started, sequence: int, *pieces: dict[str, Any]) -> httpx.Response:
    body = {"variant": 0, "sequence": sequence, "pieces": pieces}
    return await client.post(f"{started.path}/events", json=body, headers=started.writer)


async def end(client: httpx.AsyncClient, started: Started, index: int = 0, **values: Any) -> httpx.Response:
    body = {"status": "completed"} | values
    return await client.put(f"{started.path}/variants/{index}", json=body, headers=started.writer)


async def events_in(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}


async def all_events(client: httpx.AsyncClient, path: str, **headers: str) -> list[Event]:
    """Those up to the end of the generation."""
    async with client.stream("GET", f"{path}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [event async for event in events_in(answer.aiter_lines())]


def code_of(events: list[Event]) -> str:
    """What a client shows after these events."""
    code = ""
    for event in events:
        if event.name == "code":
            code = event.data["code"]
        elif event.name == "patch":
            code = CodePatch(**event.data).apply(code)
    return code


@pytest.fixture
async def served(app: FastAPI, people: Clients) -> AsyncIterator[httpx.AsyncClient]:
    """The owner, as a client of a server: without one nothing streams."""
    listener = socket.create_server(("127.0.0.1", 0))
    lifecycle = LifecycleMiddleware()
    lifecycle.open(app)
    server = HttpServer(lifecycle, listener, finish_seconds=1)
    server.start()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=base, headers=people["owner"].headers, timeout=60) as client:
        yield client
    await server.close()


async def test_a_generation_is_written_and_followed_after_its_end(people: Clients) -> None:
    owner = people["owner"]
    started = await start(owner)
    thinking = {"type": "event", "kind": "thinking", "payload": {"text": "a shop…"}}
    written = await write(owner, started, 1, {"type": "text", "text": "<p>"}, thinking, {"type": "text", "text": "ü"})
    assert (written.status_code, written.json()) == (200, {"sequence": 3})
    again = await write(owner, started, 1, {"type": "text", "text": "<p>"}, thinking, {"type": "text", "text": "ü"})
    assert again.json() == {"sequence": 3}
    ended = await end(owner, started, result={"prompt_tokens": 7, "cost": "0.01"})
    assert (ended.status_code, ended.json()["status"]) == (200, "completed")
    assert (await end(owner, started)).json() == ended.json()

    events = await all_events(owner, started.path)
    assert code_of(events) == "<p>ü"
    assert [event.data["payload"] for event in events if event.name == "event"] == [{"text": "a shop…"}]
    assert (events[-1].name, events[-1].data["status"]) == ("end", "completed")
    version = await owner.get(f"/v1/projects/{started.project['id']}/versions/1")
    assert (version.json()["code"], version.json()["prompt_tokens"]) == ("<p>ü", 7)


async def test_who_has_everything_is_asked_not_to_come_again(people: Clients) -> None:
    owner = people["owner"]
    started = await start(owner)
    await end(owner, started, code="<p>")
    events = await all_events(owner, started.path)
    answer = await owner.get(f"{started.path}/events", headers={"Last-Event-ID": events[-1].id})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_reader_that_comes_back_misses_nothing(served: httpx.AsyncClient) -> None:
    started = await start(served)
    await write(served, started, 1, {"type": "text", "text": "<p>one"})
    seen = []
    async with served.stream("GET", f"{started.path}/events") as answer:
        async for event in events_in(answer.aiter_lines()):
            seen.append(event)
            if code_of(seen) == "<p>one":
                break
    await write(served, started, 2, {"type": "text", "text": " two"})
    following = asyncio.create_task(all_events(served, started.path, **{"Last-Event-ID": seen[-1].id}))
    await write(served, started, 3, {"type": "text", "text": " three"})
    await end(served, started)
    rest = await following
    assert code_of([*seen, *rest]) == "<p>one two three"
    assert {event.id for event in seen}.isdisjoint(event.id for event in rest)


async def test_a_silent_stream_is_kept_open_and_ends_with_the_session(
    served: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (event_stream, generations):
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.1)
    started = await start(served)
    async with served.stream("GET", f"{started.path}/events") as answer:
        lines = answer.aiter_lines()
        while not (await anext(lines)).startswith(":"):
            pass
        await served.delete("/v1/sessions/current")
        rest = [event async for event in events_in(lines)]
    assert (rest[-1].name, rest[-1].data["code"]) == ("problem", "session_invalid")


async def test_a_stream_ends_when_the_client_goes(data: DataLayer, served: httpx.AsyncClient) -> None:
    started = await start(served)
    followed = data.generations._streams.followers._followed
    async with served.stream("GET", f"{started.path}/events") as answer:
        await anext(events_in(answer.aiter_lines()))
        assert followed
    await until(lambda: not followed)


async def test_a_stream_is_no_request_in_progress(data: DataLayer, served: httpx.AsyncClient) -> None:
    """Nothing of its request waits in memory for as long as somebody follows."""

    def in_progress() -> float:
        return sum(data.metrics.snapshot()["data_layer_http_requests_in_progress"].samples.values())

    started = await start(served)
    async with served.stream("GET", f"{started.path}/events") as answer:
        lines = answer.aiter_lines()
        await anext(events_in(lines))
        assert in_progress() == 0
        await write(served, started, 1, {"type": "text", "text": "<p>"})
        assert (await anext(events_in(lines))).data["text"] == "<p>"


async def test_the_head_of_a_stream_ends_at_once(data: DataLayer, served: httpx.AsyncClient) -> None:
    started = await start(served)
    answer = await served.head(f"{started.path}/events")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "content-length" not in answer.headers
    assert not data.generations._streams.followers._followed
    assert (await served.get(started.path)).status_code == 200, "the connection answers what comes next"


async def test_a_writer_that_was_replaced_writes_no_more(people: Clients) -> None:
    owner = people["owner"]
    started = await start(owner)
    await write(owner, started, 1, {"type": "text", "text": "<p>one"})
    taken = (await owner.post(f"{started.path}/writer")).json()
    assert taken["last_sequences"] == [1]
    assert refused(await write(owner, started, 2, {"type": "text", "text": "old"}))[0] == 409
    assert refused(await end(owner, started, code="old"))[0] == 409
    new = started._replace(writer={"Writer-Token": taken["writer_token"]})
    assert (await write(owner, new, 2, {"type": "text", "text": " two"})).status_code == 200
    assert (await end(owner, new)).status_code == 200
    assert code_of(await all_events(owner, started.path)) == "<p>one two"


async def test_a_token_writes_its_own_generation_only(people: Clients) -> None:
    owner = people["owner"]
    first, second = await start(owner), await start(owner)
    mixed = first._replace(writer=second.writer)
    for answer in (await write(owner, mixed, 1, {"type": "code", "code": "x"}), await end(owner, mixed, code="x")):
        assert answer.json()["fields"][0]["field"] == "Writer-Token"
    assert refused(await owner.post(f"{first.path}/events", json={}))[0] == 422


async def test_failing_cancelling_and_selecting(people: Clients) -> None:
    owner = people["owner"]
    started = await start(owner, variants=3)
    assert (await end(owner, started, 0, code="<p>")).json()["status"] == "completed"
    failed = await end(owner, started, 1, status="failed", error_message="no answer")
    assert failed.json()["status"] == "failed"
    assert refused(await end(owner, started, 1, code="<p>"))[0] == 409
    cancelled = await owner.post(f"{started.path}/cancel", json={})
    assert [each["status"] for each in cancelled.json()["variants"]] == ["completed", "failed", "cancelled"]
    selected = await owner.put(f"{started.path}/selection", json={"variant": 2})
    assert selected.json()["selected_variant"] == 2
    assert refused(await owner.put(f"{started.path}/selection", json={"variant": 9})) == (422, "invalid_value")


async def test_others_neither_read_nor_write(people: Clients) -> None:
    started = await start(people["owner"])
    batch = {"variant": 0, "sequence": 1, "pieces": [{"type": "text", "text": "x"}]}
    calls: list[tuple[str, str, Any]] = [
        ("POST", GENERATIONS, {"project_id": started.project["id"]}),
        ("POST", f"{started.path}/cancel", {}),
        ("PUT", f"{started.path}/selection", {"variant": 0}),
        ("POST", f"{started.path}/writer", None),
        ("POST", f"{started.path}/events", batch),
        ("PUT", f"{started.path}/variants/0", {"status": "completed", "code": "x"}),
        ("GET", f"{started.path}/events", None),
    ]
    for method, path, body in calls:
        for name in ("stranger", "moderator", "nobody"):
            answer = await people[name].request(method, path, json=body, headers=started.writer)
            expected = {401} if name == "nobody" else {404} if name == "stranger" else {403, 404}
            assert answer.status_code in expected, (name, method, path, answer.text)
    assert code_of(await _after_end(people["owner"], started)) == "<p>"


async def _after_end(owner: httpx.AsyncClient, started: Started) -> list[Event]:
    await end(owner, started, code="<p>")
    return await all_events(owner, started.path)


@pytest.mark.parametrize(
    "pieces",
    [[], [{"type": "text"}], [{"type": "other", "text": "x"}], [{"type": "text", "text": "x", "more": 1}], "x"],
)
async def test_pieces_that_do_not_fit_are_refused(people: Clients, pieces: Any) -> None:
    started = await start(people["owner"])
    body = {"variant": 0, "sequence": 1, "pieces": pieces}
    answer = await people["owner"].post(f"{started.path}/events", json=body, headers=started.writer)
    assert refused(answer) == (422, "request_invalid")


async def test_clients_of_a_process_that_ends_are_sent_elsewhere(app: FastAPI, people: Clients) -> None:
    """Those that follow already and those that come too late; the next process goes on where this one ended."""
    started = await start(people["owner"])
    await write(people["owner"], started, 1, {"type": "text", "text": "<p>one"})
    lifecycle = LifecycleMiddleware()
    lifecycle.open(app)
    transport = httpx.ASGITransport(lifecycle)
    async with httpx.AsyncClient(
        transport=transport, base_url="https://service", headers=people["owner"].headers
    ) as ending:
        following = asyncio.create_task(ending.get(f"{started.path}/events"))
        await until(lambda: bool(lifecycle.streams))
        lifecycle.start_draining()
        await asyncio.sleep(0)
        assert lifecycle.streams, "it goes on while load balancers notice"
        lifecycle.end_streams()
        answers = [await following, await ending.get(f"{started.path}/events")]
    assert not lifecycle.streams

    await write(people["owner"], started, 2, {"type": "text", "text": " two"})
    await end(people["owner"], started)
    for answer in answers:
        assert answer.status_code == 200
        last = answer.text.removesuffix("\n\n").rpartition("\n\n")[2].split("\n")
        assert last[1:] == ["event: reconnect", "data: {}"]
        assert 1 <= int(last[0].removeprefix("retry: ")) <= 1000
        seen = re.findall("(?m)^id: (.*)$", answer.text)
        events = await all_events(people["owner"], started.path, **({"Last-Event-ID": seen[-1]} if seen else {}))
        assert events[-1].name == "end"
        lines = iter([*answer.text.splitlines()])
        before = [event async for event in events_in(_each(lines)) if event.name != "reconnect"]
        assert code_of([*before, *events]) == "<p>one two"


async def _each(lines: Iterator[str]) -> AsyncIterator[str]:
    for line in lines:
        yield line
