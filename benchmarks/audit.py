"""``make bench-accounts``: the audit trail, against named peers on the same server in one run.

- Writing events that belong to no transaction: ``data.audit.record_soon`` until everything is stored, against raw COPY
  (psycopg's ``write_row``, rows prepared before the clock starts) and against one ORM insert and commit for each.
- Reading pages: the 99th percentile at ten thousand entries and at five million, both over two years by month.

Rounds of the candidates alternate, so that a disturbance meets all of them; the median round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.schema import CreateIndex, DropIndex
from uuid_utils.compat import uuid7

from data_layer import AuditAction, AuditLog, DataLayer, Settings, User, request_context
from data_layer.repositories.audit_partitions import AuditPartitions, Month
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.audit import AuditFilter

MONTHS = 24
USERS = 500
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36"
COLUMNS = (
    *("id", "user_id", "action", "level", "category", "description", "resource_type", "resource_id"),
    *("ip_address", "user_agent", "correlation_id", "source", "created_at"),
)
console = Console()
_random = random.Random(1)  # noqa: S311  (no secret)


class Ours:
    """``data.audit.record_soon``, until everything is stored."""

    name = "record_soon"

    def __init__(self, data: DataLayer, user_id: UUID, count: int) -> None:
        self._data, self._user_id, self._count = data, user_id, count

    async def write(self) -> float:
        record = self._data.audit.record_soon
        resource = str(uuid7())
        started = time.perf_counter()
        with request_context(actor_id=self._user_id, ip_address="192.0.2.1", user_agent=AGENT, correlation_id=resource):
            for number in range(self._count):
                record(AuditAction.CODE_DOWNLOAD, "Downloaded", resource_type="generated_code", resource_id=resource)
                if number % 200 == 0:  # As often as other requests would have their turn.
                    await asyncio.sleep(0)
        await self._data.audit.flush()
        took = time.perf_counter() - started
        assert self._data.audit.buffer_statistics().lost == 0
        return self._count / took


class RawCopy:
    """psycopg by hand, all in one COPY."""

    name = "raw COPY"

    def __init__(self, url: URL, user_id: UUID, count: int) -> None:
        self._address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._user_id, self._count = user_id, count

    async def write(self) -> float:
        rows = [
            (
                *(uuid7(), self._user_id, "code_download", "info", "data_access", "Downloaded", "generated_code"),
                *(str(self._user_id), "192.0.2.1", AGENT, str(self._user_id), "api", datetime.now(UTC)),
            )
            for _ in range(self._count)
        ]
        async with await psycopg.AsyncConnection.connect(self._address, autocommit=True) as connection:
            started = time.perf_counter()
            async with connection.cursor().copy(f"COPY audit_logs ({', '.join(COLUMNS)}) FROM STDIN".encode()) as copy:
                for row in rows:
                    await copy.write_row(row)
            return self._count / (time.perf_counter() - started)


class Orm:
    """SQLAlchemy as a typical project writes it: a session per entry, ``add``, ``commit``."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], user_id: UUID, count: int, workers: int) -> None:
        self.name = f"ORM insert each, {workers} at once"
        self._sessions, self._user_id, self._count, self._workers = sessions, user_id, count, workers

    async def write(self) -> float:
        async def work(count: int) -> None:
            for _ in range(count):
                async with self._sessions() as session:
                    entry = AuditLog.data_action(
                        *(AuditAction.CODE_DOWNLOAD, self._user_id, "generated_code", self._user_id, "Downloaded"),
                        ip_address="192.0.2.1",
                        user_agent=AGENT,
                        correlation_id="c",
                    )
                    session.add(entry)
                    await session.commit()

        started = time.perf_counter()
        await asyncio.gather(*(work(self._count // self._workers) for _ in range(self._workers)))
        return self._count / (time.perf_counter() - started)


async def bench_writes(data: DataLayer, rounds: int, count: int) -> None:
    """Entries per second of each candidate."""
    user = User(email=f"{uuid7()}@example.com", first_name="Bench", last_name="Mark")
    async with data.transaction() as tx:
        tx.add(user)
    url = data.database.address.url
    engine = create_async_engine(url, pool_size=20, max_overflow=0)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    candidates: list[Any] = [
        Ours(data, user.id, count),
        RawCopy(url, user.id, count),
        Orm(sessions, user.id, 300, 1),
        Orm(sessions, user.id, 1_000, 16),
    ]
    rates: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    gc.freeze()  # As a process that serves does, or looking at all that is imported is part of every candidate.
    for number in range(rounds + 1):
        for candidate in candidates:
            rate = await candidate.write()
            if number:  # The first round warms up.
                rates[candidate.name].append(rate)
    await engine.dispose()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    table = Table(title=f"write {count:,} entries", title_justify="left", box=None)
    for column in ("candidate", "per second", "record_soon / candidate"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for name, rate in medians.items():
        table.add_row(name, f"{rate:,.0f}", f"{medians[Ours.name] / rate:.2f}")
    console.print(table)
    console.print()


FILL = """
INSERT INTO audit_logs (id, user_id, action, level, category, description, resource_type, resource_id, ip_address,
    user_agent, correlation_id, created_at)
SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3) || '8'
        || substr(hash, 4, 15))::uuid,
    :users[1 + (n % {users})],
    (ARRAY['code_download', 'user_login', 'code_generate', 'project_update', 'security_login_failed'])[1 + n % 5],
    CASE WHEN n % 50 = 0 THEN 'warning' ELSE 'info' END,
    (ARRAY['data_access', 'authentication', 'data_modification', 'data_modification', 'security'])[1 + n % 5],
    'Entry of the benchmark', 'project', (n % 2000)::text, '192.0.2.1', :agent, 'request-' || n, moment
FROM (
    SELECT n, md5(n::text) AS hash, :first + (n - 1) * ((:last - :first) / :count) AS moment
    FROM generate_series(:low, :high) AS n
) AS entries
"""


async def fill(data: DataLayer, count: int) -> list[UUID]:
    """Two years of entries, evenly; indexes are built afterwards, which is quicker."""
    users = [User(email=f"{uuid7()}@example.com", first_name="B", last_name="M") for _ in range(USERS)]
    async with data.transaction() as tx:
        for user in users:
            tx.add(user)
    partitions, this = AuditPartitions(data.database), Month.of(datetime.now(UTC))
    existing = await partitions.months()
    for month in (this.plus(-number) for number in range(1, MONTHS)):
        if month not in existing:
            await partitions.create(month)
    indexes = list(AuditLog.__table__.indexes)  # type: ignore[attr-defined]  # A table has them.
    for index in indexes:
        async with data.transaction() as tx:
            await tx.execute(DropIndex(index))
    last = datetime.now(UTC)
    first = last - timedelta(days=30 * (MONTHS - 1))
    for low in range(1, count + 1, 100_000):
        async with data.transaction() as tx:
            # Of the rows that are made here every one names a user that exists.
            await tx.execute(text("SET LOCAL session_replication_role = replica"))
            bounds = {"low": low, "high": min(low + 99_999, count), "count": count, "first": first, "last": last}
            statement = text(FILL.format(users=USERS).replace(":users[", "(CAST(:users AS uuid[]))["))
            await tx.execute(statement.bindparams(users=[user.id for user in users], agent=AGENT, **bounds))
    for index in indexes:
        async with data.transaction() as tx:
            await tx.execute(CreateIndex(index))
    async with data.database.engine.connect() as connection:
        await connection.execute(text("VACUUM ANALYZE audit_logs"))
    return [user.id for user in users]


def questions(users: list[UUID], count: int) -> dict[str, Callable[[], AuditFilter]]:
    """What is asked, each time about something else."""

    def some_day() -> AuditFilter:
        since = datetime.now(UTC) - timedelta(days=_random.randrange(2, 30 * (MONTHS - 2)))
        return AuditFilter(since=since, until=since + timedelta(days=1))

    def day_of_user() -> AuditFilter:
        return some_day().model_copy(update={"user_id": _random.choice(users)})

    return {
        "newest": AuditFilter,
        "of a user": lambda: AuditFilter(user_id=_random.choice(users)),
        "of a user on a day": day_of_user,
        "warnings": lambda: AuditFilter(levels=("warning",)),
        "failed logins": lambda: AuditFilter(actions=("security_login_failed",)),
        "about security": lambda: AuditFilter(categories=("security",)),
        "on a day": some_day,
        "of a request": lambda: AuditFilter(correlation_id=f"request-{_random.randrange(1, count)}"),
    }


async def bench_reads(settings: Settings, counts: tuple[int, int], queries: int) -> None:
    """The 99th percentile of the time of a page of twenty, with few entries and with many."""
    results: dict[str, list[float]] = {}
    layers = [DataLayer(settings.replaced(db_name=f"bench_{count}")) for count in counts]
    async with layers[0] as few, layers[1] as many:
        asked = []
        for data, count in ((few, counts[0]), (many, counts[1])):
            started = time.perf_counter()
            users = await fill(data, count)
            console.print(f"filled {count:,} entries in {time.perf_counter() - started:.0f} s")
            asked.append((data, questions(users, count)))
        for name in asked[0][1]:
            times: list[list[float]] = [[], []]
            for number in range(queries + 50):
                for place, (data, kinds) in enumerate(asked):
                    wanted = kinds[name]()
                    started = time.perf_counter()
                    await data.audit.list(SYSTEM, wanted, limit=20)
                    if number >= 50:  # The first ones warm up.
                        times[place].append(time.perf_counter() - started)
            results[name] = [statistics.quantiles(values, n=100)[98] * 1000 for values in times]
    table = Table(title="p99 of a page of 20, in ms", title_justify="left", box=None)
    for column in ("entries", *(f"{count:,}" for count in counts), "ratio"):
        table.add_column(column, justify="left" if column == "entries" else "right")
    for name, (small, large) in results.items():
        table.add_row(name, f"{small:.2f}", f"{large:.2f}", f"{large / small:.2f}")
    console.print(table)
    console.print()


async def run(folder: Path, options: argparse.Namespace) -> None:
    """Everything, on servers of our own."""
    settings = Settings(
        data_folder=folder / "servers",
        local_storage_path=folder / "uploads",
        log_level="error",
        db_statement_timeout=600,
        audit_buffer_size=200_000,
    )
    if not options.only_reads:
        async with DataLayer(settings.replaced(db_name="bench_writes")) as data:
            await bench_writes(data, options.rounds, options.count)
    if not options.only_writes:
        await bench_reads(settings, (10_000, options.entries), options.queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each candidate")
    parser.add_argument("--count", type=int, default=20_000, help="entries of a round of writing")
    parser.add_argument("--entries", type=int, default=5_000_000, help="entries of the large trail")
    parser.add_argument("--queries", type=int, default=500, help="measured queries of each kind")
    parser.add_argument("--only-writes", action="store_true")
    parser.add_argument("--only-reads", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asyncio.run(run(Path(folder), options))


if __name__ == "__main__":
    main()
