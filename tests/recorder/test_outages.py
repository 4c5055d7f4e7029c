"""When the database, the cache or the storage is away: messages pass, and what was said is recorded afterwards."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed

from data_layer import DataLayer, Settings
from data_layer.cache import Cache
from data_layer.errors import (
    CacheUnavailableError,
    DatabaseUnavailableError,
    InvalidValueError,
    StorageUnavailableError,
)
from data_layer.recorder import application, people, run
from data_layer.recorder.protocol import CANCELLED
from data_layer.recorder.tape import VariantTape
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.services.files import FileService
from data_layer.services.generations import GenerationService
from data_layer.web.authentication import COOKIE
from tests.conftest import empty_tables
from tests.hosted.roads import database_url, road_to_database

from .backend import SECRETS, Backend, Stage, edit, request
from .conftest import Recorded, ends, messages, serving, until, variants_of


@contextmanager
def away(*methods: tuple[Any, str, Exception]) -> Iterator[None]:
    """These methods fail as they do while their server cannot be reached."""
    with ExitStack() as stack:
        for owner, name, error in methods:

            async def refuse(*_arguments: Any, error: Exception = error, **_named: Any) -> Any:
                await asyncio.sleep(0)
                raise error

            stack.enter_context(patch.object(owner, name, refuse))
        yield


def database_away(data: DataLayer) -> Any:
    return away((type(data.database), "connect", DatabaseUnavailableError("the database cannot be reached")))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.3)


def waiting(settings: Settings) -> list[Path]:
    return [each for each in (settings.general.data_folder / "recorder").glob("*") if not each.suffix]


async def happened(served: Recorded, code_id: UUID) -> list[tuple[str, dict[str, Any]]]:
    """The events that are stored of a variant."""
    async with served.data.transaction() as tx:
        _, events = await tx.generation_events.page(code_id, after=0, limit=100)
    return [(kind, payload) for _, kind, payload in events]


async def test_what_is_said_without_a_database_is_recorded_when_it_is_back(
    served: Recorded, backend: Backend, settings: Settings
) -> None:
    backend.play = lambda stage: stage.complete("<p>one</p>", "<p>two</p>", "")
    with database_away(served.data):
        received = await served.ask(request("Without a database"))
        assert [each["type"] for each in received[-3:]] == ["variantComplete", "variantComplete", "variantError"]
        await until(lambda: waiting(settings))
        content = b"".join(path.read_bytes() for path in waiting(settings)[0].iterdir())
    assert not any(secret.encode() in content for secret in SECRETS.values())
    [[generation]] = await served.settled()
    assert ends(generation) == [("completed", "<p>one</p>"), ("completed", "<p>two</p>"), ("failed", "")]
    assert generation.prompt == "Without a database"
    thoughts = [("thinking", {"value": "Let me see.", "eventId": f"think-{index}"}) for index in range(3)]
    assert [await happened(served, each.id) for each in variants_of(generation)] == [[each] for each in thoughts]
    await until(lambda: not waiting(settings))
    actor = await served.person()
    [file] = await served.data.files.list(owner_id=actor.user_id)
    assert file.file_name == f"{generation.inputs['images'][0]['sha256']}.png"


async def begun(served: Recorded) -> bool:
    """Whether the code that was said first is stored."""
    async with served.data.transaction() as tx:
        return (await tx.codes.find_one(variant_index=0, code="<p>be")) is not None


async def test_ends_that_meet_no_database_are_recorded_when_it_is_back(
    served: Recorded, backend: Backend, settings: Settings
) -> None:
    goes_on = asyncio.Event()

    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "3")
        await stage.say("setCode", 0, "<p>be")
        await stage.say("thinking", 1, "Before ", eventId="a")
        await goes_on.wait()
        await stage.say("assistant", 1, "After", eventId="b")
        for index in range(3):
            await stage.say("setCode", index, f"<p>whole {index}</p>")
        await stage.say("variantComplete", 0)
        await stage.say("variantError", 1, "too long")
        await asyncio.Event().wait()

    backend.play = play
    async with served.connect() as websocket:
        await websocket.send(json.dumps(request()))
        await until(lambda: begun(served))
        with database_away(served.data):
            goes_on.set()
            async for message in messages(websocket):
                if message["type"] == "variantError":
                    break
            await websocket.close(CANCELLED)
            await until(lambda: waiting(settings))
    [[generation]] = await served.settled()
    assert ends(generation) == [
        ("completed", "<p>whole 0</p>"),
        ("failed", "<p>whole 1</p>"),
        ("cancelled", "<p>whole 2</p>"),
    ]
    said = await happened(served, variants_of(generation)[1].id)
    assert [(kind, payload["value"]) for kind, payload in said] == [("thinking", "Before "), ("assistant", "After")]
    # How they grew was noted by the recorder: as it was, and not as it was delivered.
    for variant in variants_of(generation):
        replay = await served.data.generations.replay(await served.person(), variant.id)
        states = list(accumulate(replay.steps, lambda code, step: step.apply(code), initial=""))[1:]
        assert states == [*(["<p>be"] if variant.variant_index == 0 else []), f"<p>whole {variant.variant_index}</p>"]
    backend.play = lambda stage: stage.complete("<p>edited</p>")
    await served.ask(edit("<p>whole 0</p>", []))
    [[_, edited]] = await served.settled(2)
    assert edited.variants[0].parent_id == variants_of(generation)[0].id


async def test_how_codes_grew_in_an_outage_is_known_afterwards(
    served: Recorded, backend: Backend, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a request that nobody could record while it was answered, and without the time that the outage took."""
    noted = dict.fromkeys(("<p>on", "<p>fou"), False)
    note = VariantTape.note_growth

    def notice(variant: VariantTape) -> None:
        note(variant)
        noted[variant.noted[0]] = True

    monkeypatch.setattr(VariantTape, "note_growth", notice)

    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "2")
        await stage.say("setCode", 0, "<p>on")
        await stage.say("setCode", 1, "<p>fou")
        await until(lambda: all(noted.values()))
        await stage.say("setCode", 0, "<p>one</p>")
        await stage.say("setCode", 1, "<b>found</b>")
        await stage.say("variantComplete", 0)
        await stage.say("variantError", 1, "too long")

    backend.play = play
    with database_away(served.data):
        await served.ask(request("Without a database"))
        await until(lambda: waiting(settings))
    [[generation]] = await served.settled()
    assert ends(generation) == [("completed", "<p>one</p>"), ("failed", "<b>found</b>")]
    actor = await served.person()
    for variant, states in zip(
        variants_of(generation), (["<p>on", "<p>one</p>"], ["<p>fou", "<b>found</b>"]), strict=True
    ):
        replay = await served.data.generations.replay(actor, variant.id)
        assert list(accumulate(replay.steps, lambda code, step: step.apply(code), initial=""))[1:] == states
        assert not any(step.is_gap for step in replay.steps)


