"""What every cache does, on every server and way to connect. A new topology joins by a line in ``BACKENDS``."""

from __future__ import annotations

import asyncio
import math
import os
import random
import uuid
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from pydantic import BaseModel, Field

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.errors import (
    InvalidCacheKeyError,
    InvalidCacheValueError,
    InvalidTimeToLiveError,
    NotInitializedError,
)
from data_layer.observability.log import FIELDS
from data_layer.testing.redis_server import RedisServer, TlsFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PREFIX = "app"
USERNAME, PASSWORD = "al:ice", "p@ss/wörd?"


@dataclass(frozen=True)
class Backend:
    """How to reach a server: by settings alone, or by an address handed over."""

    settings: dict[str, Any]
    url: str | None = None

    def cache(self, prefix: str = PREFIX, **options: Any) -> Cache:
        # Long, because what is tested here is not speed, and the machine may be busy.
        settings = Settings(redis_key_prefix=prefix, redis_command_timeout=10_000, **self.settings)
        return Cache(settings, self.url, **options)


def valkey_on_a_socket(stack: ExitStack, _folder: Path) -> Backend:
    return Backend({}, stack.enter_context(RedisServer(unix_socket=True)).url)


def valkey_with_a_user(stack: ExitStack, _folder: Path) -> Backend:
    server = stack.enter_context(RedisServer(username=USERNAME, password=PASSWORD))
    return Backend(
        {
            "redis_host": "127.0.0.1",
            "redis_port": server.port,
            "redis_database": 3,
            "redis_username": USERNAME,
            "redis_password": PASSWORD,
        }
    )


def valkey_by_url(stack: ExitStack, _folder: Path) -> Backend:
    server = stack.enter_context(RedisServer(username=USERNAME, password=PASSWORD))
    return Backend({"redis_url": f"{server.url}/2"})


def redis_with_tls(stack: ExitStack, folder: Path) -> Backend:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem", folder / "authority.pem")
    server = stack.enter_context(RedisServer("/usr/bin/redis-server", tls=files))
    return Backend(
        {
            "redis_host": "localhost",
            "redis_port": server.port,
            "redis_tls": True,
            "redis_tls_ca": files.authority,
        }
    )


BACKENDS = [
    valkey_on_a_socket,
    valkey_with_a_user,
    valkey_by_url,
    pytest.param(redis_with_tls, marks=pytest.mark.needs_debian),
]


