"""Through a real PgBouncer in transaction mode everything works, with few connections to the server."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.database.address import direct_address
from data_layer.database.migrator import Migrator
from data_layer.embedded import postgresql
from data_layer.errors import (
    DatabaseError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DuplicateError,
    StatementTimeoutError,
)
from data_layer.testing.free_ports import free_port
from data_layer.testing.postgresql_server import PostgresqlServer, StopMode
from tests.database.connection_helpers import count_connections, emails, observing, settings_for, until
from tests.support import EMPTY_ALL_TABLES, make_code, make_project, make_user

Make = Callable[..., DataLayer]

pytestmark = pytest.mark.needs_debian
# None of this may be seen in our transactions.
PRESETS = {
    "client_encoding": "LATIN1",
    "DateStyle": "SQL, DMY",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "default_transaction_isolation": "serializable",
    "lock_timeout": "1",
}
BOUNCER_CONNECTIONS = 2


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with PostgresqlServer(options={"timezone": "Asia/Tokyo"}) as server:
        server.execute("CREATE DATABASE test")
        for name, value in PRESETS.items():
            server.execute(f"ALTER ROLE postgres SET {name} = '{value}'")
        yield server


@pytest.fixture(scope="module")
def port(server: PostgresqlServer) -> Iterator[int]:
    """The port of a PgBouncer with two connections to the server."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "pgbouncer is missing: apt install pgbouncer"
    port = free_port()
    (server.folder / "users.txt").write_text('"postgres" ""')
    configuration = server.folder / "pgbouncer.ini"
    configuration.write_text(f"""
[databases]
test = host={server.folder} port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {server.folder}/users.txt
pool_mode = transaction
default_pool_size = {BOUNCER_CONNECTIONS}
max_client_conn = 60
server_login_retry = 0.1
logfile = {server.folder}/pgbouncer.log
""")
    # PgBouncer refuses to be root, as PostgreSQL does.
    with ThreadPoolExecutor(1) as threads:
        choice = postgresql.choose_identity(server.folder, server.folder, server.programs / "postgres")
        bearer = threads.submit(asyncio.run, choice).result()
    launch = str(Path(postgresql.__file__).with_name("launch.py"))
    steps = [launch, bearer, "0", str(os.getpid()), str(server.folder)]
    command = [sys.executable, "-I", "-S", *steps, program, "--quiet", str(configuration)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, "pgbouncer ended"
            assert time.monotonic() < deadline, "pgbouncer did not come up"
            time.sleep(0.02)
        else:
            return


@pytest.fixture(scope="module")
def url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/test?sslmode=disable"


@pytest.fixture(scope="module")
def _migrated(url: str, server: PostgresqlServer, base_settings: Settings, tmp_path_factory: Any) -> None:
    """Migrations need one session from beginning to end, and so take the direct way."""
    folder = tmp_path_factory.mktemp("migrated")
    settings = settings_for(url, base_settings, folder, db_pgbouncer=True, db_direct_url=server.url("test"))
    _end_sessions(server)
    Migrator(direct_address(settings.database)).migrate()
    assert _count_sessions(server) == 0, "the migration went through PgBouncer"


def _count_sessions(server: PostgresqlServer) -> int:
    rows = server.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = 'test' AND pid <> pg_backend_pid()")
    return int(rows[0][0])


def _end_sessions(server: PostgresqlServer) -> None:
    server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'test'")


@pytest.fixture
def make(url: str, _migrated: None, server: PostgresqlServer, base_settings: Settings, tmp_path: Path) -> Make:
    server.execute(EMPTY_ALL_TABLES, database="test")

    def make(address: str = url, **values: Any) -> DataLayer:
        usual: dict[str, Any] = {"db_pgbouncer": True, "db_max_connections": 30, "db_min_connections": 5}
        return DataLayer(settings_for(address, base_settings, tmp_path, **(usual | values)))

    return make


@pytest.mark.slow
async def test_thirty_clients_share_two_connections(make: Make, server: PostgresqlServer) -> None:
    user, project = make_user(), make_project()
    project.user_id = user.id
    most = 0
    async with make() as data, observing(server.url("test")) as observer:
        async with data.transaction() as tx:
            tx.add(user)
            tx.add(project)

        async def work(number: int) -> None:
            for _ in range(8):  # More often than it takes to prepare a statement.
                async with data.transaction() as tx:
                    assert (await tx.users.get(user.id)).email == user.email
                    code = make_code(project, code=f"<p>{number}</p>")
                    tx.add(code)
                    await tx.flush()
                    assert (await tx.codes.get(code.id)).code == f"<p>{number}</p>"
                async with data.transaction() as tx:
                    await tx.projects.increment(project.id, "view_count")
                async with data.transaction() as tx:
                    found = await tx.users.find_one(email=user.email.upper())
                    assert found is not None
                    assert found.id == user.id

        running = asyncio.gather(*(work(number) for number in range(30)))
        while not running.done():
            most = max(most, await count_connections(observer, "data-layer"))
        await running
        async with data.transaction() as tx:
            stored = await tx.projects.get(project.id)
            versions = [summary.version for summary in await tx.codes.summaries(project.id)]
        assert (stored.view_count, stored.generation_count) == (240, 240)
        assert versions[:3] == [1, 2, 3]
        assert 1 <= most <= BOUNCER_CONNECTIONS


async def test_errors_and_cancellation_leave_nothing_behind(make: Make) -> None:
    async with make(db_min_connections=2, db_max_connections=4) as data:
        async with data.transaction() as tx:
            tx.add(make_user(email="same@example.com"))

        async def add_it_again(email: str) -> None:
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()
                tx.add(make_user(email=email))

        results = await asyncio.gather(*(add_it_again("SAME@example.com") for _ in range(8)), return_exceptions=True)
        assert {type(result) for result in results} == {DuplicateError}

        async def wait_long() -> None:
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()
                await tx.execute(text("SELECT pg_sleep(20)"))

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait_long(), 0.3)
        assert await emails(data) == ["same@example.com"]
        assert data.database.pool_figures()["in_use"] == 0


