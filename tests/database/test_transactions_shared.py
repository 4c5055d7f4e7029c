"""One transaction and several tasks: used by two at once, ended by another one, cancelled while it commits."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.entities import User
from data_layer.errors import (
    DataLayerError,
    DuplicateError,
    NestedTransactionError,
    StatementTimeoutError,
    TransactionClosedError,
)
from data_layer.repositories.unit_of_work import UnitOfWork
from tests.database.connection_helpers import PATIENCE, settings_for
from tests.support import make_code, make_project, make_user, until


async def _count_sessions(settings: Settings, state: str) -> int:
    assert settings.database.database_url
    async with await psycopg.AsyncConnection.connect(settings.database.database_url.get_secret_value()) as observer:
        cursor = await observer.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = %s", [state]
        )
        row = await cursor.fetchone()
    assert row
    return int(row[0])


@pytest.fixture(autouse=True)
async def _nothing_stays(data: DataLayer, settings: Settings) -> AsyncIterator[None]:
    """After each test every connection is back, and none is in a transaction."""
    yield
    await until(lambda: data.database.pool_figures()["in_use"] == 0)
    assert await _count_sessions(settings, "idle in transaction") == 0


class TestUseByTwoTasks:
    async def test_they_wait_for_each_other(self, data: DataLayer) -> None:
        users = [make_user() for _ in range(20)]

        async def work(tx: UnitOfWork, user: User) -> User | None:
            tx.add(user)
            await tx.flush()
            user.first_name = "Changed"
            await tx.users.count()
            return await tx.users.find_one(email=user.email)

        async with asyncio.timeout(PATIENCE), data.transaction() as tx:
            found = await asyncio.gather(*(work(tx, user) for user in users))
            assert found == users
            both = await asyncio.gather(tx.users.find_one(email=users[0].email), tx.projects.count())
            assert list(both) == [users[0], 0]
        async with data.transaction() as tx:
            assert await tx.users.count(first_name="Changed") == 20

    @pytest.mark.parametrize("begins_with", ["reads", "writes"])
    async def test_every_kind_of_use(self, data: DataLayer, begins_with: str) -> None:
        user = make_user()
        project = make_project(user)
        async with data.transaction() as tx:
            tx.add(user)
            tx.add(project)

        async def add(tx: UnitOfWork) -> None:
            code = make_code(project)
            tx.add(code)
            await tx.flush()

        async with asyncio.timeout(PATIENCE), data.transaction() as tx:
            if begins_with == "writes":
                tx.add(make_user())
            uses: list[Any] = [
                tx.users.get(user.id), tx.users.list(), tx.users.count(), tx.projects.get(project.id, lock=True),
                tx.execute(text("SELECT 1")), tx.flush(), tx.projects.increment(project.id, "view_count"),
                tx.orm(), tx.codes.summaries(project.id), add(tx), add(tx), tx.execute(text("SELECT pg_sleep(0.05)")),
                tx.audit.count(), tx.users.record_login(user, ip_address=None, user_agent=None),
            ]  # fmt: skip
            await asyncio.gather(*uses, *(tx.users.get(user.id) for _ in range(5)))
        async with data.transaction() as tx:
            assert await tx.codes.count() == 2
            assert (await tx.projects.get(project.id)).view_count == 1

    async def test_one_that_fails_does_not_keep_the_other_waiting(self, data: DataLayer) -> None:
        taken = make_user()
        async with data.transaction() as tx:
            tx.add(taken)

        async def fail(tx: UnitOfWork) -> None:
            tx.add(make_user(email=taken.email))
            await tx.flush()

        async with asyncio.timeout(PATIENCE):
            with pytest.raises(DataLayerError):
                async with data.transaction() as tx:
                    results = await asyncio.gather(fail(tx), tx.users.count(), fail(tx), return_exceptions=True)
                    assert isinstance(results[0], DuplicateError)
                    assert all(isinstance(result, DataLayerError | int) for result in results)

    async def test_a_statement_that_is_under_way_when_the_block_fails_is_cancelled(self, data: DataLayer) -> None:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(KeyError):
                async with data.transaction() as tx:
                    sleeping = asyncio.create_task(tx.execute(text("SELECT pg_sleep(60)")))
                    waiting = asyncio.create_task(tx.users.count())
                    await asyncio.sleep(0.1)
                    raise KeyError
            with pytest.raises(StatementTimeoutError):
                await sleeping
            with pytest.raises(TransactionClosedError):
                await waiting

    async def test_a_commit_waits_for_what_is_under_way_and_refuses_the_rest(self, data: DataLayer) -> None:
        late: list[asyncio.Task[Any]] = []
        user = make_user()
        async with asyncio.timeout(PATIENCE):
            async with data.transaction() as tx:
                tx.add(user)
                await tx.flush()
                early = asyncio.create_task(tx.execute(text("SELECT pg_sleep(0.2), 7")))
                await asyncio.sleep(0.05)
                asyncio.get_running_loop().call_later(0.05, lambda: late.append(asyncio.create_task(tx.users.count())))
            assert tuple((await early).one())[1] == 7
            await until(lambda: bool(late))
            with pytest.raises(TransactionClosedError):
                await late[0]
        with pytest.raises(TransactionClosedError):
            tx.add(make_user())
        async with data.transaction() as tx:
            assert await tx.users.count() == 1

    @pytest.mark.parametrize("is_flushed", [True, False])
    async def test_what_is_added_during_the_commit_is_refused(self, data: DataLayer, *, is_flushed: bool) -> None:
        """It would be lost without a word."""
        refused: list[Exception] = []

        def add(tx: UnitOfWork) -> None:
            try:
                tx.add(make_user())
            except TransactionClosedError as error:
                refused.append(error)

        async with data.transaction() as tx:
            tx.add(make_user())
            if is_flushed:
                await tx.flush()
            asyncio.get_running_loop().call_soon(add, tx)
        assert len(refused) == 1
        async with data.transaction() as tx:
            assert await tx.users.count() == 1

    async def test_what_is_added_while_others_are_inserted_is_not_lost(self, data: DataLayer) -> None:
        users = [make_user() for _ in range(10)]

        async def add(tx: UnitOfWork, user: User, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            tx.add(user)

        async with data.transaction() as tx:
            tx.add(make_user())
            await asyncio.gather(tx.flush(), *(add(tx, user, turns) for turns, user in enumerate(users)))
        async with data.transaction() as tx:
            assert await tx.users.count() == 11

    async def test_one_that_is_cancelled_while_it_waits_harms_nobody(self, data: DataLayer) -> None:
        async with data.transaction() as tx:
            tx.add(make_user())
            await tx.flush()
            sleeping = asyncio.create_task(tx.execute(text("SELECT pg_sleep(0.2)")))
            waiting = asyncio.create_task(tx.users.count())
            await asyncio.sleep(0.05)
            waiting.cancel()
            await sleeping
        async with data.transaction() as tx:
            assert await tx.users.count() == 1


class TestEndByAnotherTask:
    async def test_a_generator_that_was_left_is_rolled_back_and_its_task_goes_on(self, data: DataLayer) -> None:
        async def stream() -> AsyncIterator[int]:
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()
                for number in range(3):
                    yield number

        for _ in range(3):
            async for _ in stream():
                break
            async with data.transaction() as tx:
                assert await tx.users.count() == 0

    async def test_a_generator_is_ended_by_another_task(self, data: DataLayer) -> None:
        async def store() -> AsyncGenerator[UnitOfWork]:
            async with data.transaction() as tx:
                yield tx

        generator = store()
        tx = await anext(generator)
        tx.add(make_user())

        async def finish() -> None:
            with pytest.raises(StopAsyncIteration):
                await anext(generator)

        await asyncio.create_task(finish(), context=contextvars.Context())
        async with data.transaction() as tx:
            assert await tx.users.count() == 1

    async def test_the_error_of_the_commit_reaches_the_task_that_ends_it(self, data: DataLayer) -> None:
        taken = make_user()
        async with data.transaction() as tx:
            tx.add(taken)

        async def store() -> AsyncGenerator[UnitOfWork]:
            async with data.transaction() as tx:
                yield tx

        generator = store()
        (await anext(generator)).add(make_user(email=taken.email))
        with pytest.raises(DuplicateError):
            await asyncio.create_task(anext(generator))

    async def test_a_generator_that_the_garbage_collector_ends_inside_another_transaction(
        self, data: DataLayer
    ) -> None:
        async def store() -> AsyncGenerator[UnitOfWork]:
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()
                yield tx

        async def begin() -> list[Any]:
            generator = store()
            await anext(generator)
            cycle: list[Any] = [generator]
            cycle.append(cycle)
            timers.append(asyncio.get_running_loop().call_later(3600, list))  # It keeps the context of this task.
            return cycle

        timers: list[asyncio.TimerHandle] = []
        cycle = await asyncio.create_task(begin())
        async with data.transaction() as tx:
            tx.add(make_user())
            await tx.flush()
            del cycle

            def is_ended() -> bool:
                gc.collect()  # Again: what has just run may hold it for a moment.
                return data.database.pool_figures()["in_use"] == 1

            await until(is_ended)
            with pytest.raises(NestedTransactionError):  # It is this transaction that is still known.
                async with data.transaction():
                    pass
            assert await tx.users.count() == 1
        async with data.transaction() as tx:
            assert await tx.users.count() == 1
        timers[0].cancel()

    async def test_one_that_ends_inside_the_transaction_of_another_task(self, data: DataLayer) -> None:
        async def store() -> AsyncIterator[None]:
            async with data.transaction() as tx:
                tx.add(make_user())
                yield

        generator = store()

        async def begin() -> None:
            await anext(generator)

        await asyncio.create_task(begin())
        async with data.transaction() as tx:
            assert await anext(generator, "ended") == "ended"
            with pytest.raises(NestedTransactionError):
                async with data.transaction():
                    pass
            assert await tx.users.count() == 1

    async def test_nesting_is_found_after_a_generator_that_another_task_ended(self, data: DataLayer) -> None:
        async def store() -> AsyncIterator[None]:
            async with data.transaction():
                yield

        generator = store()
        await anext(generator)
        await asyncio.create_task(anext(generator, None))  # A coroutine, whatever it says.
        async with data.transaction():
            with pytest.raises(NestedTransactionError):
                async with data.transaction():
                    pass
        async with data.transaction() as tx:
            assert await tx.users.count() == 0


class TestCancellation:
    @pytest.mark.parametrize("way", ["at once", "with begin"])
    async def test_during_a_commit_of_a_frozen_server(
        self, data: DataLayer, settings: Settings, tmp_path: Path, way: str
    ) -> None:
        """The caller learns of its cancellation within seconds, and the connection is not used again."""
        assert settings.database.database_url
        async with DataLayer(
            settings_for(
                settings.database.database_url.get_secret_value(),
                settings,
                tmp_path,
                db_min_connections=1,
                db_max_connections=1,
            )
        ) as frozen:
            reached = asyncio.Event()
            process = await _backend(frozen)
            user = make_user()

            async def work() -> None:
                async with frozen.transaction() as tx:
                    tx.add(user)
                    if way == "with begin":
                        await tx.flush()
                        tx.invalidate("key")
                    os.kill(process, signal.SIGSTOP)
                    reached.set()

            try:
                task = asyncio.create_task(work())
                await reached.wait()
                await asyncio.sleep(0.2)
                started = asyncio.get_running_loop().time()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert asyncio.get_running_loop().time() - started < 15
                if way == "with begin":
                    # Whether it has happened is unknown, so the cache keeps nothing at the key.
                    assert await frozen.cache.get_or_load("key", _one, 60) == 1
                    assert await frozen.cache.get("key") is None
            finally:
                os.kill(process, signal.SIGCONT)
            async with asyncio.timeout(PATIENCE), frozen.transaction() as tx:
                await tx.users.count()
            assert await _backend(frozen) != process
        del data

    async def test_during_a_commit_of_a_server_that_answers(self, data: DataLayer) -> None:
        user = make_user()

        async def work() -> None:
            async with data.transaction() as tx:
                tx.add(user)
                asyncio.get_running_loop().call_soon(task.cancel)

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task
        async with data.transaction() as tx:
            assert await tx.users.count() == 1

    async def test_wins_over_an_error_of_the_commit(self, data: DataLayer) -> None:
        taken = make_user()
        async with data.transaction() as tx:
            tx.add(taken)

        async def work() -> None:
            async with data.transaction() as tx:
                tx.add(make_user(email=taken.email))
                asyncio.get_running_loop().call_soon(task.cancel)

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_while_a_connection_is_awaited_sends_nothing(
        self, settings: Settings, data: DataLayer, tmp_path: Path
    ) -> None:
        assert settings.database.database_url
        url = settings.database.database_url.get_secret_value()
        async with DataLayer(
            settings_for(url, settings, tmp_path, db_min_connections=1, db_max_connections=1)
        ) as narrow:
            async with narrow.transaction() as holder:
                await holder.users.count()
                started = asyncio.get_running_loop().time()

                async def work() -> None:
                    async with narrow.transaction() as tx:
                        tx.add(make_user())

                task = asyncio.create_task(work())
                await until(lambda: narrow.database.waiting == 1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert asyncio.get_running_loop().time() - started < 10
            assert narrow.database.pool_figures()["in_use"] == 0
        async with data.transaction() as tx:
            assert await tx.users.count() == 0


async def _one() -> int:
    return 1


async def _backend(data: DataLayer) -> int:
    async with data.transaction() as tx:
        return int((await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one())
