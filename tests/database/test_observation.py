"""What can be seen of statements, connections and transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select, text, union_all, update

from data_layer import DataLayer, Settings
from data_layer.context import request_context
from data_layer.database.statements import NamedQuery, named
from data_layer.entities import Project, User
from data_layer.errors import DuplicateError, PoolTimeoutError, StatementTimeoutError
from data_layer.observability.log import FIELDS
from tests.database.observers import Recorder
from tests.support import make_project, make_user

HOSTILE = "*/ DROP TABLE users; --' \\' %s %(x)s /* \0\n\N{SNOWMAN}"


@pytest.fixture
def recorder(data: DataLayer) -> Recorder:
    recorder = Recorder()
    data.database.observation.add(recorder)
    return recorder


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [getattr(record, FIELDS) for record in caplog.records if record.getMessage() == name]


async def running_text(data: DataLayer, answer: NamedQuery | str, parameters: Sequence[Any] = ()) -> str:
    """What the server says that it is executing while it executes this."""
    async with data.transaction() as tx:
        if isinstance(answer, NamedQuery):
            row = await tx.users._session.fetch_one(answer, parameters)
            return str(row[0]) if row else ""
        return str((await tx.execute(text(answer))).scalar_one())


CURRENT = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"


class TestStatements:
    async def test_the_hot_statements_are_told_by_table_and_kind(self, data: DataLayer, recorder: Recorder) -> None:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
        async with data.transaction() as tx:
            await tx.users.get(user.id)
        assert [names for names, _, _ in recorder.round_trips] == [("users.insert",), ("users.select",)]
        assert all(seconds > 0 and error is None for _, seconds, error in recorder.round_trips)

    async def test_statements_that_travel_together_are_told_together(self, data: DataLayer, recorder: Recorder) -> None:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
            tx.add(make_project(user))
        assert [names for names, _, _ in recorder.round_trips] == [("users.insert", "projects.insert")]

    @pytest.mark.parametrize(
        ("statement", "name"),
        [
            (select(User), "users.select"),
            (select(func.count()).select_from(User).join(Project, Project.user_id == User.id), "users.select"),
            (select(func.count()).select_from(select(Project.id).limit(3).subquery()), "projects.select"),
            (select(User.id).where(User.id.in_(select(Project.user_id))), "users.select"),
            (union_all(select(User.id), select(Project.id)), "users.select"),
            (select(select(Project.id).cte("some")), "projects.select"),
            (select(union_all(select(User.id), select(Project.id)).subquery()), "users.select"),
            (update(User).values(first_name="A"), "users.update"),
            (select(func.now()), "unnamed"),
            (text("SELECT 1"), "unnamed"),
            (named("reports.weekly", text("SELECT 1")), "reports.weekly"),
            (named("reports.weekly", select(User)), "reports.weekly"),
        ],
    )
    async def test_sqlalchemys_statements_are_told_by_table_and_kind_or_as_named(
        self, data: DataLayer, recorder: Recorder, statement: Any, name: str
    ) -> None:
        for _ in range(2):  # The second time SQLAlchemy has compiled it already.
            async with data.transaction() as tx:
                await tx.execute(statement)
        assert recorder.names.count(name) == 2

    async def test_changes_found_by_the_session_are_told(self, data: DataLayer, recorder: Recorder) -> None:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
        async with data.transaction() as tx:
            (await tx.users.get(user.id)).first_name = "Changed"
        assert recorder.names == [
            "users.insert",
            "users.select",
            "transaction.begin",
            "users.update",
            "transaction.commit",
        ]

    async def test_errors_are_told_by_their_code(self, data: DataLayer, recorder: Recorder) -> None:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
        with pytest.raises(DuplicateError):
            async with data.transaction() as tx:
                tx.add(make_user(email=user.email))
        with pytest.raises(DuplicateError):
            async with data.transaction() as tx:
                await tx.execute(update(User).values(id=make_user().id, email="x"))
                await tx.execute(text("INSERT INTO users SELECT * FROM users"))
        failed = [(names, error) for names, _, error in recorder.round_trips if error]
        assert failed == [(("users.insert",), DuplicateError.code), (("unnamed",), DuplicateError.code)]

    async def test_a_cancelled_statement_is_told_as_such(self, data: DataLayer, recorder: Recorder) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), data.transaction() as tx:
                await tx.execute(named("tests.sleep", text("SELECT pg_sleep(30)")))
        assert [error for names, _, error in recorder.round_trips if names == ("tests.sleep",)] == ["cancelled"]


class TestSlowStatements:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.replaced(db_slow_statement=0.2)

    async def test_they_are_logged_once_with_their_name(
        self, data: DataLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with request_context(correlation_id="request-7"):
            async with data.transaction() as tx:
                await tx.execute(named("tests.sleep", text("SELECT pg_sleep(0.25), 'private'")))
        [fields] = events(caplog, "statement_slow")
        assert fields["statement"] == "tests.sleep"
        assert fields["correlation_id"] == "request-7"
        assert fields["duration_ms"] >= 200
        assert "private" not in str(fields)

    async def test_one_that_failed_says_why(self, data: DataLayer, caplog: pytest.LogCaptureFixture) -> None:
        sleep = NamedQuery("tests.sleep", "SELECT pg_sleep(30)")
        with pytest.raises(StatementTimeoutError):
            async with data.transaction() as tx:
                await tx.execute(text("SET LOCAL statement_timeout = 250"))
                await tx.users._session.fetch_one(sleep, ())
        [fields] = events(caplog, "statement_slow")
        assert (fields["statement"], fields["error"]) == ("tests.sleep", StatementTimeoutError.code)
        assert "correlation_id" not in fields

    async def test_zero_means_never(self, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
        async with (
            DataLayer(settings.replaced(db_slow_statement=0)) as data,
            data.transaction() as tx,
        ):
            await tx.execute(text("SELECT pg_sleep(0.25)"))
        assert not events(caplog, "statement_slow")


class TestConnections:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.replaced(
            db_max_connections=1, db_min_connections=1, db_pool_timeout=0.3, audit_flush_interval=60
        )

    async def test_waiting_for_one_is_told(self, data: DataLayer, recorder: Recorder) -> None:
        async with data.transaction() as tx:
            await tx.users.count()
            with pytest.raises(PoolTimeoutError):
                await asyncio.create_task(self._count(data))
        assert [error for _, error in recorder.waits] == [None, PoolTimeoutError.code]
        assert recorder.waits[1][0] >= 0.25

    async def _count(self, data: DataLayer) -> None:
        async with data.transaction() as tx:
            await tx.users.count()


class TestTransactions:
    async def test_their_outcome_is_told(self, data: DataLayer, recorder: Recorder) -> None:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
        async with data.transaction() as tx:
            await tx.users.get(user.id)
        async with data.transaction():
            pass
        async with data.transaction() as tx:
            (await tx.users.get(user.id)).first_name = "Changed"
        with pytest.raises(KeyError):
            async with data.transaction() as tx:
                await tx.execute(update(User).values(first_name="Other"))
                raise KeyError
        with pytest.raises(DuplicateError):
            async with data.transaction() as tx:
                tx.add(make_user(email=user.email))
        assert recorder.transactions == ["committed", "read_only", "committed", "rolled_back", "rolled_back"]


class TestComments:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.replaced(db_sql_comments=True)

    @pytest.mark.parametrize("sql", [NamedQuery("tests.current", CURRENT), CURRENT], ids=["driver", "sqlalchemy"])
    async def test_the_server_sees_the_correlation_id(self, data: DataLayer, sql: str) -> None:
        assert await running_text(data, sql) == CURRENT
        with request_context(correlation_id="abc/1"):
            assert await running_text(data, sql) == f"{CURRENT} /*correlation_id='abc%2F1'*/"

    @pytest.mark.parametrize("sql", [NamedQuery("tests.current", CURRENT), CURRENT], ids=["driver", "sqlalchemy"])
    async def test_the_server_sees_the_span(self, data: DataLayer, sql: str) -> None:
        comments = data.database.observation.comments
        assert comments
        comments.traceparent = lambda: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        parent = "traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'"
        assert await running_text(data, sql) == f"{CURRENT} /*{parent}*/"
        with request_context(correlation_id="a"):
            assert await running_text(data, sql) == f"{CURRENT} /*correlation_id='a',{parent}*/"

    async def test_nothing_breaks_out_of_it(self, data: DataLayer) -> None:
        user = make_user()
        with request_context(correlation_id=HOSTILE * 3):
            async with data.transaction() as tx:
                tx.add(user)
            async with data.transaction() as tx:
                stored = await tx.users.find_one(email=user.email)
                assert stored
                stored.first_name = "100 % %s"
            async with data.transaction() as tx:
                assert (await tx.users.get(user.id)).first_name == "100 % %s"
            seen = [await running_text(data, sql) for sql in (NamedQuery("tests.current", CURRENT), CURRENT)]
        for comment in (each.removeprefix(CURRENT) for each in seen):
            assert comment.startswith(" /*correlation_id='%2A%2F")
            assert comment.endswith("'*/")
            assert not set(comment[19:-3]) & set("'*/\\\"\n\0 ;")

    async def test_no_statement_is_prepared(self, data: DataLayer) -> None:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
            await tx.flush()
            for _ in range(12):
                await tx.execute(select(User.id))
            prepared = await tx.execute(text("SELECT count(*) FROM pg_prepared_statements"))
            assert prepared.scalar_one() == 0


async def test_without_the_setting_nothing_is_added(data: DataLayer) -> None:
    with request_context(correlation_id="abc"):
        assert await running_text(data, NamedQuery("tests.current", CURRENT)) == CURRENT


async def test_a_name_is_not_part_of_the_text(data: DataLayer) -> None:
    address = data.settings.database.database_url
    assert address
    async with await psycopg.AsyncConnection.connect(address.get_secret_value()) as connection:
        cursor = await connection.execute(NamedQuery("tests.one", "SELECT %s"), ("1",))
        assert await cursor.fetchone() == ("1",)