@pytest.fixture(scope="module", params=BACKENDS, ids=lambda start: start.__name__)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with ExitStack() as stack:
        yield request.param(stack, tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def cache(backend: Backend) -> AsyncIterator[Cache]:
    async with backend.cache() as opened:
        await opened.client.flushall()
        yield opened


async def all_keys(cache: Cache, pattern: str = "*") -> list[str]:
    """Sorted, and each once: SCAN may find one twice."""
    return sorted({key async for key in cache.keys(pattern)})


class Owner(BaseModel):
    name: str = Field(alias="ownerName")
    joined: datetime


class Project(BaseModel):
    id: uuid.UUID
    owner: Owner
    tags: set[str] = set()


def a_project() -> Project:
    owner = Owner(ownerName="Zoë", joined=datetime(2026, 11, 22, 12, tzinfo=UTC))
    return Project(id=uuid.uuid4(), owner=owner, tags={"a", "b"})


VALUES = [
    {"name": "John", "nested": [{"a": None}, [True, False], "é\u0000\n😀"], "": 1.5},
    [],
    {},
    "",
    "12",
    "text",
    b"",
    b"\x00\xff\xc1",
    b"12",
    0,
    -7,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    1e300,
    -0.5,
    True,
    False,
    "x" * 100_000,
    b"x" * 100_000,
    random.Random(7).randbytes(100_000),  # noqa: S311  (the same in every process, for the names of the tests)
]


class TestOneKey:
    @pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:10]!a}")
    async def test_a_value_comes_back_with_its_type(self, cache: Cache, value: object) -> None:
        await cache.set("key", value, 60)
        found = await cache.get("key")
        assert found == value
        assert type(found) is type(value)

    async def test_a_tuple_comes_back_as_a_list_and_a_subclass_as_its_base(self, cache: Cache) -> None:
        await cache.set("key", (1, (2,), OrderedDict(a=1)), 60)
        assert await cache.get("key") == [1, [2], {"a": 1}]

    async def test_models_come_back_by_type(self, cache: Cache) -> None:
        project = a_project()
        await cache.set("project", project, 60)
        await cache.set("projects", [project, project], 60)
        assert await cache.get("project", Project) == project
        assert await cache.get("projects", list[Project]) == [project, project]
        assert (await cache.get("project"))["owner"] == {"name": "Zoë", "joined": "2026-11-22T12:00:00Z"}

    async def test_a_value_that_does_not_fit_the_type_is_a_logged_miss(
        self, cache: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        await cache.set("project", {"id": "private"}, 60)
        assert await cache.get("project", Project) is None
        assert caplog.messages == ["cache_value_undecodable"]
        assert "private" not in str([record.__dict__ for record in caplog.records])

    async def test_what_is_absent_is_none(self, cache: Cache) -> None:
        assert await cache.get("absent") is None
        assert await cache.ttl("absent") is None
        assert not await cache.exists("absent")
        assert not await cache.delete("absent")
        assert not await cache.expire("absent", 60)

    async def test_none_is_a_value(self, cache: Cache) -> None:
        await cache.set("none", None, 60)
        assert await cache.get_many(["none", "absent"]) == {"none": None}
        assert await cache.exists("none")

    async def test_a_change_of_the_original_does_not_reach_the_cache(self, cache: Cache) -> None:
        value = {"list": [1]}
        await cache.set("key", value, 60)
        value["list"].append(2)
        (await cache.get("key"))["list"].append(3)
        assert await cache.get("key") == {"list": [1]}

    async def test_delete_says_whether_there_was_something(self, cache: Cache) -> None:
        await cache.set("key", 1, 60)
        assert await cache.delete("key")
        assert not await cache.delete("key")
        assert await cache.get("key") is None

    async def test_only_one_of_many_adds_succeeds(self, cache: Cache) -> None:
        outcomes = await asyncio.gather(*(cache.add("key", number, 60) for number in range(50)))
        assert outcomes.count(True) == 1
        assert await cache.get("key") == outcomes.index(True)

    async def test_another_process_sees_the_value(self, cache: Cache, backend: Backend) -> None:
        await cache.set("key", "value", 60)
        async with backend.cache() as other:
            assert await other.get("key") == "value"

    async def test_a_large_value_is_stored_compressed_only_if_that_helps(self, cache: Cache) -> None:
        await cache.set("page", "<div></div>" * 10_000, 60)
        await cache.set("image", os.urandom(50_000), 60)
        assert await cache.client.strlen(f"{PREFIX}:page") < 1000
        assert await cache.client.strlen(f"{PREFIX}:image") == 50_002


class TestTimeToLive:
    async def test_a_value_ends(self, cache: Cache) -> None:
        await cache.set("short", 1, 0.05)
        await cache.set("delta", 1, timedelta(milliseconds=50))
        await cache.add("added", 1, 0.05)
        await cache.set_many({"many": 1}, 0.05)
        await cache.increment("count", ttl=0.05)
        assert len(await cache.get_many(["short", "delta", "added", "many", "count"])) == 5
        await asyncio.sleep(0.1)
        assert await cache.get_many(["short", "delta", "added", "many", "count"]) == {}
        assert await cache.add("added", 2, 60)

    async def test_set_and_expire_begin_anew(self, cache: Cache) -> None:
        await cache.set("key", 1, 0.05)
        await cache.set("key", 2, 60)
        await cache.set("extended", 1, 0.05)
        assert await cache.expire("extended", timedelta(hours=1))
        await asyncio.sleep(0.1)
        assert await cache.get("key") == 2
        remaining = await cache.ttl("extended")
        assert remaining is not None
        assert 3590 < remaining <= 3600

    async def test_a_key_that_another_program_made_permanent_has_no_end(self, cache: Cache) -> None:
        await cache.client.set(f"{PREFIX}:key", "1")
        assert await cache.ttl("key") == math.inf

    @pytest.mark.parametrize(
        "ttl", [0, -1, 0.0001, math.nan, math.inf, 10**9, 10**400, timedelta(0), timedelta(days=4000), "60", None, True]
    )
    async def test_a_senseless_time_is_refused_and_nothing_is_stored(self, cache: Cache, ttl: Any) -> None:
        attempts = [
            cache.set("key", 1, ttl),
            cache.add("key", 1, ttl),
            cache.set_many({"key": 1}, ttl),
            cache.increment("key", ttl=ttl),
            cache.expire("key", ttl),
            cache.set_session("key", 1, ttl),
            cache.extend_session("key", ttl),
        ]
        for attempt in attempts:
            with pytest.raises(InvalidTimeToLiveError):
                await attempt
        assert await all_keys(cache) == []


class TestCounters:
    async def test_concurrent_increments_are_all_counted(self, cache: Cache) -> None:
        sums = await asyncio.gather(*(cache.increment("count", ttl=60) for _ in range(100)))
        assert sorted(sums) == list(range(1, 101))
        assert await cache.get("count") == 100
        assert await cache.increment("count", -30, ttl=60) == 70

    async def test_the_time_to_live_is_that_of_the_first_increment(self, cache: Cache) -> None:
        await cache.increment("count", ttl=60)
        await cache.increment("count", ttl=6000)
        remaining = await cache.ttl("count")
        assert remaining is not None
        assert remaining <= 60

    async def test_a_whole_number_that_was_set_can_be_counted(self, cache: Cache) -> None:
        await cache.set("count", 41, 60)
        assert await cache.increment("count", ttl=60) == 42

    @pytest.mark.parametrize("value", ["1", 1.5, {"a": 1}, 2**63 - 1, True, b"1"], ids=repr)
    async def test_what_cannot_be_counted_is_refused_and_kept(self, cache: Cache, value: object) -> None:
        await cache.set("count", value, 60)
        with pytest.raises(InvalidCacheValueError, match="'count'"):
            await cache.increment("count", ttl=60)
        assert await cache.get("count") == value

    @pytest.mark.parametrize("amount", [2**63, -(2**63) - 1, 1.5, "1"])
    async def test_an_amount_that_is_no_whole_number_of_64_bits_is_refused(self, cache: Cache, amount: Any) -> None:
        with pytest.raises(InvalidCacheValueError):
            await cache.increment("count", amount, ttl=60)
        assert not await cache.exists("count")


class TestManyKeys:
    async def test_more_keys_than_one_command_carries(self, cache: Cache) -> None:
        values = {f"key-{number}": {"number": number} for number in range(1203)}
        await cache.set_many(values, 60)
        wanted = ["absent", *reversed(values), "key-0"]
        assert list((await cache.get_many(wanted)).items()) == list(reversed(values.items()))
        assert await cache.delete_many(["absent", *values]) == 1203
        assert await cache.get_many(values) == {}

    async def test_more_bytes_than_one_batch_carries(self, cache: Cache) -> None:
        values = {f"key-{number}": os.urandom(400_000) for number in range(8)}
        await cache.set_many(values, 60)
        assert await cache.get_many(values, bytes) == values

    async def test_none_at_all(self, cache: Cache) -> None:
        await cache.set_many({}, 60)
        assert await cache.get_many([]) == {}
        assert await cache.delete_many([]) == 0

    async def test_models(self, cache: Cache) -> None:
        projects = {f"project-{number}": a_project() for number in range(3)}
        await cache.set_many(projects, 60)
        assert await cache.get_many(iter(projects), Project) == projects

    async def test_one_bad_value_or_key_and_nothing_is_stored(self, cache: Cache) -> None:
        with pytest.raises(InvalidCacheValueError, match="'bad'"):
            await cache.set_many({"good": 1, "bad": math.nan}, 60)
        with pytest.raises(InvalidCacheKeyError):
            await cache.set_many({"good": 1, "": 1}, 60)
        assert not await cache.exists("good")

    async def test_one_text_is_not_many_keys(self, cache: Cache) -> None:
        await cache.set("a", 1, 60)
        for attempt in (cache.get_many("a"), cache.delete_many("a")):
            with pytest.raises(InvalidCacheKeyError):
                await attempt
        assert await cache.exists("a")


STRANGE_KEYS = [" ", "a b", "a\nb\r\n", "\x00", "é", "😀", "*", "?", "[a-z]", "\\", "{tag}", "a:b", ":", "k" * 512]


class TestKeys:
    async def test_strange_keys_are_literal(self, cache: Cache) -> None:
        for number, key in enumerate(STRANGE_KEYS):
            await cache.set(key, number, 60)
        assert await cache.get_many(STRANGE_KEYS) == {key: number for number, key in enumerate(STRANGE_KEYS)}
        assert await all_keys(cache) == sorted(STRANGE_KEYS)
        assert await cache.delete("*")
        assert len(await all_keys(cache)) == len(STRANGE_KEYS) - 1

    @pytest.mark.parametrize(
        "key", ["", "k" * 513, "é" * 257, "\ud800", None, 1, b"key"], ids=lambda key: f"{key!a:.12}"
    )
    async def test_bad_keys_are_refused(self, cache: Cache, key: Any) -> None:
        attempts = [
            cache.get(key),
            cache.set(key, 1, 60),
            cache.add(key, 1, 60),
            cache.delete(key),
            cache.exists(key),
            cache.expire(key, 60),
            cache.ttl(key),
            cache.increment(key, ttl=60),
            cache.get_many([key]),
            cache.set_many({key: 1}, 60),
            cache.delete_many([key]),
            cache.get_session(key),
            anext(cache.keys(key)),
        ]
        for attempt in attempts:
            with pytest.raises(InvalidCacheKeyError):
                await attempt

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("*", {"user:1", "user:2", "user:10", "page"}),
            ("user:*", {"user:1", "user:2", "user:10"}),
            ("user:?", {"user:1", "user:2"}),
            ("user:[2-9]", {"user:2"}),
            ("page", {"page"}),
            (r"user:\*", set()),
            ("app:*", set()),
            ("[", set()),
        ],
    )
    async def test_patterns(self, cache: Cache, pattern: str, expected: set[str]) -> None:
        await cache.set_many(dict.fromkeys(["user:1", "user:2", "user:10", "page"], 1), 60)
        assert set(await all_keys(cache, pattern)) == expected

    async def test_all_of_many_keys_are_found(self, cache: Cache) -> None:
        await cache.set_many({f"key-{number}": number for number in range(5000)}, 60)
        assert len(await all_keys(cache)) == 5000

    async def test_another_programs_key_that_is_no_text_is_left_out(self, cache: Cache) -> None:
        await cache.client.set(f"{PREFIX}:".encode() + b"\xff", "1")
        assert await all_keys(cache) == []


