"""The pool: as many connections as set, never more, none lost; waiting and statements end in time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import AsyncExitStack
from itertools import count, product
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, literal, select, text

from data_layer import DataLayer, Settings, User
from data_layer.errors import (
    ConcurrentChangeError,
    ConfigurationError,
    DatabaseError,
    DuplicateError,
    NotFoundError,
    PoolTimeoutError,
    StatementTimeoutError,
    TransactionError,
)
from tests.database.connection_helpers import (
    PATIENCE,
    backend_pid,
    count_connections,
    emails,
    observing,
    settings_for,
    until,
)
from tests.support import EMPTY_ALL_TABLES, make_user

Make = Callable[..., DataLayer]

APPLICATION = "test-connections"


@pytest.fixture
def make(observer: psycopg.AsyncConnection[Any], settings: Settings, tmp_path: Path) -> Make:
    """A data layer on the shared server with empty tables, known there by a name of its own."""
    del observer
    assert settings.database.database_url
    url = f"{settings.database.database_url.get_secret_value()}&application_name={APPLICATION}"
    return lambda **values: DataLayer(settings_for(url, settings, tmp_path, **values))


@pytest.fixture
async def observer(settings: Settings) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    assert settings.database.database_url
    async with observing(settings.database.database_url.get_secret_value()) as connection:
        await connection.execute(EMPTY_ALL_TABLES.encode())
        yield connection


async def test_the_minimum_is_open_at_once_and_all_are_closed_at_the_end(
    make: Make, observer: psycopg.AsyncConnection[Any]
) -> None:
    async with make(db_min_connections=4, db_max_connections=6) as data:
        assert await count_connections(observer, APPLICATION) == 4
        assert data.database.pool_figures() == {"maximum": 6, "in_use": 0, "idle": 4}

    async def all_closed() -> bool:
        return await count_connections(observer, APPLICATION) == 0

    await until(all_closed)


async def test_sqlalchemy_gets_the_connections_that_are_kept_at_hand(
    make: Make, observer: psycopg.AsyncConnection[Any]
) -> None:
    async with make(db_min_connections=3, db_max_connections=3) as data:
        await asyncio.gather(*(emails(data) for _ in range(3)))
        async with AsyncExitStack() as stack:
            for taken in range(1, 4):
                connection = await stack.enter_async_context(data.database.engine.connect())
                assert await connection.scalar(select(literal(taken))) == taken
                assert data.database.pool_figures() == {"maximum": 3, "in_use": taken, "idle": 3 - taken}
        assert await count_connections(observer, APPLICATION) == 3
        await asyncio.gather(*(emails(data) for _ in range(6)))
        assert data.database.pool_figures() == {"maximum": 3, "in_use": 0, "idle": 3}


async def test_options_that_a_transaction_sets_end_with_it(make: Make) -> None:
    async with make(db_min_connections=1, db_max_connections=1) as data:
        async with data.transaction() as tx:
            connection = await (await tx.orm()).connection()
            await connection.execution_options(mark="mine")
        async with data.transaction() as tx:
            connection = await (await tx.orm()).connection()
            assert connection.sync_connection is not None
            assert "mark" not in connection.sync_connection.get_execution_options()


class Load:
    """A hundred tasks on few connections, of which some fail and some are cancelled."""

    def __init__(self, data: DataLayer) -> None:
        self._data = data
        self._users = [make_user(first_name=f"Name {number}") for number in range(20)]
        self._chance = random.Random(2026)
        self.stored: set[str] = set()
        self.mixed_up: list[str] = []

    async def run(self) -> None:
        async with self._data.transaction() as tx:
            for user in self._users:
                tx.add(user)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(self._run(number) for number in range(100)))

    async def _run(self, number: int) -> None:
        task = asyncio.create_task(self._work(number))
        if number % 4 == 0:
            await asyncio.sleep(self._chance.random() * 0.2)
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert result is None or isinstance(result, KeyError | asyncio.CancelledError), result

    async def _work(self, number: int) -> None:
        user, new = self._users[number % len(self._users)], make_user()
        async with self._data.transaction() as tx:
            self._compare("get", (await tx.users.get(user.id)).first_name, user.first_name)
            if number % 3 == 0:
                tx.add(new)
                await tx.flush()
            asked = await tx.execute(select(literal(number), func.pg_sleep(0.005)))
            self._compare("execute", asked.one()[0], number)
            found = await tx.users.find_one(email=user.email)
            self._compare("find", found and found.id, user.id)
            if number % 5 == 0:
                raise KeyError(number)
        if number % 3 == 0:
            self.stored.add(new.email)

    def _compare(self, what: str, answer: object, expected: object) -> None:
        if answer != expected:
            self.mixed_up.append(f"{what}: {answer} instead of {expected}")


async def test_the_maximum_is_never_exceeded_and_no_connection_is_lost_or_mixed_up(
    make: Make, observer: psycopg.AsyncConnection[Any]
) -> None:
    maximum, counts = 5, [0]
    async with make(db_min_connections=1, db_max_connections=maximum) as data:
        load = Load(data)
        running = asyncio.create_task(load.run())
        while not running.done():
            counts.append(await count_connections(observer, APPLICATION))
        await running
        assert load.mixed_up == []
        assert 2 <= max(counts) <= maximum
        assert data.database.pool_figures()["in_use"] == 0
        assert len(load.stored) > 5
        assert load.stored <= set(await emails(data))
        # All of them can be used again, at the same time.
        barrier = asyncio.Barrier(maximum)

        async def meet() -> None:
            async with data.transaction() as tx:
                await tx.users.count()
                await barrier.wait()

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(meet() for _ in range(maximum)))


class CancelledAt:
    """Work whose task is cancelled when it waits for the given time, counted from 1."""

    def __init__(self, work: Coroutine[Any, Any, None], number: int) -> None:
        self._work = work
        self._number = number
        self.was_cancelled = False

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task
        resume: Callable[[Any], Any] = self._work.send
        argument: object = None
        for number in count(1):
            try:
                awaited = resume(argument)
            except StopIteration:
                return
            if number == self._number:
                self.was_cancelled = task.cancel()
            try:
                resume, argument = self._work.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001  (handed on)
                resume, argument = self._work.throw, error


@pytest.fixture
def busy_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver lets the loop turn after every step, as it does when the loop has been busy for 5 ms."""
    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", 0, raising=False)  # Older versions always do.


