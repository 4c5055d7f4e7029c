"""The months of the audit trail: made ahead, filled from the default partition, dropped when they are old enough.

Attaching and dropping a partition needs locks on ``audit_logs`` and ``users`` that everybody who writes waits for. So
each is waited for half a second at most, less than it takes PostgreSQL to look for deadlocks: it is we who give up and
try again later, never a transaction of a user.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from data_layer.database.engine import Database, driver_connection
from data_layer.database.statements import NamedQuery, Statement
from data_layer.database.transaction import Transaction
from data_layer.entities.audit_log import DEFAULT_PARTITION
from data_layer.entities.time_ordered_ids import first_id_at, time_of
from data_layer.entities.triggers import Trigger, refuse_change, refuse_truncate

_LOCK_MILLISECONDS = 500
_MOVED_AT_ONCE = 5_000
_PREFIX = "audit_logs_"

_LIMIT_WAITING = NamedQuery("audit_partitions.limit_waiting", f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}")
_LOCK_TABLES = NamedQuery("audit_partitions.lock_tables", "LOCK TABLE users, audit_logs IN ACCESS EXCLUSIVE MODE")
_LOCK_USERS = NamedQuery("audit_partitions.lock_users", "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")
_MAKE_DEFAULT = NamedQuery(
    "audit_partitions.make_default", f"CREATE TABLE {DEFAULT_PARTITION} PARTITION OF audit_logs DEFAULT"
)
_PUT_REST_BACK = NamedQuery(
    "audit_partitions.put_rest_back",
    f"INSERT INTO {DEFAULT_PARTITION} SELECT * FROM audit_logs_rest",  # noqa: S608
)


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month in UTC, and the partition for it."""

    year: int
    month: int

    @classmethod
    def of(cls, moment: datetime) -> Month:
        """The month in which a moment lies."""
        utc = moment.astimezone(UTC)
        return cls(utc.year, utc.month)

    def plus(self, months: int) -> Month:
        """So many months later."""
        years, month = divmod(self.month - 1 + months, 12)
        return Month(self.year + years, month + 1)

    @property
    def table(self) -> str:
        """The name of the partition."""
        return f"{_PREFIX}{self.year:04}_{self.month:02}"

    @property
    def first_id(self) -> UUID:
        """The smallest id that belongs to it."""
        return first_id_at(datetime(self.year, self.month, 1, tzinfo=UTC))

    @property
    def end(self) -> UUID:
        """The smallest id that no longer belongs to it."""
        return self.plus(1).first_id

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