async def test_the_next_process_delivers_what_one_has_left(
    data: DataLayer, backend: Backend, settings: Settings
) -> None:
    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "1")
        await stage.say("setCode", 0, "<p>half")
        await asyncio.Event().wait()

    backend.play = play
    async with serving(data, backend) as served:
        websocket = await served.connect()
        await websocket.send(json.dumps(request()))
        await until(lambda: backend.received)
        with database_away(data):
            backend.play = lambda stage: stage.complete("<p>done</p>")
            await served.ask(request("Another one"))
            await until(lambda: waiting(settings))
            websocket.transport.abort()
            assert not backend.was_cancelled.is_set()
    assert backend.was_cancelled.is_set(), "the end of the process ends the application"
    async with serving(data, backend) as served:
        by_prompt = {tree[0].prompt: tree[0] for tree in await served.settled(2)}
        half, done = by_prompt["A shop"], by_prompt["Another one"]
        assert ends(half) == [("failed", "<p>half")]
        assert half.variants[0].error_message == "the service was stopped"
        assert ends(done) == [("completed", "<p>done</p>")]


async def test_neither_cache_nor_storage_is_needed(served: Recorded, backend: Backend) -> None:
    backend.play = lambda stage: stage.complete("<p>one</p>")
    unreachable = StorageUnavailableError("the storage cannot be reached")
    gone = CacheUnavailableError("the cache cannot be reached")
    with away((FileService, "save", unreachable), (Cache, "get", gone), (Cache, "set", gone)):
        await served.ask(request())
        [[generation]] = await served.settled()
        assert ends(generation) == [("completed", "<p>one</p>")]
    actor = await served.person()

    async def is_stored() -> bool:
        return bool(await served.data.files.list(owner_id=actor.user_id))

    await until(is_stored)


