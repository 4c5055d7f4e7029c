"""Hosts and paths: each way of writing one is used as it is meant, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_layer import Settings
from data_layer.cache.address import find_cache
from data_layer.database.address import database_address, direct_address
from data_layer.environment import split_host
from data_layer.errors import ConfigurationError
from data_layer.server import listen
from tests.test_config import FIT_FOR_PRODUCTION

PATHS = [name for name, field in Settings.fields().items() if "Path" in str(field.annotation)]
PRODUCTION: dict[str, Any] = {name.lower(): value for name, value in FIT_FOR_PRODUCTION.items()}


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def only_problem(**values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings(**values)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        ("127.0.0.1", ("127.0.0.1", 5432)),
        ("127.0.0.1:5433", ("127.0.0.1", 5433)),
        ("db.example.com:5433", ("db.example.com", 5433)),
        ("[::1]", ("::1", 5432)),
        ("[::1]:5433", ("::1", 5433)),
        ("::1", ("::1", 5432)),
        ("fe80::1%eth0", ("fe80::1%eth0", 5432)),
        ("[2001:db8::7]:5433", ("2001:db8::7", 5433)),
        ("service_1", ("service_1", 5432)),
    ],
)
def test_db_host(host: str, meant: tuple[str, int]) -> None:
    url = database_address(settings(db_host=host).database).url
    assert (url.host, url.port) == meant


def test_db_port_belongs_to_hosts_without_a_port() -> None:
    url = database_address(settings(db_host="one:5433,two,[::1]", db_port=5440).database).url
    assert url.query == {"host": "one,two,::1", "port": "5433,5440,5440"}
    socket = database_address(settings(db_host="/run/postgresql", db_port=5440).database).url
    assert (socket.query["host"], socket.port) == ("/run/postgresql", 5440)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":5433",
        "host:",
        "host:0",
        "host:65536",
        "host:x",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]5433",
        "[host]",
        "1::2::3",
        "user@host",
        "user:password@host",
        "postgresql://host",
        "host/name",
        "ho st",
        "host,",
        ",host",
        "host1,,host2",
        "host;host2",
        "a:1:2",
    ],
)
@pytest.mark.parametrize("name", ["db_host", "redis_host"])
def test_what_is_no_host_is_refused(name: str, host: str) -> None:
    problem = only_problem(**{name: host})
    assert problem.startswith(f"{name.upper()}: ")
    assert "password" not in problem


def test_two_ports_for_one_host_are_refused() -> None:
    assert "DB_HOST names port 5433, but DB_PORT is 5434" in only_problem(db_host="a:5433", db_port=5434)
    assert "REDIS_HOST names port 6380, but REDIS_PORT is 6381" in only_problem(redis_host="a:6380", redis_port=6381)
    assert settings(db_host="a:5433", db_port=5433, redis_host="a:6380", redis_port=6380).database.db_port == 5433


@pytest.mark.parametrize(
    ("host", "meant"),
    [("a", ("a", 6379)), ("127.0.0.1:6380", ("127.0.0.1", 6380)), ("[::1]", ("::1", 6379)), ("::1", ("::1", 6379)),
     ("[::1]:6380", ("::1", 6380))],
)  # fmt: skip
def test_redis_host(host: str, meant: tuple[str, int]) -> None:
    (node,) = find_cache(settings(redis_host=host).redis).nodes
    assert (node.host, node.port, node.socket_path) == (*meant, None)


def test_redis_host_may_be_a_socket() -> None:
    (node,) = find_cache(settings(redis_host="/run/redis.sock").redis).nodes
    assert node.socket_path == "/run/redis.sock"


def test_several_redis_hosts_are_refused_with_the_remedy() -> None:
    assert "names several servers" in only_problem(redis_host="a:1,b:2")
    assert "REDIS_CLUSTER_NODES" in only_problem(redis_url="redis://a,b/0")
    assert "unix:///" in only_problem(redis_url="unix://run/redis.sock")


def test_the_folder_of_a_socket_in_an_address() -> None:
    for name in ("database_url", "db_direct_url"):
        given_url = {name: "postgresql://user@%2Frun%2Fpostgresql:5433/name"}
        address = (database_address if name == "database_url" else direct_address)(settings(**given_url).database)
        assert (address.url.host, *address.url.query.values()) == (None, "/run/postgresql", "5433")


@pytest.mark.parametrize("name", ["host", "metrics_host"])
def test_addresses_to_listen_on(name: str) -> None:
    assert settings(**{name: "[::]"}).flat()[name] == "::"
    assert settings(**{name: "0.0.0.0"}).flat()[name] == "0.0.0.0"  # noqa: S104
    for wrong in ("localhost:3000", "[::1]:3000", "http://localhost", "/run/x.sock", "a,b", ""):
        assert only_problem(**{name: wrong}).startswith(f"{name.upper()}: ")


def test_an_address_in_brackets_is_listened_on() -> None:
    with listen(settings(host="[::1]", port=65_123).service) as listener:
        assert listener.getsockname()[0] == "::1"


@given(st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True), st.none() | st.integers(1, 65535))
def test_hosts_come_back_as_they_were_written(host: str, port: int | None) -> None:
    assert split_host(host if port is None else f"{host}:{port}") == (host, port)


@given(st.ip_addresses(v=6), st.none() | st.integers(1, 65535))
def test_addresses_of_version_6_too(address: Any, port: int | None) -> None:
    assert split_host(f"[{address}]" if port is None else f"[{address}]:{port}") == (str(address), port)
    assert split_host(str(address)) == (str(address), None)


@pytest.mark.parametrize("local", ["127.0.0.1:5433", "[::1]", "[::1]:5433", "127.9.9.9", "LOCALHOST:5433", "/run/pg"])
def test_a_loopback_address_with_a_port_is_local(local: str) -> None:
    assert settings(**PRODUCTION | {"db_host": local, "db_ssl": None, "db_password": None}).is_production


@pytest.mark.parametrize("name", PATHS)
def test_every_path_may_begin_in_the_home_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if name == "mail_templates":
        (tmp_path / "file").mkdir()
    else:
        (tmp_path / "file").write_text("x")
    companions: dict[str, Any] = {"db_ssl_cert": __file__, "db_ssl_key": __file__, "redis_tls": True}
    for written in ("~/file", Path("~/file")):
        assert settings(**companions | {name: written}).flat()[name] == tmp_path / "file"
    with pytest.raises(ConfigurationError, match=f"{name.upper()}: begins with ~, but there is no such home folder"):
        settings(**companions | {name: "~no-such-person/file"})


def test_a_folder_is_no_certificate_and_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert only_problem(db_ssl_ca=tmp_path).startswith("DB_SSL_CA: there is no readable file")
    assert only_problem(log_file="~") == "LOG_FILE: is a folder; name a file in it"


@pytest.mark.parametrize("option", ["sslrootcert=~/ca.pem", "host=~/run", "sslcert=~/a&sslkey=~/b"])
def test_an_address_expands_nothing_and_says_so(option: str) -> None:
    problem = only_problem(database_url=f"postgresql://user@/name?{option}")
    assert problem.startswith("DATABASE_URL: has an option that begins with ~")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"redis_host": "a", "redis_username": "u"}, "REDIS_USERNAME is set, but REDIS_PASSWORD is not"),
        ({"redis_cluster_nodes": "a:1", "redis_username": "u"}, "REDIS_USERNAME is set, but REDIS_PASSWORD is not"),
        ({"redis_url": "redis://user@a"}, "REDIS_URL has a user name, but no password"),
        ({"redis_url": "redis://user:@a"}, "REDIS_URL has a user name, but no password"),
        (
            {"redis_sentinel_nodes": "a:1", "redis_sentinel_master": "m", "redis_sentinel_username": "u"},
            "REDIS_SENTINEL_USERNAME is set, but REDIS_SENTINEL_PASSWORD is not",
        ),
    ],
)
def test_a_user_name_without_a_password_logs_in_as_nobody_else(values: dict[str, Any], name: str) -> None:
    assert only_problem(**values).startswith(name)


def test_a_password_may_stand_beside_the_address() -> None:
    cache = find_cache(settings(redis_url="redis://user@a", redis_password="word").redis)
    assert (cache.login.username, cache.login.password) == ("user", "word")
    assert settings(redis_url="rediss://a", redis_tls_ca=__file__).redis.is_encrypted
