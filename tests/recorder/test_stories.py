"""Random stories, each with a seed: several pages at once, cut at any message, while servers fail.

Whatever happens, a page receives what the application sends, and afterwards the tree holds each request once, with the
codes to the byte and the parent that was changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from data_layer import DataLayer, Settings
from data_layer.cache import Cache
from data_layer.entities.enums import AuditAction
from data_layer.errors import CacheUnavailableError, StorageUnavailableError
from data_layer.recorder import run
from data_layer.recorder.protocol import CANCELLED
from data_layer.schemas.audit import AuditFilter
from data_layer.schemas.generations import TreeGeneration
from data_layer.services.files import FileService
from data_layer.services.generations import GenerationService
from tests.conftest import empty_tables
from tests.hosted.roads import database_url, redis_url, road_to_database, road_to_redis

from . import conftest
from .backend import Backend, Stage, edit, request
from .conftest import Recorded, ends, messages, serving, until, variants_of
from .test_outages import away, database_away

PAGES = 5
TEXTS = ("<p>☃ {}</p>\n", "<div>\U0001f600 {}</div>", "<p>\r\n{}\t</p>", '<a href="x">"{}"\\</a>')


@dataclass
class Line:
    """What the application sends, and how each variant has to end after so much of it."""

    sent: list[tuple[str, int, str]] = field(default_factory=list)

    def expected(self, number: int, received: int, *, is_cancelled: bool) -> list[tuple[str, str]]:
        heard = self.sent[:received] if is_cancelled else self.sent
        found = []
        for index in range(number):
            own = [(kind, value) for kind, variant, value in heard if variant == index]
            code = next((value for kind, value in reversed(own) if kind == "setCode"), "")
            end = next((kind for kind, _ in own if kind != "setCode"), None)
            status = {"variantComplete": "completed", "variantError": "failed"}.get(str(end), "failed")
            if end is None and is_cancelled:
                status = "cancelled"
            if status == "completed" and not code.strip():
                status = "failed"
            found.append((status, code))
        return found


def make_line(chance: Random, name: str, number: int) -> Line:
    """Variants in any interleaving; some fail, some say nothing, some are repeated."""
    line = Line()
    left: dict[int, list[tuple[str, str]]] = {}
    for index in range(number):
        code = chance.choice(TEXTS).format(f"{name}/{index}") * chance.randrange(1, 30)
        cuts = sorted(chance.sample(range(1, len(code)), min(6, len(code) - 1)))
        steps = [("setCode", code[:cut]) for cut in cuts] + [("setCode", code)]
        end = chance.choice(["variantComplete"] * 4 + ["variantError", ""])
        left[index] = ([] if chance.random() < 0.1 else steps) + ([(end, "because")] if end else [])
    while any(left.values()):
        index = chance.choice([index for index, steps in left.items() if steps])
        kind, value = left[index].pop(0)
        line.sent += [(kind, index, value)] * (2 if chance.random() < 0.1 else 1)
    return line


@dataclass
class Told:
    """A request of the story."""

    prompt: str
    line: Line
    number: int
    parent: tuple[str, int] | None
    cut: int | None
    how: str
    received: int = 0

    @property
    def expected(self) -> list[tuple[str, str]]:
        """How its variants have to end."""
        return self.line.expected(self.number, self.received, is_cancelled=self.how == "cancel")


async def play_page(served: Recorded, told: Told, sent: dict[str, Any]) -> None:
    """A page that reads until its cut, and goes then in one of the ways in which pages go."""
    async with served.connect() as websocket:
        await websocket.send(json.dumps(sent))
        seen = 0
        async for message in messages(websocket):
            if message["type"] == "variantCount":
                continue
            kind, index, value = told.line.sent[seen]
            assert (message["type"], message["variantIndex"]) == (kind, index)
            assert message["value"] == value
            seen += 1
            if seen == told.cut:
                break
        told.received = seen
        if told.cut is not None and told.how == "cancel":
            await websocket.close(CANCELLED)
        elif told.cut is not None:
            websocket.transport.abort()
        else:
            assert seen == len(told.line.sent)


class Story:
    """Two rounds of pages: requests, and edits of what these have made."""

    def __init__(self, served: Recorded, seed: int) -> None:
        self.served = served
        self.told: dict[str, Told] = {}
        self._seed = seed
        self._chance = Random(seed)

    async def play(self, stage: Stage) -> None:
        """Be the application."""
        told = self.told[stage.params["prompt"]["text"]]
        await stage.say("variantCount", 0, str(told.number))
        for position, (kind, index, value) in enumerate(told.line.sent):
            await stage.say(kind, index, value)
            if told.how == "cancel" and position + 1 == told.cut:
                await asyncio.Event().wait()  # Until it is really stopped.
            if self._chance.random() < 0.2:
                await asyncio.sleep(self._chance.random() * 0.02)

    async def run(self, turn: int) -> None:
        """Let all pages of a round ask at once, while a server may be away."""
        pages = [self._page(turn, page) for page in range(PAGES)]
        await self.ask(pages, self._failures())

    async def ask(self, pages: list[tuple[Told, dict[str, Any]]], failures: list[Any]) -> None:
        """Let pages ask at once while something is the matter, and wait until all of it is recorded."""
        async with AsyncExitStack() as stack:
            for failure in failures:
                stack.enter_context(failure)
            async with asyncio.TaskGroup() as group:
                for told, sent in pages:
                    group.create_task(play_page(self.served, told, sent))
            await asyncio.sleep(self._chance.random())
        await self.served.settled(len(self.told))

    def tell(self, name: str, line: Line, number: int, cut: int | None, how: str) -> tuple[Told, dict[str, Any]]:
        """A request for a project of its own."""
        told = self.told[name] = Told(name, line, number, None, cut, how)
        return told, request(name)

    def _page(self, turn: int, page: int) -> tuple[Told, dict[str, Any]]:
        chance, name = self._chance, f"{self._seed}-{turn}-{page}"
        number = chance.choice([1, 2, 4])
        line = make_line(chance, name, number)
        cut = chance.randrange(1, len(line.sent)) if len(line.sent) > 1 and chance.random() < 0.5 else None
        how = "stay" if cut is None else chance.choice(["cancel", "lose"])
        told = self.told[name] = Told(name, line, number, None, cut, how)
        former = self.told.get(f"{self._seed}-0-{page}")
        codes = [] if turn == 0 or former is None else [code for _, code in former.expected]
        usable = [index for index, code in enumerate(codes) if code.strip()]
        if former is None or not usable:
            return told, request(name)
        chosen = chance.choice(usable)
        told.parent = (former.prompt, chosen)
        return told, edit(codes[chosen], codes, name)

    def _failures(self) -> list[Any]:
        match self._chance.choice([None, "database", "cache", "storage"]):
            case "database":
                return [database_away(self.served.data)]
            case "cache":
                gone = CacheUnavailableError("the cache cannot be reached")
                return [away((Cache, "get", gone), (Cache, "set", gone))]
            case "storage":
                return [away((FileService, "save", StorageUnavailableError("the storage cannot be reached")))]
        return []

    async def check(self) -> None:
        """Compare what is there with what was told."""
        trees = await self.served.trees()
        generations = [each for tree in trees for each in tree]
        assert sorted(str(each.prompt) for each in generations) == sorted(self.told)
        found: dict[str, TreeGeneration] = {str(each.prompt): each for each in generations}
        for name, told in self.told.items():
            assert ends(found[name]) == told.expected, name
            wanted = None if told.parent is None else variants_of(found[told.parent[0]])[told.parent[1]].id
            assert {variant.parent_id for variant in found[name].variants} == {wanted}, name
        data, actor = self.served.data, await self.served.person()

        async def media_are_there() -> bool:
            files = await data.files.list(owner_id=actor.user_id, limit=100)
            return len({file.project_id for file in files if file.project_id}) == len(trees)

        await until(media_are_there)
        for file in await data.files.list(owner_id=actor.user_id, limit=100):
            content = await data.files.download(file.id, owner_id=actor.user_id)
            assert str(file.file_name).startswith(hashlib.sha256(content).hexdigest()), "to the byte"
        page = await data.audit.list(actor, AuditFilter(user_id=actor.user_id), limit=1000)
        actions = [entry.action for entry in page.entries]
        assert actions.count(AuditAction.CODE_GENERATE) == len(self.told)
        assert actions.count(AuditAction.PROJECT_CREATE) == len(trees)
        assert not await data.usage.entries(actor, user_id=actor.user_id), "nobody has said what it has cost"


FOUR = Line(
    [
        *(("setCode", index, f"<p>{index}") for index in range(4)),
        ("setCode", 2, "<p>2 ☃</p>"),
        ("setCode", 2, "<p>2 ☃</p>"),
        ("variantError", 1, "because"),
        ("variantError", 1, "because"),
        ("setCode", 0, "<p>0 whole</p>"),
        ("variantComplete", 2, ""),
        ("variantComplete", 0, ""),
        ("variantComplete", 0, ""),
        ("setCode", 3, "<p>3 whole</p>\n"),
        ("variantComplete", 3, ""),
    ]
)
"""Four variants that take turns; some of it is said twice."""


@pytest.mark.parametrize("how", ["cancel", "lose"])
async def test_a_page_may_go_at_every_message(data: DataLayer, backend: Backend, how: str) -> None:
    async with serving(data, backend) as served:
        story = Story(served, 1)
        backend.play = story.play
        pages = [story.tell(f"{how} {cut}", FOUR, 4, cut, how) for cut in range(1, len(FOUR.sent))]
        await story.ask(pages, [])
        await story.check()


def slow(*methods: tuple[Any, str]) -> Any:
    """These methods do what they do, but take long for it."""
    stack = ExitStack()
    for owner, name in methods:
        original = getattr(owner, name)

        async def late(*given: Any, original: Any = original, **named: Any) -> Any:
            await asyncio.sleep(0.1)
            return await original(*given, **named)

        stack.enter_context(patch.object(owner, name, late))
    return stack


@pytest.mark.slow
@pytest.mark.parametrize("server", ["database", "cache", "storage", "everything"])
async def test_slow_servers_change_nothing(data: DataLayer, backend: Backend, server: str) -> None:
    methods: dict[str, list[tuple[Any, str]]] = {
        "database": [(GenerationService, name) for name in ("start", "append", "complete", "fail", "cancel", "renew")],
        "cache": [(Cache, "get"), (Cache, "set")],
        "storage": [(FileService, "save")],
    }
    chosen = methods.get(server) or [each for some in methods.values() for each in some]
    async with serving(data, backend) as served:
        story = Story(served, 1)
        backend.play = story.play
        cuts = ((None, "stay"), (5, "cancel"), (9, "lose"))
        await story.ask([story.tell(f"slow {cut}", FOUR, 4, cut, how) for cut, how in cuts], [slow(*chosen)])
        await story.check()


async def test_a_page_may_go_before_the_first_answer(data: DataLayer, backend: Backend) -> None:
    """The request has arrived, and nothing was said: all of it is recorded all the same."""
    is_gone = asyncio.Event()
    async with serving(data, backend) as served:
        story = Story(served, 1)
        told, sent = story.tell("lost", FOUR, 4, None, "lose")

        async def play(stage: Stage) -> None:
            await is_gone.wait()
            await story.play(stage)

        backend.play = play
        async with served.connect() as websocket:
            await websocket.send(json.dumps(sent))
            await until(lambda: backend.received)
            websocket.transport.abort()
        is_gone.set()
        await served.settled()
        assert told.received == 0
        await story.check()


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["slow", "frozen"])
async def test_servers_that_are_really_slow(
    settings: Settings, backend: Backend, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each packet takes a fifth of a second, or nothing passes for three seconds."""
    monkeypatch.setattr(conftest, "PATIENCE", 120.0)
    urls = settings.database.database_url, settings.redis.redis_url
    assert urls[0] is not None
    assert urls[1] is not None
    there, cache = (url.get_secret_value() for url in urls if url is not None)
    async with road_to_database(there) as database, road_to_redis(cache) as redis:
        replaced = settings.replaced(database_url=database_url(there, database), redis_url=redis_url(cache, redis))
        async with DataLayer(settings) as straight, DataLayer(replaced) as data:
            await empty_tables(straight)
            async with serving(data, backend) as served:
                story = Story(Recorded(straight, served.port), 1)  # Looks by the straight way.
                backend.play = story.play
                cuts = ((None, "stay"), (1, "lose"), (5, "cancel"), (9, "lose"))
                pages = [story.tell(f"{trouble} {cut}", FOUR, 4, cut, how) for cut, how in cuts]
                for road in (database, redis):
                    if trouble == "slow":
                        road.pause = 0.2
                    else:
                        road.freeze()
                        asyncio.get_running_loop().call_later(3, road.thaw)
                await story.ask(pages, [])
                database.pause = redis.pause = 0
                await story.check()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 7))])
async def test_after_any_story_the_tree_is_what_it_should_be(
    data: DataLayer, backend: Backend, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.2)
    async with serving(data, backend) as served:
        story = Story(served, seed)
        backend.play = story.play
        for turn in range(2):
            await story.run(turn)
        await story.check()
