"""``make bench-growth``: how the hottest operations grow with the rows of the database, and their plans.

For each size there is a server of its own with that many generations: ten to a project, twenty projects to a person, a
short code and an entry of the ledger to each generation, spread over a year. Calls take turns between the sizes, so
that a disturbance meets all of them, and each begins with nothing in the cache of what it reads. Flat means that the
p99 of the largest size is at most 1.5 times that of the smallest.

Below each operation stand its statements as PostgreSQL plans them at the largest size: the tables and indexes that it
reads, the rows, and the blocks of 8 KB.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import event

from data_layer import DataLayer, Settings
from data_layer.database.driver import DriverConnection
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.projects import ProjectOrder
from data_layer.schemas.usage import UsageGroup
from data_layer.services.project_keys import owner_key, project_key

GENERATIONS_OF_A_PROJECT, PROJECTS_OF_A_PERSON, PAGE = 10, 20, 20
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
ALLOWED_GROWTH = 1.5
FILLERS = 2
console = Console(width=160)
Operation = Callable[[DataLayer, "Place"], Awaitable[object]]

# Ids that say when they were made, as those of the application do.
ID = "(lpad(to_hex({base} + {n}), 12, '0') || '7000a000' || lpad(to_hex({n}), 12, '0'))::uuid"
BASE = 1_700_000_000_000
AT = "(now() - interval '364 days' * (1 - {n}::float8 / {total}))"


def _id(n: str) -> str:
    return ID.format(base=BASE, n=f"({n})")


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


@dataclass(frozen=True, slots=True)
class Fill:
    """Fills one table in batches, each a statement for the numbers from ``%(first)s`` to ``%(last)s``."""

    table: str
    count: Callable[[Size], int]
    statement: str
    finish: str = ""


_WORDS = f"(ARRAY{FIRST_WORDS})[1 + n %% 10] || ' ' || (ARRAY{SECOND_WORDS})[1 + n / 10 %% 10] || ' ' || 'number' || n"
FILLS = (
    Fill(
        "users",
        lambda size: size.people,
        f"""
        INSERT INTO users (id, email, first_name, last_name, status)
        SELECT {_id("n")}, n || '@example.com', 'A', 'B', 'active'
        FROM generate_series(%(first)s::int, %(last)s::int) AS n
        """,
    ),
    # Numbers of generations are counted before: what is inserted with a number keeps it.
    Fill(
        "projects",
        lambda size: size.projects,
        f"""
        INSERT INTO projects (
            id, user_id, name, description, status, tags, view_count, generation_count, last_generated_at, created_at,
            updated_at
        )
        SELECT {_id("n")}, {_id("n %% people")}, {_WORDS}, 'What the page shows first',
            (ARRAY['draft', 'active', 'completed', 'archived'])[1 + n %% 4], '["landing"]', n %% 1000,
            {GENERATIONS_OF_A_PROJECT}, made, made, made
        FROM generate_series(%(first)s::int, %(last)s::int) AS n, (SELECT %(people)s AS people) AS people,
            LATERAL (SELECT {AT.format(n="n", total="%(projects)s")} AS made) AS made
        """,
    ),
    Fill(
        "generations",
        lambda size: size.generations,
        f"""
        INSERT INTO generations (id, project_id, number, prompt, created_by, started_at, ended_at, created_at)
        SELECT {_id("n")}, {_id("n %% projects")}, 1 + n / projects, 'make it better', {_id("n %% projects %% people")},
            made, made, made
        FROM generate_series(%(first)s::int, %(last)s::int) AS n,
            (SELECT %(people)s AS people, %(projects)s AS projects) AS size,
            LATERAL (SELECT {AT.format(n="n", total="%(generations)s")} AS made) AS made
        """,
    ),
    Fill(
        "generated_codes",
        lambda size: size.generations,
        f"""
        INSERT INTO generated_codes (
            id, project_id, generation_id, code, provider, model, status, parent_id, created_at, updated_at
        )
        SELECT {_id("n")}, {_id("n %% projects")}, {_id("n")}, '<p>page ' || n || '</p>', 'claude', 'model',
            'completed', CASE WHEN n >= projects THEN {_id("n - projects")} END, made, made
        FROM generate_series(%(first)s::int, %(last)s::int) AS n, (SELECT %(projects)s AS projects) AS size,
            LATERAL (SELECT {AT.format(n="n", total="%(generations)s")} AS made) AS made
        """,
    ),
    Fill(
        "usage_entries",
        lambda size: size.generations,
        f"""
        INSERT INTO usage_entries (
            id, user_id, key, project_id, provider, model, code_stack, outcome, input_tokens, output_tokens, cost, at
        )
        SELECT {_id("n")}, {_id("n %% projects %% people")}, n::text, {_id("n %% projects")}, 'claude',
            'model ' || n %% 5, (ARRAY['html_tailwind', 'react_tailwind', 'svg'])[1 + n %% 3], 'completed',
            (random() * 9000)::int, (random() * 9000)::int, (random() * 0.1)::numeric(14, 8), made
        FROM generate_series(%(first)s::int, %(last)s::int) AS n,
            (SELECT %(people)s AS people, %(projects)s AS projects) AS size,
            LATERAL (SELECT {AT.format(n="n", total="%(generations)s")} AS made) AS made
        """,
    ),
    # As the library indexes it: the words as they are, with their places, and what the dictionary makes of them.
    Fill(
        "project_search",
        lambda size: size.projects,
        f"""
        INSERT INTO project_search (project_id, revision, prompts, page_text, vector)
        SELECT {_id("n")}, 1, 'make it better', 'page',
            (SELECT string_agg(format('''=%%s'':%%sA', word, place), ' ')::tsvector
                FROM regexp_split_to_table({_WORDS}, ' ') WITH ORDINALITY AS words (word, place))
            || setweight(to_tsvector('english', {_WORDS}), 'A')
        FROM generate_series(%(first)s::int, %(last)s::int) AS n
        """,
        finish="TRUNCATE project_search_changes",
    ),
)


class Place:
    """What one call reads: a person's, and one project of that person."""

    def __init__(self, size: Size, turn: random.Random) -> None:
        number = turn.randrange(size.projects)
        self.project_id = _uuid(number)
        self.user_id = _uuid(number % size.people)
        self.actor = Actor.user(self.user_id)
        self.version = turn.randrange(GENERATIONS_OF_A_PROJECT) + 1
        self.word = FIRST_WORDS[number % 10]
        self.name = f"{self.word} number{number}"


def _uuid(n: int) -> UUID:
    return UUID(f"{BASE + n:012x}7000a000{n:012x}")


def _listing(order: ProjectOrder) -> Operation:
    return lambda data, place: data.projects.list(place.actor, order=order, limit=PAGE)


def _sums(*by: UsageGroup, whose: str) -> Operation:
    today = datetime.now(UTC).date()

    def sums(data: DataLayer, place: Place) -> Awaitable[object]:
        of_month = partial(data.usage.sums, SYSTEM, by, first_day=today - timedelta(days=30), last_day=today)
        match whose:
            case "person":
                return of_month(user_id=place.user_id)
            case "project":
                return of_month(everyone=True, project_id=place.project_id)
            case _:
                return of_month(everyone=True)

    return sums


OPERATIONS: Mapping[str, Operation] = {
    "open a project": lambda data, place: data.projects.open(place.actor, place.project_id),
    **{f"list projects by {order}": _listing(order) for order in ProjectOrder},
    "history": lambda data, place: data.generations.history(place.actor, place.project_id, limit=PAGE),
    "version": lambda data, place: data.generations.version(place.actor, place.project_id, place.version),
    "latest": lambda data, place: data.generations.latest(place.actor, place.project_id),
    "search one's projects": lambda data, place: data.projects.search(place.actor, place.word),
    "search everybody's": lambda data, place: data.projects.search(SYSTEM, place.name),
    "recent, of everybody": lambda data, _: data.projects.recent(limit=PAGE),
    "usage, a month of a person": _sums(UsageGroup.MODEL, whose="person"),
    "usage, a month of a project": _sums(UsageGroup.STACK, whose="project"),
    "usage, a month of everybody": _sums(whose="everybody"),
    "usage, a month by model": _sums(UsageGroup.MODEL, whose="everybody"),
    "usage, a month by day": _sums(UsageGroup.DAY, whose="everybody"),
    "usage, a month by person": _sums(UsageGroup.PERSON, whose="everybody"),
}
# One row for each person and kind of work of a day: it grows with the people, and so does the answer.
GROWS_WITH_PEOPLE = "usage, a month by person"


async def fill(data: DataLayer, size: Size, batch: int) -> None:
    """Insert the rows, table by table, over several connections."""
    values = {"people": size.people, "projects": size.projects, "generations": size.generations}
    # Batches go side by side, so none may need what another one inserts: a code comes ``projects`` after its parent.
    batch = max(1, min(batch, size.projects // FILLERS))
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connected(data)) for _ in range(FILLERS)]
        for connection in connections:
            await connection.execute("SET synchronous_commit = off; SET statement_timeout = 0")
        for table in FILLS:
            started, count = time.perf_counter(), table.count(size)
            for firsts in batched(range(0, count, batch), FILLERS):
                await asyncio.gather(
                    *(
                        connection.execute(
                            table.statement, values | {"first": first, "last": min(first + batch, count) - 1}
                        )
                        for connection, first in zip(connections, firsts, strict=False)
                    )
                )
            if table.finish:
                await _execute(data, table.finish)
            console.print(f"{table.table}: {count:,} rows in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    await _execute(data, "VACUUM ANALYZE")
    console.print(f"VACUUM ANALYZE: {time.perf_counter() - started:.0f} s")


def batched(values: range, size: int) -> Iterator[range]:
    """The values in groups of this size."""
    return (values[start : start + size] for start in range(0, len(values), size))


def connected(data: DataLayer) -> Awaitable[psycopg.AsyncConnection[Any]]:
    """A connection of the benchmark's own, which sends values as literals, whose types PostgreSQL chooses."""
    url = data.database.address.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.AsyncConnection.connect(url, autocommit=True, cursor_factory=psycopg.AsyncClientCursor)


async def _execute(data: DataLayer, statement: str) -> Sequence[Any]:
    async with await connected(data) as connection:
        await connection.execute("SET statement_timeout = 0")
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else ()


@asynccontextmanager
async def filled(folder: Path, size: Size, batch: int) -> AsyncIterator[DataLayer]:
    """A data layer over a server with so many rows."""
    settings = Settings(
        data_folder=folder / f"{size.generations}",
        local_storage_path=folder / f"{size.generations}-files",
        log_level="error",
        db_max_connections=10,
    )
    async with DataLayer(settings) as data:
        console.print(f"[bold]{size.generations:,} generations")
        await fill(data, size, batch)
        [(taken,)] = await _execute(data, "SELECT pg_size_pretty(pg_database_size(current_database()))")
        console.print(f"the database takes {taken}\n")
        yield data


async def call(data: DataLayer, operation: Operation, place: Place) -> float:
    """Milliseconds of one call that finds nothing in the cache."""
    for key in (owner_key(place.user_id), project_key(place.project_id)):
        await data.cache.delete(key)
    started = time.perf_counter()
    await operation(data, place)
    return (time.perf_counter() - started) * 1000


@contextmanager
def statements_of(data: DataLayer) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to PostgreSQL inside, with its values."""
    sent: list[tuple[str, Any]] = []
    execute = DriverConnection.execute

    def remember(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    async def execute_and_remember(self: DriverConnection, query: Any, params: Any = None, **options: Any) -> Any:
        if params is not None:
            sent.append((query, tuple(params)))
        return await execute(self, query, params, **options)

    event.listen(data.database.engine.sync_engine, "before_cursor_execute", remember)
    DriverConnection.execute = execute_and_remember  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        DriverConnection.execute = execute  # type: ignore[method-assign]
        event.remove(data.database.engine.sync_engine, "before_cursor_execute", remember)


async def plans(data: DataLayer, operation: Operation, place: Place) -> list[str]:
    """What each statement of an operation reads, and how."""
    with statements_of(data) as sent:
        await call(data, operation, place)
    found = []
    async with await connected(data) as connection:
        for statement, parameters in sent:
            if not statement.lstrip().upper().startswith(("SELECT", "WITH")):
                continue
            cursor = await connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}".encode(), parameters
            )
            [(plan,)] = await cursor.fetchall()
            found.append(described(plan[0]))
    return found


def described(plan: dict[str, Any]) -> str:
    """One line for a plan."""
    root = plan["Plan"]
    scans = [
        f"{node['Node Type'].replace(' Scan', '')} {node.get('Index Name') or node.get('Relation Name')}"
        for node in _nodes(root)
        if "Index Name" in node or node["Node Type"] == "Seq Scan"
    ]
    blocks = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    time_taken = plan["Execution Time"]
    return f"{', '.join(dict.fromkeys(scans)) or root['Node Type']}: {blocks:,} blocks, {time_taken:.2f} ms"


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def p99(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


async def measure(datas: Mapping[Size, DataLayer], options: argparse.Namespace) -> None:
    smallest, largest = min(datas, key=lambda size: size.generations), max(datas, key=lambda size: size.generations)
    table = Table(title=f"milliseconds of a call that finds nothing in the cache, {options.rounds} calls")
    table.add_column("operation")
    for size in datas:
        table.add_column(f"p50 of {size.generations:,}", justify="right")
        table.add_column(f"p99 of {size.generations:,}", justify="right")
    table.add_column("growth of p50", justify="right")
    table.add_column("of p99", justify="right")
    shown: dict[str, list[str]] = {}
    for name, operation in OPERATIONS.items():
        if options.only and options.only not in name:
            continue
        turn = random.Random(1)  # noqa: S311  (no secret)
        times: dict[Size, list[float]] = {size: [] for size in datas}
        for round_number in range(options.rounds + 10):
            for size, data in datas.items():
                taken = await call(data, operation, Place(size, turn))
                if round_number >= 10:  # The first ones prepare statements.
                    times[size].append(taken)
        growth = [figure(times[largest]) / figure(times[smallest]) for figure in (statistics.median, p99)]
        cells = [f"{figure(times[size]):.1f}" for size in datas for figure in (statistics.median, p99)]
        note = "" if growth[1] <= ALLOWED_GROWTH else " people" if name == GROWS_WITH_PEOPLE else " !"
        table.add_row(name, *cells, f"{growth[0]:.2f}", f"{growth[1]:.2f}{note}")
        shown[name] = await plans(datas[largest], operation, Place(largest, turn))
    console.print(table)
    console.print(f"\nplans at {largest.generations:,} generations:")
    for name, lines in shown.items():
        console.print(f"[bold]{name}")
        for line in lines:
            console.print(f"  {line}", highlight=False, markup=False)


async def run(folder: Path, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        datas = {}
        for count in sorted(options.sizes):
            datas[Size(count)] = await stack.enter_async_context(filled(folder, Size(count), options.batch))
        await measure(datas, options)
        if options.wait:
            for size, data in datas.items():
                console.print(f"{size.generations}: {data.database.address.url}")
            await asyncio.to_thread(input, "press Enter to end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000], help="generations of each server")
    parser.add_argument("--rounds", type=int, default=300, help="measured calls of each operation and size")
    parser.add_argument("--batch", type=int, default=50_000, help="rows of one INSERT")
    parser.add_argument("--only", default="", help="only operations whose name holds this")
    parser.add_argument("--wait", action="store_true", help="keep the servers until Enter is pressed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asyncio.run(run(Path(folder), options))


if __name__ == "__main__":
    main()
