"""Reading the trail: pages in both directions, who may see what, exports."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from uuid_utils.compat import uuid7

from data_layer import AuditAction, AuditCategory, AuditLevel, AuditLog, DataLayer, User, UserRole, request_context
from data_layer.entities.time_ordered_ids import id_at
from data_layer.errors import InvalidValueError, PermissionDeniedError
from data_layer.repositories.audit_partitions import Month
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.audit import AuditCompliance, AuditFilter, AuditFull, AuditSecure, AuditView, ExportFormat
from tests.support import make_user

NOW = datetime.now(UTC)

FILL = text("""
INSERT INTO audit_logs (id, user_id, action, level, category, description, resource_type, resource_id, created_at)
SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7'
        || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
    CASE n % 4 WHEN 0 THEN :user END, (ARRAY['user_login', 'code_download', 'project_update'])[1 + n % 3],
    (ARRAY['info', 'info', 'info', 'warning'])[1 + n % 4], (ARRAY['security', 'data_access'])[1 + n % 2],
    'Entry ' || n, 'project', (n % 50)::text, moment
FROM (SELECT n, now() - n * interval '1 hour' AS moment FROM generate_series(1, :count) AS n) AS entries
""")


@pytest.fixture
async def user(data: DataLayer) -> User:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    return user


async def fill(data: DataLayer, user: User, count: int) -> None:
    async with data.transaction() as tx:
        await tx.execute(FILL.bindparams(user=user.id, count=count))
    await data.maintenance.run(SYSTEM)
    async with data.transaction() as tx:
        await tx.execute(text("ANALYZE audit_logs"))


async def read_all(data: DataLayer, wanted: AuditFilter, **options: Any) -> list[AuditSecure]:
    found: list[AuditSecure] = []
    cursor = None
    while True:
        page = await data.audit.list(SYSTEM, wanted, cursor=cursor, **options)
        found += page.entries
        if (cursor := page.next_cursor) is None:
            return found


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "true"),
    ({"actions": ("user_login",)}, "action = 'user_login'"),
    ({"actions": ("user_login", "code_download")}, "action <> 'project_update'"),
    ({"levels": ("warning",)}, "level = 'warning'"),
    ({"categories": ("security",)}, "category = 'security'"),
    ({"resource_type": "project", "resource_id": "7"}, "resource_id = '7'"),
    ({"levels": ("info", "error")}, "level = 'info'"),
    ({"levels": ("warning", "error"), "categories": ("security",)}, "level = 'warning' AND category = 'security'"),
    ({"categories": ("data_access", "system")}, "category = 'data_access'"),
    ({"is_success": False}, "false"),
    ({"since": NOW - timedelta(hours=90), "until": NOW - timedelta(hours=30)}, "created_at BETWEEN :since AND :until"),
    ({"since": NOW - timedelta(hours=90), "text": "ENTRY 1"}, "created_at >= :since AND description LIKE 'Entry 1%'"),
    ({"resource_id": "7", "text": "%"}, "false"),
]  # fmt: skip


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(("wanted", "condition"), FILTERS)
async def test_pages_hold_every_entry_once_and_in_order(
    data: DataLayer, user: User, wanted: dict[str, Any], condition: str, *, newest_first: bool
) -> None:
    if wanted.get("text") == "%":
        wanted = {**wanted, "text": "%%"}
    await fill(data, user, 200)
    bounds = {name: wanted[name] for name in ("since", "until") if name in wanted}
    async with data.transaction() as tx:
        statement = text(f"SELECT id FROM audit_logs WHERE {condition} AND description LIKE 'Entry%' ORDER BY id")
        expected = list((await tx.execute(statement.bindparams(**bounds))).scalars())

    found = await read_all(data, AuditFilter(**wanted), limit=7, newest_first=newest_first)

    ids = [entry.id for entry in found if entry.description.startswith("Entry")]
    assert ids == (expected[::-1] if newest_first else expected)


async def test_entries_that_come_in_between_pages_do_not_disturb(data: DataLayer, user: User) -> None:
    await fill(data, user, 30)
    first = await data.audit.list(SYSTEM, limit=10)
    await fill(data, user, 0)
    data.audit.record_soon(AuditAction.USER_LOGIN, "Later")
    await data.audit.flush()
    second = await data.audit.list(SYSTEM, limit=10, cursor=first.next_cursor)

    assert {entry.id for entry in first.entries}.isdisjoint(entry.id for entry in second.entries)
    assert max(entry.id for entry in second.entries) < min(entry.id for entry in first.entries)


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "A" * 32])
async def test_a_foreign_cursor_is_refused(data: DataLayer, cursor: str) -> None:
    with pytest.raises(InvalidValueError, match="cursor"):
        await data.audit.list(SYSTEM, cursor=cursor)


async def test_a_cursor_belongs_to_its_filter_and_direction(data: DataLayer, user: User) -> None:
    await fill(data, user, 30)
    cursor = (await data.audit.list(SYSTEM, limit=5)).next_cursor
    for arguments in ({"wanted": AuditFilter(user_id=user.id)}, {"newest_first": False}):
        with pytest.raises(InvalidValueError, match="another filter"):
            await data.audit.list(SYSTEM, cursor=cursor, **arguments)


async def test_what_would_read_everything_is_refused(data: DataLayer) -> None:
    with pytest.raises(InvalidValueError, match=r"text.*since"):
        await data.audit.list(SYSTEM, AuditFilter(text="login"))
    for limit in (0, 1001):
        with pytest.raises(InvalidValueError, match="limit"):
            await data.audit.list(SYSTEM, limit=limit)
    with pytest.raises(InvalidValueError):
        AuditFilter(since=datetime.now())  # noqa: DTZ005  (a time of nowhere)


PLANS: list[tuple[dict[str, Any], str]] = [
    ({}, "pkey"),
    ({"user_id": uuid7()}, "user_id_id_idx"),
    ({"levels": (AuditLevel.CRITICAL,)}, "level_id_idx"),
    ({"actions": (AuditAction.SYSTEM_BACKUP,)}, "action_id_idx"),
    ({"categories": (AuditCategory.COMPLIANCE,)}, "category_id_idx"),
    ({"resource_type": "project", "resource_id": "none"}, "resource_type_resource_id_idx"),
    ({"correlation_id": "none"}, "correlation_id_idx"),
]


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(("wanted", "index"), PLANS)
async def test_pages_use_partitions_and_indexes(
    data: DataLayer, user: User, wanted: dict[str, Any], index: str, *, newest_first: bool
) -> None:
    await fill(data, user, 24 * 100)
    month = Month.of(NOW).plus(-1)
    since = datetime(month.year, month.month, 10, tzinfo=UTC)
    bounds = {"since": since, "until": since + timedelta(days=3)}

    plan = await plan_of(data, AuditFilter(**wanted, **bounds), newest_first=newest_first)

    # The months beside it are left out before anything is read, and the default partition too.
    assert set(partitions_in(plan)) == {month.table}, plan
    assert index in plan
    assert "Seq Scan" not in plan
    assert "Sort Key" not in plan or wanted.keys() & {"resource_type", "correlation_id"}
    everywhere = await plan_of(data, AuditFilter(**wanted), newest_first=newest_first)
    assert len(set(partitions_in(everywhere))) > 4


async def test_the_newest_entries_are_looked_for_in_the_last_month_first(data: DataLayer, user: User) -> None:
    await fill(data, user, 24 * 100)
    plan = await plan_of(data, AuditFilter(user_id=user.id), newest_first=True, number=0)
    this = Month.of(NOW)
    assert this.table in partitions_in(plan)
    assert {this.plus(-number).table for number in range(3, 24)}.isdisjoint(partitions_in(plan)), plan
    found = [entry.id for entry in (await data.audit.list(SYSTEM, AuditFilter(user_id=user.id), limit=300)).entries]
    assert len(found) == 300, "when the last month holds too few, all months are asked"
    assert found == sorted(found, reverse=True)


async def plan_of(data: DataLayer, wanted: AuditFilter, *, newest_first: bool, number: int = -1) -> str:
    """The plan of the last statement of a page, or of another one."""
    statements: list[tuple[str, Any]] = []

    def remember(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    engine = data.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", remember)
    try:
        await data.audit.list(SYSTEM, wanted, newest_first=newest_first)
    finally:
        event.remove(engine, "before_cursor_execute", remember)
    statement, parameters = statements[number]
    async with data.transaction() as tx:
        await tx.execute(text("SET LOCAL enable_seqscan = off"))  # Months with few rows are rightly read whole.
        lines: Sequence[str] = await (await tx.orm()).run_sync(
            lambda session: session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
        )
    return "\n".join(lines)


def partitions_in(plan: str) -> list[str]:
    words = [line.partition(" on ")[2].split()[0] for line in plan.splitlines() if " on audit_logs" in line]
    return [word for word in words if not word.endswith("idx")]


async def test_who_may_see_what(data: DataLayer, user: User) -> None:
    other = make_user()
    async with data.transaction() as tx:
        tx.add(other)
        await tx.flush()
        for each in (user, other):
            tx.add(AuditLog.user_action(AuditAction.USER_LOGIN, each.id, "Logged in", ip_address="10.0.0.1"))
    mine, theirs, all_ = AuditFilter(user_id=user.id), AuditFilter(user_id=other.id), AuditFilter()
    ranked = {role: user if role is UserRole.USER else make_user(role=role) for role in UserRole}
    async with data.transaction() as tx:
        for each in ranked.values():
            if each is not user:
                tx.add(each)
    person, moderator, admin = (Actor.user(ranked[role].id, role) for role in UserRole)

    for actor, wanted in ((person, mine), (moderator, theirs), (moderator, all_), (admin, all_), (SYSTEM, all_)):
        page = await data.audit.list(actor, wanted)
        assert {type(entry) for entry in page.entries} == {AuditSecure}
        assert len(page.entries) == (2 if wanted is all_ else 1)
    for actor, wanted in ((person, theirs), (person, all_), (ANONYMOUS, mine), (ANONYMOUS, all_)):
        with pytest.raises(PermissionDeniedError):
            await data.audit.list(actor, wanted)
    for view, schema in ((AuditView.COMPLIANCE, AuditCompliance), (AuditView.FULL, AuditFull)):
        for actor in (person, moderator):
            with pytest.raises(PermissionDeniedError):
                await data.audit.list(actor, mine, view=view)
        [entry] = (await data.audit.list(admin, mine, view=view)).entries
        assert type(entry) is schema
        assert entry.ip_address == "10.0.0.1"
    for actor in (person, moderator):
        with pytest.raises(PermissionDeniedError):
            await collect(data.audit.export(actor))


async def collect(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_an_export_holds_everything_and_is_recorded(data: DataLayer, user: User) -> None:
    await fill(data, user, 2500)
    reported: list[int] = []
    admin = Actor.user(user.id, UserRole.ADMIN)
    async with data.transaction() as tx:
        (await tx.users.get(user.id)).role = UserRole.ADMIN
    wanted = AuditFilter(user_id=user.id)

    with request_context(ip_address="10.0.0.9"):
        exported = await collect(data.audit.export(admin, wanted, on_progress=reported.append))

    entries = [json.loads(line) for line in exported.splitlines()]
    assert len(entries) == 625
    assert entries == sorted(entries, key=lambda entry: entry["id"])
    assert set(entries[0]) == set(AuditCompliance.model_fields)
    assert reported == [625]
    [record] = (
        await data.audit.list(SYSTEM, AuditFilter(actions=(AuditAction.ADMIN_DATA_EXPORT,)), view=AuditView.FULL)
    ).entries
    assert isinstance(record, AuditFull)
    assert (record.user_id, record.ip_address) == (user.id, "10.0.0.9")
    assert record.metadata["filter"]["user_id"] == str(user.id)
    everything = await collect(data.audit.export(SYSTEM, on_progress=reported.append))
    assert reported[1:] == [1000, 2000, len(everything.splitlines())]
    [record] = (await data.audit.list(SYSTEM, AuditFilter(actions=(AuditAction.SECURITY_DATA_EXPORT,)))).entries
    assert record.is_success


DANGEROUS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=cmd|"/c calc"!A1', "\n=1"]


async def test_no_cell_of_a_csv_is_calculated(data: DataLayer) -> None:
    async with data.transaction() as tx:
        for value in DANGEROUS:
            entry = AuditLog.system_event(AuditAction.SYSTEM_ERROR, value, user_agent=value, duration=1.5)
            entry.new_values = {"a": value}
            tx.add(entry)
        tx.add(AuditLog.system_event(AuditAction.SYSTEM_ERROR, 'plain, "quoted"\nsecond line'))

    exported = await collect(data.audit.export(SYSTEM, format=ExportFormat.CSV, view=AuditView.FULL))

    rows = list(csv.DictReader(io.StringIO(exported.decode(), newline="")))
    assert [row["description"] for row in rows[:-1]] == [f"'{value}" for value in DANGEROUS]
    assert [row["user_agent"] for row in rows[:-1]] == [f"'{value}" for value in DANGEROUS]
    assert json.loads(rows[0]["new_values"]) == {"a": "=1+1"}
    assert rows[0]["duration"] == "1.5"
    assert rows[-1]["description"] == 'plain, "quoted"\nsecond line'
    assert all(cell is not None and cell[:1] not in tuple("=+@\t\r\n") for row in rows for cell in row.values())


async def test_memory_does_not_grow_with_an_export(data: DataLayer, user: User) -> None:
    await fill(data, user, 8_000)
    peaks = []
    for wanted in (AuditFilter(since=NOW - timedelta(hours=2_000)), AuditFilter()):
        tracemalloc.start()
        try:
            size = 0
            async for piece in data.audit.export(SYSTEM, wanted):
                size += len(piece)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert size > 3_000_000
    assert peaks[1] < 1.3 * peaks[0]


async def test_an_entry_shares_the_fate_of_its_transaction(data: DataLayer, user: User) -> None:
    with pytest.raises(RuntimeError):
        async with data.transaction() as tx:
            tx.add(AuditLog.user_action(AuditAction.USER_UPDATE_PROFILE, user.id, "Changed the name"))
            await tx.flush()
            raise RuntimeError
    assert (await data.audit.list(SYSTEM)).entries == ()


async def test_history_keeps_its_time(data: DataLayer) -> None:
    moment = datetime(2024, 2, 29, 12, tzinfo=UTC)
    entry = AuditLog.system_event(AuditAction.SYSTEM_BACKUP, "Long ago")
    entry.id, entry.created_at = id_at(moment), moment
    async with data.transaction() as tx:
        tx.add(entry)
    wanted = AuditFilter(since=moment, until=moment + timedelta(seconds=1))
    assert [found.id for found in (await data.audit.list(SYSTEM, wanted)).entries] == [entry.id]
