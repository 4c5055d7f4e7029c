"""What a role, a database or libpq's environment presets changes nothing of what is read and written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.database.address import direct_address
from data_layer.database.listener import Listener
from data_layer.database.migrator import Migrator
from data_layer.database.statements import NamedQuery
from tests.database.connection_helpers import settings_for
from tests.support import make_code, make_project, make_user

PRESETS = {
    "client_encoding": "LATIN1",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "America/New_York",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "gin_fuzzy_search_limit": "1",
    "row_security": "off",
    "exit_on_error": "on",
    "lock_timeout": "1",
    "statement_timeout": "1000",
    "idle_in_transaction_session_timeout": "50",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "xmloption": "document",
    "jit": "on",
    "plan_cache_mode": "force_generic_plan",
    "synchronize_seqscans": "off",
    "enable_indexscan": "off",
}
ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGTZ": "Asia/Tokyo",
    "PGDATESTYLE": "German",
    "PGOPTIONS": "-c bytea_output=escape -c default_transaction_isolation=serializable -c lock_timeout=1",
    "PGHOST": "nowhere.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGDATABASE": "nothing",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/nowhere/root.crt",
    "PGSSLCERT": "/nowhere/client.crt",
    "PGSSLKEY": "/nowhere/client.key",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCHANNELBINDING": "require",
    "PGREQUIREPEER": "nobody",
    "PGCONNECT_TIMEOUT": "1",
    "PGAPPNAME": "other",
}
EMOJI = "\N{GRINNING FACE} 한국어 \\ ' \N{RIGHT-TO-LEFT MARK}"


@pytest.fixture(params=["role", "database", "environment"])
async def preset(
    request: pytest.FixtureRequest, migrated: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Settings]:
    """Settings under which everything is preset in one of the places."""
    assert migrated.database.database_url
    url = migrated.database.database_url.get_secret_value()
    parameters = psycopg.conninfo.conninfo_to_dict(url)
    database = str(parameters["dbname"])
    user = f"preset_{database}"
    place = {"role": f"ROLE {user}", "database": f"DATABASE {database}"}.get(request.param)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as administrator:
        await administrator.execute(f"DROP ROLE IF EXISTS {user}".encode())
        await administrator.execute(f"CREATE ROLE {user} LOGIN SUPERUSER".encode())
        try:
            for name, value in PRESETS.items() if place else ():
                await administrator.execute(f"ALTER {place} SET {name} = '{value}'".encode())
            with monkeypatch.context() as environment:
                for name, value in ENVIRONMENT.items() if not place else ():
                    environment.setenv(name, value)
                yield settings_for(
                    f"postgresql://{user}@/{database}?host={parameters['host']}",
                    migrated,
                    tmp_path,
                    db_statement_timeout=20,
                )
        finally:
            if place:
                await administrator.execute(f"ALTER {place} RESET ALL".encode())
            await administrator.execute(f"DROP ROLE {user}".encode())


async def test_what_is_written_is_read(data: DataLayer, preset: Settings) -> None:
    moment = datetime(2001, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    user = make_user(first_name=EMOJI, preferences={EMOJI: EMOJI}, created_at=moment)
    project = make_project(user, tags=[EMOJI, "NULL"])
    code = make_code(project, code=EMOJI, temperature=0.1234567890123456, generation_time_seconds=1 / 3)
    async with DataLayer(preset) as other:
        async with other.transaction() as tx:
            for entity in (user, project, code):
                tx.add(entity)
        async with other.transaction() as tx:
            await asyncio.sleep(0.2)
            read: list[Any] = [
                await tx.users.get(user.id),
                await tx.projects.get(project.id),
                await tx.codes.get(code.id),
            ]
            found = await tx.users.list(id=[user.id], display_name=None)
            isolation = (await tx.execute(text("SELECT current_setting('transaction_isolation')"))).scalar_one()
            await asyncio.sleep(0.2)
            bytes_back = (await tx.execute(text(r"SELECT '\x00ff'::bytea, interval '1 day', ARRAY[NULL, 'a']"))).one()
    assert (read[0].first_name, read[0].preferences, read[0].created_at) == (EMOJI, {EMOJI: EMOJI}, moment)
    assert read[1].tags == [EMOJI, "NULL"]
    assert (read[2].code, read[2].temperature, read[2].generation_time_seconds) == (EMOJI, 0.1234567890123456, 1 / 3)
    assert [one.id for one in found] == [user.id]
    assert isolation == "read committed"
    assert bytes_back[0] == b"\x00\xff"
    async with data.transaction() as tx:
        assert (await tx.users.get(user.id)).first_name == EMOJI


async def test_transactions_that_meet_wait_for_each_other(data: DataLayer, preset: Settings) -> None:
    """Not SERIALIZABLE, in which one of them would fail; and no limit of a millisecond for a lock."""
    user = make_user()
    project = make_project(user)
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)

    async def count(other: DataLayer) -> None:
        async with other.transaction() as tx:
            await tx.projects.increment(project.id, "view_count")
            await asyncio.sleep(0.05)

    async with DataLayer(preset) as other:
        await asyncio.gather(*(count(other) for _ in range(5)))
        async with other.transaction() as tx:
            assert (await tx.projects.get(project.id)).view_count == 5


async def test_searching_finds_everything(data: DataLayer, preset: Settings) -> None:
    """gin_fuzzy_search_limit would leave matches out."""
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
        for _ in range(50):
            tx.add(make_project(user, tags=["common"]))
    async with DataLayer(preset) as other, other.transaction() as tx:
        await tx.execute(text("SET LOCAL enable_seqscan = off"))
        assert await tx.projects.count(tags=["common"]) == 50


async def test_listener_and_migrations_have_the_same_session(data: DataLayer, preset: Settings) -> None:
    names = ("client_encoding", "TimeZone", "DateStyle", "default_transaction_isolation", "bytea_output")
    question = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    expected = ("UTF8", "UTC", "ISO, MDY", "read committed", "hex")
    listener = await Listener.open(direct_address(preset.database), preset.database, "channel", time_limit=10)
    try:
        assert await listener.fetch_one(NamedQuery("test", question), ()) == expected
    finally:
        await listener.close()
    migrator = Migrator(direct_address(preset.database))
    with migrator._connection() as connection:
        assert tuple(connection.execute(text(question)).one()) == expected
        assert connection.scalar(text("SHOW statement_timeout")) == "0"
    assert (await asyncio.to_thread(migrator.check)).agrees
    assert not data.database.is_read_only
