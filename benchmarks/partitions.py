"""``make bench-partitions``: generations and their codes in hash partitions by project, against the tables as they are.

One server holds the same rows twice: in the tables of the migrations, and in a copy whose ``generations`` and
``generated_codes`` have become partitions by hash of ``project_id``. The services work on either without knowing it.
Calls alternate between the two, and each begins with nothing in the cache of what it reads. Then a part of the rows is
updated, so that each leaves a dead one, the calls are measured once more, and the dead rows are vacuumed.

Partitions are also handled alone, so "longest" is the longest time that one of them took: the time for which one lock
or one snapshot is held. The server writes without fsync, and autovacuum is off, so that disks and chance decide less.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import psycopg
from growth_rows import GENERATIONS_OF_A_PROJECT, Size, sql_id, uuid_of
from rich.console import Console
from rich.table import Table

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import CodePiece, FinishedVariant, GenerationRequest, VariantModel
from data_layer.services.project_keys import owner_key, project_key
from data_layer.testing.hash_partitions import partition_by_hash
from data_layer.testing.postgresql_server import PostgresqlServer

KEYS = {"generations": "project_id", "generated_codes": "project_id"}
PAGE, AT_ONCE = 20, 3
OPTIONS = {
    "autovacuum": "off",
    "shared_buffers": "512MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "8GB",
    "max_locks_per_transaction": "512",
    "max_parallel_maintenance_workers": "0",
}
console = Console(width=140)


# The triggers are off meanwhile: what they derive is given, so that a million rows take a minute.
FILLS = (
    f"""INSERT INTO users (id, email, first_name, last_name, status)
    SELECT {sql_id("n")}, n || '@example.com', 'A', 'B', 'active' FROM generate_series(0, {{people}} - 1) AS n""",
    f"""INSERT INTO projects (id, user_id, name, status, generation_count)
    SELECT {sql_id("n")}, {sql_id("n % {people}")}, 'project ' || n, 'active', {GENERATIONS_OF_A_PROJECT}
    FROM generate_series(0, {{projects}} - 1) AS n""",
    f"""INSERT INTO generations (id, project_id, number, prompt, created_by, started_at, ended_at)
    SELECT {sql_id("n")}, {sql_id("n % {projects}")}, 1 + n / {{projects}}, 'make it better',
        {sql_id("n % {projects} % {people}")}, now(), now()
    FROM generate_series(0, {{generations}} - 1) AS n""",
    f"""INSERT INTO generated_codes (
        id, project_id, generation_id, version, code, provider, model, status, parent_id, code_hash, trimmed_hash
    )
    SELECT {sql_id("n")}, {sql_id("n % {projects}")}, {sql_id("n")}, 1 + n / {{projects}}, code, 'claude', 'model',
        'completed', CASE WHEN n >= {{projects}} THEN {sql_id("n - {projects}")} END, hash, hash
    FROM generate_series(0, {{generations}} - 1) AS n,
        LATERAL (SELECT repeat('<p>page ' || n || '</p>', 20) AS code) AS code,
        LATERAL (SELECT sha256(convert_to(code, 'UTF8')) AS hash) AS hash""",
)


class Place:
    """What one call is about: a project and its owner."""

    def __init__(self, rows: Size, turn: random.Random) -> None:
        number = turn.randrange(rows.projects)
        self.project_id = uuid_of(number)
        self.user_id = uuid_of(number % rows.people)
        self.actor = Actor.user(self.user_id)
        self.version = turn.randrange(GENERATIONS_OF_A_PROJECT) + 1
        self.code_id = uuid_of((self.version - 1) * rows.projects + number)


Operation = Callable[[DataLayer, Place], Awaitable[object]]


async def _code_by_id(data: DataLayer, place: Place) -> None:
    async with data.transaction(read_only=True) as tx:
        assert await tx.codes.get(place.code_id) is not None


async def _stream(data: DataLayer, place: Place) -> None:
    started = await data.generations.start(place.actor, place.project_id, GenerationRequest(), [VariantModel()])
    await data.generations.append(place.actor, started.writer_token, 0, 1, CodePiece("<p>"))
    await data.generations.store(place.actor, started.writer_token)
    await data.generations.complete(place.actor, started.writer_token, 0)


OPERATIONS: Mapping[str, Operation] = {
    "save a generation": lambda data, place: data.generations.record(
        place.actor, place.project_id, GenerationRequest(prompt="a page"), [FinishedVariant(code="<p>page</p>" * 40)]
    ),
    "history": lambda data, place: data.generations.history(place.actor, place.project_id, limit=PAGE),
    "version": lambda data, place: data.generations.version(place.actor, place.project_id, place.version),
    "latest": lambda data, place: data.generations.latest(place.actor, place.project_id),
    "start, write, complete a stream": _stream,
    "a code by its id alone": _code_by_id,
}


class Side:
    """One of the two databases.

    Args:
        url: of the database.
        parts: the tables to work on, one after another; those of a partitioned table by its name.
    """

    def __init__(self, url: str, parts: Mapping[str, Sequence[str]]) -> None:
        self.url = url
        self.parts = parts

    def run(self, statement: str) -> float:
        """Seconds of a statement."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            started = time.perf_counter()
            connection.execute(statement.encode())
            return time.perf_counter() - started

    def each(self, statement: str, table: str) -> list[float]:
        """Seconds of a statement for each part of a table, ``{}`` being its name."""
        return [self.run(statement.format(part)) for part in self.parts[table]]