async def test_a_writer_that_comes_after_its_lease_loses_nothing(served: Recorded, backend: Backend) -> None:
    """The database was away for so long that somebody else has ended what seemed to be abandoned."""
    goes_on = asyncio.Event()

    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "1")
        await stage.say("setCode", 0, "<p>ha")
        await goes_on.wait()
        await stage.say("setCode", 0, "<p>half and half</p>")
        await stage.say("variantComplete", 0)

    backend.play = play
    async with served.connect() as websocket:
        await websocket.send(json.dumps(request()))
        await until(served.trees)
        [[generation]] = await served.trees()
        actor = await served.person()
        other = await served.data.generations.take_over(actor, generation.id)
        await served.data.generations.fail(actor, other.writer_token, 0, "its writer is gone")
        goes_on.set()
        assert [each["type"] async for each in messages(websocket)][-1] == "variantComplete"
    [[failed, late]] = await served.settled(2)
    assert failed.variants[0].status == "failed"
    assert ends(late) == [("completed", "<p>half and half</p>")]


async def test_what_an_outage_ended_is_delivered_with_what_happened_and_what_it_cost(
    data: DataLayer, backend: Backend
) -> None:
    """Of an edit with two variants, of which one completes in the end."""
    goes_on = asyncio.Event()

    async def play(stage: Stage) -> None:
        async def variant(index: int) -> None:
            await stage.say("thinking", index, f"Before {index}", eventId="a")
            await stage.say("setCode", index, "<p>ha")
            await goes_on.wait()
            await stage.say("assistant", index, f"After {index}", eventId="b")
            await stage.say("setCode", index, f"<p>half and half {index}</p>")
            used = "input=10 output=5 cache_read=0 cache_write=0 total=15 cost=$0.0020"
            print(f"[TOKEN USAGE] provider=openai model=gpt-5.5 | {used}")  # noqa: T201
            await stage.say("variantComplete" if index else "variantError", index, "too long")

        await stage.say("variantCount", 0, "2")
        await asyncio.gather(variant(0), variant(1))

    async with serving(data, backend) as served:
        backend.play = lambda stage: stage.complete("<p>one</p>", "<p>one</p>")
        await served.ask(request())
        await served.settled()
        backend.play = play
        async with served.connect() as websocket:
            await websocket.send(json.dumps(edit("<p>one</p>", ["<p>one</p>", "<p>one</p>"])))
            await until(lambda: has_said(served, "Before 0", "Before 1"))
            [[_, generation]] = await served.trees()
            actor = await served.person()
            other = await data.generations.take_over(actor, generation.id)
            for index in range(2):
                await data.generations.fail(actor, other.writer_token, index, "its writer is gone")
            goes_on.set()
            assert [each["type"] async for each in messages(websocket)][-1].startswith("variant")
        [[_, failed, late]] = await served.settled(3)
        assert [each.status for each in failed.variants] == ["failed", "failed"]
        assert ends(late) == [("completed", "<p>half and half 1</p>")]
        assert late.variants[0].parent_id == failed.variants[0].parent_id is not None
        said = await happened(served, late.variants[0].id)
        assert [payload["value"] for _, payload in said] == ["Before 1", "After 1"]
        replay = await data.generations.replay(actor, late.variants[0].id)
        assert replay.is_known
        entries = await data.usage.entries(actor, user_id=actor.user_id)
        cost = {each.code_id: each.cost for each in entries}
        assert cost == dict.fromkeys((variants_of(failed)[0].id, late.variants[0].id), Decimal("0.0020"))


async def has_said(served: Recorded, *texts: str) -> bool:
    """Whether these events are stored."""
    async with served.data.transaction() as tx:
        rows = await tx.execute(text("SELECT payload->>'value' FROM generation_events"))
        return {*texts} <= {row[0] for row in rows}


def lay(settings: Settings, name: str, content: bytes) -> Path:
    """Put an entry on disk that is older than all others."""
    folder = settings.general.data_folder / "recorder" / name
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(content)
    os.utime(folder, (1, 1))
    return folder


