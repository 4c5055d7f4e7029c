"""Reads go to replicas that are fresh enough, and show what their caller has written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.database import replicas as replicas_module
from data_layer.database.address import replica_addresses
from data_layer.errors import DatabaseUnavailableError, InvalidValueError, TransactionError
from data_layer.testing.postgresql_server import PostgresqlServer, PostgresqlStandby, StopMode
from tests.database.connection_helpers import create_and_migrate, settings_for, until
from tests.support import make_user

SLOW_ON_REPLICAS = """
SELECT current_setting('port'), count(*), CASE WHEN pg_is_in_recovery() THEN pg_sleep(60) END FROM users
"""
Servers = tuple[PostgresqlServer, PostgresqlStandby, PostgresqlStandby]


@pytest.fixture(scope="module")
def cluster(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with PostgresqlServer() as primary:
        create_and_migrate(primary, base_settings, tmp_path_factory.mktemp("server"))
        with PostgresqlStandby(primary, "one") as one, PostgresqlStandby(primary, "two") as two:
            yield primary, one, two


@pytest.fixture
async def data(cluster: Servers, base_settings: Settings, tmp_path: Path) -> AsyncIterator[DataLayer]:
    async with open_data(cluster, base_settings, tmp_path) as data:
        yield data


def open_data(cluster: Servers, base: Settings, folder: Path, **values: Any) -> DataLayer:
    primary, one, two = cluster
    hosts = f"127.0.0.1:{one.port}, 127.0.0.1:{two.port}"
    url = primary.url("test", host="127.0.0.1")
    return DataLayer(settings_for(url, base, folder, db_replica_hosts=hosts, **values))


async def port_of_reader(data: DataLayer, after: str | None = None) -> int:
    async with data.transaction(read_only=True, after=after) as tx:
        return int((await tx.execute(text("SELECT current_setting('port')"))).scalar_one())


async def ports_of_readers(data: DataLayer) -> set[int]:
    return {await port_of_reader(data) for _ in range(24)}


async def used(data: DataLayer) -> int:
    return sum(bool(figures["is_used"]) for figures in data.replicas.figures())


async def both_used(data: DataLayer) -> bool:
    return await used(data) == 2


async def test_reads_are_spread_over_the_replicas_and_writes_go_to_the_primary(
    data: DataLayer, cluster: Servers
) -> None:
    primary, one, two = cluster
    await until(lambda: both_used(data))
    assert await ports_of_readers(data) == {one.port, two.port}
    async with data.transaction() as tx:
        assert (await tx.execute(text("SELECT current_setting('port')"))).scalar_one() == str(primary.port)


async def test_what_only_reads_refuses_to_change_anything(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    with pytest.raises(TransactionError, match="only reads"):
        async with data.transaction(read_only=True) as tx:
            tx.add(make_user())
    with pytest.raises(TransactionError, match="only reads"):
        async with data.transaction(read_only=True) as tx:
            (await tx.users.get(user.id)).first_name = "Changed"
    with pytest.raises(DatabaseUnavailableError, match="read-only"):
        async with data.transaction(read_only=True) as tx:
            await tx.execute(text("DELETE FROM users"))
    async with data.transaction() as tx:
        assert (await tx.users.get(user.id)).first_name == user.first_name


async def test_without_replicas_such_a_read_is_served_by_the_primary_and_changes_nothing_either(
    cluster: Servers, base_settings: Settings, tmp_path: Path
) -> None:
    settings = settings_for(cluster[0].url("test"), base_settings, tmp_path)
    async with DataLayer(settings) as data:
        assert await port_of_reader(data) == cluster[0].port
        with pytest.raises(TransactionError, match="only reads"):
            async with data.transaction(read_only=True) as tx:
                tx.add(make_user())


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_caller_reads_what_it_has_written_while_replicas_are_held_back(
    data: DataLayer, cluster: Servers, *, at_once: bool
) -> None:
    primary, one, two = cluster
    await until(lambda: both_used(data))
    one.hold_back()
    two.hold_back()
    try:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
            if not at_once:
                await tx.flush()
        for _ in range(8):
            async with data.transaction(read_only=True) as tx:
                assert (await tx.users.get(user.id)).email == user.email
        assert await ports_of_readers(data) == {primary.port}
        one.let_go()

        async def is_read_from_one() -> bool:
            return await port_of_reader(data) == one.port

        await until(is_read_from_one)
        async with data.transaction(read_only=True) as tx:
            assert (await tx.users.get(user.id)).email == user.email
    finally:
        one.let_go()
        two.let_go()


async def test_a_position_is_handed_to_another_task(data: DataLayer, cluster: Servers) -> None:
    primary, one, two = cluster
    await until(lambda: both_used(data))
    one.hold_back()
    two.hold_back()
    try:

        async def write() -> str | None:
            async with data.transaction() as tx:
                tx.add(make_user())
            return data.position

        position = await asyncio.create_task(write())
        assert position
        assert data.position is None, "what another task has written is not known here"
        assert await port_of_reader(data) in {one.port, two.port}
        assert await port_of_reader(data, after=position) == primary.port
    finally:
        one.let_go()
        two.let_go()


async def test_a_replica_that_lags_is_left_out_and_taken_back(
    cluster: Servers, base_settings: Settings, tmp_path: Path
) -> None:
    primary, one, two = cluster
    async with open_data(cluster, base_settings, tmp_path, db_replica_max_lag=0.6) as data:
        await until(lambda: both_used(data))
        one.hold_back()
        try:
            primary.execute("CREATE TABLE IF NOT EXISTS something (x int)", database="test")
            # The other one may lag for a moment too, on a busy machine.
            await until(lambda: are_read(data, two))
        finally:
            one.let_go()
        await until(lambda: are_read(data, one, two))


async def are_read(data: DataLayer, *servers: PostgresqlServer) -> bool:
    return await ports_of_readers(data) == {server.port for server in servers}


async def test_a_replica_that_stays_away_is_told_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    monkeypatch.setattr(replicas_module, "_LOOK_SECONDS", 0.01)
    server = await asyncio.start_server(count, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, DataLayer(settings.replaced(db_replica_hosts=f"127.0.0.1:{port}")) as data:

        async def was_asked_again() -> bool:
            return asked >= 6

        await until(was_asked_again)
        assert not await used(data)
    lines = [line for line in caplog.text.splitlines() if "replica_left_out" in line]
    assert len(lines) == 1


@pytest.mark.slow
@pytest.mark.parametrize("stop", [StopMode.FAST, StopMode.KILL])
async def test_no_read_fails_while_a_replica_is_killed_and_it_is_taken_back(
    data: DataLayer, cluster: Servers, stop: StopMode
) -> None:
    _, one, two = cluster
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    await until(lambda: both_used(data))
    is_over = asyncio.Event()

    async def read() -> int:
        done = 0
        while not is_over.is_set():
            async with data.transaction(read_only=True) as tx:
                assert (await tx.users.get(user.id)).email == user.email
            done += 1
        return done

    readers = [asyncio.create_task(read()) for _ in range(4)]
    await asyncio.to_thread(one.stop, stop)

    async def is_left_out() -> bool:
        return await ports_of_readers(data) == {two.port}

    await until(is_left_out)
    await asyncio.to_thread(one.start)
    await until(lambda: both_used(data))
    is_over.set()
    assert all(await asyncio.gather(*readers))
    assert data.database.pool_figures()["in_use"] == 0


async def test_replicas_are_read_while_the_primary_is_away(data: DataLayer, cluster: Servers) -> None:
    primary = cluster[0]
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    await until(lambda: both_used(data))

    async def read() -> bool:
        async with data.transaction(read_only=True) as tx:
            return (await tx.users.get(user.id)).email == user.email

    await until(lambda: shows(data, cluster, user.email))
    await asyncio.to_thread(primary.stop, StopMode.FAST)
    try:
        await asyncio.sleep(6)  # Longer than the lag that is allowed: nothing newer can exist.
        assert await read()
        with pytest.raises(DatabaseUnavailableError):
            async with data.transaction() as tx:
                tx.add(make_user())
    finally:
        await asyncio.to_thread(primary.start)
    await until(lambda: both_used(data))


async def shows(data: DataLayer, cluster: Servers, email: str) -> bool:
    sql = "SELECT count(*) FROM users WHERE email = %s"
    return all(server.execute(sql, email, database="test")[0][0] == 1 for server in cluster) and await both_used(data)


@pytest.mark.parametrize("position", ["", "nonsense", "1", "x/y", "1/2/3"])
async def test_what_is_no_position_is_refused(data: DataLayer, position: str) -> None:
    with pytest.raises(InvalidValueError, match="not a position"):
        data.transaction(read_only=True, after=position)


@pytest.mark.parametrize("way", ["session", "by id", "in the middle"])
async def test_a_replica_that_must_follow_the_primary_hands_the_read_over(
    data: DataLayer, cluster: Servers, way: str
) -> None:
    """Its conflict with what it has to replay is not a change of the same rows by somebody else."""
    primary, *replicas = cluster
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    for replica in replicas:
        replica.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        replica.execute("SELECT pg_reload_conf()")

    async def reads_from_replicas() -> bool:
        """What was just written is read from the primary until it is known to be on a replica."""
        return await both_used(data) and primary.port not in await ports_of_readers(data)

    async def is_under_way() -> bool:
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        return any(replica.execute(sleeping) for replica in replicas)

    await until(reads_from_replicas)
    try:
        async with data.transaction(read_only=True) as tx:
            if way == "in the middle":
                found = await tx.users.find_one(email=user.email)
                assert found is not None
            reading = asyncio.create_task(tx.execute(text(SLOW_ON_REPLICAS)))
            await until(is_under_way)
            primary.execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE; COMMIT", database="test")
            port, count, *_ = tuple((await reading).one())
            assert port == str(primary.port)
            assert count >= 1
            again = await (tx.users.get(user.id) if way == "by id" else tx.users.find_one(email=user.email))
            assert again is not None
            assert again.email == user.email
            if way == "in the middle":
                assert again is found
        assert await used(data) == 2, "such a replica is as good as before"
    finally:
        for replica in replicas:
            replica.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
            replica.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@/name?host=/run/postgresql",
        "postgresql://me@/name",
        "postgresql://me@first/name",
        "postgresql://me@first:1,second:2/name",
        "postgresql://me@first/name?hostaddr=192.0.2.1&port=1&target_session_attrs=read-write",
    ],
)
def test_a_replica_is_where_it_is_said_to_be_wherever_the_primary_is(url: str) -> None:
    settings = Settings(database_url=url, db_replica_hosts="replica:5433,[::1]").database
    found = [
        {**address.url.translate_connect_args(), **address.url.query, **address.options}
        for address in replica_addresses(settings)
    ]
    assert [(each["host"], each["port"]) for each in found] == [("replica", 5433), ("::1", 5432)]
    for each in found:
        assert (each["hostaddr"], each["target_session_attrs"]) == ("", "any")
        assert (each["username"], each["database"]) == ("me", "name")
        assert "statement_timeout" in each["options"]
