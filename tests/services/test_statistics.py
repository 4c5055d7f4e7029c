"""Figures of the database and the storage, from real servers, also where rights, extensions or answers are missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings
from data_layer.layer import open_statistics
from data_layer.repositories.statistics import read_stored, without_values
from data_layer.services.statistics import Statistics
from data_layer.testing.postgresql_server import PostgresqlServer, PostgresqlStandby
from tests.database.connection_helpers import create_and_migrate, settings_for, until
from tests.support import make_user

FILES = """
INSERT INTO stored_files (id, owner_id, backend, key, state, content_type, size, original_size, sha256, reference_count)
SELECT gen_random_uuid(), :owner, 'local', :prefix || number, :state, :content_type, 100, 200,
       :prefix || number, 1
FROM generate_series(1, :count) AS number
"""


async def store_files(
    data: DataLayer, count: int, content_type: str, owner: UUID | None, state: str = "stored"
) -> None:
    values = {"count": count, "content_type": content_type, "owner": owner, "state": state, "prefix": uuid7().hex}
    async with data.transaction() as tx:
        await tx.execute(text(FILES).bindparams(**values))


async def test_files_by_type_owner_and_state(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    await store_files(data, 30, "image/png", user.id)
    await store_files(data, 5, "text/html", None)
    await store_files(data, 2, "text/html", None, state="pending")
    storage = (await data.statistics()).storage
    assert storage is not None
    assert (storage.backend, storage.is_estimate, storage.notes) == ("local", False, {})
    assert (storage.file_count, storage.total_size) == (37, 3700)
    assert {usage.name: (usage.count, usage.stored_size, usage.size) for usage in storage.by_type} == {
        "image/png": (30, 3000, 6000),
        "text/html": (7, 700, 1400),
    }
    assert [(usage.name, usage.count) for usage in storage.by_owner] == [(str(user.id), 30), ("system", 7)]
    assert [(usage.name, usage.count) for usage in storage.by_state] == [("stored", 35), ("pending", 2)]
    assert storage.free_size is not None
    assert storage.free_size > 0


async def test_a_large_table_is_estimated_and_says_so(data: DataLayer) -> None:
    await store_files(data, 6000, "image/png", None)
    async with data.transaction() as tx:
        estimate = await read_stored(tx, pages_read=60)
        exact = await read_stored(tx)
    assert not exact.is_estimate
    assert exact.file_count == 6000
    assert estimate.is_estimate
    # A random third of the pages; so far off is one in a thousand years.
    assert 2000 < estimate.file_count < 14_000
    assert estimate.total_size == estimate.by_type[0].stored_size
    assert estimate.by_owner[0].name == "system"


async def test_the_database_in_figures(data: DataLayer, settings: Settings) -> None:
    assert settings.database.database_url
    async with data.transaction() as tx:
        for _ in range(20):
            tx.add(make_user())
    async with data.transaction() as tx:
        await tx.execute(text("DELETE FROM users"))
    with psycopg.connect(settings.database.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE users")
    figures = (await data.statistics()).database
    assert figures is not None
    assert figures.sees_everything
    assert figures.connections >= figures.connections_by_state["active"] >= 1
    assert figures.server_connections <= figures.connection_limit
    assert figures.size is not None
    assert figures.size > 1_000_000
    assert figures.hit_rate is not None
    assert 0 < figures.hit_rate <= 1
    assert figures.commits > 0
    assert figures.tables is not None
    users = next(table for table in figures.tables if table.name == "users")
    assert users.vacuumed_at is not None
    assert users.analyzed_at is not None
    assert users.rows < 20
    assert figures.unused_indexes is not None
    names = {index.name for index in figures.unused_indexes}
    assert not [name for name in names if name.startswith(("uq_", "pk_"))], "they keep rules"
    assert (figures.standbys, figures.slots, figures.replicas) == ((), (), ())
    assert "pg_stat_statements" in figures.notes["statements"], "the wheel does not have it"
    assert figures.statements is None


async def test_an_index_that_is_used_is_not_called_unused(data: DataLayer) -> None:
    async def unused() -> set[str]:
        figures = (await data.statistics()).database
        assert figures is not None
        return {index.name for index in figures.unused_indexes or ()}

    async def use() -> bool:
        async with data.transaction() as tx:
            await tx.execute(text("SET LOCAL enable_seqscan = off"))
            await tx.execute(text("SELECT count(*) FROM audit_logs WHERE correlation_id = 'request-1'"))
        # The server counts a while later, and for the partitioned table as a whole.
        return "ix_audit_logs_correlation_id" not in await unused()

    await until(use)


@pytest.fixture(scope="module")
def server(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as server:
        create_and_migrate(server, base_settings, tmp_path_factory.mktemp("server"))
        server.execute("CREATE ROLE plain LOGIN")
        server.execute("GRANT SELECT ON users TO plain", database="test")
        yield server


async def statistics(url: str, base: Settings, folder: Path, **values: Any) -> Statistics:
    async with open_statistics(settings_for(url, base, folder, **values)) as service:
        return await service.gather()


async def test_missing_rights_are_said(server: PostgresqlServer, base_settings: Settings, tmp_path: Path) -> None:
    with psycopg.connect(server.url("test")):  # Another account's connection.
        figures = await statistics(server.url("test", user="plain"), base_settings, tmp_path)
    assert figures.errors == {}
    assert figures.database is not None
    assert not figures.database.sees_everything
    assert figures.database.connections_by_state["hidden"] >= 1
    for name in ("connections_by_state", "standbys"):
        assert "GRANT pg_monitor TO plain" in figures.database.notes[name]
    assert figures.database.tables
    assert figures.storage is not None
    assert "stored_files" in figures.storage.notes["files"]
    assert figures.storage.file_count is None
    assert figures.storage.free_size is not None, "one part does not hide another"


@asynccontextmanager
async def locked(server: PostgresqlServer, table: str) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(server.url("test")) as connection:
        await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


async def test_what_is_locked_is_given_up_and_hides_nothing_else(
    server: PostgresqlServer, base_settings: Settings, tmp_path: Path
) -> None:
    async with locked(server, "users"):
        figures = await statistics(server.url("test"), base_settings, tmp_path)
    assert figures.database is not None
    assert figures.database.tables is None
    assert "given up" in figures.database.notes["tables"]
    assert figures.database.size is not None
    assert figures.storage is not None
    assert figures.storage.file_count == 0
    assert figures.cache is not None
    assert figures.errors == {}


async def test_standbys_replicas_and_slots(server: PostgresqlServer, base_settings: Settings, tmp_path: Path) -> None:
    server.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    with PostgresqlStandby(server, "second") as standby:
        url = server.url("test", host="127.0.0.1")
        hosts = f"127.0.0.1:{standby.port}, 127.0.0.1:1"
        figures = await statistics(url, base_settings, tmp_path, db_replica_hosts=hosts)
        assert figures.database is not None
        [seen] = figures.database.standbys or ()
        assert (seen.name, seen.state, seen.synchronous) == ("second", "streaming", "async")
        assert seen.lag_size is not None
        used = {replica.address.rpartition(":")[2].split("/")[0]: replica for replica in figures.database.replicas}
        assert used[str(standby.port)].is_used
        assert not used["1"].is_used
        assert used["1"].lag_seconds is None
        on_standby = await statistics(standby.url("test"), base_settings, tmp_path)
        assert on_standby.database is not None
        assert on_standby.database.is_standby
        assert on_standby.errors == {}
    [slot] = figures.database.slots or ()
    assert (slot.name, slot.is_active) == ("forgotten", False)
    assert slot.kept_size is not None
    server.execute("SELECT pg_drop_replication_slot('forgotten')")


@pytest.fixture
def measuring_server(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    """One that keeps statements; its extension is where nobody looks for it."""
    options = {"shared_preload_libraries": "pg_stat_statements"}
    with PostgresqlServer(Path("/usr/lib/postgresql/15/bin"), options=options) as server:
        create_and_migrate(server, base_settings, tmp_path_factory.mktemp("server"))
        server.execute('CREATE SCHEMA "Odd schema"', database="test")
        server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", database="test")
        server.execute('ALTER EXTENSION pg_stat_statements SET SCHEMA "Odd schema"', database="test")
        yield server


@pytest.mark.needs_debian
async def test_the_slowest_statements_without_their_values(
    measuring_server: PostgresqlServer, base_settings: Settings, tmp_path: Path
) -> None:
    server = measuring_server
    server.execute("CREATE ROLE app LOGIN PASSWORD 'hunter2-hunter2'", database="test")
    server.execute("SELECT /* request-1 */ pg_sleep(0.2), 'hunter2-hunter2'", database="test")
    figures = await statistics(server.url("test"), base_settings, tmp_path)
    hidden = await statistics(server.url("test", user="app"), base_settings, tmp_path)
    assert figures.database is not None
    statements = figures.database.statements
    assert statements
    assert [each.total_ms for each in statements] == sorted((each.total_ms for each in statements), reverse=True)
    slow = next(each for each in statements if "pg_sleep" in each.statement)
    assert slow.statement == "SELECT pg_sleep($1), $2"
    assert slow.calls == 1
    assert slow.mean_ms >= 200
    assert "hunter2" not in figures.model_dump_json()
    assert hidden.database is not None
    assert hidden.database.notes["statements"]
    assert "pg_sleep" not in str(hidden.database.statements)


def test_values_in_statements_are_left_out() -> None:
    written = (
        "WITH a AS (SELECT 1) /* id=7 */ SELECT 'it''s\nhunter2', x  FROM a WHERE y = 'cut off at the end of the te"
    )
    assert without_values(written) == "WITH a AS (SELECT 1) SELECT '…', x FROM a WHERE y = '…'"
    assert len(without_values("SELECT " + "x, " * 5000)) <= 1000