async def test_an_entry_that_cannot_be_read_holds_up_nothing(
    served: Recorded, backend: Backend, settings: Settings
) -> None:
    backend.play = lambda stage: stage.complete("<p>one</p>")
    await served.ask(request())
    await served.settled()
    broken: list[Path] = []
    with database_away(served.data):
        await served.ask(request("Behind the broken ones"))
        await until(lambda: waiting(settings))
        for content in (b"{", b"[]", b"{}", unknown_field(waiting(settings)[0])):
            broken.append(lay(settings, f"broken{len(broken)}", content))
        (broken[0].parent / "odd" / "record.json").mkdir(parents=True)
    backend.play = lambda stage: stage.complete("<p>edited</p>")
    await served.ask(edit("<p>one</p>", ["<p>one</p>"]))
    trees = await served.settled(3)
    by_prompt = {generation.prompt: generation for tree in trees for generation in tree}
    assert ends(by_prompt["Behind the broken ones"]) == [("completed", "<p>one</p>")]
    edited = by_prompt["Make it blue"]
    assert ends(edited) == [("completed", "<p>edited</p>")]
    assert edited.variants[0].parent_id is not None
    await until(lambda: all(each.with_suffix(".rejected").exists() for each in broken))
    await until(lambda: [each.name for each in waiting(settings)] == ["odd"])


def unknown_field(entry: Path) -> bytes:
    """What another version would have written."""
    record = json.loads((entry / "record.json").read_bytes())
    record["request"]["field_of_tomorrow"] = 1
    return json.dumps(record | {"key": "0" * 32}).encode()


async def test_media_of_a_purged_project_hold_up_nothing(data: DataLayer, backend: Backend, settings: Settings) -> None:
    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "1")
        await stage.say("setCode", 0, "<p>of a purged project</p>")
        await asyncio.Event().wait()

    backend.play = play
    unreachable = StorageUnavailableError("the storage cannot be reached")
    with away((FileService, "save", unreachable)):
        async with serving(data, backend) as served:
            websocket = await served.connect()
            await websocket.send(json.dumps(request()))
            await until(served.trees)
            [[generation]] = await served.trees()
        [entry] = waiting(settings)
        record = json.loads((entry / "record.json").read_bytes())
        assert record["generation_id"] == str(generation.id)
        assert record["media"]
    async with data.transaction() as tx:
        await tx.execute(text("DELETE FROM projects"))
    async with serving(data, backend) as served:
        await until(lambda: not waiting(settings))
    assert not list(entry.parent.iterdir())


async def test_media_that_come_late_hold_up_no_other_entry(
    served: Recorded, backend: Backend, settings: Settings
) -> None:
    backend.play = lambda stage: stage.complete("<p>one</p>")
    unreachable = StorageUnavailableError("the storage cannot be reached")
    with away((FileService, "save", unreachable)):
        with database_away(served.data):
            for prompt in ("First", "Second"):
                await served.ask(request(prompt))
                await until(lambda: waiting(settings))
            await until(lambda: len(waiting(settings)) == 2)
        trees = await served.settled(2)
        assert {generation.prompt for tree in trees for generation in tree} == {"First", "Second"}
        assert len(waiting(settings)) == 2  # Their images are not stored yet.
    await until(lambda: not waiting(settings))


async def test_what_is_refused_while_it_lasts_is_kept_whole(
    served: Recorded, backend: Backend, settings: Settings
) -> None:
    goes_on = asyncio.Event()

    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "1")
        await stage.say("setCode", 0, "<p>half")
        await goes_on.wait()
        await stage.say("setCode", 0, "<p>whole</p>")
        await stage.say("variantComplete", 0)

    was_refused = asyncio.Event()

    async def refuse(*_arguments: Any, **_named: Any) -> Any:
        was_refused.set()
        raise InvalidValueError("the database would not have this")

    backend.play = play
    with patch.object(GenerationService, "start", refuse):
        async with served.connect() as websocket:
            await websocket.send(json.dumps(request()))
            await was_refused.wait()
            goes_on.set()
            assert [each["type"] async for each in messages(websocket)][-1] == "variantComplete"
        [[generation]] = await served.settled()
    assert ends(generation) == [("completed", "<p>whole</p>")]
    await until(lambda: not waiting(settings))


def answer_lost(owner: Any, name: str) -> Any:
    """The first call of a method is done, and its answer lost."""
    real, calls = getattr(owner, name), []

    async def lose(*arguments: Any, **named: Any) -> Any:
        answer = await real(*arguments, **named)
        calls.append(name)
        if len(calls) == 1:
            raise DatabaseUnavailableError("the connection was lost")
        return answer

    return patch.object(owner, name, lose)


async def test_code_that_was_imported_is_not_imported_again(served: Recorded, backend: Backend) -> None:
    backend.play = lambda stage: stage.complete("<p>edited</p>")
    with answer_lost(GenerationService, "record"), answer_lost(GenerationService, "receive"):
        await served.ask(edit("<p>from elsewhere</p>", ["<p>from elsewhere</p>"]))
        [[root, edited]] = await served.settled(2)
    assert edited.variants[0].parent_id == root.variants[0].id
    page = await served.data.projects.list(await served.person())
    assert [project.name for project in page.projects] == ["Make it blue"]