class TestApplicationsThatShareAServer:
    PREFIXES = ("app", "ap", "appl", "app2", "APP", "app.", "a.p", "app-b")

    async def test_none_sees_or_flushes_the_keys_of_another(self, cache: Cache, backend: Backend) -> None:
        foreign = ["app", "app2", "ap:p:1", "xapp:1", "APP:1", "other:app:1"]
        for key in foreign:
            await cache.client.set(key, "1")
        caches = {prefix: backend.cache(prefix) for prefix in self.PREFIXES if prefix != PREFIX}
        for prefix, other in caches.items():
            async with other:
                await other.set("key", prefix, 60)
                await other.set_session("token", prefix, 60)
        await cache.set("key", PREFIX, 60)
        assert await all_keys(cache) == ["key"]
        assert await cache.get("key") == PREFIX
        assert await cache.get_session("token") is None
        assert await cache.flush() == 1
        assert await cache.client.exists(*foreign) == len(foreign)
        for prefix, other in caches.items():
            async with other:
                assert await other.get("key") == prefix
                assert await other.get_session("token") == prefix

    async def test_flush_removes_all_that_is_ours(self, cache: Cache) -> None:
        await cache.client.set("foreign", "1")
        await cache.set_many({f"key-{number}": number for number in range(4000)}, 60)
        await cache.set_session("token", 1, 60)
        assert await cache.flush() == 4001
        assert await cache.flush() == 0
        assert await cache.client.keys("*") == [b"foreign"]


