from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from data_layer.testing.redis_cluster import RedisCluster
from data_layer.testing.redis_sentinels import RedisSentinels
from data_layer.testing.redis_server import RedisServer

from .support import debian_redis, make_certificates

pytestmark = pytest.mark.slow

LOGINS: dict[str, Any] = {"username": "al:ice", "password": "p@ss/word"}
SENTINEL_LOGINS: dict[str, Any] = {"sentinel_username": "watcher", "sentinel_password": "w@tch"}


def role(server: RedisServer) -> str:
    return server.info("replication")["role"]


def test_sentinels_elect_another_primary_and_take_the_old_one_back() -> None:
    with RedisSentinels() as group:
        first = group.primary
        first.execute("SET", "key", "value")
        first.execute("WAIT", 2, 5000)
        second = group.fail_over()
        assert role(second) == "master"
        assert second.execute("GET", "key") == "value"
        group.wait_for_replicas()
        second.kill()
        third = group.wait_for_new_primary(second)
        assert third is not second
        assert third.execute("GET", "key") == "value"
        second.start()
        group.wait_for_replicas()
        assert {role(server) for server in group.replicas} == {"slave"}
        folders = [server.folder for server in (*group.servers, *group.sentinels)]
    assert not any(folder.exists() for folder in folders)


def test_a_cluster_survives_its_primaries() -> None:
    with RedisCluster() as cluster:
        first = cluster.primary_of("key")
        assert first in cluster.primaries
        with pytest.raises(redis.exceptions.MovedError):
            next(node for node in cluster.primaries if node is not first).execute("GET", "key")
        first.execute("SET", "key", "value")
        first.execute("WAIT", 1, 5000)
        second = cluster.fail_over(first)
        assert cluster.primary_of("key") is second
        cluster.wait_until_well()
        second.kill()
        assert cluster.wait_for_new_primary(second) is first
        assert first.execute("GET", "key") == "value"
        second.start()
        cluster.wait_until_well()
        assert role(second) == "slave"


def test_a_slot_can_be_moved() -> None:
    with RedisCluster() as cluster:
        source = cluster.primary_of("key")
        source.execute("SET", "key", "value")
        target = next(node for node in cluster.primaries if node is not source)
        cluster.move_slot(source.execute("CLUSTER", "KEYSLOT", "key"), target)
        assert cluster.primary_of("key") is target
        assert target.execute("GET", "key") is None


@pytest.mark.needs_debian
def test_groups_with_tls_and_logins(tmp_path: Path) -> None:
    tls = make_certificates(tmp_path, "127.0.0.1")
    with RedisSentinels(debian_redis(), tls=tls, **LOGINS, **SENTINEL_LOGINS) as group:
        group.primary.execute("SET", "key", "value")
        assert group.primary.execute("WAIT", 2, 10_000) == 2
        with pytest.raises(redis.AuthenticationError):
            group.primary.execute("AUTH", "wrong")
        assert group.settings["redis_sentinel_password"] == "w@tch"
    with RedisCluster(debian_redis(), tls=tls, **LOGINS) as cluster:
        cluster.fail_over(cluster.primaries[0])
        assert cluster.settings["redis_tls_ca"] == tls.authority
