from __future__ import annotations

import asyncio
import math
import os
import uuid
from collections import OrderedDict
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from data_layer.cache import Cache
from data_layer.errors import (
    InvalidCacheKeyError,
    InvalidCacheValueError,
)
from data_layer.observability.log import FIELDS

from .helpers import VALUES, Backend, Project, a_project


class TestOneKey:
    async def test_a_value_comes_back_with_its_type(self, cache: Cache) -> None:
        for value in VALUES:
            await cache.set("key", value, 60)
            # The second one comes from the near copy, where there is one.
            for _ in range(2):
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

    async def test_a_large_value_is_stored_compressed_only_if_that_helps(self, cache: Cache, backend: Backend) -> None:
        await cache.set("page", "<div></div>" * 10_000, 60)
        await cache.set("image", os.urandom(50_000), 60)
        assert await cache.client.strlen(f"{backend.prefix}:page") < 1000
        assert await cache.client.strlen(f"{backend.prefix}:image") == 50_002


class TestManyKeys:
    async def test_more_keys_than_one_command_carries(self, cache: Cache) -> None:
        values = {f"key-{number}": {"number": number} for number in range(1203)}
        await cache.set_many(values, 60)
        wanted = ["absent", *reversed(values), "key-0"]
        assert list((await cache.get_many(wanted)).items()) == list(reversed(values.items()))
        assert await cache.delete_many(["absent", *values]) == 1203
        assert await cache.get_many(values) == {}

    async def test_what_was_read_before_stands_in_its_place(self, cache: Cache) -> None:
        values = {"a": [1], "b": None, "c": {"x": [2]}, "d": "four", "e": 5}
        await cache.set_many(values, 60)
        for _ in range(3):
            assert await cache.get_many(["b", "d"]) == {"b": None, "d": "four"}
            wanted = ["e", "d", "absent", "c", "b", "a"]
            found = await cache.get_many(wanted)
            assert list(found.items()) == [(key, values[key]) for key in wanted if key != "absent"]
            found["c"]["x"].append(3)
            found["a"].clear()

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


FOREIGN = [b"", b"{}", b"plain", b"\xc1", b"\xc1\x07x", b"\xc1\x80junk", b"\x80\x04K*.", b"007"]


class TestForeignValues:
    async def test_each_is_a_logged_miss_and_can_be_replaced(
        self, cache: Cache, backend: Backend, caplog: pytest.LogCaptureFixture
    ) -> None:
        await cache.set("good", 1, 60)
        for stored in FOREIGN:
            caplog.clear()
            await cache.client.set(f"{backend.prefix}:key", stored)
            assert await cache.get("key") is None
            assert await cache.get_many(["key", "good"]) == {"good": 1}
            assert caplog.messages == ["cache_value_undecodable"] * 2
            assert getattr(caplog.records[0], FIELDS)["key"] == "the key 'key'"
            await cache.set("key", "ours", 60)
            assert await cache.get("key") == "ours"

    async def test_another_data_type_is_a_miss_and_can_be_replaced(
        self, cache: Cache, backend: Backend, caplog: pytest.LogCaptureFixture
    ) -> None:
        await cache.client.lpush(f"{backend.prefix}:key", "item")
        assert await cache.get("key") is None
        assert caplog.messages == ["cache_value_undecodable"]
        assert await cache.get_many(["key"]) == {}
        with pytest.raises(InvalidCacheValueError, match="'key'"):
            await cache.increment("key", ttl=60)
        await cache.set("key", "ours", 60)
        assert await cache.get("key") == "ours"
