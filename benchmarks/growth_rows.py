"""What ``make bench-growth`` fills its servers with, and how: everything in proportion to the generations.

Ten generations to a project, twenty projects to a person, four sessions to a person; a short code, an entry of the
ledger and half an audit entry to each generation, spread over a year; a file to each project.

Rows are inserted as triggers would make them, but without triggers and foreign keys, and secondary indexes are built
afterwards as they were, because that is faster. A file beside the server says that it is filled completely, so that it
can be used again.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from rich.console import Console

from data_layer import DataLayer, Settings
from data_layer.repositories.audit_partitions import AuditPartitions, Month

GENERATIONS_OF_A_PROJECT, PROJECTS_OF_A_PERSON = 10, 20
GENERATIONS_OF_AN_AUDIT_ENTRY, SESSIONS_OF_A_PERSON = 2, 4
FIRST_WORDS = [
    "landing",
    "pricing",
    "checkout",
    "profile",
    "gallery",
    "settings",
    "invoice",
    "calendar",
    "report",
    "inbox",
]
SECOND_WORDS = [
    "bakery",
    "hospital",
    "museum",
    "airline",
    "florist",
    "library",
    "stadium",
    "brewery",
    "school",
    "harbour",
]
FILLERS = 2
MARK = "filled"
console = Console(width=160)

# Ids that say when they were made, as those of the application do. Those of the audit trail choose its months.
BASE = 1_700_000_000_000
_ID = "(lpad(to_hex({milliseconds}), 12, '0') || '7000a000' || lpad(to_hex({n}), 12, '0'))::uuid"
_AT = "LATERAL (SELECT %(now)s::timestamptz - interval '364 days' * (1 - n::float8 / {total}) AS made) AS made"
_NUMBERS = (
    "generate_series(%(first)s::int, %(last)s::int) AS n, "
    "(SELECT %(people)s AS people, %(projects)s AS projects) AS size"
)
_MODEL, _STACK = "'model ' || n %% 5", "(ARRAY['html_tailwind', 'react_tailwind', 'svg'])[1 + n %% 3]"
_WORDS = f"(ARRAY{FIRST_WORDS})[1 + n %% 10] || ' ' || (ARRAY{SECOND_WORDS})[1 + n / 10 %% 10] || ' ' || 'number' || n"


def sql_id(n: str) -> str:
    """An expression for the id of the row with this number."""
    return _ID.format(milliseconds=f"{BASE} + ({n})", n=f"({n})")


def uuid_of(n: int) -> UUID:
    """The id of the row with this number, in every table but the audit trail."""
    return UUID(f"{BASE + n:012x}7000a000{n:012x}")


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows there are."""

    generations: int

    @property
    def projects(self) -> int:
        return max(1, self.generations // GENERATIONS_OF_A_PROJECT)

    @property
    def people(self) -> int:
        return max(1, self.projects // PROJECTS_OF_A_PERSON)

    @property
    def sessions(self) -> int:
        return self.people * SESSIONS_OF_A_PERSON

    @property
    def audit_entries(self) -> int:
        return self.generations // GENERATIONS_OF_AN_AUDIT_ENTRY


@dataclass(frozen=True, slots=True)
class Fill:
    """Fills one table in batches, each a statement for the numbers from ``%(first)s`` to ``%(last)s``."""

    table: str
    count: Callable[[Size], int]
    statement: str
    finish: str = ""


FILLS = (
    Fill(
        "users",
        lambda size: size.people,
        f"""
        INSERT INTO users (id, email, first_name, last_name, status)
        SELECT {sql_id("n")}, n || '@example.com', 'A', 'B', 'active' FROM {_NUMBERS}
        """,
    ),
    Fill(
        "sessions",
        lambda size: size.sessions,
        f"""
        INSERT INTO sessions (
            id, session_id, user_id, expires_at, last_active_at, ip_address, user_agent, browser, operating_system,
            request_count, created_at, updated_at
        )
        SELECT {sql_id("n")}, encode(sha256(n::text::bytea), 'hex'), {sql_id("n %% people")},
            now() + interval '30 days', made, '192.0.2.1',
            'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0', 'Firefox', 'Linux', n %% 500,
            made, made
        FROM {_NUMBERS}, {_AT.format(total="%(sessions)s")}
        """,
    ),
    Fill(
        "projects",
        lambda size: size.projects,
        f"""
        INSERT INTO projects (
            id, user_id, name, description, status, tags, view_count, generation_count, last_generated_at, created_at,
            updated_at, search_vector
        )
        SELECT {sql_id("n")}, {sql_id("n %% people")}, name, 'What the page shows first',
            (ARRAY['draft', 'active', 'completed', 'archived'])[1 + n %% 4], '["landing"]', n %% 1000,
            {GENERATIONS_OF_A_PROJECT}, made, made, made,
            setweight(to_tsvector('english', name), 'A')
            || setweight(to_tsvector('english', 'What the page shows first'), 'B')
            || setweight(to_tsvector('english', '["landing"]'), 'D')
        FROM {_NUMBERS}, {_AT.format(total="%(projects)s")}, LATERAL (SELECT {_WORDS} AS name) AS words
        """,
    ),
    Fill(
        "generations",
        lambda size: size.generations,
        f"""
        INSERT INTO generations (
            id, project_id, number, prompt, created_by, started_at, ended_at, created_at, updated_at
        )
        SELECT {sql_id("n")}, {sql_id("n %% projects")}, 1 + n / projects, 'make it better',
            {sql_id("n %% projects %% people")}, made, made, made, made
        FROM {_NUMBERS}, {_AT.format(total="%(generations)s")}
        """,
    ),
    Fill(
        "generated_codes",
        lambda size: size.generations,
        f"""
        INSERT INTO generated_codes (
            id, project_id, generation_id, code, code_hash, trimmed_hash, provider, model, status, parent_id, version,
            created_at, updated_at
        )
        SELECT {sql_id("n")}, {sql_id("n %% projects")}, {sql_id("n")}, code, sha256(code::bytea),
            sha256(code::bytea), 'claude', 'model', 'completed',
            CASE WHEN n >= projects THEN {sql_id("n - projects")} END, 1 + n / projects, made, made
        FROM {_NUMBERS}, {_AT.format(total="%(generations)s")},
            LATERAL (SELECT '<p>page ' || n || '</p>' AS code) AS codes
        """,
    ),
    Fill(
        "usage_entries",
        lambda size: size.generations,
        f"""
        INSERT INTO usage_entries (
            id, user_id, key, project_id, provider, model, code_stack, outcome, input_tokens, output_tokens, cost, at
        )
        SELECT {sql_id("n")}, {sql_id("n %% projects %% people")}, n::text, {sql_id("n %% projects")}, 'claude',
            {_MODEL}, {_STACK}, 'completed', n %% 9000, n %% 7000, (n %% 1000) / 10000.0, made
        FROM {_NUMBERS}, {_AT.format(total="%(generations)s")}
        """,
    ),
    # The entries of a project are weeks apart, so each is alone in its row, and no two batches meet in one.
    Fill(
        "usage_days",
        lambda size: size.generations,
        f"""
        INSERT INTO usage_days (
            user_id, day, project_id, provider, model, code_stack, outcome, currency, entries, input_tokens,
            output_tokens, cache_read_tokens, cache_write_tokens, cost
        )
        SELECT user_id, (at AT TIME ZONE 'UTC')::date, project_id, provider, model, code_stack, outcome, currency,
            count(*), sum(input_tokens), sum(output_tokens), 0, 0, sum(cost)
        FROM usage_entries WHERE id BETWEEN {sql_id("%(first)s")} AND {sql_id("%(last)s")}
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
        """,
        finish="""
        INSERT INTO usage_totals (
            day, provider, model, code_stack, outcome, currency, entries, input_tokens, output_tokens,
            cache_read_tokens, cache_write_tokens, cost
        )
        SELECT day, provider, model, code_stack, outcome, currency, sum(entries), sum(input_tokens),
            sum(output_tokens), 0, 0, sum(cost)
        FROM usage_days GROUP BY 1, 2, 3, 4, 5, 6
        """,
    ),
    # As the library indexes it: the words as they are, with their places, and what the dictionary makes of them.
    Fill(
        "project_search",
        lambda size: size.projects,
        f"""
        INSERT INTO project_search (project_id, revision, prompts, page_text, vector)
        SELECT {sql_id("n")}, 1, 'make it better', 'page',
            (SELECT string_agg(format('''=%%s'':%%sA', word, place), ' ')::tsvector
                FROM regexp_split_to_table({_WORDS}, ' ') WITH ORDINALITY AS words (word, place))
            || setweight(to_tsvector('english', {_WORDS}), 'A')
        FROM {_NUMBERS}
        """,
    ),
    Fill(
        "stored_files",
        lambda size: size.projects,
        f"""
        INSERT INTO stored_files (
            id, owner_id, backend, key, state, content_type, size, original_size, sha256, width, height, frame_count,
            image_format, dominant_color, reference_count, created_at, updated_at
        )
        SELECT {sql_id("n")}, {sql_id("n %% people")}, 'local', 'files/' || sha256 || '.png', 'stored', 'image/png',
            1000 + n %% 100000, 1000 + n %% 100000, sha256, 1280, 720, 1, 'PNG', '#336699', 1, made, made
        FROM {_NUMBERS}, {_AT.format(total="%(projects)s")},
            LATERAL (SELECT encode(sha256(n::text::bytea), 'hex') AS sha256) AS hashes
        """,
    ),
    Fill(
        "file_references",
        lambda size: size.projects,
        f"""
        INSERT INTO file_references (id, file_id, owner_id, file_name, project_id, created_at, updated_at)
        SELECT {sql_id("n")}, {sql_id("n")}, {sql_id("n %% people")}, 'screenshot-' || n || '.png', {sql_id("n")},
            made, made
        FROM {_NUMBERS}, {_AT.format(total="%(projects)s")}
        """,
    ),
    Fill(
        "audit_logs",
        lambda size: size.audit_entries,
        f"""
        INSERT INTO audit_logs (
            id, user_id, action, level, category, description, resource_type, resource_id, new_values, ip_address,
            user_agent, correlation_id, source, is_success, created_at
        )
        SELECT {_ID.format(milliseconds="(extract(epoch FROM made) * 1000)::bigint", n="n")},
            {sql_id("project %% people")},
            (ARRAY['code_generate', 'project_update', 'user_login', 'session_create'])[1 + n %% 4],
            CASE n %% 100 WHEN 0 THEN 'warning' ELSE 'info' END,
            (ARRAY['data_modification', 'data_modification', 'authentication', 'authentication'])[1 + n %% 4],
            'Something happened', (ARRAY['project', 'project', 'user', 'session'])[1 + n %% 4],
            CASE WHEN n %% 4 < 2 THEN {sql_id("project")} ELSE {sql_id("project %% people")} END,
            '{{"status": "completed"}}', '192.0.2.1', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0',
            md5(n::text), 'api', true, made
        FROM {_NUMBERS}, {_AT.format(total="%(audit_entries)s")}, LATERAL (SELECT n %% projects AS project) AS projects
        """,
    ),
)


class Filling:
    """Fills the tables of one server."""

    def __init__(self, data: DataLayer, size: Size, batch: int) -> None:
        self._data, self._size, self._batch = data, size, batch
        self._connections: list[psycopg.AsyncConnection[Any]] = []
        self._values = {
            "people": size.people,
            "sessions": size.sessions,
            "projects": size.projects,
            "generations": size.generations,
            "audit_entries": size.audit_entries,
            "now": datetime.now(UTC),
        }

    async def run(self) -> None:
        """Insert everything, table by table, over several connections."""
        await self._make_months()
        # A server that dies while it is filled is filled again, so nothing needs to be safe on the disk before its end.
        async with self._settings("fsync = off", "full_page_writes = off", "autovacuum = off", "max_wal_size = '4GB'"):
            async with AsyncExitStack() as stack:
                for _ in range(FILLERS):
                    connection = await stack.enter_async_context(await connected(self._data))
                    self._connections.append(connection)
                    await connection.execute(
                        "SET synchronous_commit = off; SET statement_timeout = 0; SET maintenance_work_mem = '512MB'; "
                        "SET session_replication_role = replica; SET work_mem = '256MB'"
                    )
                for table in FILLS:
                    await self._fill(table)
            started = time.perf_counter()
            await execute(self._data, "VACUUM ANALYZE")
            console.print(f"VACUUM ANALYZE: {time.perf_counter() - started:.0f} s")
        await execute(self._data, "CHECKPOINT")

    async def _make_months(self) -> None:
        """Those that have passed: the migrations make only what lies ahead."""
        partitions = AuditPartitions(self._data.database)
        this_month, existing = Month.of(datetime.now(UTC)), await partitions.months()
        for month in (this_month.plus(-number) for number in range(13)):
            if month not in existing:
                await partitions.create(month)

    @asynccontextmanager
    async def _settings(self, *settings: str) -> AsyncIterator[None]:
        for setting in settings:
            await execute(self._data, f"ALTER SYSTEM SET {setting}")
        await execute(self._data, "SELECT pg_reload_conf()")
        yield
        await execute(self._data, "ALTER SYSTEM RESET ALL")
        await execute(self._data, "SELECT pg_reload_conf()")

    async def _fill(self, table: Fill) -> None:
        started, count = time.perf_counter(), table.count(self._size)
        indexes = await self._drop_indexes(table.table)
        firsts = iter(range(0, count, self._batch))

        async def fill(connection: psycopg.AsyncConnection[Any]) -> None:
            for first in firsts:
                numbers = {"first": first, "last": min(first + self._batch, count) - 1}
                await connection.execute(table.statement, self._values | numbers)

        await asyncio.gather(*map(fill, self._connections))
        filled = time.perf_counter()
        remaining = iter(indexes)

        async def build(connection: psycopg.AsyncConnection[Any]) -> None:
            for index in remaining:
                await connection.execute(index.make.encode())

        await asyncio.gather(*map(build, self._connections))
        if table.finish:
            await self._connections[0].execute(table.finish.encode())
        if sorted(indexes, key=repr) != sorted(await self._secondary_indexes(table.table), key=repr):
            raise AssertionError(f"the indexes of {table.table} are not those of the schema any more")
        built = time.perf_counter() - filled
        console.print(
            f"{table.table}: {count:,} rows in {filled - started:.0f} s, {len(indexes)} indexes in {built:.0f} s"
        )

    async def _drop_indexes(self, table: str) -> Sequence[Index]:
        indexes = await self._secondary_indexes(table)
        for index in indexes:
            await self._connections[0].execute(index.drop.encode())
        return indexes

    async def _secondary_indexes(self, table: str) -> list[Index]:
        if table == "audit_logs":  # Its indexes consist of those of the months, which are small enough to stay.
            return []
        rows = await execute(
            self._data,
            f"""
            SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), conname, pg_get_constraintdef(c.oid)
            FROM pg_index LEFT JOIN pg_constraint AS c ON conindid = indexrelid AND contype = 'u'
            WHERE indrelid = '{table}'::regclass AND NOT indisprimary
            """,
        )
        return [
            Index(f"DROP INDEX {name}", definition)
            if constraint is None
            else Index(
                f"ALTER TABLE {table} DROP CONSTRAINT {constraint}",
                f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {constraint_definition}",
            )
            for name, definition, constraint, constraint_definition in rows
        ]


@dataclass(frozen=True, slots=True)
class Index:
    """The statements that drop and make an index."""

    drop: str
    make: str


def connected(data: DataLayer) -> Awaitable[psycopg.AsyncConnection[Any]]:
    """A connection of the benchmark's own, which sends values as literals, whose types PostgreSQL chooses."""
    url = data.database.address.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.AsyncConnection.connect(url, autocommit=True, cursor_factory=psycopg.AsyncClientCursor)


async def execute(data: DataLayer, statement: str) -> Sequence[Any]:
    """The rows of a statement that may take its time."""
    async with await connected(data) as connection:
        await connection.execute("SET statement_timeout = 0")
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else ()


@asynccontextmanager
async def filled(folder: Path, size: Size, batch: int) -> AsyncIterator[DataLayer]:
    """A data layer over a server with so many rows: the one in the folder, when it is filled completely."""
    own = folder / f"{size.generations}"
    mark, rows = (
        own / MARK,
        hashlib.sha256(" ".join(" ".join(fill.statement.split()) for fill in FILLS).encode()).hexdigest(),
    )
    if own.exists() and (not mark.exists() or mark.read_text() != rows):
        shutil.rmtree(own)
    settings = Settings(
        data_folder=own / "data",
        local_storage_path=own / "files",
        log_level="error",
        db_max_connections=10,
        db_slow_statement=0,
        session_limit=1_000,
    )
    async with DataLayer(settings) as data:
        if not mark.exists():
            started = time.perf_counter()
            console.print(f"[bold]{size.generations:,} generations")
            await Filling(data, size, batch).run()
            mark.write_text(rows)
            console.print(f"filled in {(time.perf_counter() - started) / 60:.1f} minutes\n")
        yield data
