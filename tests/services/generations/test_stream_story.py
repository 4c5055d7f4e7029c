"""Whatever happens to writers, readers and Redis: a reader has a state of the writer, and in the end what is stored."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data_layer import DataLayer, Settings
from data_layer.entities.enums import GenerationStatus
from data_layer.schemas.generations import CodePiece, Piece, VariantEvent, WholeCode
from data_layer.testing.redis_cluster import RedisCluster
from data_layer.testing.redis_server import RedisServer
from tests.cache.support import debian_redis
from tests.services.generations.conftest import Owner, rows, started
from tests.services.generations.test_following import Picture

VARIANTS, READERS = 2, 3
STORED = "SELECT code FROM generated_codes WHERE generation_id = :id ORDER BY variant_index"
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _checkpoints() -> None:
    """They come here as they do in a service."""


@dataclass(frozen=True)
class Live:
    """Where the live part travels, and what can be broken there."""

    settings: dict[str, Any]
    server: RedisServer | None = None


def valkey(stack: ExitStack) -> Live:
    server = stack.enter_context(RedisServer())
    return Live({"redis_url": server.url}, server)


def redis(stack: ExitStack) -> Live:
    server = stack.enter_context(RedisServer(debian_redis()))
    return Live({"redis_url": server.url}, server)


def cluster(stack: ExitStack) -> Live:
    return Live({"redis_url": None, **stack.enter_context(RedisCluster(node_timeout=15_000)).settings})


def without_near_copy(stack: ExitStack) -> Live:
    return Live(valkey(stack).settings | {"redis_near_size": 0})


def nothing(_stack: ExitStack) -> Live:
    return Live({"redis_url": "unix:///nowhere/valkey.sock"})


@pytest.fixture(
    scope="module",
    params=[
        valkey,
        pytest.param(redis, marks=pytest.mark.needs_debian),
        cluster,
        without_near_copy,
        nothing,
    ],
    ids=lambda start: start.__name__,
)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    with ExitStack() as stack:
        yield request.param(stack)


@asynccontextmanager
async def opened(settings: Settings, live: Live, prefix: str) -> AsyncIterator[DataLayer]:
    values = live.settings | {"redis_key_prefix": prefix, "db_max_connections": 5}
    async with DataLayer(settings.replaced(**values)) as data:
        yield data


pieces = st.one_of(
    st.text(st.sampled_from("ab<é😀\0"), max_size=5).map(CodePiece),
    st.text(st.sampled_from("ab<é😀\0"), max_size=9).map(WholeCode),
    st.just(VariantEvent("thinking", {"text": "x"})),
)
variants, readers = st.integers(0, VARIANTS - 1), st.integers(0, READERS - 1)
steps = st.one_of(
    st.tuples(st.just("append"), variants, st.lists(pieces, min_size=1, max_size=4)),
    st.tuples(st.just("append"), variants, st.lists(pieces, min_size=1, max_size=4)),
    st.tuples(st.just("grow"), variants, st.text("xyz", min_size=1, max_size=3)),
    st.tuples(st.just("join"), readers, st.booleans()),
    st.tuples(st.just("leave"), readers),
    st.tuples(st.sampled_from(["pause", "pause", "store", "take_over", "break_redis", "flush"])),
)


class Checked(Picture):
    """Refuses what was never a state of the writer."""

    def __init__(self, states: list[set[str]]) -> None:
        super().__init__()
        self._states = states

    def take(self, event: Any) -> None:
        super().take(event)
        assert self.codes[event.variant] in self._states[event.variant]


@dataclass
class Story:
    """One generation, two processes that write it in turn, and readers in both."""

    processes: list[DataLayer]
    live: Live
    owner: Owner
    id: UUID
    token: str
    states: list[set[str]] = field(default_factory=lambda: [{""} for _ in range(VARIANTS)])
    by_number: list[dict[int, str]] = field(default_factory=lambda: [{0: ""} for _ in range(VARIANTS)])
    last: list[int] = field(default_factory=lambda: [0] * VARIANTS)
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readers = [Checked(self.states) for _ in range(READERS)]

    def code(self, variant: int) -> str:
        return self.by_number[variant][self.last[variant]]

    async def append(self, variant: int, some: list[Piece]) -> None:
        for piece in some:
            code = self.code(variant)
            match piece:
                case CodePiece(text):
                    code += text
                case WholeCode(whole):
                    code = whole
            self.last[variant] += 1
            self.by_number[variant][self.last[variant]] = code
            self.states[variant].add(code.replace("\0", "\u2400"))
        first = self.last[variant] - len(some) + 1
        await self.processes[0].generations.append(self.owner.actor, self.token, variant, first, *some)

    async def grow(self, variant: int, text: str) -> None:
        await self.append(variant, [WholeCode(self.code(variant) + text)])

    async def join(self, number: int, is_elsewhere: bool) -> None:  # noqa: FBT001  (a step has no names)
        if number not in self.tasks:
            follow = self.readers[number].follow(self.processes[is_elsewhere], self.owner, self.id)
            self.tasks[number] = asyncio.create_task(follow)
            await asyncio.sleep(0)

    async def leave(self, number: int) -> None:
        task = self.tasks.pop(number, None)
        if task is not None:
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)

    async def pause(self) -> None:
        await asyncio.sleep(0.15)

    async def store(self) -> None:
        await self.processes[0].generations.store(self.owner.actor, self.token)

    async def take_over(self) -> None:
        self.processes.reverse()
        taken = await self.processes[0].generations.take_over(self.owner.actor, self.id)
        self.token = taken.writer_token
        self.last = list(taken.last_sequences)

    async def break_redis(self) -> None:
        if self.live.server is not None:
            await asyncio.to_thread(self.live.server.restart)

    async def flush(self) -> None:
        if self.live.server is not None:
            await asyncio.to_thread(self.live.server.execute, "FLUSHALL")

    async def end(self) -> None:
        write = self.processes[0].generations
        # Before: a reader may be handed the end while its writer still waits for the answer.
        self.states[0].add((self.code(0) + "!").replace("\0", "\u2400"))
        await write.complete(self.owner.actor, self.token, 0, code=self.code(0) + "!")
        await write.cancel(self.owner.actor, self.id)
        for number in range(READERS):
            await self.join(number, number % 2 == 1)
        await asyncio.gather(*self.tasks.values())


@pytest.mark.slow
@hypothesis_settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(steps=st.lists(steps, max_size=25))
async def test_readers_come_and_go(
    data: DataLayer, settings: Settings, owner: Owner, live: Live, steps: list[tuple[Any, ...]]
) -> None:
    prefix = f"story{next(_numbers)}"
    async with opened(settings, live, prefix) as one, opened(settings, live, prefix) as other:
        generation = await started(one, owner, VARIANTS)
        story = Story([one, other], live, owner, generation.id, generation.writer_token)
        for name, *arguments in steps:
            await getattr(story, name)(*arguments)
        await story.end()
    stored = dict(enumerate(code for (code,) in await rows(data, STORED, id=generation.id)))
    for reader in story.readers:
        assert reader.codes == stored
        assert {index: end.status for index, end in reader.ends.items()} == {
            0: GenerationStatus.COMPLETED,
            1: GenerationStatus.CANCELLED,
        }


async def test_the_writer_does_not_wait_for_redis(settings: Settings, owner: Owner) -> None:
    """While it hangs, pieces are taken; readers get them from checkpoints, and live again when it goes on."""
    with RedisServer() as server:
        live = Live({"redis_url": server.url, "redis_command_timeout": 500}, server)
        async with opened(settings, live, "hangs") as one, opened(settings, live, "hangs") as other:
            generation = await started(one, owner)
            reader = Picture()
            reading = asyncio.create_task(reader.follow(other, owner, generation.id))
            await one.generations.append(owner.actor, generation.writer_token, 0, 1, CodePiece("a"))
            await seen(reader, "a")
            server.pause()
            for number in range(2, 102):
                await one.generations.append(owner.actor, generation.writer_token, 0, number, CodePiece("b"))
            await seen(reader, "a" + 100 * "b")
            server.resume()
            await one.generations.append(owner.actor, generation.writer_token, 0, 102, CodePiece("c"))
            await seen(reader, "a" + 100 * "b" + "c")
            await one.generations.complete(owner.actor, generation.writer_token, 0)
            await reading
            assert reader.wholes == 1


async def seen(reader: Picture, code: str) -> None:
    async with asyncio.timeout(60):
        while reader.codes.get(0) != code:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def writer_process(settings: Settings, live: Live, prefix: str, owner: Owner, lease: float) -> Any:
    database_url = settings.database.database_url
    assert database_url is not None
    arguments = (
        database_url.get_secret_value(),
        live.settings["redis_url"],
        prefix,
        owner.actor.user_id,
        owner.project_id,
        lease,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("dying_writer.py")),
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield process, UUID((await process.stdout.readline()).decode().strip())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(params=[valkey, nothing], ids=lambda start: start.__name__)
def some_live(request: pytest.FixtureRequest) -> Iterator[Live]:
    with ExitStack() as stack:
        yield request.param(stack)


async def replayed(data: DataLayer, owner: Owner, generation_id: UUID, stored: dict[int, str]) -> None:
    """How the codes grew is known to their ends, whichever process has stored them."""
    for variant in (await data.generations.open(owner.actor, generation_id)).variants:
        replay = await data.generations.replay(owner.actor, variant.id)
        states = list(accumulate(replay.steps, lambda code, step: step.apply(code), initial=""))
        assert len(states) > 2
        assert states[-1] == stored[variant.variant_index]
        assert all(states[-1].startswith(state) for state in states)
        assert [event.sequence for event in replay.events] == sorted(event.sequence for event in replay.events)


@pytest.mark.slow
async def test_a_writer_is_killed(data: DataLayer, settings: Settings, owner: Owner, some_live: Live) -> None:
    """Its readers see it fail within a minute, and keep what they have seen."""
    async with (
        opened(settings, some_live, "killed") as here,
        writer_process(settings, some_live, "killed", owner, 3.0) as (process, generation_id),
    ):
        reader = Picture()
        reading = asyncio.create_task(reader.follow(here, owner, generation_id))
        async with asyncio.timeout(60):
            while len(reader.codes.get(1, "")) < 200:
                await asyncio.sleep(0.01)
        process.kill()
        before = dict(reader.codes)
        await reading
    stored = dict(enumerate(code for (code,) in await rows(data, STORED, id=generation_id)))
    assert reader.codes == stored
    assert {end.status for end in reader.ends.values()} == {GenerationStatus.FAILED}
    assert "writer stopped" in (reader.ends[0].error_message or "")
    assert all(stored[variant].startswith(code) for variant, code in before.items())
    for variant, code in stored.items():
        numbers = [int(number) for number in re.findall(r"<p>(\d+)</p>", code)]
        assert numbers == list(range(2 * variant + 2, numbers[-1] + 1, 4))
        assert reader.events[variant] == [number + 1 for number in numbers]
    await replayed(data, owner, generation_id, stored)
    assert reader.wholes == VARIANTS


@pytest.mark.slow
async def test_another_process_goes_on(data: DataLayer, settings: Settings, owner: Owner, some_live: Live) -> None:
    async with (
        opened(settings, some_live, "goes-on") as here,
        writer_process(settings, some_live, "goes-on", owner, 60.0) as (process, generation_id),
    ):
        reader = Picture()
        reading = asyncio.create_task(reader.follow(here, owner, generation_id))
        async with asyncio.timeout(60):
            while len(reader.codes.get(1, "")) < 200:
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        taken = await here.generations.take_over(owner.actor, generation_id)
        for variant, last in enumerate(taken.last_sequences):
            await here.generations.append(owner.actor, taken.writer_token, variant, last + 1, CodePiece("<end>"))
            await here.generations.complete(owner.actor, taken.writer_token, variant)
        await reading
    stored = dict(enumerate(code for (code,) in await rows(data, STORED, id=generation_id)))
    assert reader.codes == stored
    for variant, code in stored.items():
        numbers = [int(number) for number in re.findall(r"<p>(\d+)</p>", code)]
        assert numbers == list(range(2 * variant + 2, taken.last_sequences[variant], 4))
        assert code.endswith(f"<p>{numbers[-1]}</p><end>")
    await replayed(data, owner, generation_id, stored)
    assert reader.wholes == VARIANTS