class AuditPartitions:
    """What maintenance does to the partitions. Each step is a transaction of its own, and can be repeated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def months(self) -> list[Month]:
        """The months that have a partition, oldest first."""
        rows = await self._all(
            "audit_partitions.list",
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_logs'::regclass ORDER BY 1",
        )
        names = [str(row[0]).rpartition(".")[2].removeprefix(_PREFIX) for row in rows]
        return [Month(*map(int, name.split("_"))) for name in names if name[:1].isdigit()]

    async def months_in_default(self, first: Month, last: Month) -> list[Month]:
        """Which of the months from ``first`` to ``last`` have entries in the default partition."""
        found = []
        at: UUID | None = first.first_id
        while at is not None:
            rows = await self._all(
                "audit_partitions.find_in_default",
                f"SELECT id FROM {DEFAULT_PARTITION} WHERE id >= %s AND id < %s ORDER BY id LIMIT 1",  # noqa: S608
                (at, last.end),
            )
            at = None
            if rows:
                found.append(Month.of(time_of(rows[0][0])))
                at = found[-1].end
        return found

    async def first_in_default(self) -> Month | None:
        """The month of the smallest id in the default partition."""
        rows = await self._all(
            "audit_partitions.first_in_default",
            f"SELECT id FROM {DEFAULT_PARTITION} ORDER BY id LIMIT 1",  # noqa: S608
        )
        return Month.of(time_of(rows[0][0])) if rows else None

    async def create(self, month: Month) -> None:
        """Make the partition of a month of which nothing is in the default partition."""
        await self._change(*_table(month), *_attach(month))

    async def drop(self, month: Month) -> None:
        """Remove a month with all its entries."""
        # The referenced table first, as transactions of users lock them.
        await self._change((_LOCK_TABLES, None), _drop(month.table))

    async def copy_from_default(self, month: Month) -> AsyncIterator[int]:
        """Copy a month out of the default partition into a table beside, in batches; the number copied so far.

        Readers and writers are not disturbed, and see the entries where they were until ``exchange_default``.
        """
        await self._change(*_table(month))
        copied, last, comparison = 0, month.first_id, ">="
        while True:
            rows = await self._all(
                "audit_partitions.copy_from_default",
                f"WITH copied AS (INSERT INTO {month.table} SELECT * FROM {DEFAULT_PARTITION} "  # noqa: S608
                f"WHERE id {comparison} %s AND id < %s ORDER BY id LIMIT %s RETURNING id) "
                "SELECT count(*), (SELECT id FROM copied ORDER BY id DESC LIMIT 1) FROM copied",
                (last, month.end, _MOVED_AT_ONCE),
            )
            count, last = rows[0]
            copied, comparison = copied + count, ">"
            yield copied
            if count < _MOVED_AT_ONCE:
                return

    async def exchange_default(self, months: Sequence[Month], oldest_kept: Month | None) -> None:
        """Attach what was copied, and replace the default partition by one with the rest of it.

        Entries that came in meanwhile are copied now, under the lock; entries from before ``oldest_kept`` by their id
        as well as by their time end here.
        """
        late: list[Statement] = [
            (
                NamedQuery(
                    "audit_partitions.copy_latecomers",
                    f"INSERT INTO {month.table} SELECT * FROM {DEFAULT_PARTITION} AS old "  # noqa: S608
                    f"WHERE {_is_in(month)} AND NOT EXISTS (SELECT FROM {month.table} AS new WHERE new.id = old.id)",
                ),
                None,
            )
            for month in months
        ]
        ended = [*map(_is_in, months), *([_is_expired(oldest_kept)] if oldest_kept else [])]
        rest = " OR ".join(ended) or "false"
        await self._change(
            (_LOCK_TABLES, None),
            *late,
            (
                NamedQuery(
                    "audit_partitions.keep_rest",
                    f"CREATE TEMP TABLE audit_logs_rest ON COMMIT DROP AS SELECT * FROM {DEFAULT_PARTITION} "  # noqa: S608
                    f"WHERE NOT ({rest})",
                ),
                None,
            ),
            _drop(DEFAULT_PARTITION),
            *(statement for month in months for statement in _attach(month)),
            (_MAKE_DEFAULT, None),
            *_refuse_truncate(DEFAULT_PARTITION),
            (_PUT_REST_BACK, None),
        )

    async def expired_in_default(self, oldest_kept: Month) -> bool:
        """Whether the default partition has entries that are too old by their id and by their time."""
        rows = await self._all(
            "audit_partitions.expired_in_default",
            f"SELECT EXISTS (SELECT FROM {DEFAULT_PARTITION} WHERE {_is_expired(oldest_kept)})",  # noqa: S608
        )
        return bool(rows[0][0])

    async def remove_leftovers(self) -> int:
        """Drop the tables that an interrupted run did not get to attach; their entries are still where they were."""
        rows = await self._all(
            "audit_partitions.find_leftovers",
            "SELECT c.relname FROM pg_class AS c JOIN pg_class AS parent ON parent.oid = 'audit_logs'::regclass "
            "AND c.relnamespace = parent.relnamespace "
            "WHERE c.relkind = 'r' AND NOT c.relispartition AND c.relname ~ '^audit_logs_[0-9]{4}_[0-9]{2}$'",
        )
        for (name,) in rows:
            await self._change(_drop(name))
        return len(rows)

    async def unprotected(self) -> list[tuple[Trigger, bool]]:
        """The triggers that do not hold always, and whether each exists; those of the whole table first.

        Somebody may have disabled them, pg_restore with ``--disable-triggers`` enables them in the ordinary way, and
        processes of the version before give them to new partitions like that.
        """
        rows = await self._all(
            "audit_partitions.find_unprotected",
            "SELECT relid::regclass::text, name, tgname IS NOT NULL FROM pg_partition_tree('audit_logs') "
            "CROSS JOIN (VALUES ('refuse_change'), ('refuse_truncate')) AS expected (name) "
            "LEFT JOIN pg_trigger ON tgrelid = relid AND tgname = name "
            "WHERE tgenabled IS DISTINCT FROM 'A' ORDER BY level, 1, 2",
        )
        make = {"refuse_change": refuse_change, "refuse_truncate": refuse_truncate}
        return [(make[name](table), exists) for table, name, exists in rows]

    async def protect(self) -> AsyncIterator[Trigger]:
        """Create and enable the triggers that do not hold always, and yield each when that is done."""
        done: list[Trigger] = []
        # Partitions inherit what their table gets, so only the first is certain to be missing still.
        while unprotected := [item for item in await self.unprotected() if item[0] not in done]:
            trigger, exists = unprotected[0]
            statements = trigger.create[-1:] if exists else trigger.create
            await self._change(*((NamedQuery("audit_partitions.protect", text), None) for text in statements))
            done.append(trigger)
            yield trigger

    async def _change(self, *statements: Statement) -> None:
        """Statements in one transaction that waits for no lock for long."""
        transaction = Transaction(self._database)
        transaction.open()
        try:
            # One after the other: a statement must have created what the next one names.
            await transaction.run([(_LIMIT_WAITING, None)])
            for statement in statements:
                await transaction.run([statement])
            await transaction.commit()
        finally:
            await transaction.close()

    async def _all(self, name: str, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        async with driver_connection(self._database) as driver:
            with self._database.observation.timed((NamedQuery(name, sql), parameters)):
                cursor = await driver.execute(sql.encode(), parameters)
                return await cursor.fetchall()


def _is_in(month: Month) -> str:
    return f"(id >= '{month.first_id}' AND id < '{month.end}')"


def _is_expired(oldest_kept: Month) -> str:
    """By the id, and by the clock of the database too: an entry whose id is not a time of ours is not lost by it."""
    return f"(id < '{oldest_kept.first_id}' AND created_at < '{oldest_kept}-01 00:00:00+00')"


def _table(month: Month) -> tuple[Statement, ...]:
    """A table like a partition, with its bounds as a rule, so that attaching it needs no look at its rows."""
    columns = "LIKE audit_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES"
    user = "CONSTRAINT fk_audit_logs_user_id FOREIGN KEY (user_id) REFERENCES users (id)"
    text = f"CREATE TABLE {month.table} ({columns}, {user}, CONSTRAINT month CHECK {_is_in(month)})"
    return ((NamedQuery("audit_partitions.create", text), None),)


def _attach(month: Month) -> tuple[Statement, ...]:
    bounds = f"FROM ('{month.first_id}') TO ('{month.end}')"
    return (
        (_LOCK_USERS, None),
        (
            NamedQuery(
                "audit_partitions.attach", f"ALTER TABLE audit_logs ATTACH PARTITION {month.table} FOR VALUES {bounds}"
            ),
            None,
        ),
        (NamedQuery("audit_partitions.drop_bounds", f"ALTER TABLE {month.table} DROP CONSTRAINT month"), None),
        *_refuse_truncate(month.table),
    )


def _drop(table: str) -> Statement:
    return (NamedQuery("audit_partitions.drop", f"DROP TABLE {table}"), None)


def _refuse_truncate(table: str) -> tuple[Statement, ...]:
    return tuple((NamedQuery("audit_partitions.protect", text), None) for text in refuse_truncate(table).create)