@asynccontextmanager
async def opened(side: Side, folder: Path) -> AsyncIterator[DataLayer]:
    settings = Settings(
        database_url=side.url,
        data_folder=folder / "servers",
        local_storage_path=folder / "files",
        environment="testing",
        log_level="error",
    )
    async with DataLayer(settings, prepare=True) as data:
        yield data


def fill(side: Side, rows: Size) -> None:
    values = {"people": rows.people, "projects": rows.projects, "generations": rows.generations}
    seconds = sum(side.run(statement.format(**values)) for statement in FILLS)
    console.print(f"{rows.generations:,} generations with a code each, written in {seconds:.0f} s")


def divide(side: Side, count: int) -> None:
    """What the migration would do."""
    started = time.perf_counter()
    with psycopg.connect(side.url) as connection:
        connection.execute("SET session_replication_role = replica")
        partition_by_hash(connection, KEYS, count)
    console.print(f"copied into {count} partitions, with all indexes, in {time.perf_counter() - started:.0f} s")


async def call(data: DataLayer, operation: Operation, place: Place) -> float:
    """Milliseconds of one call that finds nothing in the cache."""
    for key in (owner_key(place.user_id), project_key(place.project_id)):
        await data.cache.delete(key)
    started = time.perf_counter()
    await operation(data, place)
    return (time.perf_counter() - started) * 1000


async def operate(datas: Sequence[DataLayer], rows: Size, rounds: int, title: str) -> None:
    table = Table(title=f"milliseconds of a call, {rounds} of each, {title}")
    table.add_column("operation")
    for name in ("plain p50", "p99", "partitions p50", "p99", "ratio of p50"):
        table.add_column(name, justify="right")
    for name, operation in OPERATIONS.items():
        turn = random.Random(1)  # noqa: S311  (no secret)
        times: list[list[float]] = [[], []]
        for number in range(rounds + 20):
            place = Place(rows, turn)
            for data, found in zip(datas, times, strict=True):
                taken = await call(data, operation, place)
                if number >= 20:  # The first ones prepare statements.
                    found.append(taken)
        middles = [statistics.median(each) for each in times]
        ends = [sorted(each)[int(len(each) * 0.99)] for each in times]
        cells = [f"{figure:.2f}" for pair in zip(middles, ends, strict=True) for figure in pair]
        table.add_row(name, *cells, f"{middles[1] / middles[0]:.2f}")
    console.print(table)


