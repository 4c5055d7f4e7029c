"""``make bench-database``: reading and saving one row, import time and start, against named peers in one run.

Peers, on the same server in the same run:

- raw: psycopg's own pool and the same statements by hand, the least that Python can do;
- ORM: SQLAlchemy as a typical FastAPI project writes it: a session per request, ``get``, ``add``, ``commit``,
  ``refresh``.

All of them read the same row of 12 KB by its id, and save such a row together with an audit entry in one transaction.
Rounds of the candidates alternate, so that a disturbance meets all of them; the median round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg_pool
from measuring import Figures, measure, median
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from uuid_utils.compat import uuid7

from data_layer import AuditLog, DataLayer, GeneratedCode, Project, Settings, User
from data_layer.entities.enums import AuditAction, GenerationProvider

CODE = ("<div class='card'>\N{LATIN SMALL LETTER U WITH DIAERESIS}ber " + "x" * 200 + "</div>\n") * 52
WORKERS = (1, 32)
POOL_SIZE = 20
console = Console()


class Rows:
    """The rows that are read and referred to."""

    def __init__(self) -> None:
        self.user = User(email=f"{uuid7()}@example.com", first_name="Bench", last_name="Mark")
        # Several projects, as several users have: versions of one project are numbered one after the other.
        self.projects = [Project(user_id=self.user.id, name=f"Project {number}") for number in range(64)]
        self.code = self.new_code(self.projects[0].id)
        self._turn = 0

    def next_project(self) -> UUID:
        self._turn += 1
        return self.projects[self._turn % len(self.projects)].id

    def new_code(self, project_id: UUID) -> GeneratedCode:
        return GeneratedCode(
            project_id=project_id, code=CODE, provider=GenerationProvider.CLAUDE, model="model", metrics={"tokens": 1}
        )

    def new_entry(self, code: GeneratedCode) -> AuditLog:
        return AuditLog.data_action(AuditAction.CODE_GENERATE, self.user.id, "generated_code", code.id, "Generated")


class Ours:
    """This library: ``transaction()`` and its repositories."""

    name = "data layer"

    def __init__(self, data: DataLayer, rows: Rows) -> None:
        self._data = data
        self._rows = rows

    async def read(self) -> None:
        async with self._data.transaction() as tx:
            code = await tx.codes.get(self._rows.code.id)
        assert len(code.code) == len(CODE)

    async def save(self) -> None:
        code = self._rows.new_code(self._rows.next_project())
        async with self._data.transaction() as tx:
            tx.add(code)
            tx.add(self._rows.new_entry(code))
        assert code.version > 0


class Raw:
    """psycopg by hand."""

    name = "raw psycopg"

    def __init__(self, pool: psycopg_pool.AsyncConnectionPool[Any], rows: Rows) -> None:
        self._pool = pool
        self._rows = rows
        columns = [column.name for column in GeneratedCode.__table__.columns]
        self._select = f"SELECT {', '.join(columns)} FROM generated_codes WHERE id = %s"

    async def read(self) -> None:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(self._select, (self._rows.code.id,))
            row = await cursor.fetchone()
        assert row is not None

    async def save(self) -> None:
        code_id = uuid7()
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "INSERT INTO generated_codes (id, project_id, code, code_stack, provider, model, status, metrics, "
                "generation_id, variant_index) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 0) "
                "RETURNING version, created_at, updated_at",
                (
                    *(code_id, self._rows.next_project(), CODE, "html_tailwind", "claude", "model", "pending"),
                    *(Jsonb({"tokens": 1}), uuid7()),
                ),
            )
            assert await cursor.fetchone()
            await connection.execute(
                "INSERT INTO audit_logs (id, user_id, action, category, description, resource_type, resource_id) "
                "VALUES (%s, %s, 'code_generate', 'data_modification', 'Generated', 'generated_code', %s)",
                (uuid7(), self._rows.user.id, str(code_id)),
            )


class Orm:
    """SQLAlchemy's ORM, a session per request."""

    name = "SQLAlchemy ORM"

    def __init__(self, sessions: async_sessionmaker[AsyncSession], rows: Rows) -> None:
        self._sessions = sessions
        self._rows = rows

    async def read(self) -> None:
        async with self._sessions() as session:
            code = await session.get(GeneratedCode, self._rows.code.id)
        assert code is not None

    async def save(self) -> None:
        code = self._rows.new_code(self._rows.next_project())
        async with self._sessions() as session:
            session.add(code)
            session.add(self._rows.new_entry(code))
            await session.commit()
            await session.refresh(code)
        assert code.version > 0


