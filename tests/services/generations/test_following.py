"""Readers follow a generation from any process, join late, go on after a break, and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.entities.enums import GenerationStatus, UserRole
from data_layer.errors import InvalidValueError, NotFoundError, NotInitializedError, PermissionDeniedError
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.generation_stream import CodePatch, CodeState, FollowedEvent, StreamedEvent, VariantEnded
from data_layer.schemas.generations import CodePiece, VariantEvent, VariantResult, WholeCode
from data_layer.services.generations import following, streams
from data_layer.services.generations.followed import Position
from data_layer.services.generations.live import live_key
from tests.services.generations.conftest import Owner, let_leases_run_out, rows, started, stored_owner


class Picture:
    """What a reader makes of what it receives."""

    def __init__(self) -> None:
        self.codes: dict[int, str] = {}
        self.wholes = 0
        self.events: dict[int, list[int]] = {}
        self.ends: dict[int, VariantEnded] = {}
        self.position: str | None = None

    def take(self, event: FollowedEvent) -> None:
        assert event.variant not in self.ends
        match event:
            case CodeState():
                self.codes[event.variant] = event.code
                self.wholes += 1
            case CodePatch():
                self.codes[event.variant] = event.apply(self.codes[event.variant])
            case StreamedEvent():
                self.events.setdefault(event.variant, []).append(event.sequence)
            case VariantEnded():
                self.ends[event.variant] = event
        self.position = event.position

    async def follow(self, data: DataLayer, owner: Owner, generation_id: Any, *, until: Any = None) -> None:
        """To the end, or until something holds."""
        async with asyncio.timeout(60), aclosing(self._events(data, owner, generation_id)) as events:
            async for event in events:
                self.take(event)
                if until is not None and until(self):
                    return

    def _events(self, data: DataLayer, owner: Owner, generation_id: Any) -> Any:
        return data.generations.follow(owner.actor, generation_id, after=self.position)


@pytest.fixture
async def other(data: DataLayer, settings: Settings) -> AsyncIterator[DataLayer]:
    """What another process would have, on the same servers."""
    assert data.settings == settings
    async with DataLayer(settings) as opened:
        yield opened


async def test_a_reader_in_another_process_sees_it_grow(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 2)
    token, write = generation.writer_token, data.generations
    picture = Picture()
    reading = asyncio.create_task(picture.follow(other, owner, generation.id))
    code = ""
    for number in range(1, 30):
        code += f"<p>{number} é😀</p>"
        await write.append(owner.actor, token, 0, number, WholeCode(code))
        await write.append(owner.actor, token, 1, 2 * number, CodePiece("x"), VariantEvent("thinking", {"n": number}))
        await asyncio.sleep(0.02)
    async with asyncio.timeout(20):
        while picture.codes != {0: code, 1: "x" * 29} or len(picture.events.get(1, [])) < 29:
            await asyncio.sleep(0.01)
    assert await rows(data, "SELECT count(*) FROM generation_events") in ([(number,)] for number in range(30))
    assert picture.wholes == 2
    await write.complete(owner.actor, token, 0)
    await write.fail(owner.actor, token, 1, "quota")
    await reading
    assert {index: end.status for index, end in picture.ends.items()} == {
        0: GenerationStatus.COMPLETED,
        1: GenerationStatus.FAILED,
    }
    assert picture.ends[1].error_message == "quota"
    assert picture.codes == {0: code, 1: "x" * 29}
    assert picture.events == {1: [2 * number + 1 for number in range(1, 30)]}
    assert picture.wholes == 2


async def test_late_and_after_the_end(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    token = generation.writer_token
    await data.generations.append(owner.actor, token, 0, 1, CodePiece("ab"), VariantEvent("toolStart", {"a": 1}))
    late = Picture()
    await late.follow(other, owner, generation.id, until=lambda p: p.codes == {0: "ab"} and p.events == {0: [2]})
    await data.generations.append(owner.actor, token, 0, 3, CodePiece("c"))
    await data.generations.complete(owner.actor, token, 0, code="abcd\0")
    await late.follow(other, owner, generation.id)
    assert (late.codes, late.events) == ({0: "abcd\u2400"}, {0: [2]})
    after = Picture()
    await after.follow(other, owner, generation.id)
    assert (after.codes, after.events) == ({0: "abcd\u2400"}, {0: [2]})
    assert [event async for event in other.generations.follow(owner.actor, generation.id, after=after.position)] == []


async def test_a_reader_goes_on_in_another_process(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    """Whole codes come once; what was missed is one patch, also where it lies before the last checkpoint."""
    generation = await started(data, owner)
    token, write = generation.writer_token, data.generations
    picture = Picture()
    await write.append(owner.actor, token, 0, 1, CodePiece("a"))
    await picture.follow(data, owner, generation.id, until=lambda p: p.codes == {0: "a"})
    for number in range(2, 20):
        await write.append(owner.actor, token, 0, number, CodePiece("b"))
        await asyncio.sleep(0.03)
    await write.store(owner.actor, token)
    await write.append(owner.actor, token, 0, 20, CodePiece("c"))
    expected = "a" + 18 * "b" + "c"
    await Picture().follow(data, owner, generation.id, until=lambda p: p.codes == {0: expected})
    await picture.follow(other, owner, generation.id, until=lambda p: p.codes == {0: expected})
    assert picture.wholes == 1
    await write.complete(owner.actor, token, 0)
    await picture.follow(data, owner, generation.id)
    assert (picture.codes, picture.wholes) == ({0: expected}, 1)


async def test_many_events_of_one_variant(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    token, write = generation.writer_token, data.generations
    early, late = Picture(), Picture()
    reading = asyncio.create_task(early.follow(other, owner, generation.id))
    for start in range(1, 10_001, 100):
        events = [VariantEvent("thinking", {"text": "x" * 50, "n": start + number}) for number in range(100)]
        await write.append(owner.actor, token, 0, start, *events)
        await asyncio.sleep(0)
    await write.append(owner.actor, token, 0, 10_001, CodePiece("done"))
    await write.complete(owner.actor, token, 0)
    await late.follow(other, owner, generation.id)
    await reading
    assert early.events == late.events == {0: list(range(1, 10_001))}
    assert early.codes == late.codes == {0: "done"}


async def test_a_slow_reader_gets_what_it_missed_at_once(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    token = generation.writer_token
    slow, quick = Picture(), Picture()
    events = other.generations.follow(owner.actor, generation.id)
    slow.take(await anext(events))
    reading = asyncio.create_task(quick.follow(other, owner, generation.id))
    for number in range(1, 40):
        await data.generations.append(owner.actor, token, 0, number, CodePiece(str(number)))
        await asyncio.sleep(0.02)
    await data.generations.complete(owner.actor, token, 0)
    await reading
    rest = [event async for event in events]
    assert [type(event) for event in rest] == [CodePatch, VariantEnded]
    for event in rest:
        slow.take(event)
    assert slow.codes == quick.codes


async def test_cancelled_from_a_third_process(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 2)
    await data.generations.append(owner.actor, generation.writer_token, 0, 1, CodePiece("part"))
    picture = Picture()
    await picture.follow(data, owner, generation.id, until=lambda p: p.codes == {0: "part", 1: ""})
    await data.generations.store(owner.actor, generation.writer_token)
    await other.generations.cancel(owner.actor, generation.id)
    await picture.follow(data, owner, generation.id)
    assert {end.status for end in picture.ends.values()} == {GenerationStatus.CANCELLED}
    assert picture.codes == {0: "part", 1: ""}


async def test_what_was_published_outlives_its_writer(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    """The process dies before its next checkpoint: what readers have seen is stored with the end."""
    generation = await started(data, owner)
    write = data.generations
    await write.append(owner.actor, generation.writer_token, 0, 1, CodePiece("a\0"), VariantEvent("thinking", {"n": 1}))
    writing = data._opened.generation_streams
    assert writing._task
    writing._task.cancel()
    picture = Picture()
    await picture.follow(other, owner, generation.id, until=lambda p: p.codes == {0: "a\u2400"} and p.events)
    assert await rows(data, "SELECT code FROM generated_codes") == [("",)]
    writing.leave(generation.id)
    await let_leases_run_out(data)
    await picture.follow(other, owner, generation.id)
    assert picture.ends[0].status is GenerationStatus.FAILED
    assert (picture.codes, picture.wholes) == ({0: "a\u2400"}, 1)
    [(code, metadata)] = await rows(data, "SELECT code, metadata FROM generated_codes")
    assert (code, metadata) == ("a\u2400", {"replaced_characters": {"nul": 1}})
    assert await rows(data, "SELECT sequence, payload FROM generation_events") == [(2, {"n": 1})]


async def test_taken_over_with_what_was_published(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    await data.generations.append(owner.actor, generation.writer_token, 0, 7, CodePiece("abc"))
    picture = Picture()
    await picture.follow(data, owner, generation.id, until=lambda p: p.codes == {0: "abc"})
    taken = await other.generations.take_over(owner.actor, generation.id)
    assert taken.last_sequences == (7,)
    await other.generations.append(owner.actor, taken.writer_token, 0, 8, CodePiece("d"))
    await picture.follow(data, owner, generation.id, until=lambda p: p.codes == {0: "abcd"})
    await other.generations.complete(owner.actor, taken.writer_token, 0)
    await picture.follow(data, owner, generation.id)
    assert (picture.codes, picture.wholes) == ({0: "abcd"}, 1)


async def test_another_writer_that_goes_on_from_an_earlier_state(
    data: DataLayer, other: DataLayer, owner: Owner
) -> None:
    """Without what was published, the new writer begins at the checkpoint: readers get the whole code."""
    generation = await started(data, owner)
    await data.generations.append(owner.actor, generation.writer_token, 0, 1, CodePiece("abc"))
    await data.generations.store(owner.actor, generation.writer_token)
    await data.generations.append(owner.actor, generation.writer_token, 0, 2, CodePiece("def"))
    picture = Picture()
    reading = asyncio.create_task(picture.follow(data, owner, generation.id))
    async with asyncio.timeout(20):
        while picture.codes != {0: "abcdef"}:
            await asyncio.sleep(0.01)
    data._opened.generation_streams.leave(generation.id)
    await data.cache.flush()
    taken = await other.generations.take_over(owner.actor, generation.id)
    assert taken.last_sequences == (1,)
    await other.generations.append(owner.actor, taken.writer_token, 0, 2, CodePiece("XYZ!"))
    async with asyncio.timeout(20):
        while picture.codes != {0: "abcXYZ!"}:
            await asyncio.sleep(0.01)
    await other.generations.complete(owner.actor, taken.writer_token, 0)
    await reading
    assert picture.codes == {0: "abcXYZ!"}


async def test_nobody_else_follows(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    stranger = await stored_owner(data, email="stranger@example.com")
    for actor in (stranger.actor, ANONYMOUS):
        with pytest.raises(NotFoundError):
            await anext(data.generations.follow(actor, generation.id))
    assert await anext(data.generations.follow(SYSTEM, generation.id))
    for after in ("", "x", "0:1.2.3", "0:0.00000000.0.-", "0:0.00000000.0.\n", 7, "0:0.00000000.0." * 1000):
        with pytest.raises(InvalidValueError, match="after"):
            await anext(data.generations.follow(owner.actor, generation.id, after=after))  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        await anext(data.generations.follow(owner.actor, owner.project_id))


async def test_a_moderator_follows_for_a_reason_that_is_recorded_once(
    data: DataLayer, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CHECK_SECONDS", 0.05)
    moderator = await stored_owner(data, email="m@example.com", role=UserRole.MODERATOR)
    generation = await started(data, owner)
    with pytest.raises(NotFoundError):
        await anext(data.generations.follow(moderator.actor, generation.id))
    events = data.generations.follow(moderator.actor, generation.id, reason="a report")
    await anext(events)
    next_one = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.3)
    entries = "SELECT count(*) FROM audit_logs WHERE description LIKE 'Read the code%'"
    assert await rows(data, entries) == [(1,)]
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE users SET role = 'user' WHERE email = 'm@example.com'"))
    with pytest.raises(NotFoundError):
        await next_one


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("UPDATE users SET status = 'suspended'", PermissionDeniedError),
        ("UPDATE projects SET status = 'deleted'", NotFoundError),
        ("DELETE FROM projects", NotFoundError),
    ],
)
async def test_who_may_not_read_any_more(
    data: DataLayer, owner: Owner, monkeypatch: pytest.MonkeyPatch, change: str, error: type[Exception]
) -> None:
    monkeypatch.setattr(following, "CHECK_SECONDS", 0.05)
    generation = await started(data, owner)
    events = data.generations.follow(owner.actor, generation.id)
    await anext(events)
    async with data.transaction() as tx:
        await tx.execute(text(change))
    with pytest.raises(error):
        async with asyncio.timeout(20):
            await anext(events)


async def test_readers_are_refused_when_it_closes(data: DataLayer, settings: Settings, owner: Owner) -> None:
    generation = await started(data, owner)
    async with DataLayer(settings) as closing:
        events = closing.generations.follow(Actor.user(owner.actor.user_id), generation.id)  # type: ignore[arg-type]
        await anext(events)
        next_one = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
    with pytest.raises(NotInitializedError):
        await next_one


async def test_a_reader_that_must_not_be_silent_gets_nothing_from_time_to_time(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    events = data.generations.follow(owner.actor, generation.id, idle_seconds=0.05)
    async with asyncio.timeout(60), aclosing(events):
        while (event := await anext(events)) is None:
            pass
        assert isinstance(event, CodeState)
        assert [await anext(events) for _ in range(3)] == [None] * 3
        await data.generations.append(owner.actor, generation.writer_token, 0, 1, CodePiece("<p>"))
        while (event := await anext(events)) is None:
            pass
        assert isinstance(event, CodePatch)
    for seconds in (0, -1.0, float("nan")):
        with pytest.raises(InvalidValueError, match="idle_seconds"):
            data.generations.follow(owner.actor, generation.id, idle_seconds=seconds)


async def test_a_reader_that_may_be_silent_gets_events_only(
    data: DataLayer, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_FIRST_SECONDS", 0.0)
    generation = await started(data, owner)
    async with asyncio.timeout(60), aclosing(data.generations.follow(owner.actor, generation.id)) as events:
        assert isinstance(await anext(events), CodeState)


async def test_readers_that_are_one_person_are_checked_at_once(
    data: DataLayer, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CHECK_SECONDS", 0.4)
    generation = await started(data, owner)
    checks: list[float] = []

    async def check() -> None:
        checks.append(monotonic())

    async def read() -> None:
        followers = data._opened.generation_streams.followers
        async with aclosing(followers.follow(generation.id, Position(), check, who="owner", idle_seconds=0.05)) as each:
            while len(checks) < 50:
                await anext(each)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(read())
    again = checks[40:]
    assert again[-1] - again[0] > 0.09 * (len(again) - 1), "at most one in a tenth of a second"


async def test_nothing_is_left_when_readers_leave(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    followers = data._opened.generation_streams.followers
    readers = [(data.generations.follow(owner.actor, generation.id)) for _ in range(3)]
    for reader in readers:
        await anext(reader)
    assert len(followers._followed) == 1
    [followed] = followers._followed.values()
    for reader in readers:
        await reader.aclose()
    assert not followers._followed
    assert followed.task.done()


async def test_the_clock_of_redis_goes_back(
    data: DataLayer, other: DataLayer, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids of new entries are smaller than those that were read: they are found nevertheless."""
    monkeypatch.setattr(streams, "CHECKPOINT_SECONDS", 2.0)
    generation = await started(data, owner)
    token, picture = generation.writer_token, Picture()
    reading = asyncio.create_task(picture.follow(other, owner, generation.id))
    await data.generations.append(owner.actor, token, 0, 1, CodePiece("a"))
    await seen(picture, "a")
    key = data.cache._namespace.key(live_key(generation.id))
    await data.cache._commands.run("XADD", key, "99999999999999-1", "v", b"what another program wrote")
    await asyncio.sleep(0.2)
    await data.cache._commands.run("UNLINK", key)
    for number in range(2, 40):
        await data.generations.append(owner.actor, token, 0, number, CodePiece("b"))
    await seen(picture, "a" + 38 * "b")
    [entry] = await data.cache.stream(live_key(generation.id), ttl=60).read()
    assert not entry.id.startswith("9999")
    await data.generations.complete(owner.actor, token, 0)
    await reading
    assert picture.wholes == 1


