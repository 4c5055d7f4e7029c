"""A real PostgreSQL, broken in each way that the doctor knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from data_layer import Settings
from data_layer.testing.postgresql_server import PostgresqlServer, PostgresqlStandby
from tests.database.connection_helpers import create_and_migrate

from .support import Examine

HBA = ("host all guarded 127.0.0.1/32 scram-sha-256", "host all all all trust")
OPTIONS = {"max_connections": "18", "wal_level": "replica", "max_prepared_transactions": "2"}
DATABASE = "test"


@pytest.fixture(scope="module")
def server(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    """With a migrated database, and roles of different rights."""
    with PostgresqlServer(hba=HBA, options=OPTIONS) as server:
        create_and_migrate(server, base_settings, tmp_path_factory.mktemp("server"))
        server.execute("CREATE ROLE guarded LOGIN PASSWORD 'right-password'")
        server.execute("CREATE ROLE weak LOGIN VALID UNTIL '2020-01-01'")
        server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak", database=DATABASE)
        server.execute("CREATE ROLE reader LOGIN")
        server.execute("ALTER ROLE reader SET default_transaction_read_only = on")
        server.execute("CREATE ROLE hurried LOGIN CONNECTION LIMIT 3")
        server.execute("ALTER ROLE hurried SET idle_session_timeout = '5min'")
        yield server


def place(
    server: PostgresqlServer, user: str = "postgres", database: str = DATABASE, password: str = ""
) -> dict[str, str]:
    return {"DATABASE_URL": server.url(database, user=user, password=password, host="127.0.0.1")}


def test_where_nobody_answers(examine: Examine) -> None:
    unknown = examine(DATABASE_URL="postgresql://user@database.invalid/name")
    unknown.says("database.address", "failed", "database.invalid cannot be resolved", "DNS")
    socket = examine(DATABASE_URL="postgresql://user@/name?host=/nowhere")
    socket.says("database.address", "failed", "the socket does not exist")


def test_one_of_several_servers_suffices(examine: Examine, server: PostgresqlServer) -> None:
    hosts = f"127.0.0.1:1,127.0.0.1:{server.port}"
    report = examine(DATABASE_URL=f"postgresql://postgres@{hosts}/{DATABASE}")
    report.says("database.address", "warning", "127.0.0.1:1")
    assert report.of("database.login")["outcome"] == "ok"


def test_logins(examine: Examine, server: PostgresqlServer) -> None:
    wrong = examine(**place(server, "guarded", password="wrong-password"))
    wrong.says("database.login", "failed", "refused the user name or the password", "DB_PASSWORD")
    assert wrong.of("database.rights")["caused_by"] == "database.login"
    examine(**place(server, "nobody")).says("database.login", "failed", "no such user")
    missing = examine(**place(server, database="missing"))
    missing.says("database.login", "failed", "does not exist", "data-layer db create")
    reader = examine(**place(server, "reader"))
    reader.says("database.login", "failed", "may only read", "default_transaction_read_only")


def test_rights(examine: Examine, server: PostgresqlServer) -> None:
    weak = examine(**place(server, "weak"))
    weak.says("database.rights", "failed", "DELETE", "users", 'TO "weak"')
    lacking = {one["meaning"] for one in weak.all_of("database.rights")}
    assert "weak lacks INSERT on audit_logs" in lacking, "entries of the trail are only added"
    weak.says("database.migration_rights", "ok", "cannot run migrations or maintenance")
    weak.says("database.role", "warning", "2020-01-01")
    blind = examine(**place(server, "guarded", password="right-password"))
    assert blind.of("database.login")["outcome"] == "ok"
    blind.says("database.schema", "failed", "permission denied")
    super_user = examine(**place(server))
    super_user.says("database.role", "warning", "postgres is a superuser")
    assert super_user.of("database.rights")["outcome"] == "ok"


def test_a_schema_that_may_not_be_used(examine: Examine, server: PostgresqlServer) -> None:
    server.execute("CREATE DATABASE closed")
    server.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC", database="closed")
    report = examine(**place(server, "weak", "closed"))
    report.says("database.schema", "failed", "may use no schema", "GRANT USAGE")


def test_connections_that_do_not_suffice(examine: Examine, server: PostgresqlServer) -> None:
    report = examine(**place(server))
    report.says("database.connections", "warning", "max_connections leaves 15", "DB_MAX_CONNECTIONS")
    assert examine(**place(server), DB_MAX_CONNECTIONS="5").of("database.connections")["outcome"] == "ok"
    limited = examine(**place(server, "hurried"), DB_MAX_CONNECTIONS="5")
    limited.says("database.connections", "warning", 'the role "hurried" leaves 3')
    limited.says("database.time_limits", "warning", "idle_session_timeout", "ALTER ROLE")


def test_durability(examine: Examine, server: PostgresqlServer) -> None:
    examine(**place(server)).says("database.durability", "warning", "fsync is off")
    server.execute(f"ALTER DATABASE {DATABASE} SET synchronous_commit = off")
    examine(**place(server)).says("database.durability", "warning", "synchronous_commit is off")
    server.execute(f"ALTER DATABASE {DATABASE} RESET synchronous_commit")


def test_a_database_that_cannot_store_every_text(examine: Examine, server: PostgresqlServer) -> None:
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    examine(**place(server, database="latin")).says("database.encoding", "failed", "LATIN1", "db create")


def test_schemas_that_do_not_fit(examine: Examine, server: PostgresqlServer) -> None:
    server.execute("CREATE DATABASE old")
    empty = examine(**place(server, database="old"))
    empty.says("database.schema", "failed", "no tables yet", "data-layer db migrate")
    assert empty.of("database.audit_partitions")["caused_by"] == "database.schema"
    examine.command("db", "migrate", "0003", DATABASE_URL=place(server, database="old")["DATABASE_URL"])
    examine(**place(server, database="old")).says("database.schema", "failed", "0003", "data-layer db migrate")
    examine.command("db", "migrate", DATABASE_URL=place(server, database="old")["DATABASE_URL"])
    server.execute("UPDATE data_layer_schema_version SET version_num = '9999'", database="old")
    examine(**place(server, database="old")).says("database.schema", "failed", "9999", "update the service")


def test_months_of_the_audit_trail(examine: Examine, server: PostgresqlServer) -> None:
    server.execute("CREATE DATABASE months")
    examine.command("db", "migrate", DATABASE_URL=place(server, database="months")["DATABASE_URL"])
    examine.command("maintenance", "run", DATABASE_URL=place(server, database="months")["DATABASE_URL"])
    assert examine(**place(server, database="months")).of("database.audit_partitions")["outcome"] == "ok"
    last = server.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_logs'::regclass "
        "AND inhrelid::regclass::text LIKE '%_20%'",
        database="months",
    )
    for (table,) in last:
        server.execute(f"DROP TABLE {table}", database="months")
    server.execute(
        "INSERT INTO audit_logs (id, action, category, level, description) "
        "VALUES ('01890000-0000-7000-8000-000000000000', 'user_login', 'authentication', 'info', 'old')",
        database="months",
    )
    report = examine(**place(server, database="months"))
    report.says("database.audit_partitions", "warning", "no partition for", "maintenance run")
    report.says("database.audit_partitions", "warning", "default partition")


def test_a_standby_in_the_place_of_the_primary(examine: Examine, server: PostgresqlServer) -> None:
    with PostgresqlStandby(server, "follower", options=OPTIONS) as standby:
        replicas = {"DB_REPLICA_HOSTS": f"127.0.0.1:{standby.port}"}
        examine(**place(standby)).says("database.primary", "failed", "is a standby", "name the primary")
        examine(**place(server), **replicas).says("database.replicas", "ok", "showed within")
        standby.hold_back()
        server.execute("SELECT pg_logical_emit_message(true, 'test', 'moves the log')")
        behind = examine(**place(server), **replicas, DB_REPLICA_MAX_LAG="0.2")
        behind.says("database.replicas", "warning", "behind", "replay is paused")
        standby.let_go()
        wrong = examine(**place(server), DB_REPLICA_HOSTS=f"127.0.0.1:{server.port}")
        wrong.says("database.replicas", "warning", "not a replica but a primary")
    gone = examine(**place(server), **replicas)
    gone.says("database.replicas", "warning", "nothing listens there")
    assert gone.of("database.login")["outcome"] == "ok"


def test_commits_that_nobody_confirms(examine: Examine, server: PostgresqlServer) -> None:
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    server.execute("SELECT pg_reload_conf()")
    try:
        report = examine(**place(server))
        report.says("database.primary", "failed", "every commit waits for ever", "gone")
    finally:
        server.execute("ALTER SYSTEM RESET synchronous_standby_names")
        server.execute("SELECT pg_reload_conf()")


def test_a_direct_address_that_leads_elsewhere(examine: Examine, server: PostgresqlServer) -> None:
    right, wrong = place(server)["DATABASE_URL"], place(server, database="postgres")["DATABASE_URL"]
    examine(**place(server), DB_DIRECT_URL=right).says("database.direct_address", "ok", "the same database")
    elsewhere = examine(**place(server), DB_DIRECT_URL=wrong)
    elsewhere.says("database.direct_address", "failed", "another server or database")
    pooler = examine(**place(server), DB_PGBOUNCER="true")
    pooler.says("database.pooler", "warning", "PostgreSQL itself answers")
    pooler.says("database.direct_address", "warning", "DB_DIRECT_URL is not set")


def test_a_server_that_falls_silent_after_the_login(examine: Examine, server: PostgresqlServer) -> None:
    server.pause()
    try:
        report = examine("--time-limit", "1", **place(server))
    finally:
        server.resume()
    assert report.of("database.login")["outcome"] == "failed"
    assert report.of("cache.login")["outcome"] == "ok"
