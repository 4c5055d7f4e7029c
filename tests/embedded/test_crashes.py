"""Processes are killed; the data stays and no orphan process does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import psycopg
import pytest

from data_layer.embedded import binaries
from data_layer.embedded.postgresql import PostgresqlServer, choose_identity
from data_layer.embedded.processes import start_program
from data_layer.embedded.server import Server
from data_layer.embedded.valkey import ValkeyServer

from .support import (
    BOTH,
    UserProcess,
    assert_no_process,
    both_servers,
    guardian_id,
    postgres_id,
    processes_of,
    read,
    redis_client,
    valkey_id,
    wait_for,
    write,
)

pytestmark = pytest.mark.slow


async def test_killing_the_only_user_stops_the_servers(folder: Path) -> None:
    with UserProcess(folder, *BOTH, "exclusive") as user:
        write(user.addresses(), "kept")
        user.kill()
        assert_no_process(folder)
    log = (folder / "log" / "postgresql.log").read_text(encoding="utf-8")
    assert "database system is shut down" in log, "the servers themselves end in order"
    async with both_servers(folder) as addresses:
        assert read(addresses) == [["kept"], ["kept"]]


async def test_killing_a_user_leaves_the_servers_to_the_others(folder: Path) -> None:
    with UserProcess(folder, *BOTH) as user:
        addresses = user.addresses()
        async with both_servers(folder):
            postgres = postgres_id(folder)
            user.kill()
            await asyncio.sleep(0.3)
            write(addresses, "still here")
            assert postgres_id(folder) == postgres


async def test_killing_the_guardian_takes_the_servers_with_it(folder: Path) -> None:
    servers = both_servers(folder)
    write(await servers.start(), "kept")
    os.kill(guardian_id(folder), signal.SIGKILL)
    assert_no_process(folder)
    await servers.stop()
    assert read(await servers.start()) == [["kept"], ["kept"]]
    await servers.stop()


async def test_a_start_right_after_the_guardian_was_killed_works(folder: Path) -> None:
    servers, next_ones = both_servers(folder), both_servers(folder)
    write(await servers.start(), "kept")
    os.kill(guardian_id(folder), signal.SIGKILL)
    assert read(await next_ones.start()) == [["kept"], ["kept"]]
    await servers.stop()
    await next_ones.stop()


async def test_committed_rows_survive_the_kill_of_everything(folder: Path) -> None:
    with UserProcess(folder, *BOTH) as user:
        addresses = user.addresses()
        write(addresses, "kept")
        postgres, valkey = postgres_id(folder), valkey_id(folder)
        # The guardian cannot stop them in order before it is killed itself.
        guardian = guardian_id(folder)
        os.kill(guardian, signal.SIGSTOP)
        for number in (postgres, valkey, guardian):
            os.kill(number, signal.SIGKILL)
        user.kill()
    assert_no_process(folder)
    async with both_servers(folder) as addresses:
        assert read(addresses)[0] == ["kept"]
        log = (folder / "log" / "postgresql.log").read_text(encoding="utf-8")
        assert "was not properly shut down" in log, "this test must not meet a clean stop"


async def test_a_kill_during_initdb_leaves_no_half_cluster(new_folder: Path) -> None:
    with UserProcess(new_folder, *BOTH) as user:
        assert wait_for(lambda: half_clusters(new_folder, "/PG_VERSION"))
        os.kill(guardian_id(new_folder), signal.SIGKILL)
        user.kill()
    assert not (new_folder / "postgresql").exists(), "initdb must have been under way"
    assert_no_process(new_folder)
    async with both_servers(new_folder) as addresses:
        write(addresses, "first")
    assert not half_clusters(new_folder)


async def test_a_user_killed_during_initdb_takes_it_along(new_folder: Path) -> None:
    with UserProcess(new_folder, *BOTH) as user:
        assert wait_for(lambda: half_clusters(new_folder))
        user.kill()
    assert_no_process(new_folder)
    assert not half_clusters(new_folder)
    assert not (new_folder / "postgresql").exists()


def half_clusters(folder: Path, part: str = "") -> list[Path]:
    return list(folder.glob(f"postgresql.new-*{part}"))


async def test_servers_that_outlived_their_guardian_are_replaced(folder: Path) -> None:
    """As where the system cannot tie a child to its parent."""
    async with both_servers(folder) as addresses:
        write(addresses, "kept")
    programs = binaries.postgresql_binary("postgres").parent
    postgresql, valkey = PostgresqlServer(folder, folder / "run"), ValkeyServer(folder, folder / "run")
    identity = await choose_identity(folder, folder / "run", programs / "postgres")
    orphans = [await start_orphan(postgresql, programs, identity), await start_orphan(valkey, binaries.valkey_binary())]
    async with both_servers(folder) as addresses:
        assert read(addresses) == [["kept"], ["kept"]]
        assert not {orphan.pid for orphan in orphans} & {postgres_id(folder), valkey_id(folder)}
        assert [await orphan.wait() for orphan in orphans] == [0, 0], "they were stopped in order"


async def start_orphan(server: Server, programs: Path, identity: str = "same") -> asyncio.subprocess.Process:
    orphan = await start_program(
        server._command(programs),
        folder=server.data_folder,
        output=asyncio.subprocess.DEVNULL,
        identity=identity,
    )
    while not await server._is_ready(orphan.pid):
        assert orphan.returncode is None
        await asyncio.sleep(0.01)
    return orphan


async def test_numbers_of_dead_servers_that_others_bear_by_now_are_ignored(folder: Path) -> None:
    """As after a restart of the machine: the files name processes, which are alive but strangers."""
    async with both_servers(folder) as addresses:
        write(addresses, "kept")
    plant_traces_of_a_crash(folder, os.getpid())
    async with both_servers(folder) as addresses:
        assert read(addresses) == [["kept"], ["kept"]]


def plant_traces_of_a_crash(folder: Path, number: int) -> None:
    data, run = folder / "postgresql", folder / "run"
    lines = f"{number}\n{data}\n1790000000\n5432\n{run}\n\n  1234 5678\nready   \n"
    (data / "postmaster.pid").write_text(lines, encoding="ascii")
    (run / ".s.PGSQL.5432.lock").write_text(lines, encoding="ascii")
    (run / "valkey.pid").write_text(f"{number}\n", encoding="ascii")
    (folder / "guardian.lock").write_text(f'{{"pid": {number}, "socket": "{run}/guardian.sock"}}', encoding="ascii")
    (folder / "service.lock").write_text(f'{{"pid": {number}}}', encoding="ascii")
    for name in ("guardian.sock", ".s.PGSQL.5432", "valkey.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(run / name))


async def test_the_connections_of_clients_do_not_delay_the_end(folder: Path) -> None:
    servers = both_servers(folder)
    addresses = await servers.start()
    connection, client = psycopg.connect(str(addresses.database_url)), redis_client(addresses)
    connection.execute("SELECT 1")
    client.ping()
    async with asyncio.timeout(8):
        await servers.stop()
    assert not processes_of(folder)
    connection.close()
    client.close()


async def test_a_server_that_does_not_react_is_killed_in_time(folder: Path) -> None:
    servers = both_servers(folder)
    await servers.start()
    for number in (postgres_id(folder), valkey_id(folder)):
        os.kill(number, signal.SIGSTOP)
    async with asyncio.timeout(8.5):
        await servers.stop()
    assert_no_process(folder)
