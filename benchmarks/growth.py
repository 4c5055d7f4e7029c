"""``make bench-growth``: how the hottest operations and the upkeep of the database grow with its rows.

For each size there is a server of its own, filled by ``growth_rows``. Calls take turns between the sizes, so that a
disturbance meets all of them, and each begins with nothing in the cache of what it reads. Flat means that the p99 of
the largest size is at most 1.5 times that of the smallest.

Then follow, for the operations that read, their statements as PostgreSQL plans them at the largest size: the tables and
indexes that they read, and the blocks of 8 KB. The end is the size of each table, and how long maintenance, migrations,
an index and a backup take (``growth_upkeep``).

By default there are 10 thousand to a million generations. ``--folder`` keeps the filled servers for the next run;
docs/operations/growth.md names the command for ten million.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from growth_rows import (
    FIRST_WORDS,
    GENERATIONS_OF_A_PROJECT,
    SESSIONS_OF_A_PERSON,
    Size,
    connected,
    console,
    filled,
    uuid_of,
)
from growth_upkeep import upkeep
from PIL import Image
from rich.table import Table
from sqlalchemy import event

from data_layer import DataLayer
from data_layer.database.driver import DriverConnection
from data_layer.entities.enums import GenerationProvider
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.audit import AuditFilter
from data_layer.schemas.generations import CodePiece, FinishedVariant, GenerationRequest, VariantModel, VariantResult
from data_layer.schemas.projects import ProjectDraft, ProjectOrder
from data_layer.schemas.usage import UsageGroup
from data_layer.services.project_keys import owner_key, project_key

PAGE = 20
LEAST_ROUNDS, SECONDS = 30, 60.0
SIZES = [10_000, 100_000, 1_000_000]
ALLOWED_GROWTH = 1.5
MODEL = VariantModel(provider=GenerationProvider.CLAUDE, name="model 1")
RESULT = VariantResult(prompt_tokens=900, completion_tokens=4000, cost=Decimal("0.0627"))
REQUEST = GenerationRequest(prompt="make it better")
CODE = "<p>a page that is short</p>"
_MONTH = re.compile(r"(?<=audit_logs)_(\d{4}_\d{2}|default)")
Operation = Callable[[DataLayer, "Place"], Awaitable[object]]


class Place:
    """A person, and one project of that person.

    One half of the people is read, the other one written, so that lists and histories that are read keep their length.
    """

    def __init__(self, size: Size, turn: random.Random, most_people: int, *, is_written: bool) -> None:
        person = turn.randrange(max(1, min(most_people, size.people // 2)))
        if is_written:
            person = size.people - 1 - person
        number = person + turn.randrange(size.projects // size.people) * size.people
        self.project_id = self.file_id = uuid_of(number)
        self.user_id = uuid_of(person)
        self.session_id = uuid_of(person + turn.randrange(SESSIONS_OF_A_PERSON) * size.people)
        self.actor = Actor.user(self.user_id)
        self.version = turn.randrange(GENERATIONS_OF_A_PROJECT) + 1
        self.word = FIRST_WORDS[number % 10]
        self.name = f"{self.word} number{number}"
        self.color = turn.randrange(256), turn.randrange(256), turn.randrange(256)


def _listing(order: ProjectOrder) -> Operation:
    return lambda data, place: data.projects.list(place.actor, order=order, limit=PAGE)


def _sums(*by: UsageGroup, whose: str, top: int | None = None) -> Operation:
    today = datetime.now(UTC).date()

    def sums(data: DataLayer, place: Place) -> Awaitable[object]:
        of_month = partial(data.usage.sums, SYSTEM, by, first_day=today - timedelta(days=30), last_day=today)
        match whose:
            case "person":
                return of_month(user_id=place.user_id)
            case "project":
                return of_month(everyone=True, project_id=place.project_id)
            case _:
                return of_month(everyone=True, top=top)

    return sums


def _audit(**wanted: Callable[[Place], object]) -> Operation:
    def page(data: DataLayer, place: Place) -> Awaitable[object]:
        return data.audit.list(
            SYSTEM, AuditFilter(**{name: value(place) for name, value in wanted.items()}), limit=PAGE
        )

    return page


async def _stream(data: DataLayer, place: Place) -> None:
    started = await data.generations.start(place.actor, place.project_id, REQUEST, [MODEL])
    await data.generations.append(place.actor, started.writer_token, 0, 1, CodePiece(CODE))
    await data.generations.complete(place.actor, started.writer_token, 0, RESULT)


async def _save_file(data: DataLayer, place: Place) -> None:
    image = io.BytesIO()
    Image.new("RGB", (64, 64), place.color).save(image, "PNG")
    await data.files.save(image.getvalue(), owner_id=place.user_id)


READS: Mapping[str, Operation] = {
    "validate a session": lambda data, place: data.sessions.validate_id(place.session_id),
    "open a project": lambda data, place: data.projects.open(place.actor, place.project_id),
    **{f"list projects by {order}": _listing(order) for order in ProjectOrder},
    "history": lambda data, place: data.generations.history(place.actor, place.project_id, limit=PAGE),
    "version": lambda data, place: data.generations.version(place.actor, place.project_id, place.version),
    "latest": lambda data, place: data.generations.latest(place.actor, place.project_id),
    "search one's projects": lambda data, place: data.projects.search(place.actor, place.word),
    "search everybody's": lambda data, place: data.projects.search(SYSTEM, place.name),
    "recent, of everybody": lambda data, _: data.projects.recent(limit=PAGE),
    "a file": lambda data, place: data.files.stat(place.file_id, owner_id=place.user_id),
    "a person's files": lambda data, place: data.files.list(owner_id=place.user_id, limit=PAGE),
    "usage, a month of a person": _sums(UsageGroup.MODEL, whose="person"),
    "usage, a month of a project": _sums(UsageGroup.STACK, whose="project"),
    "usage, a month of everybody": _sums(whose="everybody"),
    "usage, a month by model": _sums(UsageGroup.MODEL, whose="everybody"),
    "usage, a month by day": _sums(UsageGroup.DAY, whose="everybody"),
    "usage, who spent most in a month": _sums(UsageGroup.PERSON, whose="everybody", top=PAGE),
    "audit, newest of everybody": _audit(),
    "audit of a person": _audit(user_id=lambda place: place.user_id),
    "audit of a project": _audit(resource_type=lambda _: "project", resource_id=lambda place: str(place.project_id)),
}
WRITES: Mapping[str, Operation] = {
    "log in: a new session": lambda data, place: data.sessions.create(place.user_id),
    "create a project": lambda data, place: data.projects.create(place.actor, ProjectDraft(name=place.name)),
    "save a generation": lambda data, place: data.generations.record(
        place.actor, place.project_id, REQUEST, [FinishedVariant(code=CODE, model=MODEL, result=RESULT)]
    ),
    "stream a generation": _stream,
    "save a file": _save_file,
}


async def call(data: DataLayer, operation: Operation, place: Place) -> float:
    """Milliseconds of one call that finds nothing in the cache."""
    copies = data.sessions._copies  # noqa: SLF001  (to measure what happens without them)
    copies.near.clear()
    await copies.shared.remove([str(place.session_id)])
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
    async with await connected(data) as connection, connection.transaction():
        for statement, parameters in sent:
            if statement.startswith("SET LOCAL"):
                await connection.execute(statement.encode())
            if not statement.lstrip().upper().startswith(("SELECT", "WITH")) or "session_changes" in statement:
                continue  # Each process looks once a second which sessions have ended.
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
        _MONTH.sub(
            "", f"{node['Node Type'].replace(' Scan', '')} {node.get('Index Name') or node.get('Relation Name')}"
        )
        for node in _nodes(root)
        if "Index Name" in node or node["Node Type"] == "Seq Scan"
    ]
    if any(node["Node Type"].startswith("Gather") for node in _nodes(root)):
        scans.append("with parallel workers")
    blocks = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    time_taken = plan["Execution Time"]
    return f"{', '.join(dict.fromkeys(scans)) or root['Node Type']}: {blocks:,} blocks, {time_taken:.2f} ms"


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def p99(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


async def times_of(
    name: str, operation: Operation, datas: Mapping[Size, DataLayer], options: argparse.Namespace
) -> Mapping[Size, Sequence[float]]:
    """Milliseconds of the calls at each size; fewer than asked for where they take too long."""
    begun = time.perf_counter()
    turn = random.Random()  # noqa: S311  (no secret)
    times: dict[Size, list[float]] = {size: [] for size in datas}
    for round_number in range(options.rounds + 10):
        if round_number >= LEAST_ROUNDS and time.perf_counter() - begun > SECONDS:
            break
        for size, data in datas.items():
            taken = await call(data, operation, Place(size, turn, options.people, is_written=name in WRITES))
            if round_number >= 10:  # The first ones prepare statements.
                times[size].append(taken)
    return times


async def measure(datas: Mapping[Size, DataLayer], options: argparse.Namespace) -> None:
    smallest, largest = min(datas, key=lambda size: size.generations), max(datas, key=lambda size: size.generations)
    table = Table(title=f"p50 / p99 in milliseconds of a call that finds nothing in the cache, {options.rounds} calls")
    table.add_column("operation")
    for size in datas:
        table.add_column(f"{size.generations:,}", justify="right")
    table.add_column("growth", justify="right")
    shown: dict[str, list[str]] = {}
    for name, operation in {**READS, **WRITES}.items():
        if options.only and options.only not in name:
            continue
        times = await times_of(name, operation, datas, options)
        cells = [f"{statistics.median(taken):.1f} / {p99(taken):.1f}" for taken in times.values()]
        of_p50, of_p99 = (figure(times[largest]) / figure(times[smallest]) for figure in (statistics.median, p99))
        note = "!" if of_p99 > ALLOWED_GROWTH else " "
        table.add_row(name, *cells, f"{of_p50:.2f} / {of_p99:.2f} {note}")
        if name in READS:
            place = Place(largest, random.Random(), options.people, is_written=False)  # noqa: S311  (no secret)
            shown[name] = await plans(datas[largest], operation, place)
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
        if options.fill_only:
            return
        await measure(datas, options)
        if not options.only:
            await upkeep(datas)
        if options.wait:
            for size, data in datas.items():
                console.print(f"{size.generations}: {data.database.address.url}")
            await asyncio.to_thread(input, "press Enter to end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="generations of each server"
    )
    parser.add_argument("--rounds", type=int, default=300, help="measured calls of each operation and size")
    parser.add_argument(
        "--people", type=int, default=1_000_000, help="take only so many people, whose rows are in memory after a while"
    )
    parser.add_argument("--batch", type=int, default=50_000, help="rows of one INSERT")
    parser.add_argument("--only", default="", help="only operations whose name holds this")
    parser.add_argument("--wait", action="store_true", help="keep the servers until Enter is pressed")
    parser.add_argument("--folder", type=Path, help="where filled servers are kept, and found again")
    parser.add_argument("--fill-only", action="store_true", help="fill the servers of the folder, and measure nothing")
    options = parser.parse_args()
    if options.folder is not None:
        asyncio.run(run(options.folder, options))
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asyncio.run(run(Path(folder), options))


if __name__ == "__main__":
    main()
