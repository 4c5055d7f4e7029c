"""``make bench-projects``: opening and listing projects, listing versions and saving one, against named peers.

All of them work on the same server in the same run, with the same rows: 64 projects of one person with 50 versions of
12 KB each, and with statistics as autovacuum makes them. Rounds of the candidates alternate, so that a disturbance
meets all of them; the median round counts. Beside each rate stands the processor time of the candidate's own process
for each time, all threads together.

- data layer, cached: the services as an application calls them, after the first call;
- data layer, database: the query behind it, without the cache;
- data layer, invalidated before: the service, with what it has cached removed before each call;
- raw psycopg: psycopg's own pool, prepared statements, the same rows as dicts;
- SQLAlchemy ORM: a session per request, as a typical FastAPI project writes it;
- TypeORM: a transaction per request, in a Node.js of its own.

Saved is a finished generation with one variant, its entry in the ledger and its audit entry, by the project's owner.
By hand it is one prepared statement (a CTE), the least that can be done; the ORMs need a transaction of several. "By
hand, keys deleted" also removes the keys of the project and of its owner's list with redis-py afterwards, in one round
trip, which is what people write where a cache is to hear of a change (it can store an old value between the two).
Imported are 200 of them at once; by hand with COPY into the same tables.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psycopg
import psycopg_pool
from measuring import Figures, Operation, measure, median
from node_loop import NodeLoop, node_loop
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import defer
from uuid_utils.compat import uuid7

from data_layer import AuditLog, DataLayer, GeneratedCode, Project, User
from data_layer.entities import Generation, UsageEntry
from data_layer.entities.enums import AuditAction, GenerationProvider, GenerationStatus, ProjectStatus, UsageOutcome
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.generations import (
    FinishedGeneration,
    FinishedVariant,
    GenerationRequest,
    GenerationRow,
    VariantModel,
    VariantResult,
)
from data_layer.schemas.projects import ProjectFull, ProjectSummary
from data_layer.services.generations.recording import Recording
from data_layer.services.project_keys import keys_of_project, owner_key, project_key
from data_layer.testing.redis_server import RedisServer
from database import CODE, POOL_SIZE, WORKERS, all_clients

PROJECTS, VERSIONS, PAGE, IMPORTED = 64, 50, 50, 200
Candidates = Mapping[str, Operation | NodeLoop]
console = Console()

CODE_COLUMNS = [name for name in GeneratedCodeSummary.model_fields if name != "code_size"]
OPEN = f"SELECT {', '.join(ProjectFull.model_fields)} FROM projects WHERE id = %s"
LIST = (
    f"SELECT {', '.join(ProjectSummary.model_fields)} FROM projects WHERE user_id = %s AND status <> 'deleted' "
    f"ORDER BY updated_at DESC, id DESC LIMIT {PAGE}"
)
HISTORY = (
    f"SELECT {', '.join(f'g.{name}' for name in GenerationRow.model_fields)}, "
    f"{', '.join(f'c.{name} AS c_{name}' for name in CODE_COLUMNS)}, octet_length(c.code) AS code_size "
    "FROM generations g JOIN generated_codes c ON c.generation_id = g.id WHERE g.project_id = %s "
    f"ORDER BY g.number DESC, c.variant_index LIMIT {PAGE}"
)
SAVE = """
WITH made AS (
    INSERT INTO generations (id, project_id, prompt, created_by, ended_at)
    SELECT %s, id, 'A landing page', user_id, now() FROM projects
    WHERE id = %s AND user_id = %s AND status <> 'deleted'
    RETURNING id, project_id, created_by, number
), code AS (
    INSERT INTO generated_codes (
        id, project_id, generation_id, variant_index, code, code_stack, provider, model, status, original_prompt,
        prompt_tokens, completion_tokens, total_tokens
    )
    SELECT %s, project_id, id, 0, %s, 'html_tailwind', 'claude', 'model', 'completed', 'A landing page', 900, 4000, 4900
    FROM made
), usage AS (
    INSERT INTO usage_entries (
        id, user_id, key, project_id, code_id, provider, model, code_stack, outcome, input_tokens, output_tokens, cost
    )
    SELECT %s, created_by, %s, project_id, %s, 'claude', 'model', 'html_tailwind', 'completed', 900, 4000, 0.0627
    FROM made
), audit AS (
    INSERT INTO audit_logs (id, user_id, action, category, description, resource_type, resource_id, new_values)
    SELECT %s, created_by, 'code_generate', 'data_modification', 'Recorded a generation', 'generation', %s,
        jsonb_build_object('number', number)
    FROM made
)
SELECT number FROM made
"""
COPIED = (
    "generations (id, project_id, number, prompt, created_by, ended_at)",
    (
        "generated_codes (id, project_id, generation_id, variant_index, code, provider, model, code_stack, status, "
        "original_prompt, prompt_tokens, completion_tokens, total_tokens)"
    ),
    (
        "usage_entries (id, user_id, key, project_id, code_id, provider, model, code_stack, outcome, input_tokens, "
        "output_tokens, cost)"
    ),
    "audit_logs (id, user_id, action, category, description, resource_type, resource_id, new_values)",
)
COST = Decimal("0.0627")
REQUEST = GenerationRequest(prompt="A landing page")
VARIANT = FinishedVariant(
    code=CODE,
    model=VariantModel(provider=GenerationProvider.CLAUDE, name="model"),
    result=VariantResult(prompt_tokens=900, completion_tokens=4000, cost=COST),
)


class Rows:
    """What is read, and where to save."""

    def __init__(self) -> None:
        self.user = User(email=f"{uuid7()}@example.com", first_name="Bench", last_name="Mark")
        self.actor = Actor.user(self.user.id)
        self.projects = [self._project(number) for number in range(PROJECTS)]
        self.ids = [project.id for project in self.projects]
        # Versions are saved to other projects than those that are read, so that histories keep their length.
        self.written = [self._project(number) for number in range(PROJECTS)]
        self._turn = 0

    def _project(self, number: int) -> Project:
        return Project(
            user_id=self.user.id,
            name=f"Landing page {number}",
            description="The page that everybody sees first, with prices and the names of our customers",
            status=ProjectStatus.ACTIVE,
            tags=["landing", "pricing"],
            settings={"stack": "html_tailwind", "theme": {"dark": True, "accent": "#0af"}, "fonts": ["Inter", "Sora"]},
        )

    def next_id(self) -> UUID:
        self._turn += 1
        return self.ids[self._turn % PROJECTS]

    def next_written(self) -> UUID:
        self._turn += 1
        return self.written[self._turn % PROJECTS].id

    def new_code(self, project_id: UUID) -> GeneratedCode:
        return GeneratedCode(
            project_id=project_id,
            code=CODE,
            provider=GenerationProvider.CLAUDE,
            model="model",
            status=GenerationStatus.COMPLETED,
            metrics={"tokens": 1},
        )

    def new_entry(self, generation: Generation) -> AuditLog:
        return AuditLog.data_action(
            *(AuditAction.CODE_GENERATE, self.user.id, "generation", generation.id, "Recorded a generation"),
            new_values={"number": generation.number},
        )


class Ours:
    """The services, and the transaction that an application opens itself."""

    def __init__(self, data: DataLayer, rows: Rows) -> None:
        self._data = data
        self._rows = rows
        # The same service on transactions that announce nothing to the cache, to see what that costs.
        nothing = cast("Any", None)  # It neither reads the cache nor counts views.
        self._without_hooks = Recording(partial(UnitOfWork, data.database), nothing, nothing)

    async def open(self) -> None:
        project = await self._data.projects.open(self._rows.actor, self._rows.next_id())
        assert project.tags

    async def open_uncached(self) -> None:
        project_id = self._rows.next_id()
        async with self._data.transaction() as tx:
            assert await tx.projects.view(project_id)

    async def list(self) -> None:
        assert len((await self._data.projects.list(self._rows.actor, limit=PAGE)).projects) == PAGE

    async def list_missed(self) -> None:
        await self._data.cache.invalidate(owner_key(self._rows.user.id))
        await self.list()

    async def history(self) -> None:
        history = await self._data.generations.history(self._rows.actor, self._rows.next_id(), limit=PAGE)
        assert len(history) == VERSIONS

    async def history_uncached(self) -> None:
        async with self._data.transaction() as tx:
            generations, codes = await tx.generations.history(self._rows.next_id(), limit=PAGE, before=None)
        assert len(generations) == len(codes) == VERSIONS

    async def open_missed(self) -> None:
        project_id = self._rows.next_id()
        await self._data.cache.invalidate(project_key(project_id))
        await self._data.projects.open(self._rows.actor, project_id)

    async def history_missed(self) -> None:
        project_id = self._rows.next_id()
        await self._data.cache.invalidate(project_key(project_id))
        await self._data.generations.history(self._rows.actor, project_id, limit=PAGE)

    async def invalidate(self) -> None:
        await self._data.cache.invalidate(project_key(self._rows.next_id()))

    async def save(self) -> None:
        recorded = await self._data.generations.record(self._rows.actor, self._rows.next_written(), REQUEST, [VARIANT])
        assert recorded.number > 0

    async def save_without_invalidation(self) -> None:
        recorded = await self._without_hooks.record(self._rows.actor, self._rows.next_written(), REQUEST, [VARIANT])
        assert recorded.number > 0

    async def import_many(self) -> None:
        finished = [FinishedGeneration(request=REQUEST, variants=(VARIANT,)) for _ in range(IMPORTED)]
        imported = await self._data.generations.import_many(self._rows.actor, self._rows.next_written(), finished)
        assert len(imported) == IMPORTED


class Raw:
    """psycopg by hand."""

    def __init__(self, pool: psycopg_pool.AsyncConnectionPool[Any], redis: Redis, rows: Rows) -> None:
        self._pool = pool
        self._redis = redis
        self._rows = rows

    async def _all(self, sql: str, *values: object) -> list[dict[str, Any]]:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            rows: list[dict[str, Any]] = await (await cursor.execute(sql, values, prepare=True)).fetchall()
            return rows

    async def open(self) -> None:
        assert await self._all(OPEN, self._rows.next_id())

    async def list(self) -> None:
        assert len(await self._all(LIST, self._rows.user.id)) == PAGE

    async def history(self) -> None:
        assert len(await self._all(HISTORY, self._rows.next_id())) == VERSIONS

    async def save(self) -> None:
        await self._save(self._rows.next_written())

    async def save_and_delete(self) -> None:
        project_id = self._rows.next_written()
        await self._save(project_id)
        await self._redis.delete(*keys_of_project(project_id, self._rows.user.id))

    async def _save(self, project_id: UUID) -> None:
        generation_id, code_id, usage_id, entry_id = uuid7(), uuid7(), uuid7(), uuid7()
        user_id = self._rows.user.id
        values = (generation_id, project_id, user_id, code_id, CODE, usage_id, str(code_id), code_id)
        assert await self._all(SAVE, *values, entry_id, str(generation_id))

    async def import_many(self) -> None:
        project_id, user_id, now = self._rows.next_written(), self._rows.user.id, datetime.now(UTC)
        ids = [(uuid7(), uuid7()) for _ in range(IMPORTED)]
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "UPDATE projects SET generation_count = generation_count + %s WHERE id = %s AND user_id = %s "
                "RETURNING generation_count",
                (IMPORTED, project_id, user_id),
            )
            last = await cursor.fetchone()
            assert last
            numbered = list(enumerate(ids, last[0] - IMPORTED + 1))
            model = ("claude", "model", "html_tailwind")
            tokens = (900, 4000)
            said = ("code_generate", "data_modification", "Recorded a generation", "generation")
            rows: list[Iterable[tuple[object, ...]]] = [
                ((new[0], project_id, number, "A landing page", user_id, now) for number, new in numbered),
                (
                    (new[1], project_id, new[0], 0, CODE, *model, "completed", "A landing page", *tokens, sum(tokens))
                    for new in ids
                ),
                (
                    (uuid7(), user_id, str(new[1]), project_id, new[1], *model, "completed", *tokens, COST)
                    for new in ids
                ),
                ((uuid7(), user_id, *said, str(new[0]), Jsonb({"number": number})) for number, new in numbered),
            ]
            for table, each in zip(COPIED, rows, strict=True):
                async with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                    for row in each:
                        await copy.write_row(row)


class Orm:
    """SQLAlchemy's ORM, a session per request."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], rows: Rows) -> None:
        self._sessions = sessions
        self._rows = rows

    async def open(self) -> None:
        async with self._sessions() as session:
            assert await session.get(Project, self._rows.next_id())

    async def list(self) -> None:
        query = select(Project).where(Project.user_id == self._rows.user.id, Project.status != ProjectStatus.DELETED)
        async with self._sessions() as session:
            found = await session.scalars(query.order_by(Project.updated_at.desc(), Project.id.desc()).limit(PAGE))
            assert len(found.all()) == PAGE

    async def history(self) -> None:
        query = select(GeneratedCode).where(GeneratedCode.project_id == self._rows.next_id())
        query = query.options(defer(GeneratedCode.code)).order_by(GeneratedCode.version.desc()).limit(PAGE)
        async with self._sessions() as session:
            assert len((await session.scalars(query)).all()) == VERSIONS

    async def save(self) -> None:
        project_id, user_id = self._rows.next_written(), self._rows.user.id
        async with self._sessions() as session:
            project = await session.get(Project, project_id)
            assert project is not None
            assert project.user_id == user_id
            generation = Generation(project_id=project_id, prompt="A landing page", created_by=user_id)
            generation.ended_at = datetime.now(UTC)
            session.add(generation)
            await session.flush()  # Our entities have no relationships by which SQLAlchemy would order them.
            code = self._rows.new_code(project_id)
            code.generation_id, code.original_prompt = generation.id, generation.prompt
            code.prompt_tokens, code.completion_tokens, code.total_tokens = 900, 4000, 4900
            session.add(code)
            session.add(
                UsageEntry(
                    user_id=user_id,
                    key=str(code.id),
                    project_id=project_id,
                    code_id=code.id,
                    provider="claude",
                    model="model",
                    code_stack=code.code_stack,
                    outcome=UsageOutcome.COMPLETED,
                    input_tokens=900,
                    output_tokens=4000,
                    cost=COST,
                )
            )
            session.add(self._rows.new_entry(generation))
            await session.commit()
        assert generation.number > 0