@pytest.mark.usefixtures("busy_loop")
async def test_a_connection_is_whole_wherever_its_user_was_cancelled_in_a_busy_loop(make: Make) -> None:
    async with make(db_min_connections=1, db_max_connections=2) as data:

        async def work(*, at_once: bool) -> None:
            async with data.transaction() as tx:
                tx.add(make_user())
                if not at_once:
                    await tx.flush()

        async def run(step: CancelledAt) -> None:
            await step

        for number, at_once in product(range(1, 20), (True, False)):
            step = CancelledAt(work(at_once=at_once), number)
            await asyncio.gather(asyncio.create_task(run(step)), return_exceptions=True)
            assert isinstance(await emails(data), list), number


async def test_cancellation_at_any_point_loses_no_connection(
    make: Make, observer: psycopg.AsyncConnection[Any]
) -> None:
    user, done, cancelled = make_user(), 0, 0
    kept: list[object] = []  # So that what is lost is not found again by the garbage collector.
    async with make(db_min_connections=1, db_max_connections=2) as data:
        async with data.transaction() as tx:
            tx.add(user)

        async def work() -> None:
            async with data.transaction() as tx:
                kept.append(tx)
                assert (await tx.users.get(user.id)).id == user.id
                tx.add(make_user())
                await tx.flush()
                assert await tx.users.find_one(id=user.id) is not None

        async def run(step: CancelledAt) -> None:
            await step

        for number in [*range(1, 13)] * 4:  # It may wait once more or less, as the server is quick or slow.
            await emails(data)  # A connection is ready, so that each time is like the one before.
            step = CancelledAt(work(), number)
            (result,) = await asyncio.gather(asyncio.create_task(run(step)), return_exceptions=True)
            assert result is None or isinstance(result, asyncio.CancelledError), result
            assert data.database.pool_figures()["in_use"] == 0, f"lost when cancelled at step {number}"
            assert await count_connections(observer, APPLICATION) <= 2
            done, cancelled = done + (result is None), cancelled + step.was_cancelled
        stored = len(await emails(data)) - 1
    assert cancelled >= 4 * 4
    # One that was cancelled while it was committing was stored all the same.
    assert 1 <= done <= stored < 48


async def test_after_a_cancellation_an_entity_knows_whether_it_is_stored(make: Make) -> None:
    counts = {True: 0, False: 0}
    async with make(db_min_connections=1, db_max_connections=2) as data:

        async def run(step: CancelledAt) -> None:
            await step

        async def work(user: User, *, at_once: bool) -> None:
            async with data.transaction() as tx:
                tx.add(user)
                if not at_once:
                    await tx.flush()

        # The server may be quick or slow, so it is repeated until it was cancelled before as well as after the commit.
        for round_number in range(40):
            for number, at_once in product(range(1, 9), (True, False)):
                user = make_user()
                step = CancelledAt(work(user, at_once=at_once), number)
                await asyncio.gather(asyncio.create_task(run(step)), return_exceptions=True)
                stored = user.email in await emails(data)
                counts[stored] += step.was_cancelled
                user.first_name = "Changed"
                async with data.transaction() as tx:
                    tx.add(user)  # Inserts it if it is not stored, and writes the change if it is.
                async with data.transaction() as tx:
                    assert (await tx.users.get(user.id)).first_name == "Changed"
            if round_number and all(counts.values()):
                break
    assert all(counts.values()), counts


