"""One process starts and stops the servers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psycopg
import pytest
import redis
import uvloop

from data_layer.embedded import EmbeddedAddresses, EmbeddedServers
from data_layer.embedded.link import STOP_SECONDS

from .support import (
    both_servers,
    environment_names,
    listens_on_network,
    permissions,
    postgres_id,
    postgresql_only,
    process_id,
    processes_of,
    read,
    redis_client,
    valkey_id,
    valkey_only,
    wait_for,
    write,
)


async def test_data_survives_a_restart(folder: Path) -> None:
    async with both_servers(folder) as addresses:
        write(addresses, "first")
    assert not processes_of(folder), "stop returns when nothing is left"
    async with both_servers(folder) as addresses:
        write(addresses, "second")
        assert read(addresses) == [["first", "second"], ["first", "second"]]


async def test_starting_again_and_stopping_are_quick(folder: Path) -> None:
    began = time.monotonic()
    async with both_servers(folder):
        pass
    assert time.monotonic() - began < STOP_SECONDS, "nothing is waited for in vain"


async def test_starting_twice_gives_the_same_and_stopping_twice_is_harmless(folder: Path) -> None:
    servers = both_servers(folder)
    await servers.stop()
    assert await servers.start() == await servers.start()
    await servers.stop()
    await servers.stop()
    assert not processes_of(folder)


async def test_one_object_can_start_anew_under_another_event_loop(folder: Path) -> None:
    servers = valkey_only(folder)
    await asyncio.to_thread(asyncio.run, servers.start())
    await servers.stop()
    write(await servers.start(), "again")
    await asyncio.to_thread(asyncio.run, servers.stop())
    assert not processes_of(folder)


def test_under_the_event_loop_of_uvicorn(folder: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        servers = both_servers(folder)
        write(runner.run(servers.start()), "kept")
        runner.run(servers.stop())
    assert not processes_of(folder)


async def test_only_what_is_asked_for_runs(new_folder: Path) -> None:
    async with valkey_only(new_folder) as addresses:
        assert addresses.database_url is None
        assert not (new_folder / "postgresql").exists()
        async with postgresql_only(new_folder) as others:
            assert others.redis_url is None
            write(addresses, "cache")
            write(others, "rows")
        assert postgres_id(new_folder), "it stays until the last user of the new_folder leaves"
        assert read(addresses) == [["cache"]]


async def test_without_any_server_nothing_starts(new_folder: Path) -> None:
    servers = EmbeddedServers(new_folder, postgresql=False, valkey=False, database_name="postgres")
    assert await servers.start(exclusive=True) == EmbeddedAddresses(None, None)
    assert not processes_of(new_folder)
    await servers.stop()


async def test_nobody_else_can_read_the_folder_or_reach_a_server(new_folder: Path) -> None:
    await asyncio.to_thread(new_folder.mkdir, 0o755)
    async with both_servers(new_folder):
        tops, sockets = permissions(new_folder), permissions(new_folder / "run")
        assert {mode & 0o077 for mode in (tops | sockets).values()} == {0}, tops | sockets
        assert tops["data"] == tops["postgresql"] == tops["valkey"] == tops["run"] == 0o700
        assert {".s.PGSQL.5432", "valkey.sock", "guardian.sock"} <= sockets.keys()
        assert not any(listens_on_network(number) for number in processes_of(new_folder))


async def test_postgresql_is_set_up_for_real_data(folder: Path) -> None:
    names = ("server_version_num", "server_encoding", "data_checksums", "fsync", "synchronous_commit", "TimeZone")
    async with postgresql_only(folder) as addresses:
        assert addresses.database_url is not None
        with psycopg.connect(addresses.database_url) as connection:
            found = [connection.execute(f"SHOW {name}").fetchone()[0] for name in names]  # type: ignore[index]
            query = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = current_database()"
            assert connection.execute(query).fetchone() == ("b", "C.UTF-8")
    assert found[0].startswith("18")
    assert found[1:] == ["UTF8", "on", "on", "on", "UTC"]


async def test_valkey_is_a_bounded_cache_that_is_kept(folder: Path) -> None:
    async with valkey_only(folder) as addresses:
        with redis_client(addresses) as client:
            found = client.config_get("maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "save")
    assert found == {
        "maxmemory": str(256 * 1024 * 1024),
        "maxmemory-policy": "allkeys-lru",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
    }


async def test_any_database_name_fits_into_the_address(folder: Path) -> None:
    name = "a/b?c#d e%é"
    servers = EmbeddedServers(folder, postgresql=True, valkey=False, database_name=name)
    url = (await servers.start()).database_url
    assert url is not None
    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    with psycopg.connect(url) as connection:
        assert connection.info.dbname == name
    await servers.stop()


@pytest.mark.parametrize("after", [0.02, 0.4])
async def test_a_cancelled_start_leaves_nothing_running(new_folder: Path, after: float) -> None:
    servers = both_servers(new_folder)
    starting = asyncio.create_task(servers.start())
    await asyncio.sleep(after)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await servers.stop()
    assert await asyncio.to_thread(wait_for, lambda: not processes_of(new_folder)), processes_of(new_folder)
    async with both_servers(new_folder) as addresses:
        write(addresses, "afterwards")


async def test_a_server_that_dies_is_started_again(folder: Path) -> None:
    async with both_servers(folder) as addresses:
        write(addresses, "kept")
        with redis_client(addresses) as client:
            client.execute_command("WAITAOF", 1, 0, 0)
        before = {postgres_id(folder), valkey_id(folder)}
        for number in before:
            os.kill(number, signal.SIGKILL)
        assert await asyncio.to_thread(wait_for, lambda: answers(addresses))
        assert read(addresses) == [["kept"], ["kept"]]
        assert not before & {postgres_id(folder), valkey_id(folder)}


def answers(addresses: EmbeddedAddresses) -> bool:
    try:
        read(addresses)
    except (psycopg.OperationalError, redis.ConnectionError):
        return False
    return True


async def test_servers_do_not_see_the_settings_of_the_process_that_starts_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_SECRET", "not-for-servers")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGOPTIONS", "--no-such-setting=1")
    async with both_servers(folder):
        for part in ("bin/postgres -D", "valkey-server"):
            names = environment_names(process_id(folder, part))
            assert "PATH" in names
            assert not names & {"SESSION_SECRET", "PGDATA", "PGOPTIONS"}


async def test_logs_are_kept_for_one_earlier_run_only(new_folder: Path) -> None:
    for _ in range(3):
        async with valkey_only(new_folder):
            pass
    assert permissions(new_folder / "log").keys() == {"log", "guardian.log", "valkey.log", "valkey.previous.log"}