async def test_one_request_makes_one_project_whatever_fails_after_it(served: Recorded, backend: Backend) -> None:
    backend.play = lambda stage: stage.complete("<p>one</p>")
    gone = DatabaseUnavailableError("the database cannot be reached")
    with away((FileService, "list", gone), (GenerationService, "start", gone)):
        await served.ask(request())
        await served.settled()  # From the disk.
    page = await served.data.projects.list(await served.person())
    assert len(page.projects) == 1


async def test_a_silent_database_keeps_nothing_waiting(
    settings: Settings, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the application, and not its probes; what cannot be known is refused in time."""
    url = settings.database.database_url
    assert url is not None
    monkeypatch.setattr(application, "KNOWN_SECONDS", 1.0)
    backend.play = lambda stage: stage.complete("<p>one</p>")
    async with road_to_database(url.get_secret_value()) as road:
        replaced = settings.replaced(database_url=database_url(url.get_secret_value(), road), request_deadline=1)
        async with DataLayer(replaced) as data:
            await empty_tables(data)
            async with serving(data, backend) as served, served.client() as client:
                assert (await client.get("/v1/projects")).status_code == 200
                road.freeze()
                async with asyncio.timeout(10):
                    assert len(await served.ask(request())) > 3
                    assert (await client.get("/livez")).status_code == 200
                paths = ("/api/design-systems", "/my-projects/tree/00000000-0000-0000-0000-000000000000")
                async with asyncio.timeout(10):
                    answers = await asyncio.gather(*map(client.get, (*paths, "/local-assets/kept.png")))
                assert [(each.status_code, each.json()["code"]) for each in answers] == [(503, "deadline_exceeded")] * 3
                async with asyncio.timeout(10):
                    assert (await client.get("/v1/projects")).status_code in {503, 504}
                road.thaw()
                await served.settled()
            async with serving(data, backend, needs_login=True) as served:
                user = await data.accounts.create(SYSTEM, email="ann@example.com", first_name="Ann", last_name="B")
                session = await data.sessions.create(user.id)
                road.freeze()
                await asyncio.sleep(2)  # Until copies of sessions are not believed any more.
                async with asyncio.timeout(10):
                    cookie = f"{COOKIE}={session.token.get_secret_value()}"
                    async with served.connect(Cookie=cookie) as websocket:
                        [refused] = [each async for each in messages(websocket)]
                assert refused == {"type": "error", "value": "The server cannot be reached; try again in a moment."}
                road.thaw()


async def test_people_who_were_known_go_on_without_the_database(
    settings: Settings, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = settings.database.database_url
    assert url is not None
    backend.play = lambda stage: stage.complete("<p>one</p>")
    async with road_to_database(url.get_secret_value()) as road:
        replaced = settings.replaced(database_url=database_url(url.get_secret_value(), road))
        async with DataLayer(replaced) as data:
            await empty_tables(data)
            async with serving(data, backend, needs_login=True) as served:
                user = await data.accounts.create(SYSTEM, email="ann@example.com", first_name="Ann", last_name="B")
                session = await data.sessions.create(user.id)

                async def last_message() -> str:
                    cookie = f"{COOKIE}={session.token.get_secret_value()}"
                    async with asyncio.timeout(10), served.connect(Cookie=cookie) as websocket:
                        with suppress(ConnectionClosed):  # It may be refused before.
                            await websocket.send(json.dumps(request()))
                        return str([each async for each in messages(websocket)][-1]["type"])

                assert await last_message() == "variantComplete"
                road.freeze()
                await asyncio.sleep(2)  # Until copies of sessions are not believed any more.
                assert set(await asyncio.gather(last_message(), last_message())) == {"variantComplete"}
                now = monotonic()
                monkeypatch.setattr(people, "monotonic", lambda: now + people.BELIEVED_SECONDS + 60)
                monkeypatch.setattr(application, "KNOWN_SECONDS", 1.0)
                assert await last_message() == "error"
                road.thaw()
                await served.settled(3, Actor.user(user.id, user.role))
                assert await last_message() == "variantComplete"
                await data.sessions.revoke_all(SYSTEM, user.id)
                assert await last_message() == "error"