class TestSessions:
    async def test_its_life(self, cache: Cache) -> None:
        await cache.set_session("token", {"user_id": "user-123"}, 60)
        assert await cache.get_session("token") == {"user_id": "user-123"}
        assert await cache.get_session("token", dict[str, str]) == {"user_id": "user-123"}
        assert await cache.delete_session("token")
        assert not await cache.delete_session("token")
        assert await cache.get_session("token") is None

    async def test_it_ends_unless_it_is_extended(self, cache: Cache) -> None:
        await cache.set_session("kept", 1, 0.1)
        await cache.set_session("left", 2, 0.1)
        assert await cache.extend_session("kept", 60)
        await asyncio.sleep(0.2)
        assert await cache.get_session("kept") == 1
        assert await cache.get_session("left") is None
        assert not await cache.extend_session("left", 60)

    async def test_the_server_never_sees_the_id(self, cache: Cache) -> None:
        async with cache.client.monitor() as monitor:
            await cache.set_session("secret-token", {"a": 1}, 60)
            await cache.get_session("secret-token")
            await cache.extend_session("secret-token", 60)
            await cache.delete_session("secret-token")
            seen: list[str] = []
            while not any("UNLINK" in command for command in seen):
                seen.append((await monitor.next_command())["command"])
        assert "secret-token" not in str(seen)
        assert sum(f"{PREFIX}:session:" in command for command in seen) == 4

    async def test_a_message_never_shows_the_id(self, cache: Cache) -> None:
        with pytest.raises(InvalidCacheKeyError) as failure:
            await cache.get_session("secret-token" * 100)
        assert "secret" not in str(failure.value)
        with pytest.raises(InvalidCacheValueError, match="a session") as refusal:
            await cache.set_session("secret-token", math.nan, 60)
        assert "secret" not in str(refusal.value)

    async def test_an_id_is_not_a_key(self, cache: Cache) -> None:
        await cache.set_session("token", 1, 60)
        assert await cache.get("token") is None
        assert await cache.get("session:token") is None