async def figures_of(candidate: Operation | NodeLoop, workers: int, seconds: float) -> Figures:
    """What is measured of it."""
    if isinstance(candidate, NodeLoop):
        return await candidate.measure(workers=workers, seconds=seconds)
    return await measure(candidate, workers, seconds)


async def compare(candidates: Candidates, workers: int, rounds: int, seconds: float) -> dict[str, Figures]:
    """What was measured of each candidate, the median of all rounds."""
    for candidate in candidates.values():
        await figures_of(candidate, workers, min(seconds, 0.5))
    figures: dict[str, list[Figures]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            figures[name].append(await figures_of(candidate, workers, seconds))
    return {name: median(values) for name, values in figures.items()}


def report(title: str, figures: Mapping[int, Mapping[str, Figures]], base: str) -> None:
    """Print one comparison, each candidate as a ratio to the one that is the base."""
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("candidate")
    for workers in figures:
        for column in (f"{workers} workers, a second", f"x {base}", "µs of processor"):
            table.add_column(column, justify="right")
    for name in next(iter(figures.values())):
        cells = []
        for each in figures.values():
            rate, processor = each[name]
            cells += [f"{rate:,.0f}", f"{rate / each[base].rate:.2f}", f"{processor:,.0f}"]
        table.add_row(name, *cells)
    console.print(table)
    console.print()


async def fill(data: DataLayer, rows: Rows) -> None:
    """Store what is read."""
    async with data.transaction() as tx:
        for row in (rows.user, *rows.projects, *rows.written):
            tx.add(row)
    for project_id in rows.ids:
        async with data.transaction() as tx:
            for _ in range(VERSIONS):
                tx.add(rows.new_code(project_id))
    async with data.database.engine.connect() as connection:  # As a database has it that has run for a while.
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text("VACUUM ANALYZE"))


