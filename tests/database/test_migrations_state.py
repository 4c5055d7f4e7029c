"""Which database it is: ours, older, newer, empty, another application's, or one that cannot be reached."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from data_layer.database.address import DatabaseAddress
from data_layer.database.migrator import Migrator
from data_layer.database.schema_check import SchemaStatus, read_schema_state
from data_layer.errors import (
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DatabaseUnavailableError,
    ForeignSchemaError,
    SchemaAheadError,
    SchemaBehindError,
)

from .migration_helpers import (
    HEAD,
    NEXT,
    PASSWORD,
    REVISIONS,
    migrated_database,
    new_database,
    new_role,
    query,
    server,
    tables,
    with_next_revision,
)


@pytest.fixture
def address() -> DatabaseAddress:
    return new_database()


def test_an_empty_database_is_told_how_to_become_useful(address: DatabaseAddress) -> None:
    state = Migrator(address).current()

    assert (state.state, state.revision, state.head, state.pending) == (SchemaStatus.EMPTY, None, HEAD, REVISIONS)
    with pytest.raises(SchemaBehindError, match=r"no tables yet.*data-layer db migrate"):
        Migrator(address).require_current()


def test_an_older_database_is_behind(tmp_path: Path) -> None:
    address = migrated_database()
    newer = Migrator(address, versions=with_next_revision(tmp_path, "pass"))

    assert (newer.current().state, newer.current().pending) == (SchemaStatus.BEHIND, (NEXT,))
    with pytest.raises(SchemaBehindError, match=f"at revision {HEAD}.*needs {NEXT}.*data-layer db migrate"):
        newer.require_current()


def test_a_newer_database_is_ahead_and_nobody_touches_it(address: DatabaseAddress, tmp_path: Path) -> None:
    Migrator(address, versions=with_next_revision(tmp_path, "pass")).migrate()
    older = Migrator(address)

    assert (older.current().state, older.current().revision) == (SchemaStatus.AHEAD, NEXT)
    for refused in (older.require_current, older.migrate, older.rollback):
        with pytest.raises(SchemaAheadError, match=f"at revision {NEXT}.*update the service"):
            refused()
    assert older.check().state.state is SchemaStatus.AHEAD


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE users (id int PRIMARY KEY, login text); INSERT INTO users VALUES (1, 'them')",
        "CREATE TABLE orders (id int)",
        "CREATE VIEW sessions AS SELECT 1 AS id",
        "CREATE TABLE data_layer_schema_version AS SELECT 'f00' AS version_num",
        "CREATE TABLE data_layer_schema_version (version_num text); CREATE TABLE projects (id int)",
    ],
)
def test_the_database_of_another_application_is_left_alone(address: DatabaseAddress, theirs: str) -> None:
    query(address, theirs)
    before = server(18).dump(address.name)
    migrator = Migrator(address)

    assert migrator.current().state is SchemaStatus.FOREIGN
    for refused in (migrator.require_current, migrator.migrate, migrator.rollback, migrator.reset):
        with pytest.raises(ForeignSchemaError, match=r"another application.*DB_NAME.*data-layer db create"):
            refused()
    assert server(18).dump(address.name) == before


@pytest.mark.parametrize("name", ["users", "audit_logs"])
def test_a_name_that_is_taken_cannot_be_shared(address: DatabaseAddress, name: str) -> None:
    query(address, f"CREATE TABLE {name} (id int); CREATE TABLE orders (id int)")
    with pytest.raises(ForeignSchemaError, match=rf"\({name}\)") as caught:
        Migrator(address).migrate(shared=True)
    assert "--shared" not in str(caught.value)
    assert tables(address) == {name, "orders"}


def test_a_host_application_can_share_its_database(address: DatabaseAddress) -> None:
    query(address, "CREATE TABLE orders (id int); CREATE TABLE alembic_version (version_num text PRIMARY KEY)")
    query(address, "INSERT INTO alembic_version VALUES ('of the host')")
    migrator = Migrator(address)
    with pytest.raises(ForeignSchemaError, match=r"\(alembic_version, orders\).*data-layer db migrate --shared"):
        migrator.migrate()

    assert migrator.migrate(shared=True) == REVISIONS

    migrator.require_current()
    assert migrator.check().agrees
    assert migrator.migrate() == ()
    assert query(address, "SELECT * FROM alembic_version") == [("of the host",)]
    assert migrator.rollback(len(REVISIONS)) == REVISIONS[::-1]
    assert tables(address) == {"orders", "alembic_version"}


@pytest.mark.needs_debian
def test_what_an_extension_brought_is_nobodys_table() -> None:
    address = new_database(15)
    query(address, "CREATE EXTENSION pg_stat_statements")

    assert Migrator(address).current().state is SchemaStatus.EMPTY


def test_a_missing_database_is_told_how_to_be_made() -> None:
    migrator = Migrator(server(18).address("nowhere"))
    for refused in (migrator.require_current, migrator.migrate, migrator.check, migrator.rollback):
        with pytest.raises(DatabaseMissingError, match="data-layer db create"):
            refused()


@pytest.mark.parametrize("password", ["wrong " + PASSWORD, None])
def test_a_wrong_password_is_refused_without_being_repeated(password: str | None) -> None:
    server(18).run("DROP DATABASE IF EXISTS locked", "CREATE DATABASE locked")
    role = new_role(f"PASSWORD '{PASSWORD}'")
    migrator = Migrator(server(18).address("locked", role, password))
    for refused in (migrator.require_current, migrator.migrate, migrator.create):
        with pytest.raises(DatabaseLoginError) as caught:
            refused()
        assert PASSWORD not in str(caught.value)
    Migrator(server(18).address("locked", role, PASSWORD)).current()


def test_a_server_that_is_not_there_is_named_as_such(address: DatabaseAddress, tmp_path: Path) -> None:
    unreachable = replace(address, url=address.url.set(query={"host": str(tmp_path)}))
    for refused in (Migrator(unreachable).require_current, Migrator(unreachable).create, Migrator(unreachable).reset):
        with pytest.raises(DatabaseUnavailableError, match="No such file"):
            refused()


def test_a_user_without_rights_on_the_tables_is_told_so() -> None:
    address = migrated_database()
    stranger = Migrator(server(18).address(address.name, new_role()))

    with pytest.raises(DatabasePermissionError, match="permission denied for table data_layer_schema_version"):
        stranger.require_current()


def test_the_service_can_ask_on_its_own_connections(address: DatabaseAddress) -> None:
    async def ask() -> SchemaStatus:
        engine = create_async_engine(address.url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            state = await connection.run_sync(read_schema_state)
        await engine.dispose()
        return state.state

    assert asyncio.run(ask()) is SchemaStatus.EMPTY
    Migrator(address).migrate()
    assert asyncio.run(ask()) is SchemaStatus.UP_TO_DATE
