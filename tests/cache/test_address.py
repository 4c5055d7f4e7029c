from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.cache.address import CacheAddress, ServerAddress, Topology, find_cache
from data_layer.config import Settings
from data_layer.errors import ConfigurationError


def single(server: ServerAddress) -> CacheAddress:
    return CacheAddress(Topology.SINGLE, (server,), server)


@pytest.mark.parametrize(
    ("url", "address", "shown"),
    [
        ("redis://", ServerAddress(), "localhost:6379"),
        ("redis://h:7/3", ServerAddress("h", 7, database=3), "h:7"),
        ("redis://h?db=3", ServerAddress("h", database=3), "h:6379"),
        ("redis://:p%40%2F@h", ServerAddress("h", password="p@/"), "h:6379"),
        ("redis://u%3A:p@[::1]:7", ServerAddress("::1", 7, username="u:", password="p"), "[::1]:7"),
        ("rediss://u:p@h", ServerAddress("h", username="u", password="p", tls=True), "h:6379"),
        ("unix:///a%20b/s.sock?db=2", ServerAddress(socket_path="/a b/s.sock", database=2), "/a b/s.sock"),
        ("unix://u:p@/s", ServerAddress(socket_path="/s", username="u", password="p"), "/s"),
    ],
)
def test_urls(url: str, address: ServerAddress, shown: str) -> None:
    assert find_cache(Settings().redis, url) == single(address)
    assert find_cache(Settings(redis_url=url).redis) == single(address)
    assert Cache(Settings().redis, url).address == shown
    assert "password" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:6379",
        "http://h",
        "redis://h:port",
        "redis://h:99999",
        "redis://[::1",
        "redis://h/first",
        "redis://h/-1",
        "redis://h?db=x",
        "rediss://h?ssl_cert_reqs=none",
        "redis://h?socket_timeout=9",
        "redis://u:secret#1@h",
        "redis://u:secret?1@h",
        "redis://u:secret/1@h",
        "unix://",
    ],
)
def test_urls_that_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        find_cache(Settings().redis, url)
    assert "secret" not in str(failure.value)


def test_the_parts_of_settings() -> None:
    settings = Settings(
        redis_host="h", redis_port=7, redis_database=3, redis_username="u", redis_password="p", redis_tls=True
    )
    assert find_cache(settings.redis) == single(ServerAddress("h", 7, None, 3, "u", "p", tls=True))


def test_a_login_beside_the_url_is_used_unless_the_url_has_one() -> None:
    login: dict[str, Any] = {"redis_username": "u", "redis_password": "p"}
    with_login = ServerAddress("h", username="u", password="p")
    assert find_cache(Settings(redis_url="redis://h", **login).redis) == single(with_login)
    own = find_cache(Settings(redis_url="redis://me:mine@h", **login).redis)
    assert own == single(ServerAddress("h", username="me", password="mine"))
    # The embedded server has no login, whatever the settings say.
    assert find_cache(Settings(**login).redis, "unix:///s") == single(ServerAddress(socket_path="/s"))


def test_the_nodes_of_a_cluster() -> None:
    address = find_cache(
        Settings(redis_cluster_nodes="a:1,[::1]:2", redis_username="u", redis_password="p", redis_tls=True).redis
    )
    login: dict[str, Any] = {"username": "u", "password": "p", "tls": True}
    assert address.topology is Topology.CLUSTER
    assert address.nodes == (ServerAddress("a", 1, **login), ServerAddress("::1", 2, **login))
    assert address.server("b", 3) == ServerAddress("b", 3, **login)
    assert str(address) == "a:1,[::1]:2"


def test_sentinels_have_a_login_of_their_own() -> None:
    address = find_cache(
        Settings(
            redis_sentinel_nodes="a:1,b:2",
            redis_sentinel_master="main",
            redis_sentinel_username="watcher",
            redis_sentinel_password="w",
            redis_username="u",
            redis_password="p",
            redis_database=3,
        ).redis
    )
    assert address.topology is Topology.SENTINEL
    assert address.nodes == tuple(
        ServerAddress(host, port, username="watcher", password="w") for host, port in (("a", 1), ("b", 2))
    )
    assert address.server("c", 4) == ServerAddress("c", 4, None, 3, "u", "p")
    assert address.sentinel_master == "main"
    assert str(address) == "main at a:1,b:2"


def test_no_server_and_contradictory_encryption_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="REDIS_HOST"):
        Cache(Settings().redis)
    with pytest.raises(ConfigurationError, match="rediss://"):
        Cache(Settings(redis_url="redis://h", redis_tls=True).redis)


async def test_a_file_of_authorities_without_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    file.write_text("no certificate")
    cache = Cache(Settings(redis_host="h", redis_tls=True, redis_tls_ca=file).redis)
    with pytest.raises(ConfigurationError, match="REDIS_TLS_CA"):
        await cache.open()
