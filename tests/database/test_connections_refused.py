"""The server refuses us: each reason has its own error, which says what to do and never the password."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.database.address import direct_address
from data_layer.database.migrator import Migrator
from data_layer.errors import (
    DatabaseError,
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DatabaseUnavailableError,
    DataLayerError,
)
from data_layer.testing.postgresql_server import PostgresqlServer, StopMode
from tests.database.connection_helpers import create_and_migrate, messages, settings_for
from tests.support import make_user

Make = Callable[..., DataLayer]

PASSWORD = "hunter2-never-shown"
HBA = ("host all banned all reject", "host test app,reader all scram-sha-256", "host all all all scram-sha-256")


@pytest.fixture(scope="module")
def server(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    options = {"max_connections": "8", "superuser_reserved_connections": "3", "max_wal_senders": "0"}
    with PostgresqlServer(hba=HBA, options=options) as server:
        create_and_migrate(server, base_settings, tmp_path_factory.mktemp("server"))
        for role in ("app", "reader", "banned", "few"):
            server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        server.execute("CREATE ROLE nobody_logs_in PASSWORD 'hunter2-never-shown'")
        server.execute("ALTER ROLE few CONNECTION LIMIT 2")
        server.execute("ALTER ROLE reader SET default_transaction_read_only = on")
        server.execute("CREATE DATABASE closed")
        server.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        tables = "ALL TABLES IN SCHEMA public"
        server.execute(f"GRANT SELECT, INSERT, UPDATE ON {tables} TO app, reader, few", database="test")
        yield server


@pytest.fixture
def make(server: PostgresqlServer, base_settings: Settings, tmp_path: Path) -> Make:
    """A data layer that logs in by TCP with a password."""

    def make(user: str = "app", database: str = "test", password: str = PASSWORD, **values: Any) -> DataLayer:
        url = server.url(database, user=user, password=password, host="127.0.0.1")
        return DataLayer(settings_for(url, base_settings, tmp_path, **values))

    return make


def assert_secret_is_kept(error: BaseException) -> None:
    assert not [said for said in messages(error) if "hunter2" in said]


@pytest.mark.parametrize(
    ("login", "kind", "advice"),
    [
        ({"password": "hunter2-but-wrong"}, DatabaseLoginError, "check DB_USERNAME and DB_PASSWORD"),
        ({"password": ""}, DatabaseLoginError, "check DB_USERNAME and DB_PASSWORD"),
        ({"user": "stranger"}, DatabaseLoginError, "check DB_USERNAME and DB_PASSWORD"),
        ({"user": "nobody_logs_in"}, DatabaseLoginError, "check DB_USERNAME and DB_PASSWORD"),
        ({"user": "banned"}, DatabaseLoginError, r"check pg_hba.conf on the server"),
        ({"database": "nowhere"}, DatabaseMissingError, "make it with: data-layer db create"),
        ({"database": "closed"}, DatabasePermissionError, "GRANT CONNECT"),
        ({"db_min_connections": 7}, DatabaseUnavailableError, "lower DB_MAX_CONNECTIONS"),
        ({"user": "few", "db_min_connections": 3}, DatabaseUnavailableError, "lower DB_MAX_CONNECTIONS"),
        ({"db_pgbouncer": False, "db_ssl": "require"}, DatabaseLoginError, "check DB_SSL"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
async def test_a_refused_login_says_why_and_what_to_do(
    make: Make, login: dict[str, Any], kind: type[DatabaseError], advice: str
) -> None:
    with pytest.raises(kind, match=advice) as caught:
        async with make(**login):
            pass
    assert type(caught.value) is kind
    assert_secret_is_kept(caught.value)


def test_an_unknown_user_without_a_password_is_told(server: PostgresqlServer, base_settings: Settings) -> None:
    settings = base_settings.replaced(database_url=None, db_host=str(server.folder))
    settings = settings.replaced(db_port=server.port, db_username="stranger")
    with pytest.raises(DatabaseLoginError, match="no such user; check DB_USERNAME"):
        Migrator(direct_address(settings.database)).current()


async def test_the_pool_can_be_used_again_after_the_server_had_no_connection_left(
    server: PostgresqlServer, make: Make
) -> None:
    others = [
        psycopg.connect(server.url("test"), autocommit=True) for _ in range(4)
    ]  # 8, without 3 reserved ones, and 1
    try:
        async with make(db_min_connections=1) as data:
            async with data.transaction() as tx:
                await tx.users.count()
                with pytest.raises(DatabaseUnavailableError, match="no connection left"):
                    await data.database.connect()
            for other in others:
                other.close()
            async with data.transaction() as tx:
                connection = await data.database.connect()
                await connection.close()
                assert await tx.users.count() == 0
    finally:
        for other in others:
            other.close()


async def test_a_server_that_is_stopping_asks_for_patience(
    server: PostgresqlServer, base_settings: Settings, tmp_path: Path
) -> None:
    with psycopg.connect(server.url("test")):
        server.send_signal(StopMode.SMART.value)
        data = DataLayer(settings_for(server.url("test"), base_settings, tmp_path))
        with pytest.raises(DatabaseUnavailableError, match=r"is starting or stopping: .* try again in a moment"):
            await data.open()
    server.restart()


async def test_a_read_only_server_is_told_and_read(make: Make) -> None:
    async with make("reader") as data:
        with pytest.raises(DatabaseUnavailableError, match="read-only"):
            async with data.transaction() as tx:
                tx.add(make_user())
        async with data.transaction() as tx:
            assert await tx.users.count() == 0


async def test_a_right_that_is_missing_is_told(make: Make) -> None:
    async with make() as data:
        with pytest.raises(DatabasePermissionError, match=r"lacks a right: permission denied for table users"):
            async with data.transaction() as tx:
                await tx.execute(text("DELETE FROM users"))


@pytest.mark.parametrize("query", ["sslmode=perhaps", "sslmod=require", "keepalives_idle=soon"])
async def test_an_address_that_libpq_does_not_understand_is_told_without_the_password(
    server: PostgresqlServer, base_settings: Settings, tmp_path: Path, query: str
) -> None:
    url = f"{server.url('test', user='app', password=PASSWORD, host='127.0.0.1')}?{query}"
    with pytest.raises(DataLayerError) as caught:
        async with DataLayer(settings_for(url, base_settings, tmp_path)):
            raise AssertionError("connected")
    assert re.search("sslmod|keepalives", str(caught.value))
    assert_secret_is_kept(caught.value)
