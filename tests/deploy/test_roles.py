"""deploy/postgresql/roles.sql: the service can do its work with its role, and nothing that it need not do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import make_url

from data_layer import AuditLog, DataLayer, Settings
from data_layer.database.address import DRIVER, DatabaseAddress
from data_layer.database.migrator import Migrator
from data_layer.entities.enums import AuditAction
from data_layer.entities.time_ordered_ids import id_at
from data_layer.schemas.actors import SYSTEM
from data_layer.testing.postgresql_server import PostgresqlServer
from tests.file_content import picture

from .support import DEPLOY

NAME = "screenshot_to_code"
ROLES = (DEPLOY / "postgresql" / "roles.sql").read_text()
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A server like a managed one, whose first user is no superuser and owns the database."""
    with PostgresqlServer() as server:
        server.execute("CREATE ROLE administrator LOGIN CREATEROLE CREATEDB")
        server.execute(f"CREATE DATABASE {NAME} OWNER administrator TEMPLATE template0 ENCODING 'UTF8'")
        _apply_roles(server)
        _migrate(_url(server, "data_layer_owner"))
        _apply_roles(server)
        yield server


def _migrate(url: str) -> None:
    address = DatabaseAddress(make_url(url).set(drivername=DRIVER), {})
    assert Migrator(address).migrate()


def _url(server: PostgresqlServer, user: str) -> str:
    return server.url(NAME, user=user)


def _apply_roles(server: PostgresqlServer) -> None:
    with psycopg.connect(_url(server, "administrator"), autocommit=True) as connection:
        connection.execute(ROLES)


def _settings(server: PostgresqlServer, redis_url: str, folder: Path, user: str) -> Settings:
    return Settings(
        _env_file=None,
        environment="testing",
        database_url=_url(server, user),
        redis_url=redis_url,
        redis_key_prefix="test-roles",
        bcrypt_rounds=4,
        data_folder=folder,
        local_storage_path=folder / "uploads",
    )


async def test_the_service_works_with_its_role(
    server: PostgresqlServer, servers: tuple[str, str], tmp_path: Path
) -> None:
    async with DataLayer(_settings(server, servers[1], tmp_path, "data_layer_service")) as data:
        await data.seed.load()  # Users, projects, versions, images and their files.
        user = await data.accounts.create(
            SYSTEM, email="ann@example.com", first_name="Ann", last_name="Other", password=PASSWORD, email_verified=True
        )
        await data.accounts.authenticate("ann@example.com", PASSWORD)
        session = await data.sessions.create(user.id)
        active = await data.sessions.validate(session.token.get_secret_value())
        tokens = await data.tokens.issue(active)
        await data.tokens.refresh(tokens.refresh_token.get_secret_value())
        assert await data.sessions.revoke(SYSTEM, active.id) == 1
        image = picture()
        file = await data.files.save(image, owner_id=user.id, content_type="image/png")
        assert await data.files.download(file.id, owner_id=user.id) == image
        assert await data.files.delete(file.id, owner_id=user.id)
        data.audit.record_soon(AuditAction.SYSTEM_MAINTENANCE, "Collected")
        await data.audit.flush()
        assert "Collected" in [entry.description for entry in (await data.audit.list(SYSTEM)).entries]
        report = await data.file_maintenance.check(SYSTEM)
        assert report.is_clean
        assert not (await data.statistics()).errors
        assert (await data.health()).overall
        await data.accounts.delete(SYSTEM, user.id)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE public.mine (id int)",
        "ALTER TABLE users ADD COLUMN mine int",
        "DROP TABLE users",
        "TRUNCATE users CASCADE",
        "ALTER TABLE audit_logs DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "UPDATE audit_logs SET description = 'nothing happened'",
        "DELETE FROM audit_logs",
        "UPDATE data_layer_schema_version SET version_num = '0001'",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SET ROLE data_layer_owner",
    ],
)
def test_the_role_of_the_service_may_not(server: PostgresqlServer, statement: str) -> None:
    with (
        psycopg.connect(_url(server, "data_layer_service")) as connection,
        pytest.raises(InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_what_another_role_has_made_is_handed_over(server: PostgresqlServer) -> None:
    name = "migrated_before"
    server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    _migrate(server.url(name))
    server.execute(ROLES, database=name)
    with psycopg.connect(server.url(name, user="data_layer_service")) as connection:
        connection.execute("SELECT count(*) FROM users")
        with pytest.raises(InsufficientPrivilege):
            connection.execute("DELETE FROM audit_logs")
    [(strangers,)] = server.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relowner <> 'data_layer_owner'::regrole",
        database=name,
    )
    assert strangers == 0


def test_nobody_else_may_log_in_to_the_database(server: PostgresqlServer) -> None:
    server.execute("CREATE ROLE stranger LOGIN")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(_url(server, "stranger"))


async def test_months_are_made_by_the_owner_and_usable_for_the_service(
    server: PostgresqlServer, servers: tuple[str, str], tmp_path: Path
) -> None:
    async with DataLayer(_settings(server, servers[1], tmp_path, "data_layer_service")) as data:
        async with data.transaction() as tx:
            old = AuditLog.system_event(AuditAction.SYSTEM_MAINTENANCE, "Of a month that has no partition")
            old.id = id_at(datetime.now(UTC) - timedelta(days=100))
            tx.add(old)
        refused = await data.maintenance.run(SYSTEM)
    assert not refused.is_complete
    assert "must be owner" in " ".join(refused.problems) or "permission denied" in " ".join(refused.problems)
    async with DataLayer(_settings(server, servers[1], tmp_path, "data_layer_owner")) as data:
        assert (await data.maintenance.run(SYSTEM)).is_complete
    with psycopg.connect(_url(server, "data_layer_service")) as connection:
        month = f"audit_logs_{datetime.now(UTC):%Y_%m}"
        assert connection.execute("SELECT to_regclass(%s)", (month,)).fetchone() != (None,)
    async with DataLayer(_settings(server, servers[1], tmp_path, "data_layer_service")) as data:
        async with data.transaction() as tx:
            tx.add(AuditLog.system_event(AuditAction.SYSTEM_MAINTENANCE, "After the months"))
        assert "After the months" in [entry.description for entry in (await data.audit.list(SYSTEM)).entries]