class TestValuesThatCannotBeCarried:
    async def test_each_is_refused_by_name(self, cache: Cache) -> None:
        cycle: list[object] = []
        cycle.append(cycle)
        bad = [math.nan, math.inf, "\ud800", {"\udfff": 1}, {1: 2}, {1, 2}, object(), cycle, 2**64, uuid.uuid4()]
        bad += [datetime.now(tz=UTC), [{"deep": [-math.inf]}], {"bytes": b"x"}, 1j, Exception, {"id": uuid.uuid4()}]
        for value in bad:
            with pytest.raises(InvalidCacheValueError, match="'the-key'"):
                await cache.set("the-key", value, 60)
            with pytest.raises(InvalidCacheValueError, match="'the-key'"):
                await cache.add("the-key", value, 60)
        assert not await cache.exists("the-key")

    async def test_a_model_with_a_number_that_json_lacks(self, cache: Cache) -> None:
        class Measurement(BaseModel):
            value: float

        with pytest.raises(InvalidCacheValueError):
            await cache.set("key", [Measurement(value=math.nan)], 60)

    async def test_a_value_over_the_limit(self, cache: Cache, backend: Backend) -> None:
        limit = 8 * 2**20
        await cache.set("key", b"x" * limit, 60)
        assert await cache.get("key") == b"x" * limit
        with pytest.raises(InvalidCacheValueError, match=f"{limit + 1} bytes"):
            await cache.set("key", b"x" * (limit + 1), 60)
        async with backend.cache(maximum_value_size=100) as small:
            with pytest.raises(InvalidCacheValueError, match="at most 100"):
                await small.set("key", "x" * 99, 60)
            assert await small.get("key") is None


