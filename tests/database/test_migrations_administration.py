"""Databases are made and emptied: with and without the rights, at once, and beside the tables of others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from data_layer.database import administration
from data_layer.database.address import DatabaseAddress
from data_layer.database.administration import EXTENSIONS, ExtensionStatus
from data_layer.database.migrator import Migrator
from data_layer.database.schema_check import SchemaStatus
from data_layer.errors import DatabasePermissionError, SchemaAheadError

from .migration_helpers import (
    EVERY_VERSION,
    REVISIONS,
    migrated_database,
    new_database,
    new_role,
    query,
    server,
    tables,
)

ODD_NAME = """it's "odd" %s :name"""


@pytest.fixture
def address() -> DatabaseAddress:
    return new_database()


@pytest.mark.parametrize("version", EVERY_VERSION)
def test_a_database_is_made_once_and_can_hold_every_text(version: int) -> None:
    migrator = Migrator(server(version).address(ODD_NAME))

    assert [migrator.create().created for _ in range(2)] == [True, False]
    assert query(server(version).address(ODD_NAME), "SHOW server_encoding") == [("UTF8",)]
    assert migrator.migrate() == REVISIONS
    assert migrator.reset()


def test_several_processes_may_make_it_at_once() -> None:
    migrators = [Migrator(server(18).address("made_by_many")) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(Migrator.create, migrators))

    assert sum(report.created for report in reports) == 1


def test_it_is_made_where_the_usual_maintenance_database_is_missing() -> None:
    server(18).run("ALTER DATABASE postgres ALLOW_CONNECTIONS false", database="template1")
    try:
        assert Migrator(server(18).address("made_from_template1")).create().created
    finally:
        server(18).run("ALTER DATABASE postgres ALLOW_CONNECTIONS true", database="template1")


def test_a_user_who_may_not_make_it_learns_what_to_ask_for() -> None:
    role = new_role()
    with pytest.raises(DatabasePermissionError, match=f'CREATE DATABASE "not_mine" OWNER "{role}"'):
        Migrator(server(18).address("not_mine", role)).create()


def test_a_user_who_may_not_make_databases_can_still_ask_for_one_that_exists(address: DatabaseAddress) -> None:
    assert not Migrator(server(18).address(address.name, new_role())).create().created


@pytest.mark.needs_debian
def test_useful_extensions_are_made_where_the_server_has_and_permits_them() -> None:
    address = new_database(15)
    without_rights = Migrator(server(15).address(address.name, new_role(version=15)))

    reports = [migrator.create().extensions for migrator in (without_rights, Migrator(address), without_rights)]

    assert reports == [
        dict.fromkeys(EXTENSIONS, status)
        for status in (ExtensionStatus.NOT_PERMITTED, ExtensionStatus.CREATED, ExtensionStatus.PRESENT)
    ]


def test_a_server_without_extensions_serves_as_well(address: DatabaseAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Migrator(address).create().extensions == dict.fromkeys(EXTENSIONS, ExtensionStatus.UNAVAILABLE)

    monkeypatch.setattr(administration, "EXTENSIONS", ("vector",))
    assert Migrator(address).create().extensions == {"vector": ExtensionStatus.CREATED}
    assert Migrator(address).create().extensions == {"vector": ExtensionStatus.PRESENT}


def test_a_reset_makes_the_database_anew_and_ends_its_connections_only() -> None:
    address, other, owner = migrated_database(), new_database(), new_role()
    query(address, "CREATE FUNCTION leftover() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    server(18).run(f"ALTER DATABASE {address.name} OWNER TO {owner}")

    with server(18).connect(address.name) as mine, server(18).connect(other.name) as theirs:
        assert Migrator(address).reset()

        with pytest.raises(psycopg.OperationalError):
            mine.execute("SELECT 1")
        theirs.execute("SELECT 1")
    assert Migrator(address).current().state is SchemaStatus.EMPTY
    assert query(address, "SELECT count(*) FROM pg_proc WHERE proname = 'leftover'") == [(0,)]
    owner_query = "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()"
    assert query(address, owner_query) == [(owner,)]


@pytest.mark.slow
def test_a_reset_keeps_what_others_have_in_the_database() -> None:
    address = migrated_database()
    query(address, "CREATE SCHEMA theirs; CREATE TABLE theirs.orders (id int); INSERT INTO theirs.orders VALUES (7)")

    assert not Migrator(address).reset()

    assert tables(address) == set()
    assert query(address, "SELECT id FROM theirs.orders") == [(7,)]


def test_a_reset_without_the_right_to_make_databases_undoes_the_migrations() -> None:
    role = new_role()
    address = new_database(owner=role)
    migrator = Migrator(server(18).address(address.name, role))
    migrator.migrate()

    assert not migrator.reset()
    assert tables(address) == set()
    assert migrator.migrate() == REVISIONS


def test_an_owner_who_may_make_databases_gets_a_new_one() -> None:
    role = new_role("CREATEDB")
    migrator = Migrator(server(18).address(f"of_{role}", role))
    assert migrator.create().created
    migrator.migrate()

    assert migrator.reset()
    assert migrator.migrate() == REVISIONS


def test_a_reset_makes_a_missing_database() -> None:
    assert Migrator(server(18).address("missing_before_reset")).reset()


def test_a_reset_cures_a_database_that_a_newer_version_has_migrated() -> None:
    address = migrated_database()
    query(address, "UPDATE data_layer_schema_version SET version_num = '9999'")

    assert Migrator(address).reset()
    assert Migrator(address).migrate() == REVISIONS


def test_a_reset_drops_no_table_that_it_does_not_know() -> None:
    address = migrated_database()
    query(address, "CREATE TABLE orders (id int); UPDATE data_layer_schema_version SET version_num = '9999'")

    with pytest.raises(SchemaAheadError):
        Migrator(address).reset()
    assert {"orders", "users"} < tables(address)
