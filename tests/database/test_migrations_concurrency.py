"""Many migrate at once, some are killed, and others keep the tables locked."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from data_layer.database.address import DatabaseAddress
from data_layer.database.migrations import VERSIONS
from data_layer.database.migrations.execution import LOCK, MigrationEvent, MigrationProgress
from data_layer.database.migrator import Migrator
from data_layer.database.schema_check import SchemaStatus
from data_layer.errors import MigrationError

from .migration_helpers import (
    HEAD,
    NEXT,
    REVISIONS,
    migrate_in_process,
    migrated_database,
    new_database,
    query,
    server,
    tables,
    with_next_revision,
)

ADD_COLUMN = 'op.execute("ALTER TABLE users ADD COLUMN nickname text")'
SLEEP = 'op.execute("CREATE TABLE half_done (id int)")\nop.execute(f"SELECT pg_sleep({os.environ[\'SLOW\']})")'
processes = multiprocessing.get_context("fork")


@pytest.fixture
def address() -> DatabaseAddress:
    return new_database()


def start(
    address: DatabaseAddress, versions: Path = VERSIONS, seconds: float = 0, barrier: Barrier | None = None
) -> BaseProcess:
    process = processes.Process(target=migrate_in_process, args=(address, versions, seconds, barrier), daemon=True)
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; the child uses nothing that they might hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_ten_processes_migrate_an_empty_database_at_once(address: DatabaseAddress) -> None:
    barrier = processes.Barrier(10)
    started = [start(address, barrier=barrier) for _ in range(10)]
    for process in started:
        process.join(60)

    assert [process.exitcode for process in started] == [0] * 10
    assert query(address, "SELECT version_num FROM data_layer_schema_version") == [(HEAD,)]
    assert Migrator(address).check().agrees


def test_a_process_killed_in_the_middle_leaves_the_old_tables_and_no_lock(tmp_path: Path) -> None:
    address = migrated_database()
    versions = with_next_revision(tmp_path, SLEEP)
    process = start(address, versions, seconds=60)
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%'"
    wait_for(lambda: query(address, sleeping))

    process.kill()
    process.join(10)
    assert Migrator(address).current().state is SchemaStatus.UP_TO_DATE
    assert "half_done" not in tables(address)

    began = time.monotonic()
    migrate_in_process(address, versions)
    assert time.monotonic() - began < 10
    assert Migrator(address, versions=versions).current().revision == NEXT
    assert "half_done" in tables(address)


@pytest.mark.slow
def test_wherever_a_process_is_killed_the_tables_are_the_old_or_the_new_ones() -> None:
    for _ in range(5):
        address = new_database()
        process = start(address)
        # The whole migration takes about a tenth of a second, after the process has connected.
        wait_for(lambda: server_is_used(address) or not process.is_alive())  # noqa: B023  (called in this turn only)
        time.sleep(random.uniform(0, 0.12))
        process.kill()
        process.join(10)

        # Each migration is a transaction of its own.
        state = Migrator(address).current().state
        assert state in {SchemaStatus.EMPTY, SchemaStatus.BEHIND, SchemaStatus.UP_TO_DATE}
        Migrator(address).migrate()
        assert Migrator(address).check().agrees


def server_is_used(address: DatabaseAddress) -> bool:
    return bool(query(address, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'migration-tests'"))


def test_those_who_wait_see_it_and_give_up_after_their_time(address: DatabaseAddress) -> None:
    reports: list[MigrationProgress] = []
    with server(18).connect(address.name) as holder:
        holder.execute(f"SET application_name = 'hanging'; SELECT pg_advisory_lock({LOCK})")
        pid = holder.info.backend_pid

        with pytest.raises(MigrationError, match=rf"after 0.5 s: process {pid} of PostgreSQL \(hanging"):
            Migrator(address, lock_wait=0.5).migrate(on_progress=reports.append)

    assert {report.event for report in reports} == {MigrationEvent.WAITING}
    assert tables(address) == set()
    assert Migrator(address).migrate() == REVISIONS


def test_a_table_that_stays_locked_ends_in_an_error_and_lets_others_pass(tmp_path: Path) -> None:
    address = migrated_database()
    reports: list[MigrationProgress] = []
    migrator = Migrator(address, lock_timeout=0.2, attempts=2, versions=with_next_revision(tmp_path, ADD_COLUMN))
    with server(18).connect(address.name) as reader, reader.transaction():
        reader.execute("SELECT * FROM users")
        with pytest.raises(MigrationError, match=rf"{NEXT}.*others kept its tables locked"):
            migrator.migrate(on_progress=reports.append)
        assert query(address, "SELECT count(*) FROM users") == [(0,)]

    assert [report.event for report in reports] == [MigrationEvent.STARTED, MigrationEvent.RETRIED]
    assert migrator.current().revision == HEAD
    assert Migrator(address).check().agrees


def test_a_table_that_becomes_free_is_migrated(tmp_path: Path) -> None:
    address = migrated_database()
    retried = threading.Event()

    def note(report: MigrationProgress) -> None:
        if report.event is MigrationEvent.RETRIED:
            retried.set()

    migrator = Migrator(address, lock_timeout=0.2, versions=with_next_revision(tmp_path, ADD_COLUMN))
    with ThreadPoolExecutor(1) as pool:
        with server(18).connect(address.name) as reader, reader.transaction():
            reader.execute("SELECT * FROM users")
            migration = pool.submit(migrator.migrate, on_progress=note)
            assert retried.wait(10)
        assert migration.result(20) == (NEXT,)


def test_a_statement_that_takes_too_long_is_stopped(address: DatabaseAddress, tmp_path: Path) -> None:
    versions = with_next_revision(tmp_path, 'op.execute("SELECT pg_sleep(30)")')

    with pytest.raises(MigrationError, match=rf"{NEXT}.*statement timeout"):
        Migrator(address, statement_timeout=0.5, versions=versions).migrate()


def test_those_who_wait_do_not_stand_in_the_way_of_a_concurrent_index(address: DatabaseAddress, tmp_path: Path) -> None:
    """A session that waited for the lock inside PostgreSQL would, and both would wait for ever."""
    body = (
        "with op.get_context().autocommit_block():\n"
        '    op.execute("SELECT pg_sleep(1)")\n'
        '    op.execute("CREATE INDEX CONCURRENTLY ix_users_last_name ON users (last_name)")'
    )
    versions = with_next_revision(tmp_path, body)
    Migrator(address).migrate()
    migrators = [Migrator(address, versions=versions, lock_timeout=3, attempts=1) for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(Migrator.migrate, migrators))

    assert sorted(results) == [(), (), (NEXT,)]