async def test_one_that_needs_it_again_and_again_lets_others_have_their_turn(make: Make) -> None:
    user = make_user()
    order: list[str] = []
    begun = asyncio.Event()

    async def read(name: str, times: int) -> None:
        for _ in range(times):
            async with data.transaction() as tx:
                begun.set()
                await tx.users.get(user.id)
            order.append(name)

    async with make(db_max_connections=1, db_min_connections=1) as data:
        async with data.transaction() as tx:
            tx.add(user)
        begun.clear()
        often = asyncio.create_task(read("often", 20))
        await begun.wait()
        await asyncio.gather(often, read("once", 1), read("too", 1))
    assert {*order[:5]} == {"often", "once", "too"}


async def test_waiting_for_a_connection_ends_with_a_clear_error(make: Make) -> None:
    async with make(db_min_connections=1, db_max_connections=1, db_pool_timeout=0.2) as data:
        async with data.transaction() as tx:
            await tx.users.count()

            async def wait() -> None:
                async with data.transaction() as other:
                    await other.users.count()

            with pytest.raises(PoolTimeoutError, match="DB_MAX_CONNECTIONS or DB_POOL_TIMEOUT"):
                await asyncio.create_task(wait())
        await asyncio.create_task(wait())


async def test_a_connection_in_use_while_the_pool_is_closed_is_closed_afterwards(
    make: Make, observer: psycopg.AsyncConnection[Any]
) -> None:
    data = await make(db_min_connections=3).open()
    async with data.transaction() as tx:
        await tx.users.count()
        await data.close()
        assert await count_connections(observer, APPLICATION) >= 1

    async def all_closed() -> bool:
        return await count_connections(observer, APPLICATION) == 0

    await until(all_closed)


async def test_a_long_statement_is_stopped(make: Make) -> None:
    async with make(db_statement_timeout=0.3) as data:
        with pytest.raises(StatementTimeoutError, match="DB_STATEMENT_TIMEOUT"):
            async with data.transaction() as tx:
                await tx.execute(text("SELECT pg_sleep(60)"))
        assert await emails(data) == []


async def test_waiting_for_a_row_that_another_transaction_holds_is_stopped(
    make: Make, observer: psycopg.AsyncConnection[Any]
) -> None:
    user = make_user()
    async with make(db_statement_timeout=0.3) as data:
        async with data.transaction() as tx:
            tx.add(user)
        async with observer.transaction():
            await observer.execute("SELECT FROM users FOR UPDATE")
            with pytest.raises(StatementTimeoutError, match="look for locks"):
                async with data.transaction() as tx:
                    await tx.users.increment(user.id, "login_count")
        async with data.transaction() as tx:
            await tx.users.increment(user.id, "login_count")
        async with data.transaction() as tx:
            assert (await tx.users.get(user.id)).login_count == 1


@pytest.mark.parametrize("goes_on", [True, False], ids=["statement", "commit"])
async def test_a_transaction_that_does_nothing_for_too_long_is_ended(
    make: Make, observer: psycopg.AsyncConnection[Any], *, goes_on: bool
) -> None:
    async with make(db_statement_timeout=0.2, db_min_connections=1) as data:

        async def was_ended() -> bool:
            return await count_connections(observer, APPLICATION) == 0

        with pytest.raises(StatementTimeoutError, match="did nothing for too long"):
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()
                await until(was_ended)
                if goes_on:
                    await tx.users.count()
        assert await emails(data) == []


async def test_a_deadlock_asks_for_a_repetition(make: Make) -> None:
    one, other = make_user(), make_user()
    async with make() as data:
        async with data.transaction() as tx:
            tx.add(one)
            tx.add(other)
        both = asyncio.Barrier(2)

        async def cross(first: Any, second: Any) -> None:
            async with data.transaction() as tx:
                await tx.users.increment(first.id, "login_count")
                await both.wait()
                await tx.users.increment(second.id, "login_count")

        results = await asyncio.gather(cross(one, other), cross(other, one), return_exceptions=True)
        assert [type(result) for result in results if result] == [ConcurrentChangeError]
        async with data.transaction() as tx:
            assert (await tx.users.get(one.id)).login_count == 1


@pytest.mark.parametrize("through_orm", [True, False], ids=["orm", "rows"])
async def test_an_error_that_was_swallowed_does_not_look_like_success(make: Make, *, through_orm: bool) -> None:
    first, same = make_user(email="same@example.com"), make_user(email="same@example.com")
    async with make() as data:
        with pytest.raises(TransactionError, match="nothing of it was stored"):
            async with data.transaction() as tx:
                tx.add(first)
                await tx.flush()
                if through_orm:
                    with pytest.raises(DatabaseError):
                        await tx.execute(text("SELECT nothing FROM users"))
                else:
                    tx.add(same)
                    with pytest.raises(DuplicateError):
                        await tx.flush()
                    same.email = "other@example.com"
        assert await emails(data) == []


