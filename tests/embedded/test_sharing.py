"""Several processes use one folder."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from data_layer.embedded import EmbeddedAddresses
from data_layer.errors import FolderInUseError

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
    valkey_only,
    wait_for,
    write,
)


def test_a_second_process_attaches_and_outlives_the_first(folder: Path) -> None:
    with UserProcess(folder, *BOTH, "exclusive") as first, UserProcess(folder, *BOTH) as second:
        addresses = first.addresses()
        assert second.addresses() == addresses
        guardian, postgres = guardian_id(folder), postgres_id(folder)
        write(addresses, "shared")
        assert first.leave() == 0
        assert read(addresses) == [["shared"], ["shared"]]
        assert (guardian_id(folder), postgres_id(folder)) == (guardian, postgres)
        assert second.leave() == 0
        assert not processes_of(folder), "the last one waits for the end"


async def test_a_second_service_is_refused_and_told_who_is_there(folder: Path) -> None:
    with UserProcess(folder, *BOTH, "exclusive") as service:
        addresses = service.addresses()
        servers = both_servers(folder)
        with pytest.raises(FolderInUseError) as refusal:
            await servers.start(exclusive=True)
        assert str(folder) in str(refusal.value)
        assert str(service.process.pid) in str(refusal.value)
        assert await servers.start() == addresses, "who is no service may attach"
        await servers.stop()
        service.kill()
        await servers.start(exclusive=True)
        await servers.stop()


async def test_a_second_service_in_the_same_process_is_refused_too(folder: Path) -> None:
    first, second = valkey_only(folder), valkey_only(folder)
    await first.start(exclusive=True)
    with pytest.raises(FolderInUseError, match=str(os.getpid())):
        await second.start(exclusive=True)
    await first.stop()
    await second.start(exclusive=True)
    await second.stop()


async def test_one_that_runs_can_become_the_service(folder: Path) -> None:
    first, second = valkey_only(folder), valkey_only(folder)
    assert await first.start() == await first.start(exclusive=True)
    with pytest.raises(FolderInUseError):
        await second.start(exclusive=True)
    await first.stop()


def test_ten_processes_that_start_at_once_share_one_guardian(new_folder: Path) -> None:
    with ExitStack() as stack:
        users = [stack.enter_context(UserProcess(new_folder, *BOTH)) for _ in range(10)]
        addresses = {user.addresses() for user in users}
        assert len(addresses) == 1
        # Each of these fails unless there is exactly one.
        assert guardian_id(new_folder)
        assert postgres_id(new_folder)
        assert valkey_id(new_folder)
        with ThreadPoolExecutor(10) as pool:
            assert set(pool.map(UserProcess.leave, users)) == {0}
        assert not processes_of(new_folder)


async def test_a_start_while_the_servers_are_stopping_waits_for_new_ones(folder: Path) -> None:
    first, second = both_servers(folder), both_servers(folder)
    write(await first.start(), "kept")
    for delay in (0, 0.002, 0.03):
        stopping = asyncio.create_task(first.stop())
        await asyncio.sleep(delay)
        assert read(await second.start()) == [["kept"], ["kept"]]
        await stopping
        first, second = second, first
    await first.stop()


async def test_a_start_while_the_guardian_was_told_to_end_waits_for_the_next(folder: Path) -> None:
    first, second = both_servers(folder), both_servers(folder)
    write(await first.start(), "kept")
    guardian = guardian_id(folder)
    os.kill(guardian, signal.SIGTERM)
    assert wait_for(lambda: not (folder / "run" / "guardian.sock").exists())
    assert read(await second.start()) == [["kept"], ["kept"]]
    assert guardian_id(folder) != guardian
    await first.stop()
    await second.stop()


def test_users_that_come_and_go_never_meet_a_dying_server(folder: Path) -> None:
    def read_one(addresses: EmbeddedAddresses) -> int:
        with psycopg.connect(str(addresses.database_url)) as connection, redis_client(addresses) as client:
            client.incr("visits")
            row = connection.execute("SELECT 1").fetchone()
            return row[0] if row else 0

    def come_and_go(_: int) -> str:
        with UserProcess(folder, *BOTH) as user:
            addresses = user.addresses()
            assert read_one(addresses) == 1
            assert user.leave() == 0
            return "fine"

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(come_and_go, range(6))) == {"fine"}


def test_interrupting_the_terminal_stops_everything_in_order(folder: Path) -> None:
    with UserProcess(folder, *BOTH) as user:
        write(user.addresses(), "kept")
        user.interrupt()
        user.process.wait(30)
        assert not processes_of(folder)
    log = (folder / "log" / "postgresql.log").read_text(encoding="utf-8")
    assert "database system is shut down" in log


def test_ending_the_guardian_ends_its_servers_in_order(folder: Path) -> None:
    with UserProcess(folder, *BOTH) as user:
        user.addresses()
        os.kill(guardian_id(folder), signal.SIGTERM)
        assert_no_process(folder)
        log = (folder / "log" / "postgresql.log").read_text(encoding="utf-8")
        assert "database system is shut down" in log
        assert user.leave() == 0