async def bench(folder: Path, rounds: int, seconds: float, only: str) -> None:
    """Everything, with one worker and with 32."""
    with RedisServer() as server:
        async with all_clients(folder, server.url) as (data, pool, sessions), Redis.from_url(server.url) as redis:
            rows = Rows()
            await fill(data, rows)
            async with typeorm(data, rows, folder / "node") as peer:
                raw = Raw(pool, redis, rows)
                for title, base, candidates in works(Ours(data, rows), raw, Orm(sessions, rows), peer):
                    if only in title:
                        numbers = WORKERS[:1] if title.startswith("import") else WORKERS
                        figures = {each: await compare(candidates, each, rounds, seconds) for each in numbers}
                        report(title, figures, base)


def typeorm_connection(data: DataLayer) -> dict[str, Any]:
    """The address of the same server, as TypeORM takes it."""
    url = data.database.address.url.set(drivername="postgresql").render_as_string(hide_password=False)
    known = psycopg.conninfo.conninfo_to_dict(url)
    names = {"host": "host", "port": "port", "user": "username", "password": "password", "dbname": "database"}
    return {there: known[here] for here, there in names.items() if known.get(here)}


def typeorm(data: DataLayer, rows: Rows, folder: Path) -> AbstractAsyncContextManager[NodeLoop]:
    """TypeORM on the same server, with as many connections."""
    task = {
        "connection": typeorm_connection(data),
        "projects": [str(project.id) for project in rows.written],
        "user": str(rows.user.id),
        "code": CODE,
        "pool": POOL_SIZE,
    }
    return node_loop(folder, "typeorm_loop.mjs", json.dumps(task))