async def test_a_first_statement_that_failed_and_was_swallowed_does_not_look_like_success(make: Make) -> None:
    async with make() as data:
        async with data.transaction() as tx:
            tx.add(make_user(email="same@example.com"))
        with pytest.raises(TransactionError, match="nothing of it was stored"):
            async with data.transaction() as tx:
                with pytest.raises(DatabaseError):
                    await tx.execute(text("SELECT nothing FROM users"))
        refused = make_user(email="same@example.com")
        with pytest.raises((TransactionError, DuplicateError)):
            async with data.transaction() as tx:
                tx.add(refused)
                with pytest.raises(DuplicateError):
                    await tx.flush()
        assert await emails(data) == ["same@example.com"]


async def test_what_is_asked_often_is_prepared(make: Make) -> None:
    user = make_user()
    async with make(db_min_connections=1, db_max_connections=1) as data:
        async with data.transaction() as tx:
            tx.add(user)
        for _ in range(8):
            async with data.transaction() as tx:
                await tx.users.get(user.id)
        async with data.transaction() as tx:
            names = await tx.execute(
                text("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%FROM users WHERE users.id = $1'")
            )
            assert len(names.all()) == 1


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        ("ADD COLUMN added integer", "DROP COLUMN added"),
        ("ALTER COLUMN first_name TYPE text", "ALTER COLUMN first_name TYPE varchar(100)"),
    ],
    ids=["added", "type"],
)
async def test_prepared_statements_outlive_a_change_of_their_table(
    make: Make, observer: psycopg.AsyncConnection[Any], change: str, undo: str
) -> None:
    user = make_user()
    async with make(db_min_connections=1, db_max_connections=1) as data:
        async with data.transaction() as tx:
            tx.add(user)
        for _ in range(8):
            async with data.transaction() as tx:
                await tx.users.get(user.id)
                await tx.users.find_one(id=user.id)
        try:
            await observer.execute(f"ALTER TABLE users {change}".encode())
            for _ in range(3):
                async with data.transaction() as tx:
                    assert (await tx.users.get(user.id)).first_name == "Test"
        finally:
            await observer.execute(f"ALTER TABLE users {undo}".encode())


async def test_a_prepared_statement_that_breaks_inside_a_transaction_asks_for_a_repetition(
    make: Make, observer: psycopg.AsyncConnection[Any]
) -> None:
    user = make_user()
    async with make(db_min_connections=1, db_max_connections=1) as data:
        async with data.transaction() as tx:
            tx.add(user)
        for _ in range(8):
            async with data.transaction() as tx:
                await tx.users.get(user.id)
        try:
            await observer.execute("ALTER TABLE users ALTER COLUMN first_name TYPE text")
            with pytest.raises(ConcurrentChangeError, match="repeat the transaction"):
                async with data.transaction() as tx:
                    tx.add(make_user())
                    await tx.flush()
                    await tx.users.get(user.id)
            async with data.transaction() as tx:
                assert (await tx.users.get(user.id)).first_name == "Test"
        finally:
            await observer.execute("ALTER TABLE users ALTER COLUMN first_name TYPE varchar(100)")
        assert await emails(data) == [user.email]


async def test_options_in_the_address_are_kept_beside_ours(settings: Settings, tmp_path: Path) -> None:
    assert settings.database.database_url
    url = f"{settings.database.database_url.get_secret_value()}&options=-c%20work_mem%3D7MB&application_name=mine"
    names = ("work_mem", "application_name", "statement_timeout", "timezone")
    own = DataLayer(settings_for(url, settings, tmp_path, db_statement_timeout=7))
    async with own as data, data.transaction() as tx:
        values = [(await tx.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
    assert values == ["7MB", "mine", "7s", "UTC"]


def test_a_password_with_an_at_sign_is_refused_before_a_piece_of_it_is_shown(
    settings: Settings, tmp_path: Path
) -> None:
    url = "postgresql://user:half@secret-half@127.0.0.1/test"

    async def open_it() -> None:
        async with DataLayer(settings_for(url, settings, tmp_path)):
            pass

    with pytest.raises(ConfigurationError, match="as %40") as caught:
        asyncio.run(open_it())
    assert "secret-half" not in str(caught.value)


async def test_not_found_leaves_the_connection_as_it_was(make: Make) -> None:
    async with make(db_min_connections=1, db_max_connections=1) as data:
        pid = await backend_pid(data)
        with pytest.raises(NotFoundError):
            async with data.transaction() as tx:
                await tx.users.get(make_user().id)
        assert await backend_pid(data) == pid
