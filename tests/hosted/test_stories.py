"""Whole stories through two processes while servers are slow, cut or away; afterwards everything is as it should be."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.entities.enums import AuditAction
from data_layer.errors import StorageUnavailableError
from data_layer.hosted.reading import Medium
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import TreeCode, TreeGeneration
from data_layer.server.faces import whole_application
from data_layer.server.http_server import HttpServer
from data_layer.server.lifecycle import LifecycleMiddleware
from data_layer.services.generations.streams import MAXIMUM_CODE
from data_layer.web.deadlines import HELD_SECONDS, STORE
from tests.conftest import empty_tables
from tests.services.accounts.support import actions, trail
from tests.support import until

from .fakes import PUBLIC_URL, BackEnd, Clerk, Page, data_url, dumps, image_message, page_code
from .roads import Road, database_url, redis_url, road_to_database, road_to_redis

COST = Decimal("0.0125")
LIMIT = Decimal(50)
NOBODY = UUID(int=0)
SYSTEM_MESSAGE = {"role": "system", "content": "You are …"}


@dataclass
class Variant:
    """One variant that the back end stores."""

    group: str
    index: int
    messages: list[dict[str, Any]]
    code: str
    parent: tuple[Any, ...] | None
    more: dict[str, Any] = field(default_factory=dict)

    async def send(self, back_end: BackEnd) -> str:
        return await back_end.store(self.group, self.index, self.messages, self.code, **self.more)


def story(images: list[str], **more: Any) -> list[Variant]:
    """A request with four variants, edits of two of them, an edit of an edit, and the same request once more."""

    def edit(base: int) -> dict[str, Any]:
        return {"generation_type": "update", "edit_base_variant_index": base, "edit_base_generation_type": "create"}

    def file_of(code: str) -> dict[str, str]:
        return {"role": "assistant", "content": f'<file path="index.html">\n{code.strip()}\n</file>'}

    create = [SYSTEM_MESSAGE, image_message(images, "Make it")]
    first = [page_code(f"first {index}") for index in range(4)]
    blue = [*create, file_of(first[1]), {"role": "user", "content": "Blue"}]
    red = [*create, file_of(first[3]), {"role": "user", "content": "Red"}]
    bluer = [*blue, file_of(page_code("blue 1")), {"role": "user", "content": "Bluer"}]

    def variant(group: str, index: int, messages: Any, code: str, seconds: int, *parent: Any) -> Variant:
        info = {"other_info": edit(parent[1])} if parent else {}
        return Variant(group, index, messages, code, parent or None, {"duration": seconds, **info, **more})

    return [
        *(variant("first", index + 1, create, code, 90) for index, code in enumerate(first)),
        *(variant("blue", index + 1, blue, page_code(f"blue {index}"), 60, "first", 1) for index in range(2)),
        variant("red", 1, red, page_code("red"), 50, "first", 3),
        variant("bluer", 1, bluer, page_code("bluer"), 40, "blue", 1),
        *(variant("again", index + 1, create, page_code(f"again {index}"), 30) for index in range(2)),
    ]


async def check(
    data: DataLayer, user_id: UUID, wanted: Iterable[Variant], images: list[str], ids: dict[str, set[str]]
) -> None:
    """The tree, the bytes, the ledger, the budget and the audit trail."""
    wanted = list(wanted)
    owner = Actor.user(user_id, (await data.accounts.list(SYSTEM))[0].role)
    [project] = (await data.projects.list(owner)).projects
    opened = await data.generations.tree(owner, project.id, code=TreeCode.ALL)
    generations = [generation async for generation in opened.generations]
    places: dict[UUID | None, tuple[str, int] | None] = {None: None}
    codes: dict[tuple[str, int], tuple[str | None, UUID | None]] = {}
    keys = {shown.id: str(shown.external_key) for shown in (await data.generations.shown(owner)).generations}
    assert len(keys) == len(generations), "no stand-in is left"
    for generation in generations:
        for variant in generation.variants:
            place = keys[generation.id], variant.variant_index
            places[variant.id] = place
            codes[place] = variant.code, variant.parent_id
    assert {place: code for place, (code, _) in codes.items()} == {
        (each.group, each.index - 1): each.code for each in wanted
    }
    assert {place: places[parent] for place, (_, parent) in codes.items()} == {
        (each.group, each.index - 1): each.parent for each in wanted
    }
    assert {place: {str(code_id)} for code_id, place in places.items() if code_id is not None} == {
        place: ids[f"{place[0]}-{place[1] + 1}"] for place in codes
    }
    await _check_files(data, user_id, project.id, generations, images)
    entries = await data.usage.entries(SYSTEM, user_id=user_id)
    assert sorted(str(entry.code_id) for entry in entries) == sorted(str(each) for each in places if each is not None)
    assert {entry.cost for entry in entries} == {COST}
    budget = await data.usage.budget(SYSTEM, user_id=user_id)
    assert budget is not None
    spent = COST * len(wanted)
    assert (budget.monthly_limit, budget.spent, budget.reserved) == (LIMIT, spent, 1 - spent)
    entries_of_audit = await trail(data)
    received = [entry.new_values or {} for entry in entries_of_audit if entry.action is AuditAction.CODE_GENERATE]
    assert sum(len(values["variants"]) for values in received) == len(wanted), "each variant once"
    assert (await actions(data)).count("project_create") == 1


async def _check_files(
    data: DataLayer, user_id: UUID, project_id: UUID, generations: list[TreeGeneration], images: list[str]
) -> None:
    contents = {hashlib.sha256(base64.b64decode(image.partition(",")[2])).hexdigest() for image in images}
    kept = await data.files.list(owner_id=user_id, attached_to=Attachment(project_id=project_id))
    assert {file.sha256 for file in kept} == contents
    for file in kept:
        content = await data.files.download(file.id, owner_id=user_id)
        assert hashlib.sha256(content).hexdigest() == file.sha256
        assert file.expires_at is None
    known = {str(file.id): file.sha256 for file in kept}
    for generation in generations:
        assert "missing_files" not in generation.inputs
        if "Make it" in str(generation.prompt):
            assert {known[file] for file in generation.inputs["files"]} == contents


@dataclass
class World:
    """Two processes by roads, and a data layer by the straight way, which looks."""

    database: Road
    redis: Road
    both: list[DataLayer]
    clients: list[httpx.AsyncClient]
    straight: DataLayer
    clerk: Clerk
    user_id: UUID = NOBODY

    async def begin(self) -> list[BackEnd]:
        """Ann is there, and has a budget; the back ends that store for her."""
        page = Page(self.clients[0], self.clerk, "user_ann")
        self.user_id = UUID((await page.call("POST", "/credits/has_credits"))["user_id"])
        await self.straight.usage.set_budget(SYSTEM, self.user_id, LIMIT)
        assert (await page.call("POST", "/credits/has_credits"))["status"] == "subscriber_has_credits"
        return [BackEnd(client, str(self.user_id)) for client in self.clients]


@pytest.fixture
async def world(settings: Settings, clerk: Clerk) -> AsyncIterator[World]:
    urls = settings.database.database_url, settings.redis.redis_url
    assert urls[0] is not None
    assert urls[1] is not None
    there, cache = (url.get_secret_value() for url in urls if url is not None)
    async with road_to_database(there) as database, road_to_redis(cache) as redis:
        replaced = settings.replaced(database_url=database_url(there, database), redis_url=redis_url(cache, redis))
        async with DataLayer(settings) as straight, DataLayer(replaced) as first, DataLayer(replaced) as second:
            await empty_tables(straight)
            await straight.cache.flush()
            both = [first, second]
            async with _client(first) as one, _client(second) as two:
                yield World(database, redis, both, [one, two], straight, clerk)


@asynccontextmanager
async def _client(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(whole_application(data), client=("192.0.2.1", 4711))
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
        yield client


async def send_all(back_ends: list[BackEnd], variants: list[Variant], seed: int) -> dict[str, set[str]]:
    """Everything twice, in any order, at once, through either process; the ids by group and index."""
    choose = random.Random(seed)
    order = choose.sample([*variants, *variants], 2 * len(variants))
    answers = await asyncio.gather(*(each.send(choose.choice(back_ends)) for each in order))
    ids: dict[str, set[str]] = {}
    for each, answer in zip(order, answers, strict=True):
        ids.setdefault(f"{each.group}-{each.index}", set()).add(answer)
    return ids


@pytest.mark.parametrize(
    "trouble", ["none", "cuts", *(pytest.param(each, marks=pytest.mark.slow) for each in ("slow", "no redis"))]
)
async def test_a_story_ends_well(world: World, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    back_ends = await world.begin()
    images = [data_url(1), data_url(2)]
    variants = story(images)
    match trouble:
        case "slow":
            world.database.pause, world.redis.pause = 0.01, 0.02
            for data in world.both:
                monkeypatch.setattr(data.storage, "upload", _slowly(data.storage.upload))
        case "cuts":
            for size in (1_000, 5_000, 10_000, 20_000, 40_000, 60_000, 100_000):
                world.database.after(size, world.database.cut)
        case "no redis":
            world.redis.close()
        case _:
            pass
    ids = await send_all(back_ends, variants, seed=len(trouble))
    await check(world.straight, world.user_id, variants, images, ids)


def _slowly(upload: Callable[..., Any]) -> Callable[..., Any]:
    async def late(*given: Any, **named: Any) -> Any:
        await asyncio.sleep(0.3)
        return await upload(*given, **named)

    return late


async def test_four_large_bodies_at_once_and_nothing_of_them_stays_in_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 MiB each, all with the same image and video, in which a storage fails once."""
    back_ends = await world.begin()
    noise = random.Random(1).randbytes(3 * 2**20)
    video = "data:video/mp4;base64," + base64.b64encode(b"\0\0\0\x18ftypmp42" + noise).decode()
    failures = [StorageUnavailableError("the storage is away")]
    upload = world.both[0].storage.upload

    async def fail_once(*given: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        return await upload(*given, **named)

    monkeypatch.setattr(world.both[0].storage, "upload", fail_once)
    variants = story([data_url(1)], video_data_url=video, input_mode="video")[:4]
    answers = await asyncio.gather(*(each.send(back_ends[0]) for each in variants))
    ids = {f"{each.group}-{each.index}": {answer} for each, answer in zip(variants, answers, strict=True)}
    await check(world.straight, world.user_id, variants, [data_url(1), video], ids)
    assert not failures
    await media_are_let_go()


async def media_are_let_go() -> None:
    """Wait for it: a thread that has decoded one lets go of it on its own."""

    def are_gone() -> bool:
        gc.collect()
        return not any(isinstance(each, Medium) for each in gc.get_objects())

    await until(are_gone)


async def test_calls_that_are_held_let_go_of_their_images(world: World) -> None:
    [back_end, _] = await world.begin()
    images = [data_url(1)]
    [variant, *_] = story(images)
    saved = asyncio.Event()
    save = world.both[0].files.save

    async def save_and_cut(*given: Any, **named: Any) -> Any:
        file = await save(*given, **named)
        world.database.close()
        saved.set()
        return file

    world.both[0].files.save = save_and_cut  # type: ignore[method-assign]
    call = asyncio.create_task(variant.send(back_end))
    await saved.wait()
    await world.database.refused.wait()
    await media_are_let_go()
    assert not call.done()
    world.database.open()
    answer = await call
    await check(world.straight, world.user_id, [variant], images, {"first-1": {answer}})


async def test_files_that_are_deleted_meanwhile_are_not_named(world: World) -> None:
    [back_end, _] = await world.begin()
    data = world.both[0]
    receive = data.generations.receive

    async def delete_one_first(actor: Actor, received: Any, **named: Any) -> Any:
        if len(received.files) == 2:
            await data.files.delete(received.files[0], owner_id=world.user_id)
        return await receive(actor, received, **named)

    data.generations.receive = delete_one_first  # type: ignore[method-assign]
    [variant, *_] = story([data_url(1), data_url(2)])
    await variant.send(back_end)
    owner = Actor.user(world.user_id, (await data.accounts.list(SYSTEM))[0].role)
    [shown] = (await data.generations.shown(owner)).generations
    inputs = (await data.generations.open(owner, shown.id)).inputs
    kept = await data.files.list(owner_id=world.user_id, attached_to=Attachment(project_id=shown.project_id))
    assert (inputs["files"], inputs["missing_files"]) == ([str(file.id) for file in kept], 1)
    assert len(kept) == 1


@asynccontextmanager
async def served(world: World) -> AsyncIterator[tuple[HttpServer, int]]:
    """The first process on a port; and that."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    lifecycle = LifecycleMiddleware()
    lifecycle.open(whole_application(world.both[0]))
    server = HttpServer(lifecycle, listener, finish_seconds=20)
    server.start()
    try:
        yield server, port
    finally:
        await server.close()


@pytest.mark.parametrize("kind", ["create", "update", "update of what nobody knows"])
async def test_four_variants_need_few_round_trips(world: World, kind: str) -> None:
    """Their caller waits ten seconds: at 0.4 s each, 16 of them one after the other leave time for everything else."""
    [back_end, _] = await world.begin()
    images = [data_url(1), data_url(2)]
    first = story(images)
    if kind == "create":
        variants = first[:4]
    else:
        known = first[:4] if kind == "update" else []
        for each in known:
            await each.send(back_end)
        variants = [
            replace(first[4], group="blue", index=index + 1, code=page_code(f"blue {index}")) for index in range(4)
        ]
    before = world.database.round_trips
    await asyncio.gather(*(each.send(back_end) for each in variants))
    assert world.database.round_trips - before <= 20


async def test_a_page_that_cannot_be_stored_refuses_no_other(world: World) -> None:
    """Though it is among those that are stored together."""
    [back_end, _] = await world.begin()
    images = [data_url(1)]
    variants = story(images)[:4]
    bodies = [back_end.stored(each.group, each.index, each.messages, each.code, **each.more) for each in variants]
    bodies[2]["completion"] = "x" * (MAXIMUM_CODE + 1)
    answers = await asyncio.gather(*(back_end.post(STORE, body) for body in bodies))
    assert [answer.status_code for answer in answers] == [200, 200, 422, 200], answers[2].text
    kept = [each for each, answer in zip(variants, answers, strict=True) if answer.is_success]
    ids = {
        f"{each.group}-{each.index}": {answer.json()["generation_id"]}
        for each, answer in zip(variants, answers, strict=True)
        if answer.is_success
    }
    await check(world.straight, world.user_id, kept, images, ids)


def raw_request(back_end: BackEnd, variant: Variant) -> bytes:
    body = dumps(back_end.stored(variant.group, variant.index, variant.messages, variant.code, **variant.more))
    head = [f"POST {STORE} HTTP/1.1", "host: x", f"content-length: {len(body)}", "connection: close"]
    head += [f"{name}: {value}" for name, value in back_end.headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body


async def test_the_caller_gives_up(world: World) -> None:
    [back_end, _] = await world.begin()
    [variant, *_] = story([])
    async with served(world) as (_, port):
        world.database.close()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw_request(back_end, variant))
        await writer.drain()
        await world.database.refused.wait()
        writer.transport.abort()
        await writer.wait_closed()
        world.database.open()
        # The server ends only after the call.
    [entry] = await world.straight.usage.entries(SYSTEM, user_id=world.user_id)
    await check(world.straight, world.user_id, [variant], [], {"first-1": {str(entry.code_id)}})


@pytest.mark.parametrize("is_whole", [True, False], ids=["all of it", "half of it"])
async def test_the_connection_is_lost_before_the_first_answer(world: World, *, is_whole: bool) -> None:
    """The page is stored, or nothing of it; the same once more has one id."""
    [back_end, _] = await world.begin()
    images = [data_url(1)]
    [variant, *_] = story(images)
    request = raw_request(back_end, variant)
    async with served(world) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request if is_whole else request[:-1])
        await writer.drain()
        writer.close()  # Not aborted: what was sent arrives.
        await writer.wait_closed()
    stored = await world.straight.usage.entries(SYSTEM, user_id=world.user_id)
    assert len(stored) == is_whole
    answers = {await variant.send(back_end) for _ in range(2)}
    assert answers >= {str(entry.code_id) for entry in stored}
    await check(world.straight, world.user_id, [variant], images, {"first-1": answers})


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["slow", "frozen"])
async def test_servers_that_are_really_slow(world: World, trouble: str) -> None:
    """Each packet takes a fifth of a second, or nothing passes for three seconds: every page is stored, and once."""
    back_ends = await world.begin()
    images = [data_url(1)]
    variants = story(images)[:4]  # All at once, as a request sends them.
    roads = (world.database, world.redis)
    if trouble == "slow":
        for road in roads:
            road.pause = 0.2
    else:
        world.database.after(20_000, world.database.freeze)
        world.database.after(20_000, lambda: asyncio.get_running_loop().call_later(3, world.database.thaw))
        world.redis.after(2_000, world.redis.freeze)
        world.redis.after(2_000, lambda: asyncio.get_running_loop().call_later(3, world.redis.thaw))
    ids = await send_all(back_ends, variants, seed=1)
    for road in roads:
        road.pause = 0
        road.thaw()
    await check(world.straight, world.user_id, variants, images, ids)


async def test_the_process_ends(world: World) -> None:
    [back_end, _] = await world.begin()
    [variant, *_] = story([])
    async with served(world) as (server, port):
        world.database.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw_request(back_end, variant))
        await world.database.refused.wait()
        closing = asyncio.create_task(server.close())
        world.database.refused.clear()
        await world.database.refused.wait()
        assert not closing.done(), "it finishes what it has begun"
        world.database.open()
        answer = await reader.read()
        writer.close()
        await closing
    assert answer.startswith(b"HTTP/1.1 200")
    [entry] = await world.straight.usage.entries(SYSTEM, user_id=world.user_id)
    assert str(entry.code_id).encode() in answer
    await check(world.straight, world.user_id, [variant], [], {"first-1": {str(entry.code_id)}})


async def test_calls_wait_while_the_process_starts(world: World) -> None:
    await world.begin()
    [variant, *_] = story([])
    lifecycle = LifecycleMiddleware(HELD_SECONDS)
    transport = httpx.ASGITransport(lifecycle)
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
        back_end = BackEnd(client, str(world.user_id))
        page = Page(client, world.clerk, "user_ann")
        call = asyncio.create_task(variant.send(back_end))
        asked = asyncio.create_task(page.call("POST", "/credits/has_credits"))
        refused = await client.get("/generations/view")
        assert (refused.status_code, refused.json()["code"]) == (503, "starting"), "whose caller repeats it"
        assert not call.done()
        lifecycle.open(whole_application(world.both[0]))
        answer = await call
        assert (await asked)["status"] == "subscriber_has_credits"
    await check(world.straight, world.user_id, [variant], [], {"first-1": {answer}})


async def test_calls_are_refused_when_their_time_is_over_and_when_the_start_fails() -> None:
    for held_seconds, code in (({STORE: 0.1}, "starting"), ({STORE: 600.0}, "stopping")):
        lifecycle = LifecycleMiddleware(held_seconds)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(lifecycle), base_url=PUBLIC_URL) as client:
            call = asyncio.create_task(client.post(STORE))
            if code == "stopping":
                await client.get("/livez")
                lifecycle.start_draining()
            answer = await call
        assert (answer.status_code, answer.json()["code"], type(answer.json()["detail"])) == (503, code, str)