async def test_limits_are_set_for_each_transaction(make: Make) -> None:
    async with make(db_statement_timeout=0.3) as data:
        with pytest.raises(StatementTimeoutError, match="DB_STATEMENT_TIMEOUT"):
            async with data.transaction() as tx:
                await tx.execute(text("SELECT pg_sleep(20)"))
        names = ("statement_timeout", "idle_in_transaction_session_timeout", "timezone")
        async with data.transaction() as tx:
            values = [(await tx.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
        assert values == ["300ms", "600ms", "UTC"]
    async with make(db_statement_timeout=8) as data, data.transaction() as tx:
        # Nothing stuck to the connections to the server.
        assert (await tx.execute(text("SHOW statement_timeout"))).scalar_one() == "8s"


async def test_what_the_role_presets_changes_nothing(make: Make) -> None:
    names = ("client_encoding", "DateStyle", "bytea_output", "transaction_isolation", "lock_timeout")
    user = make_user(first_name="\N{GRINNING FACE}")
    async with make() as data:
        async with data.transaction() as tx:
            tx.add(user)
        async with data.transaction() as tx:
            read = await tx.users.get(user.id)
            values = [(await tx.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
            number = (await tx.execute(text("SELECT 0.1234567890123456::float8"))).scalar_one()
    assert (read.first_name, read.created_at) == (user.first_name, user.created_at)
    assert values == ["UTF8", "ISO, MDY", "hex", "read committed", "0"]
    assert number == 0.1234567890123456


async def test_a_transaction_that_does_nothing_is_ended(make: Make, server: PostgresqlServer) -> None:
    async def nothing_is_open() -> bool:
        rows = server.execute("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'")
        return bool(rows[0][0] == 0)

    async with make(db_statement_timeout=0.2) as data:
        with pytest.raises((StatementTimeoutError, DatabaseUnavailableError)):
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()
                await until(nothing_is_open)
                await tx.users.count()
        assert await emails(data) == []


def _wait_for_login(url: str) -> None:
    """Wait until PgBouncer has got into the server, which it may have tried in vain while that started.

    It lets clients in without asking the server: only a statement shows it.
    """
    deadline = time.monotonic() + 20
    while True:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "pgbouncer does not get into the server"
            time.sleep(0.02)
        else:
            return


async def test_a_restart_of_the_server_is_survived(make: Make, server: PostgresqlServer, url: str) -> None:
    async with make(db_min_connections=4) as data:
        for stop in (StopMode.FAST, StopMode.KILL):
            await asyncio.to_thread(server.restart, stop)
            await asyncio.to_thread(_wait_for_login, url)

            async def write() -> None:
                async with data.transaction() as tx:
                    tx.add(make_user())

            await asyncio.gather(*(write() for _ in range(4)))
        assert len(await emails(data)) == 8


async def test_forgetting_to_name_pgbouncer_is_told(make: Make) -> None:
    with pytest.raises(DatabaseError, match="set DB_PGBOUNCER=true"):
        async with make(db_pgbouncer=False):
            pass


async def test_a_database_that_pgbouncer_does_not_know_is_told(make: Make, url: str) -> None:
    with pytest.raises(DatabaseMissingError):
        async with make(url.replace("/test", "/nowhere")):
            pass


async def test_too_many_clients_of_pgbouncer_are_told(make: Make) -> None:
    with pytest.raises(DatabaseUnavailableError, match="lower DB_MAX_CONNECTIONS"):
        async with make(db_min_connections=61, db_max_connections=61):
            pass