async def test_entries_of_others_are_ignored(data: DataLayer, other: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    picture = Picture()
    reading = asyncio.create_task(picture.follow(other, owner, generation.id))
    stream = data.cache.stream(live_key(generation.id), ttl=60)
    wrong: list[Any] = [None, 7, "text", {"a": 1}, b"", b"[]", b'["t", [[1]], []]', b'["t", [], "x"]', b"\xff"]
    change = b'["0011223344556677", [[0, 0, 1, 0, 0, "wrong", 1, [], true, {}]], []]'
    far = b'["0011223344556677", [[0, 900, 901, 0, 0, "wrong", 1, [], true, {}]], [5]]'
    no_text = b'["0011223344556677", [[0, 0, 1, 0, 0, 7, 1, [], true, {}]], []]'
    no_event = b'["0011223344556677", [[0, 0, 1, 0, 0, "a", 1, [["1", "x", "{}"]], true, {}]], []]'
    no_number = b'["0011223344556677", [["0", "0", "1", 0, -1, "a", 1, [], true, {}]], []]'
    beyond = b'["0011223344556677", [[99, 0, 1, 0, 0, "", 0, [], true, {}]], []]'
    for value in (*wrong, change, far, beyond, no_text, no_event, no_number):
        await stream.append(value)
    await data.generations.append(owner.actor, generation.writer_token, 0, 1, CodePiece("a"))
    await seen(picture, "a")
    await data.generations.complete(owner.actor, generation.writer_token, 0)
    await reading
    assert picture.codes == {0: "a"}


async def test_a_deleted_project_takes_its_writer_along(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    await data.generations.append(owner.actor, generation.writer_token, 0, 1, CodePiece("a"))
    async with data.transaction() as tx:
        await tx.execute(text("DELETE FROM projects"))
    await data.generations.store(owner.actor, generation.writer_token)
    with pytest.raises(NotFoundError):
        await data.generations.append(owner.actor, generation.writer_token, 0, 2, CodePiece("b"))
    with pytest.raises(NotFoundError):
        await data.generations.complete(owner.actor, generation.writer_token, 0)
    with pytest.raises(NotFoundError):
        await data.generations.report_usage(owner.actor, generation.writer_token, 0, VariantResult(prompt_tokens=1))


async def seen(picture: Picture, code: str) -> None:
    async with asyncio.timeout(30):
        while picture.codes.get(0) != code:
            await asyncio.sleep(0.01)