def works(ours: Ours, raw: Raw, orm: Orm, peer: NodeLoop) -> list[tuple[str, str, Candidates]]:
    """What is measured: its title, the candidate that the others are compared with, and all candidates."""
    by_hand = "raw psycopg"
    return [
        (
            "open a project",
            by_hand,
            {
                "data layer, cached": ours.open,
                "data layer, database": ours.open_uncached,
                "data layer, invalidated before": ours.open_missed,
                "invalidation alone": ours.invalidate,
                by_hand: raw.open,
                "SQLAlchemy ORM": orm.open,
            },
        ),
        (
            f"list {PAGE} projects",
            by_hand,
            {
                "data layer, cached": ours.list,
                "data layer, invalidated before": ours.list_missed,
                by_hand: raw.list,
                "SQLAlchemy ORM": orm.list,
            },
        ),
        (
            f"list {VERSIONS} versions",
            by_hand,
            {
                "data layer, cached": ours.history,
                "data layer, database": ours.history_uncached,
                "data layer, invalidated before": ours.history_missed,
                by_hand: raw.history,
                "SQLAlchemy ORM": orm.history,
            },
        ),
        (
            "save a generation: 12 KB, audit, ledger",
            "by hand in one statement",
            {
                "data layer": ours.save,
                "data layer, without invalidation": ours.save_without_invalidation,
                "by hand in one statement": raw.save,
                "by hand, keys deleted": raw.save_and_delete,
                "SQLAlchemy ORM": orm.save,
                "TypeORM": peer,
            },
        ),
        (
            f"import {IMPORTED} generations of 12 KB, audit, ledger",
            "COPY by hand",
            {"data layer": ours.import_many, "COPY by hand": raw.import_many},
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each candidate")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    parser.add_argument("--only", default="", help="part of the title of what to measure, such as save")
    options = parser.parse_args()
    console.print(f"load average {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asyncio.run(bench(Path(folder), options.rounds, options.seconds, options.only))


if __name__ == "__main__":
    main()
