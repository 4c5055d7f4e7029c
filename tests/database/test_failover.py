"""A standby takes the place of the primary under load: nothing that was acknowledged is lost, and nobody restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_layer import DataLayer, Settings
from data_layer.errors import CommitUnknownError, DatabaseError
from data_layer.testing.postgresql_server import PostgresqlServer, PostgresqlStandby, StopMode
from tests.database.connection_helpers import create_and_migrate, emails, settings_for, until
from tests.support import make_user

Pair = tuple[PostgresqlServer, PostgresqlStandby]

pytestmark = pytest.mark.slow


@pytest.fixture
def pair(base_settings: Settings, tmp_path: Path) -> Iterator[Pair]:
    with PostgresqlServer() as primary:
        create_and_migrate(primary, base_settings, tmp_path)
        with PostgresqlStandby(primary, "heir") as standby:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'heir'")
            primary.execute("SELECT pg_reload_conf()")
            yield primary, standby


def settings_of(pair: Pair, base: Settings, folder: Path, form: str = "DATABASE_URL", **values: Any) -> Settings:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in pair)
    if form == "DATABASE_URL":
        return settings_for(f"postgresql://postgres@{hosts}/test", base, folder, **values)
    return settings_for(None, base, folder, db_host=hosts, db_name="test", **values)


class Writers:
    """Tasks that save users one after the other, and how each ended."""

    def __init__(self, data: DataLayer) -> None:
        self.acknowledged: list[str] = []
        self.unknown: set[str] = set()
        self.refused: set[str] = set()
        self._data = data
        self._is_over = asyncio.Event()
        self._tasks = [asyncio.create_task(self._write(flush=number % 2 == 0)) for number in range(12)]

    async def stop(self) -> None:
        self._is_over.set()
        await asyncio.gather(*self._tasks)

    async def more(self) -> None:
        target = len(self.acknowledged) + 50

        async def are_there() -> bool:
            assert not any(task.done() for task in self._tasks), [task for task in self._tasks if task.done()]
            return len(self.acknowledged) >= target

        await until(are_there)

    async def _write(self, *, flush: bool) -> None:
        while not self._is_over.is_set():
            user = make_user()
            try:
                async with self._data.transaction() as tx:
                    tx.add(user)
                    if flush:
                        await tx.flush()
            except CommitUnknownError:
                self.unknown.add(user.email)
            except DatabaseError:
                self.refused.add(user.email)
                await asyncio.sleep(0.05)
            else:
                self.acknowledged.append(user.email)


@pytest.mark.parametrize(("form", "stop"), [("DATABASE_URL", StopMode.KILL), ("DB_HOST", StopMode.FAST)])
async def test_a_promoted_standby_is_found_and_has_everything(
    pair: Pair, base_settings: Settings, tmp_path: Path, form: str, stop: StopMode
) -> None:
    primary, standby = pair
    async with DataLayer(settings_of(pair, base_settings, tmp_path, form)) as data:
        writers = Writers(data)
        await writers.more()
        await asyncio.to_thread(primary.stop, stop)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(standby.promote)
        await writers.more()
        await writers.stop()
        stored = set(await emails(data))
    assert set(writers.acknowledged) <= stored
    assert not writers.refused & stored
    assert stored <= set(writers.acknowledged) | writers.unknown
    assert writers.refused, "nobody noticed"


async def test_connections_to_a_primary_that_became_a_standby_are_replaced(
    pair: Pair, base_settings: Settings, tmp_path: Path
) -> None:
    """The old primary lives on and follows the new one: what takes no writes any more is not written to."""
    primary, standby = pair
    async with DataLayer(settings_of(pair, base_settings, tmp_path, db_min_connections=4)) as data:
        writers = Writers(data)
        await writers.more()
        await writers.stop()
        await asyncio.to_thread(standby.promote)
        # As a demoted server behaves to those who are connected to it, without breaking a connection.
        primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        primary.execute("SELECT pg_reload_conf()")
        before = set(await emails(data))
        again = Writers(data)
        await again.more()
        await again.stop()
    assert not again.refused | again.unknown
    sql = "SELECT email FROM users"
    assert {email for (email,) in standby.execute(sql, database="test")} >= before | set(again.acknowledged)
