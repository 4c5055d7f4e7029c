"""Every server and way to connect that the contract is proved on. A new one joins by a line in ``TARGETS``."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.testing.redis_cluster import RedisCluster
from data_layer.testing.redis_sentinels import RedisSentinels
from data_layer.testing.redis_server import RedisServer
from tests.cache.support import debian_redis, make_certificates

from .helpers import Backend, Target

Start = Callable[[ExitStack, str | None, Path], Target]

LOGIN: dict[str, Any] = {"username": "al:ice", "password": "p@ss/wörd?"}
_numbers = itertools.count()


def port(stack: ExitStack, binary: str | None, _folder: Path) -> Target:
    server = stack.enter_context(RedisServer(binary))
    return Target({"redis_host": "127.0.0.1", "redis_port": server.port}, lambda: [server])


def socket(stack: ExitStack, binary: str | None, _folder: Path) -> Target:
    server = stack.enter_context(RedisServer(binary, unix_socket=True))
    return Target({}, lambda: [server], server.url)


def url(stack: ExitStack, binary: str | None, _folder: Path) -> Target:
    server = stack.enter_context(RedisServer(binary, **LOGIN))
    return Target({"redis_url": f"{server.url}/2"}, lambda: [server])


def user(stack: ExitStack, binary: str | None, _folder: Path) -> Target:
    server = stack.enter_context(RedisServer(binary, **LOGIN))
    settings = {
        "redis_host": "127.0.0.1",
        "redis_port": server.port,
        "redis_database": 3,
        "redis_username": LOGIN["username"],
        "redis_password": LOGIN["password"],
    }
    return Target(settings, lambda: [server])


def tls(stack: ExitStack, binary: str | None, folder: Path) -> Target:
    files = make_certificates(folder, "localhost")
    server = stack.enter_context(RedisServer(binary, tls=files))
    settings = {
        "redis_host": "localhost",
        "redis_port": server.port,
        "redis_tls": True,
        "redis_tls_ca": files.authority,
    }
    return Target(settings, lambda: [server])


def without_near_copy(stack: ExitStack, binary: str | None, folder: Path) -> Target:
    target = port(stack, binary, folder)
    return Target(target.settings | {"redis_near_size": 0}, target.servers)


def sentinel(stack: ExitStack, binary: str | None, _folder: Path, **options: Any) -> Target:
    group = stack.enter_context(RedisSentinels(binary, down_after=15_000, **options))
    return Target(group.settings | {"redis_database": 1}, lambda: [group.primary])


def sentinel_with_logins(stack: ExitStack, binary: str | None, folder: Path) -> Target:
    sentinels = {"sentinel_username": "watcher", "sentinel_password": "w@tch"}
    return sentinel(stack, binary, folder, **LOGIN, **sentinels)


def cluster(stack: ExitStack, binary: str | None, _folder: Path, **options: Any) -> Target:
    group = stack.enter_context(RedisCluster(binary, node_timeout=15_000, **options))
    return Target(group.settings, lambda: group.primaries)


def cluster_with_tls(stack: ExitStack, binary: str | None, folder: Path) -> Target:
    return cluster(stack, binary, folder, tls=make_certificates(folder, "127.0.0.1"), **LOGIN)


VALKEY: list[Start] = [port, socket, url, user, without_near_copy, sentinel, sentinel_with_logins, cluster]
REDIS: list[Start] = [port, socket, user, tls, sentinel, cluster, cluster_with_tls]
QUICK: dict[bool, list[Start]] = {False: [port, url, without_near_copy, sentinel, cluster], True: [port]}
"""For ``make test``, of Valkey and of Redis. The other ways to connect differ less, and are for ``make check``."""


def _param(start: Start, *, is_redis: bool) -> Any:
    marks = [pytest.mark.needs_debian] if is_redis else []
    if start not in QUICK[is_redis]:
        marks.append(pytest.mark.slow)
    return pytest.param((start, is_redis), id=f"{'redis' if is_redis else 'valkey'}-{start.__name__}", marks=marks)


TARGETS = [
    *(_param(start, is_redis=False) for start in VALKEY),
    *(_param(start, is_redis=True) for start in REDIS),
]


@pytest.fixture(scope="session", params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    start, is_redis = request.param
    with ExitStack() as stack:
        yield start(stack, debian_redis() if is_redis else None, tmp_path_factory.mktemp("tls"))


@pytest.fixture
def backend(target: Target) -> Backend:
    return Backend(target, f"app{next(_numbers)}")


@pytest.fixture
async def cache(backend: Backend) -> AsyncIterator[Cache]:
    async with backend.cache() as opened:
        yield opened