async def compare(candidates: list[Any], verb: str, workers: int, rounds: int, seconds: float) -> dict[str, Figures]:
    """What was measured of each candidate, the median of all rounds."""
    figures: dict[str, list[Figures]] = {candidate.name: [] for candidate in candidates}
    operations = {candidate.name: getattr(candidate, verb) for candidate in candidates}
    for operation in operations.values():
        await measure(operation, workers, 0.5)
    for _ in range(rounds):
        for name, operation in operations.items():
            figures[name].append(await measure(operation, workers, seconds))
    return {name: median(values) for name, values in figures.items()}


@asynccontextmanager
async def all_clients(
    folder: Path, redis_url: str | None = None
) -> AsyncIterator[tuple[DataLayer, psycopg_pool.AsyncConnectionPool[Any], async_sessionmaker[AsyncSession]]]:
    """The data layer on embedded servers, psycopg's pool and SQLAlchemy's sessions, with as many connections each."""
    settings = Settings(
        data_folder=folder / "servers",
        local_storage_path=folder / "uploads",
        redis_url=redis_url,
        db_max_connections=POOL_SIZE,
        db_min_connections=POOL_SIZE,
        log_level="error",
    )
    async with DataLayer(settings) as data:
        url = data.database.address.url
        pool = psycopg_pool.AsyncConnectionPool(
            url.set(drivername="postgresql").render_as_string(hide_password=False),
            min_size=POOL_SIZE,
            max_size=POOL_SIZE,
            open=False,
            kwargs={"autocommit": True},
        )
        engine = create_async_engine(url, pool_size=POOL_SIZE, max_overflow=0)
        async with pool:
            await pool.wait()
            gc.freeze()  # As a process that serves does, or looking at all that is imported is part of every candidate.
            yield data, pool, async_sessionmaker(engine, expire_on_commit=False)
        await engine.dispose()


async def bench_rows(folder: Path, rounds: int, seconds: float) -> None:
    """Read and save, with one worker and with 32."""
    async with all_clients(folder) as (data, pool, sessions):
        rows = Rows()
        async with data.transaction() as tx:
            for row in (rows.user, *rows.projects, rows.code):
                tx.add(row)
        candidates = [Ours(data, rows), Raw(pool, rows), Orm(sessions, rows)]
        for verb in ("read", "save"):
            for workers in WORKERS:
                report(verb, workers, await compare(candidates, verb, workers, rounds, seconds))


def report(verb: str, workers: int, figures: dict[str, Figures]) -> None:
    """Print one comparison."""
    ours = figures[Ours.name].rate
    table = Table(title=f"{verb} one row of 12 KB, {workers} workers", title_justify="left", box=None)
    for column in ("candidate", "per second", "data layer / candidate", "µs of processor"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for name, (rate, processor) in figures.items():
        table.add_row(name, f"{rate:,.0f}", f"{ours / rate:.2f}", f"{processor:,.0f}")
    console.print(table)
    console.print()


def bench_import(rounds: int) -> None:
    """Import time of the package alone, and of everything that opens it."""
    baseline = _seconds([sys.executable, "-c", "pass"], rounds)
    for statement in ("import data_layer", "from data_layer import DataLayer", "import sqlalchemy.ext.asyncio"):
        took = _seconds([sys.executable, "-c", statement], rounds) - baseline
        console.print(f"{statement:<34} {took * 1000:6.0f} ms (without Python's own start)")
    console.print()


def _seconds(command: list[str], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


OPEN_AND_CLOSE = """
import asyncio, sys, time
from pathlib import Path
from data_layer import DataLayer, Settings
async def main():
    folder = Path(sys.argv[1])
    started = time.perf_counter()
    async with DataLayer(Settings(data_folder=folder / "servers", local_storage_path=folder / "uploads")):
        print(time.perf_counter() - started)
asyncio.run(main())
"""


def bench_start(folder: Path) -> None:
    """Opening the data layer with embedded servers: on an empty folder, and again."""
    for name in ("cold (initdb, migration)", "warm", "warm"):
        started = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-c", OPEN_AND_CLOSE, str(folder)], check=True, capture_output=True, text=True
        )
        whole = time.perf_counter() - started
        opened = float(result.stdout.split()[-1])
        console.print(f"start {name:<26} open {opened:5.2f} s   process with imports and stop {whole:5.2f} s")
    console.print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each candidate")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench_import(options.rounds)
        bench_start(Path(folder) / "start")
        asyncio.run(bench_rows(Path(folder) / "rows", options.rounds, options.seconds))


if __name__ == "__main__":
    main()
