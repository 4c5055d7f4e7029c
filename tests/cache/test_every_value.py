"""Any value in any argument of the cache: done and read back equal, or refused with a typed error."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from data_layer.cache import Cache
from data_layer.errors import CacheError, DataLayerError, InvalidCacheValueError
from tests.hateful_values import CORNERS, Text, anything, shown

NOT_CALLED = {"open", "close", "process_stats"}
PLAUSIBLE: dict[str, Any] = {
    "key": "a",
    "keys": ["a", "b"],
    "session_id": "s",
    "value": "v",
    "values": {"a": "v"},
    "data": {"user": "u"},
    "ttl": 60,
    "lease": 1,
    "wait": 0,
    "pattern": "*",
    "amount": 1,
}


async def load() -> str:
    return "loaded"


CASES = [
    (name, parameter)
    for name, method in inspect.getmembers(Cache, inspect.isfunction)
    if not name.startswith("_") and name not in NOT_CALLED
    for parameter in list(inspect.signature(method).parameters)[1:]
    if parameter not in {"loader", "as_type", "fresh"}  # Code, as which nothing arrives by chance.
]


async def call(cache: Cache, name: str, argument: str, value: Any) -> Any:
    parameters = inspect.signature(getattr(Cache, name)).parameters
    values = {
        each: value if each == argument else PLAUSIBLE.get(each, load)
        for each, parameter in parameters.items()
        if each == argument or (each in PLAUSIBLE.keys() | {"loader"} and parameter.default is parameter.empty)
    }
    if name == "lock":
        values.setdefault("wait", 0)
    variadic = next((each for each, kind in parameters.items() if kind.kind is kind.VAR_POSITIONAL), None)
    result = getattr(cache, name)(*[values.pop(variadic)] if variadic in values else (), **values)
    if inspect.isawaitable(result):
        return await result
    if isinstance(result, AsyncIterator):
        return [each async for each in result]
    if hasattr(result, "__aenter__"):
        async with result:
            return None
    return result


async def problem_of(cache: Cache, name: str, argument: str, value: Any) -> str | None:
    place = f"{name}({argument}={shown(value)})"
    try:
        await call(cache, name, argument, value)
    except DataLayerError:
        return None
    except Exception as error:  # noqa: BLE001  (what the test looks for)
        return f"{place}: {type(error).__name__}: {error}"[:300]
    return None


def test_the_arguments_are_found() -> None:
    assert len({name for name, _ in CASES}) >= 20
    assert {name for _, name in CASES} <= PLAUSIBLE.keys()


@pytest.mark.parametrize(("name", "argument"), CASES)
async def test_every_value_in_every_argument(cache: Cache, name: str, argument: str) -> None:
    problems = []
    for value in CORNERS:
        await cache.delete("a")
        problems.append(await problem_of(cache, name, argument, value))
    assert not any(problems), "\n".join(problem for problem in problems if problem)


def is_same(read: Any, written: Any) -> bool:
    """JSON knows lists and texts, neither tuples nor subclasses."""
    if isinstance(written, Text):
        return bool(read == str.__str__(written))
    if isinstance(written, dict):
        return (
            isinstance(read, dict)
            and len(read) == len(written)
            and all(is_same(read.get(str.__str__(key)), item) for key, item in written.items())
        )
    if isinstance(written, list | tuple):
        return len(read) == len(written) and all(map(is_same, read, written))
    return bool(read == written)


async def written_and_read(cache: Cache, value: Any) -> None:
    try:
        await cache.set("a", value, ttl=60)
        await cache.set_session("a", value, ttl=60)
    except InvalidCacheValueError:
        return
    for read in (await cache.get("a"), await cache.get_session("a")):
        assert is_same(read, value), (shown(read), shown(value))


async def test_what_is_taken_is_read_back_equal(cache: Cache) -> None:
    for value in CORNERS:
        await written_and_read(cache, value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(value=anything, key=anything, ttl=anything)
async def test_anything_is_taken_or_refused(cache: Cache, value: Any, key: Any, ttl: Any) -> None:
    await written_and_read(cache, value)
    try:
        await cache.set(key, "v", ttl=ttl)
    except CacheError:
        return
    assert await cache.get(key) in {"v", None}  # None after a very short time to live.