def used_by(server: PostgresqlServer) -> float:
    """Seconds for which the processes of the server have computed."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # It has ended meanwhile.
            continue
        if int(fields[1]) == server.pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def cost_of_saving(server: PostgresqlServer, datas: Mapping[str, DataLayer], rows: Size, saves: int) -> None:
    """Print what a save takes of the server, which bounds how many a machine can do."""
    log = "SELECT pg_current_wal_insert_lsn() - '0/0'"
    for name, data in datas.items():
        turn = random.Random(2)  # noqa: S311  (no secret)
        server.execute("CHECKPOINT")  # Or else whole pages may stand in the log of one of them only.
        used, [(written,)] = used_by(server), server.execute(log)
        for _ in range(saves):
            await OPERATIONS["save a generation"](data, Place(rows, turn))
        [(ended,)] = server.execute(log)
        processor, kib = (used_by(server) - used) / saves * 1000, (ended - written) / saves / 1024
        console.print(
            f"{name}: a save takes {processor:.2f} ms of the server's processors and {kib:.1f} KiB of its log"
        )
    console.print()


def at_once(side: Side, statement: str, table: str) -> float:
    """Seconds of a statement for all parts of a table, by as many connections as autovacuum has by default."""
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(side.run, (statement.format(part) for part in side.parts[table])))
    return time.perf_counter() - started


def maintain(plain: Side, parts: Side, rounds: int, share: int) -> None:
    """Update, vacuum and build indexes."""
    update = f"UPDATE {{}} SET updated_at = now() WHERE hashtext(id::text) % {share} = 0"
    vacuum = "VACUUM {}"
    table = Table(title=f"seconds of maintenance, the median of {rounds} rounds")
    table.add_column("work")
    for name in ("plain", "partitions", "ratio", "longest", "ratio", f"{AT_ONCE} at once", "ratio"):
        table.add_column(name, justify="right")
    index = "CREATE INDEX ON {} (project_id, created_at)"
    for which, works in (
        *((name, {f"update 1 row in {share}": update, "vacuum them": vacuum}) for name in KEYS),
        ("generated_codes", {"build an index": index}),
    ):
        measured: dict[str, list[list[float]]] = {work: [] for work in works}
        for _ in range(rounds):
            for work, statement in works.items():
                whole, divided = sum(plain.each(statement, which)), parts.each(statement, which)
                measured[work].append([whole, sum(divided), max(divided)])
                if statement == update:
                    continue
                if statement == vacuum:  # The same work once more.
                    parts.each(update, which)
                measured[work][-1].append(at_once(parts, statement, which))
        for work, rows in measured.items():
            first, *others = (statistics.median(column) for column in zip(*rows, strict=True))
            pairs = [cell for each in others for cell in (f"{each:.2f}", f"{each / first:.2f}")]
            table.add_row(f"{which}: {work}", f"{first:.2f}", *pairs)
    console.print(table)


def sizes(sides: Sequence[Side]) -> None:
    for name, side in zip(("plain", "partitions"), sides, strict=True):
        total = 0
        with psycopg.connect(side.url) as connection:
            for part in (each for group in side.parts.values() for each in group):
                [(taken,)] = connection.execute("SELECT pg_total_relation_size(%s::regclass)", [part]).fetchall()
                total += taken
        console.print(f"{name}: {total / 2**20:,.0f} MiB with indexes")


async def run(server: PostgresqlServer, folder: Path, options: argparse.Namespace) -> None:
    rows = Size(options.generations)
    plain = Side(server.url("plain"), {table: [table] for table in KEYS})
    numbers = range(options.partitions)
    parts = Side(server.url("parts"), {table: [f"{table}_{number}" for number in numbers] for table in KEYS})
    server.execute("CREATE DATABASE plain")
    async with opened(plain, folder / "plain"):
        pass
    await asyncio.to_thread(fill, plain, rows)
    server.execute("CREATE DATABASE parts TEMPLATE plain")
    await asyncio.to_thread(divide, parts, options.partitions)
    for side in (plain, parts):
        await asyncio.to_thread(side.run, "VACUUM (FREEZE, ANALYZE)")
    await asyncio.to_thread(sizes, (plain, parts))
    async with AsyncExitStack() as stack:
        named = {
            name: await stack.enter_async_context(opened(side, folder / name))
            for name, side in (("plain", plain), ("partitions", parts))
        }
        datas = list(named.values())
        await operate(datas, rows, options.calls, "freshly vacuumed")
        await cost_of_saving(server, named, rows, options.saves)
        update = f"UPDATE {{}} SET updated_at = now() WHERE hashtext(id::text) % {options.share} = 1"
        for side, table in ((side, table) for side in (plain, parts) for table in KEYS):
            await asyncio.to_thread(side.each, update, table)
        await operate(datas, rows, options.calls, f"with a dead row for 1 in {options.share}")
    await asyncio.to_thread(partial(maintain, plain, parts, options.rounds, options.share))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--generations", type=int, default=1_000_000, help="each with one code")
    parser.add_argument("--partitions", type=int, default=16, help="of each of the two tables")
    parser.add_argument("--calls", type=int, default=400, help="measured calls of each operation")
    parser.add_argument("--saves", type=int, default=3000, help="for what a save takes of the server")
    parser.add_argument("--rounds", type=int, default=3, help="of maintenance")
    parser.add_argument("--share", type=int, default=5, help="one row in so many is updated")
    options = parser.parse_args()
    console.print(f"load average {os.getloadavg()[0]:.1f}\n")
    with PostgresqlServer(options=OPTIONS) as server, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asyncio.run(run(server, Path(folder), options))


if __name__ == "__main__":
    main()
