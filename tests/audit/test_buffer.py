"""Entries that belong to no transaction: written soon, or kept on disk, or counted; never in the way."""

from __future__ import annotations

import asyncio
import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import AuditAction, DataLayer, Settings, request_context
from data_layer.repositories.audit_rows import _copy_text, _places_in_use, line_of
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.audit import AuditFilter, AuditFull, AuditView
from data_layer.services.audit import buffer
from data_layer.services.audit.recording import make_row
from data_layer.testing.postgresql_server import PostgresqlServer
from tests.audit.support import descriptions
from tests.support import ALLOW_CHANGES, REFUSE_CHANGES, make_user, until

ESCAPED = {"t": "\t", "n": "\n", "r": "\r"}
PROGRAM = Path(__file__).with_name("recording_process.py")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.replaced(audit_spill_folder=tmp_path / "spill", audit_flush_interval=0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A server of our own, to be stopped."""
    with PostgresqlServer() as server:
        server.execute("CREATE DATABASE test")
        yield server


@pytest.fixture
def apart(server: PostgresqlServer, settings: Settings) -> Settings:
    """Settings for that server, which runs."""
    if server._process is None:
        server.start()
    return Settings(
        environment="testing",
        database_url=server.url("test"),
        redis_url=settings.redis.redis_url,
        local_storage_path=settings.storage.local_storage_path,
        audit_spill_folder=settings.audit.audit_spill_folder,
        audit_flush_interval=0.05,
        db_connect_timeout=3,
    )


def folder_of(settings: Settings) -> Path:
    assert settings.audit.audit_spill_folder
    return settings.audit.audit_spill_folder


def spilled(settings: Settings) -> list[Path]:
    return sorted(folder_of(settings).glob("*.jsonl"))


async def newest(data: DataLayer) -> AuditFull:
    page = await data.audit.list(SYSTEM, view=AuditView.FULL, limit=1)
    entry = page.entries[0]
    assert isinstance(entry, AuditFull)
    return entry


async def test_an_entry_is_written_soon_with_what_the_request_knows(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    session = uuid7()
    with request_context(
        actor_id=user.id, ip_address="::ffff:10.0.0.7", user_agent="Agent", session_id=session, correlation_id="c-1"
    ):
        data.audit.record_soon(
            AuditAction.CODE_DOWNLOAD,
            "Downloaded",
            resource_type="generated_code",
            resource_id=user.id,
            duration=1.5,
            context={"format": "zip", "api_key": "sk-1234"},
        )
    await until(lambda: data.audit.buffer_statistics().written == 1)

    entry = await newest(data)
    assert (entry.user_id, entry.ip_address, entry.user_agent) == (user.id, "10.0.0.7", "Agent")
    assert (entry.session_id, entry.correlation_id) == (str(session), "c-1")
    assert (entry.category, entry.level, entry.is_success) == ("data_access", "info", True)
    assert (entry.resource_id, entry.duration) == (str(user.id), 1.5)
    assert entry.context == {"format": "zip", "api_key": "***"}
    assert abs(entry.created_at.timestamp() - (entry.id.int >> 80) / 1000) < 0.002


async def test_failed_logins_are_warnings_of_security(data: DataLayer) -> None:
    data.audit.record_soon(AuditAction.SECURITY_LOGIN_FAILED, "Login failed")
    await data.audit.flush()

    entry = await newest(data)
    assert (entry.category, entry.level, entry.is_success, entry.user_id) == ("security", "warning", False, None)


async def test_what_is_recorded_is_never_refused(data: DataLayer) -> None:
    """Too long, or nothing that text or JSON can carry: the caller goes on, and the entry is written."""
    circle: dict[str, Any] = {}
    circle["self"] = circle
    data.audit.record_soon(
        AuditAction.USER_LOGIN,
        "x\0y\ud800" + "z" * 1000,
        resource_type="t" * 101,
        resource_id="r" * 300,
        details="\\N\t\\\n\r\b",
        error_message="\\N",
        duration=math.nan,
        context={"object": object(), "nul": "a\0b", "number": math.inf},
        metadata=circle,
    )
    data.audit.record_soon(AuditAction.USER_LOGIN, "")
    await data.audit.flush()

    assert data.audit.buffer_statistics().written == 2
    page = await data.audit.list(SYSTEM, view=AuditView.FULL, newest_first=False)
    entry = page.entries[0]
    assert isinstance(entry, AuditFull)
    assert entry.description == ("xy?" + "z" * 1000)[:254]
    assert (entry.details, entry.error_message, entry.duration) == ("\\N\t\\\n\r\b", "\\N", None)


TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))


@given(entries=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=3))
def test_lines_for_copy_have_all_columns_in_which_some_entry_has_a_value(entries: list[tuple[str | None, ...]]) -> None:
    rows = [
        make_row(AuditAction.USER_LOGIN, description or "", details=details, error_message=message)
        for description, details, message in entries
    ]
    places = _places_in_use(rows)
    *lines, end = _copy_text(rows, places).split("\n")

    assert (len(lines), end) == (len(rows), "")
    for line, row in zip(lines, rows, strict=True):
        fields = line.split("\t")
        assert len(fields) == len(places) + 1
        read = [re.sub(r"\\(.)", lambda match: ESCAPED.get(match[1], match[1]), field) for field in fields]
        found = {
            place: None if field == "\\N" else text for place, field, text in zip(places, fields, read, strict=False)
        }
        assert [found.get(place) for place in (5, 6, 19)] == [row[place] for place in (5, 6, 19)]


async def test_one_bad_entry_does_not_cost_the_others(data: DataLayer, settings: Settings) -> None:
    """A user whose registration was rolled back is in no table; what they did is recorded without them."""
    nobody = uuid7()
    for number in range(20):
        data.audit.record_soon(AuditAction.CODE_DOWNLOAD, f"{number:02}", user_id=nobody if number == 7 else None)
    good = make_row(AuditAction.USER_LOGIN, "bad")
    data.audit._buffer.add((*good[:2], "no_such_action", *good[3:]))  # type: ignore[arg-type]
    await data.audit.flush()

    assert await descriptions(data) == [f"{number:02}" for number in range(20)]
    page = await data.audit.list(
        SYSTEM, AuditFilter(text="07", since=datetime.now(UTC) - timedelta(hours=1)), view=AuditView.FULL
    )
    assert isinstance(page.entries[0], AuditFull)
    assert page.entries[0].context == {"unknown_user_id": str(nobody)}
    statistics = data.audit.buffer_statistics()
    assert (statistics.written, statistics.rejected, statistics.lost) == (20, 1, 0)
    assert len((folder_of(settings) / "rejected.ndjson").read_bytes().splitlines()) == 1


async def test_a_full_buffer_counts_what_it_loses_and_never_waits(settings: Settings, data: DataLayer) -> None:
    small = settings.replaced(audit_buffer_size=100, audit_flush_interval=60)
    async with DataLayer(small) as other:
        for number in range(150):
            other.audit.record_soon(AuditAction.CODE_DOWNLOAD, str(number))
        assert other.audit.buffer_statistics().lost == 50
    assert len(await descriptions(data)) == 100


async def test_closing_writes_what_waits(settings: Settings, data: DataLayer) -> None:
    async with DataLayer(settings.replaced(audit_flush_interval=60)) as other:
        other.audit.record_soon(AuditAction.CODE_DOWNLOAD, "last")
    assert await descriptions(data) == ["last"]


async def test_a_dead_database_is_waited_for_on_disk(apart: Settings, server: PostgresqlServer) -> None:
    async with DataLayer(apart, prepare=True) as data:
        server.stop()
        for number in range(300):
            data.audit.record_soon(AuditAction.CODE_DOWNLOAD, f"{number:03}")
            await asyncio.sleep(0)
        await data.audit.flush()
        statistics = data.audit.buffer_statistics()
        assert (statistics.spilled, statistics.written, statistics.lost) == (300, 0, 0)
        assert statistics.bytes_on_disk > 0
        [path, *_] = spilled(apart)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert json.loads(path.read_bytes().splitlines()[0])["description"] == "000"

        server.start()
        await until(lambda: data.audit.buffer_statistics().replayed == 300)

        assert spilled(apart) == []
        assert await descriptions(data) == [f"{number:03}" for number in range(300)]
        data.audit.record_soon(AuditAction.CODE_DOWNLOAD, "after")
        await data.audit.flush()
        assert (await descriptions(data))[-1] == "after"


async def test_a_database_that_is_dead_at_the_end_does_not_lose_entries(
    apart: Settings, server: PostgresqlServer
) -> None:
    async with DataLayer(apart, prepare=True) as data:
        before = len(await descriptions(data))
        server.stop()
        data.audit.record_soon(AuditAction.CODE_DOWNLOAD, "zz last")
    assert len(spilled(apart)) == 1

    server.start()
    async with DataLayer(apart) as data:
        await until(lambda: not spilled(apart))
        assert len(await descriptions(data)) == before + 1


async def test_entries_that_were_written_after_all_are_not_written_twice(settings: Settings, data: DataLayer) -> None:
    """The connection broke during the commit: what is on disk may be in the table as well."""
    rows = [make_row(AuditAction.CODE_DOWNLOAD, str(number)) for number in range(5)]
    for row in rows[:3]:
        data.audit._buffer.add(row)
    await data.audit.flush()
    await data.audit._buffer._keep(rows)
    await until(lambda: not spilled(settings))

    assert await descriptions(data) == [str(number) for number in range(5)]


async def test_a_folder_under_its_limit(settings: Settings, data: DataLayer) -> None:
    del data
    async with DataLayer(settings.replaced(audit_spill_limit=1000)) as small:
        buffer = small.audit._buffer
        await buffer._keep([make_row(AuditAction.CODE_DOWNLOAD, "x" * 200) for _ in range(10)])
        assert (buffer.statistics().lost, buffer.statistics().bytes_on_disk) == (10, 0)


BROKEN = {
    "no JSON": b'{"id": broken',
    "not text": bytes(range(32, 256)),
    "a list": b"[1]",
    "two at once": b'{}],[{"id": 1}',
    "no context": b'{"id": "%s", "user_id": "%s", "context": 5}' % (str(uuid7()).encode(), str(uuid7()).encode()),
    "nested deeply": b"[" * 100_000,
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
async def test_a_broken_line_on_disk_does_not_stop_the_others(settings: Settings, data: DataLayer, line: bytes) -> None:
    good = line_of(make_row(AuditAction.CODE_DOWNLOAD, "good"))
    # Both in one file, which has its name only once it is complete: what writes it to the database runs meanwhile.
    assert buffer.SpillFolder(folder_of(settings), 10**6).keep("0", [line, good])
    await until(lambda: data.audit.buffer_statistics().replayed == 1)
    assert spilled(settings) == []
    assert await descriptions(data) == ["good"]
    assert data.audit.buffer_statistics().rejected == 1


async def test_a_file_that_cannot_be_read_does_not_stop_the_others(settings: Settings, data: DataLayer) -> None:
    unreadable = folder_of(settings) / "0.jsonl"
    unreadable.mkdir(parents=True)
    await data.audit._buffer._keep([make_row(AuditAction.CODE_DOWNLOAD, "good")])
    await until(lambda: spilled(settings) == [unreadable])
    assert await descriptions(data) == ["good"]


@pytest.mark.slow
@pytest.mark.parametrize("is_dead", [False, True])
async def test_a_killed_process_loses_nothing_that_was_on_disk(
    apart: Settings, server: PostgresqlServer, *, is_dead: bool
) -> None:
    async with DataLayer(apart, prepare=True) as data, data.transaction() as tx:
        for statement in (ALLOW_CHANGES, "TRUNCATE audit_logs", REFUSE_CHANGES):
            await tx.execute(text(statement))
    assert apart.database.database_url
    assert apart.redis.redis_url
    arguments = [apart.database.database_url.get_secret_value(), apart.redis.redis_url.get_secret_value()]
    command = [
        sys.executable,
        str(PROGRAM),
        *arguments,
        str(apart.audit.audit_spill_folder),
        str(apart.storage.local_storage_path),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    if is_dead:
        await asyncio.to_thread(server.stop)
    process.stdin.write("go\n")
    process.stdin.flush()
    safe = 0
    for _ in range(5):
        safe = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()

    if is_dead:
        assert spilled(apart)
        server.start()
    async with DataLayer(apart) as data:
        await until(lambda: not spilled(apart))
        stored = await descriptions(data)
    assert safe >= 500
    assert len(stored) == len(set(stored))
    assert {f"{number:06}" for number in range(safe)} <= set(stored)


async def test_a_folder_that_cannot_be_used_does_not_stop_the_writing(settings: Settings, data: DataLayer) -> None:
    del data
    folder_of(settings).write_text("a file where the folder should be")
    async with DataLayer(settings) as other:
        for number in range(3):
            other.audit.record_soon(AuditAction.CODE_DOWNLOAD, str(number))
            await until(lambda number=number: other.audit.buffer_statistics().written == number + 1)  # type: ignore[misc]
        await other.audit._buffer._keep([make_row(AuditAction.CODE_DOWNLOAD, "x")])
        assert other.audit.buffer_statistics().lost == 1


async def test_after_an_outage_however_long_entries_are_written_within_five_seconds(
    server: PostgresqlServer, apart: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = count(0.0, 3600.0)
    now = next(hours)
    monkeypatch.setattr(buffer, "time", SimpleNamespace(monotonic=lambda: now))
    async with DataLayer(apart.replaced(audit_flush_interval=60), prepare=True) as data:
        await asyncio.to_thread(server.stop)
        for now in islice(hours, 8):  # noqa: B007  (the clock reads it)
            data.audit.record_soon(AuditAction.CODE_COPY, "Copied")
            await data.audit.flush()
        assert data.audit.buffer_statistics().spilled == 8
        await asyncio.to_thread(server.start)
        now += 4.5
        data.audit.record_soon(AuditAction.CODE_COPY, "Copied")
        await data.audit.flush()
        assert data.audit.buffer_statistics().written == 1
