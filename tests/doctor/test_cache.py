"""Real servers of the cache that are set up badly, or broken, in each way that the doctor knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_layer.services.doctor import cache as cache_checks
from data_layer.testing.redis_cluster import RedisCluster
from data_layer.testing.redis_sentinels import RedisSentinels
from data_layer.testing.redis_server import RedisServer
from tests.cache.support import debian_redis, make_certificates

from .support import Examine

WELL = ("maxmemory 64mb", "maxmemory-policy allkeys-lru")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def as_variables(settings: dict[str, object]) -> dict[str, str]:
    return {"REDIS_URL": ""} | {name.upper(): str(value) for name, value in settings.items()}


def test_memory(examine: Examine, server: RedisServer) -> None:
    place = {"REDIS_URL": server.url}
    server.execute("CONFIG", "SET", "maxmemory", "0")
    examine(**place).says("cache.memory", "warning", "no maxmemory", "allkeys-lru")
    server.execute("CONFIG", "SET", "maxmemory", "64mb")
    for policy, outcome in {
        "noeviction": "warning",
        "volatile-ttl": "warning",
        "allkeys-random": "warning",
        "allkeys-lru": "ok",
        "volatile-lfu": "ok",
    }.items():
        server.execute("CONFIG", "SET", "maxmemory-policy", policy)
        examine(**place).says("cache.memory", outcome, policy)


def test_a_server_that_is_full(examine: Examine, server: RedisServer) -> None:
    server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.execute("CONFIG", "SET", "maxmemory", "1")
    report = examine(REDIS_URL=server.url)
    report.says("cache.writes", "failed", "OOM")
    server.execute("CONFIG", "SET", "maxmemory", "64mb")


def test_rights(examine: Examine, server: RedisServer) -> None:
    server.execute("ACL", "SETUSER", "weak", "on", ">right-password", "~other:*", "+@all", "-eval", "-client|tracking")
    place = {"REDIS_URL": f"redis://weak:right-password@{server.address}", "REDIS_KEY_PREFIX": "stc"}
    report = examine(**place)
    report.says("cache.rights", "failed", "weak may not use GET, MGET", "EVAL", "~stc:*")
    report.says("cache.tracking", "warning", "does not report what changes", "+client|tracking")
    server.execute("ACL", "SETUSER", "weak", "~stc:*", "+eval", "+client|tracking")
    repaired = examine(**place)
    assert repaired.of("cache.rights")["outcome"] == repaired.of("cache.tracking")["outcome"] == "ok"
    wrong = examine(REDIS_URL=f"redis://weak:wrong-password@{server.address}")
    wrong.says("cache.login", "failed", "refused the login", "REDIS_PASSWORD")
    assert server.execute("DBSIZE") == 0, "nothing was changed"


def test_a_replica_in_the_place_of_the_primary(examine: Examine, server: RedisServer) -> None:
    with RedisServer(options=(f"replicaof 127.0.0.1 {server.port}", *WELL)) as replica:
        report = examine(REDIS_URL=replica.url)
    report.says("cache.login", "failed", "READONLY", "name the primary")


def test_a_server_that_hangs(examine: Examine) -> None:
    with RedisServer(options=WELL) as server:
        server.pause()
        report = examine("--time-limit", "2", REDIS_URL=server.url)
        server.resume()
    assert report.of("cache.login")["outcome"] == "failed"
    assert report.of("cache.clock")["caused_by"] == "cache.login"


def test_limits(examine: Examine, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_checks, "_SLOW_SECONDS", 0.0)
    monkeypatch.setattr(cache_checks, "_FEW", 0.0)
    monkeypatch.setattr(cache_checks, "_TESTED", (99, 0))
    report = examine(REDIS_URL=server.url)
    report.says("cache.latency", "warning", "for a PING")
    report.says("cache.connections", "warning", "clients are connected", "maxclients")
    report.says("cache.version", "warning", "Valkey", "older than what is tested")


def test_sentinels(examine: Examine) -> None:
    with RedisSentinels(options=WELL) as group:
        place = as_variables(group.settings)
        well = examine(**place)
        well.says("cache.topology", "ok", "all 3 sentinels name the primary")
        assert well.of("cache.writes")["outcome"] == "ok"
        misnamed = examine(**(place | {"REDIS_SENTINEL_MASTER": "nobody"}))
        misnamed.says("cache.topology", "failed", "knows no primary named 'nobody'", "REDIS_SENTINEL_MASTER")
        for sentinel in group.sentinels[1:]:
            sentinel.kill()
        lone = examine(**place)
        lone.says("cache.address", "warning", "nothing listens there")
        # The last sentinel says so itself from the moment on at which it misses the others.
        lone.says("cache.topology", "failed", "majority")


def test_a_cluster(examine: Examine) -> None:
    with RedisCluster(options=WELL) as cluster:
        place = as_variables(cluster.settings)
        well = examine(**place)
        well.says("cache.topology", "ok", "all 16384 slots")
        assert well.of("cache.memory")["meaning"].count("make") == len(cluster.primaries)
        node = cluster.primaries[0]
        alone = examine(REDIS_URL=f"redis://{node.address}")
        alone.says("cache.version", "failed", "is a node of a cluster", "REDIS_CLUSTER_NODES")
    single = examine(REDIS_URL="", REDIS_CLUSTER_NODES=node.address)
    single.says("cache.address", "failed", "nothing listens there")


@pytest.mark.needs_debian
def test_redis_with_tls(examine: Examine, tmp_path: Path) -> None:
    files = make_certificates(tmp_path, "localhost")
    with RedisServer(debian_redis(), tls=files, options=WELL) as server:
        right = {"REDIS_URL": f"rediss://localhost:{server.port}", "REDIS_TLS": "true"}
        trusted = examine(**right, REDIS_TLS_CA=str(files.authority))
        assert trusted.of("cache.login")["outcome"] == "ok"
        trusted.says("cache.tls", "ok", "verified")
        trusted.says("cache.version", "ok", "is Redis 7")
        examine(**right).says("cache.login", "failed", "certificate that is not trusted", "REDIS_TLS_CA")