class TestForeignValues:
    @pytest.mark.parametrize(
        "stored", [b"", b"{}", b"plain", b"\xc1", b"\xc1\x07x", b"\xc1\x80junk", b"\x80\x04K*.", b"007"]
    )
    async def test_each_is_a_logged_miss_and_can_be_replaced(
        self, cache: Cache, stored: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        await cache.client.set(f"{PREFIX}:key", stored)
        await cache.set("good", 1, 60)
        assert await cache.get("key") is None
        assert await cache.get_many(["key", "good"]) == {"good": 1}
        assert caplog.messages == ["cache_value_undecodable"] * 2
        assert getattr(caplog.records[0], FIELDS)["key"] == "the key 'key'"
        await cache.set("key", "ours", 60)
        assert await cache.get("key") == "ours"

    async def test_another_data_type_is_a_miss_and_can_be_replaced(
        self, cache: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        await cache.client.lpush(f"{PREFIX}:key", "item")
        assert await cache.get("key") is None
        assert caplog.messages == ["cache_value_undecodable"]
        assert await cache.get_many(["key"]) == {}
        with pytest.raises(InvalidCacheValueError, match="'key'"):
            await cache.increment("key", ttl=60)
        await cache.set("key", "ours", 60)
        assert await cache.get("key") == "ours"


class TestLife:
    async def test_outside_open_and_close_it_says_so(self, backend: Backend) -> None:
        cache = backend.cache()
        with pytest.raises(NotInitializedError):
            await cache.get("key")
        for _ in range(2):
            await cache.open()
            await cache.open()
            await cache.set("key", 1, 60)
            await cache.check()
            await cache.close()
            await cache.close()
            with pytest.raises(NotInitializedError):
                await cache.check()
            with pytest.raises(NotInitializedError):
                _ = cache.client

    async def test_more_callers_than_connections(self, cache: Cache) -> None:
        async def write_and_read(number: int) -> None:
            await cache.set(f"key-{number}", number, 60)
            assert await cache.get(f"key-{number}") == number

        await asyncio.gather(*(write_and_read(number) for number in range(300)))
        assert (await cache.stats()).server_clients <= 40

    async def test_a_cancelled_call_never_gives_its_answer_to_another(self, cache: Cache) -> None:
        keys = {f"key-{number}": number for number in range(50)}
        await cache.set_many(keys, 60)
        chance = random.Random(7)  # noqa: S311  (a test that can be repeated)

        async def impatient(key: str) -> None:
            try:
                async with asyncio.timeout(chance.random() * 0.01):
                    assert await cache.get(key) == keys[key]
            except TimeoutError:
                pass

        for _ in range(10):
            patient = asyncio.gather(*(cache.get(key) for key in keys))
            await asyncio.gather(*(impatient(key) for key in keys))
            assert await patient == list(keys.values())

    async def test_statistics(self, cache: Cache) -> None:
        await cache.set_many({f"key-{number}": number for number in range(1500)}, 60)
        await cache.client.set("foreign", "1")
        await cache.get("key-1")
        await cache.get_many(["key-2", "key-3", "absent"])
        await cache.client.set(f"{PREFIX}:strange", "?")
        await cache.get("strange")
        stats = await cache.stats()
        assert (stats.keys, stats.keys_complete) == (1501, True)
        assert (stats.hits, stats.misses, stats.undecodable, stats.failures) == (3, 2, 1, 0)
        assert stats.hit_rate == 0.6
        assert stats.server.startswith(("valkey 9.", "redis 7."))
        assert stats.server_memory_used > 100_000
        assert stats.server_memory_limit is None
        assert stats.server_clients >= 1
        assert stats.server_hits >= 3
        assert stats.server_hit_rate is not None
        assert 0 <= stats.server_hit_rate <= 1

    async def test_statistics_do_not_look_at_every_key_of_a_large_server(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("data_layer.cache.cache._SCANS_PER_COUNT", 2)
        await cache.set_many({f"key-{number}": number for number in range(5000)}, 60)
        stats = await cache.stats()
        assert not stats.keys_complete
        assert 1500 < stats.keys < 3500
