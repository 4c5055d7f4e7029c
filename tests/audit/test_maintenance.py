"""Retention: months are made ahead, filled from the default partition, and dropped when they are old enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import AuditAction, AuditLog, DataLayer, Settings, UserRole, UserStatus
from data_layer.database.transaction import exclusive_run
from data_layer.entities.time_ordered_ids import first_id_at, id_at
from data_layer.errors import AppendOnlyError, PermissionDeniedError, StatementTimeoutError
from data_layer.repositories.audit_partitions import Month
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.audit import AuditFilter, AuditFull, AuditView
from data_layer.services.maintenance import LOCK, MONTHS_AHEAD
from tests.support import make_user, until

STATEMENTS = (
    "UPDATE {} SET description = 'changed'",
    "UPDATE {} SET user_id = NULL WHERE id = '{}'",
    "DELETE FROM {}",
    "TRUNCATE {}",
    "TRUNCATE users CASCADE",
    "UPDATE {} SET id = gen_random_uuid()",
    "INSERT INTO {0} SELECT * FROM {0} ON CONFLICT (id) DO UPDATE SET description = 'changed'",
    "MERGE INTO {0} AS t USING {0} AS s ON t.id = s.id WHEN MATCHED THEN DELETE",
)


def now() -> datetime:
    return datetime.now(UTC)


def this_month() -> Month:
    """Asked for by each test, because a run may begin in one month and end in the next."""
    return Month.of(now())


@pytest.fixture
async def trail(settings: Settings, data: DataLayer) -> AsyncIterator[DataLayer]:
    """A data layer that keeps two months, and an audit trail that is as after the migration of an empty database."""
    async with data.transaction() as tx:
        months = await data.maintenance._partitions.months()
        for month in months:
            await tx.execute(text(f"DROP TABLE {month.table}"))
    async with DataLayer(settings.replaced(audit_retention_months=2)) as trail:
        yield trail
        # A table that a failed test left would keep the others from emptying theirs.
        await trail.maintenance._partitions.remove_leftovers()


def entry_at(moment: datetime, **values: object) -> AuditLog:
    entry = AuditLog.system_event(AuditAction.SYSTEM_BACKUP, "Backed up")
    entry.id = id_at(moment)
    entry.created_at = moment
    for name, value in values.items():
        setattr(entry, name, value)
    return entry


def ago(months: int) -> datetime:
    month = this_month().plus(-months)
    return datetime(month.year, month.month, 10, tzinfo=UTC)


async def add(data: DataLayer, *entries: AuditLog) -> list[UUID]:
    async with data.transaction() as tx:
        for entry in entries:
            tx.add(entry)
    return [entry.id for entry in entries]


async def where(data: DataLayer) -> dict[UUID, str]:
    async with data.transaction() as tx:
        rows = await tx.execute(
            text("SELECT id, tableoid::regclass::text FROM audit_logs WHERE action = 'system_backup'")
        )
        return dict(tuple(row) for row in rows)


async def months(data: DataLayer) -> list[Month]:
    return await data.maintenance._partitions.months()


async def test_months_are_made_ahead_and_used(trail: DataLayer) -> None:
    report = await trail.maintenance.run(SYSTEM)

    expected = [this_month().plus(number) for number in range(MONTHS_AHEAD + 1)]
    assert await months(trail) == expected
    assert report.is_complete
    assert report.audit_partitions_made == tuple(map(str, expected))
    [entry] = await add(trail, entry_at(now()))
    assert (await where(trail))[entry] == this_month().table
    again = await trail.maintenance.run(SYSTEM)
    assert again.model_dump(exclude_defaults=True) == {}
    check = await asyncio.to_thread(trail.migrator.check)
    assert check.agrees, check


async def test_no_entry_is_ever_refused_for_its_time(trail: DataLayer) -> None:
    moments = [datetime(1970, 1, 1, tzinfo=UTC), ago(30), ago(1), now(), now() + timedelta(days=4000)]
    ids = await add(trail, *map(entry_at, moments), entry_at(now(), id=first_id_at(now())))

    assert set(await where(trail)) == set(ids)


async def test_entries_in_the_default_partition_move_to_their_months_and_old_ones_end(trail: DataLayer) -> None:
    kept = await add(trail, entry_at(ago(2)), entry_at(ago(1)), entry_at(now()))
    [future] = await add(trail, entry_at(now() + timedelta(days=4000)))
    # By its id it is from 1970, but the database knows better: a wrong clock must not cost an entry.
    [skewed] = await add(trail, entry_at(now(), id=id_at(datetime(1970, 1, 2, tzinfo=UTC))))
    [old] = await add(trail, entry_at(ago(3)))
    plan = await trail.maintenance.run(SYSTEM, dry_run=True)
    assert len(await where(trail)) == 6

    report = await trail.maintenance.run(SYSTEM)

    assert report.problems == ()
    assert await where(trail) == {
        kept[0]: this_month().plus(-2).table,
        kept[1]: this_month().plus(-1).table,
        kept[2]: this_month().table,
        future: "audit_logs_default",
        skewed: "audit_logs_default",
    }
    assert old not in await where(trail)
    assert report.audit_partitions_moved == tuple(str(this_month().plus(-number)) for number in (2, 1, 0))
    assert plan.audit_partitions_moved == report.audit_partitions_moved
    assert plan.audit_partitions_made == report.audit_partitions_made
    check = await asyncio.to_thread(trail.migrator.check)
    assert check.agrees, check
    page = await trail.audit.list(SYSTEM, AuditFilter(actions=(AuditAction.SYSTEM_MAINTENANCE,)))
    assert len(page.entries) == 1


async def test_months_older_than_the_retention_are_dropped_whole(trail: DataLayer, settings: Settings) -> None:
    ids = await add(trail, entry_at(ago(3)), entry_at(ago(2)))
    async with DataLayer(settings.replaced(audit_retention_months=0)) as for_ever:
        await for_ever.maintenance.run(SYSTEM)
        assert set(await where(for_ever)) == set(ids)

    report = await trail.maintenance.run(SYSTEM)

    assert report.audit_partitions_dropped == (str(this_month().plus(-3)),)
    assert set(await where(trail)) == {ids[1]}


async def test_entries_that_come_in_during_the_move_are_not_lost(trail: DataLayer) -> None:
    first = await add(trail, *(entry_at(now()) for _ in range(20)))
    added: list[UUID] = []

    async def write() -> None:
        while True:
            added.extend(await add(trail, entry_at(datetime.now(UTC))))

    writer = asyncio.create_task(write())
    await until(lambda: len(added) >= 5)
    for _ in range(3):
        await trail.maintenance.run(SYSTEM)
    await until(lambda: len(added) >= 30)
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)

    stored = await where(trail)
    assert {*first, *added} <= set(stored)
    assert {stored[entry] for entry in first} == {this_month().table}


async def test_an_interrupted_move_is_done_again(trail: DataLayer) -> None:
    ids = await add(trail, *(entry_at(ago(1)) for _ in range(5)))
    partitions = trail.maintenance._partitions
    async for _ in partitions.copy_from_default(this_month().plus(-1)):
        break
    assert len(await where(trail)) == 5

    report = await trail.maintenance.run(SYSTEM)

    assert report.is_complete, report
    assert await where(trail) == dict.fromkeys(ids, this_month().plus(-1).table)


@pytest.mark.parametrize("count", [0, 3, 6, 7])
async def test_a_month_moves_in_batches(trail: DataLayer, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Each entry once, the first and the last of a batch too; also when nothing is left for the last batch."""
    monkeypatch.setattr("data_layer.repositories.audit_partitions._MOVED_AT_ONCE", 3)
    month, others = this_month().plus(-1), await add(trail, entry_at(ago(2)), entry_at(now()))
    first = entry_at(ago(1), id=month.first_id)
    ids = await add(trail, *([first, *(entry_at(ago(1)) for _ in range(count - 1))] if count else []))
    partitions = trail.maintenance._partitions

    copied = [number async for number in partitions.copy_from_default(month)]

    assert copied == {0: [0], 3: [3, 3], 6: [3, 6, 6], 7: [3, 6, 7]}[count]
    async with trail.transaction() as tx:
        found = await tx.execute(text(f"SELECT id FROM {month.table}"))
        assert sorted(found.scalars()) == sorted(ids)
    await partitions.exchange_default([month], None)
    assert await where(trail) == dict.fromkeys(ids, month.table) | dict.fromkeys(others, "audit_logs_default")
    assert (await trail.maintenance.run(SYSTEM)).is_complete
    assert set(await where(trail)) == {*ids, *others}


@pytest.mark.parametrize("table", ["users", "audit_logs", "audit_logs_default"])
async def test_the_move_waits_for_no_lock_for_long_and_keeps_nobody_waiting(trail: DataLayer, table: str) -> None:
    """It gives up before PostgreSQL looks for deadlocks, and leaves the entries where they were."""
    [entry] = await add(trail, entry_at(ago(1)))
    partitions, month = trail.maintenance._partitions, this_month().plus(-1)
    async for _ in partitions.copy_from_default(month):
        pass
    async with trail.transaction() as tx:
        await tx.execute(text(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE"))
        # A holder that never lets go: only the limit of the move itself ends its waiting.
        moving = asyncio.create_task(partitions.exchange_default([month], None))
        async with asyncio.timeout(trail.settings.database.db_statement_timeout / 2):
            with pytest.raises(StatementTimeoutError):
                await moving
        # Meanwhile others may go on.
        [late] = await asyncio.create_task(add(trail, entry_at(ago(1))))
        assert await asyncio.create_task(where(trail)) == dict.fromkeys((entry, late), "audit_logs_default")
    await partitions.exchange_default([month], None)
    assert await where(trail) == dict.fromkeys((entry, late), month.table)


async def test_one_process_at_a_time(trail: DataLayer) -> None:
    async with exclusive_run(trail.database, LOCK) as is_ours:
        assert is_ours
        report = await trail.maintenance.run(SYSTEM)
        assert not report.is_complete
        assert await months(trail) == []
    assert (await trail.maintenance.run(SYSTEM)).is_complete


async def test_a_busy_table_is_left_for_the_next_round(trail: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_layer.services.maintenance._ATTEMPTS", 1)
    async with trail.transaction() as tx:
        await tx.execute(text("LOCK TABLE audit_logs IN ACCESS SHARE MODE"))
        tx.add(entry_at(now()))
        await tx.flush()
        report = await asyncio.create_task(trail.maintenance.run(SYSTEM))
        assert not report.is_complete
        assert "audit partitions" in report.problems[0]
    assert (await trail.maintenance.run(SYSTEM)).is_complete
    assert set((await where(trail)).values()) == {this_month().table}


@pytest.mark.parametrize("replication_role", ["origin", "replica", "local"])
async def test_nobody_changes_an_entry(trail: DataLayer, replication_role: str) -> None:
    """Not even the superuser, as whom the tests connect, and not by applying changes as logical replication does."""
    await trail.maintenance.run(SYSTEM)
    [entry, old] = await add(trail, entry_at(now()), entry_at(datetime(1980, 1, 1, tzinfo=UTC)))
    before = await where(trail)

    for table, statement in product(("audit_logs", "audit_logs_default", this_month().table), STATEMENTS):
        with pytest.raises(AppendOnlyError, match="never changed or removed"):
            async with trail.transaction() as tx:
                await tx.execute(text(f"SET LOCAL session_replication_role = {replication_role}"))
                await tx.execute(text(statement.format(table, old if table == "audit_logs_default" else entry)))

    assert await where(trail) == before


async def protection(data: DataLayer) -> set[tuple[str, str, str]]:
    """The triggers of all tables of the trail, with their modes."""
    statement = text(
        "SELECT relid::regclass::text AS name, tgname, tgenabled::text FROM pg_partition_tree('audit_logs') "
        "JOIN pg_trigger ON tgrelid = relid AND NOT tgisinternal"
    )
    async with data.transaction() as tx:
        return {(row.name, row.tgname, row.tgenabled) for row in await tx.execute(statement)}


async def everything(data: DataLayer) -> set[tuple[str, str, str]]:
    tables = ["audit_logs", "audit_logs_default", *(month.table for month in await months(data))]
    return {(table, trigger, "A") for table in tables for trigger in ("refuse_change", "refuse_truncate")}


async def test_months_that_are_made_or_moved_are_protected_in_every_mode(trail: DataLayer) -> None:
    await add(trail, entry_at(ago(2)), entry_at(ago(1)), entry_at(ago(3)))

    await trail.maintenance.run(SYSTEM)

    assert len(await months(trail)) == MONTHS_AHEAD + 3
    assert await protection(trail) == await everything(trail)


@pytest.mark.parametrize(
    ("change", "restored"),
    [
        ("ALTER TABLE audit_logs DISABLE TRIGGER USER", ["audit_logs.refuse_change", "audit_logs.refuse_truncate"]),
        ("ALTER TABLE {} ENABLE TRIGGER refuse_truncate", ["{}.refuse_truncate"]),
        ("ALTER TABLE {} DISABLE TRIGGER refuse_change", ["{}.refuse_change"]),
        ("ALTER TABLE audit_logs_default ENABLE REPLICA TRIGGER refuse_change", ["audit_logs_default.refuse_change"]),
        ("DROP TRIGGER refuse_truncate ON {}", ["{}.refuse_truncate"]),
        ("DROP TRIGGER refuse_change ON audit_logs", ["audit_logs.refuse_change"]),
    ],
)
async def test_protection_that_was_taken_away_is_restored_and_recorded(
    trail: DataLayer, change: str, restored: list[str]
) -> None:
    await trail.maintenance.run(SYSTEM)
    expected = [name.format(this_month().table) for name in restored]
    async with trail.transaction() as tx:
        await tx.execute(text(change.format(this_month().table)))
    planned = await trail.maintenance.run(SYSTEM, dry_run=True)
    assert await protection(trail) != await everything(trail)

    report = await trail.maintenance.run(SYSTEM)

    assert set(expected) <= set(planned.audit_triggers_restored)
    assert set(expected) <= set(report.audit_triggers_restored)
    assert await protection(trail) == await everything(trail)
    [entry, *_] = (await trail.audit.list(SYSTEM, view=AuditView.FULL)).entries
    assert isinstance(entry, AuditFull)
    assert set(expected) <= set(entry.metadata["audit_triggers_restored"])
    assert (await trail.maintenance.run(SYSTEM)).model_dump(exclude_defaults=True) == {}


async def test_users_may_not_run_it(data: DataLayer) -> None:
    for actor in (Actor(), Actor.user(uuid7()), Actor.user(uuid7(), UserRole.MODERATOR)):
        with pytest.raises(PermissionDeniedError):
            await data.maintenance.run(actor)


async def test_the_role_of_now_counts(data: DataLayer) -> None:
    """Who was an administrator when the ``Actor`` was made may not be one any more."""
    demoted, suspended, promoted = (make_user(role=role) for role in (UserRole.USER, UserRole.ADMIN, UserRole.ADMIN))
    suspended.status = UserStatus.SUSPENDED
    async with data.transaction() as tx:
        for user in (demoted, suspended, promoted):
            tx.add(user)
    for user in (demoted, suspended):
        with pytest.raises(PermissionDeniedError):
            await data.maintenance.run(Actor.user(user.id, UserRole.ADMIN))
    assert (await data.maintenance.run(Actor.user(promoted.id, UserRole.ADMIN))).is_complete


async def test_expired_sessions_and_tokens_are_removed_in_batches(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_layer.services.maintenance._BATCH", 2)
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
        await tx.flush()
        await tx.execute(
            text(
                "INSERT INTO sessions (id, session_id, user_id, status, expires_at) SELECT gen_random_uuid(), n::text, "
                ":user, 'expired', now() + (n - 5) * interval '2 days' FROM generate_series(1, 9) AS n"
            ).bindparams(user=user.id)
        )
    planned = await data.maintenance.run(SYSTEM, dry_run=True)
    reported: list[tuple[str, int]] = []

    report = await data.maintenance.run(SYSTEM, on_progress=lambda step, count: reported.append((step, count)))

    assert planned.sessions_removed == report.sessions_removed == 4
    assert [count for step, count in reported if step == "sessions_removed"] == [2, 4, 4]
    async with data.transaction() as tx:
        assert await tx.sessions.count() == 5


async def test_the_first_month_is_made_while_entries_come_in(trail: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry comes between the look into the default partition and the attachment of the month."""
    service = trail.maintenance
    really_look = type(service._partitions).months_in_default
    late: list[UUID] = []

    async def look(*arguments: Any) -> list[Month]:
        found = await really_look(*arguments)
        late.extend(await add(trail, entry_at(now())))
        return found

    monkeypatch.setattr(type(service._partitions), "months_in_default", look)

    report = await trail.maintenance.run(SYSTEM)

    assert report.is_complete, report
    assert await where(trail) == dict.fromkeys(late, this_month().table)
