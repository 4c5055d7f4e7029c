"""What PostgreSQL, the driver and SQLAlchemy say becomes one of our errors, whatever way a statement takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.exc import SQLAlchemyError, StatementError
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings
from data_layer.database.driver import needs_new_connection, translate, translated
from data_layer.database.engine import driver_connection
from data_layer.database.listener import Listener
from data_layer.database.statements import NamedQuery
from data_layer.entities.enums import UserStatus
from data_layer.errors import (
    ConcurrentChangeError,
    DatabaseError,
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DatabaseUnavailableError,
    DataLayerError,
    DuplicateError,
    InvalidTextError,
    InvalidValueError,
    SchemaMismatchError,
    StatementTimeoutError,
    TransactionError,
    ValueTooLongError,
)
from tests.support import make_user

REASON = "what the server said"

STATES: dict[str, tuple[type[DataLayerError], str]] = {
    "08006": (DatabaseUnavailableError, f"broke: {REASON}"),
    "0A000": (DatabaseError, f"does not support this: {REASON}"),
    "22001": (ValueTooLongError, REASON),
    "22003": (InvalidValueError, f"does not fit its column: {REASON}"),
    "22021": (InvalidTextError, "not UTF-8"),
    "22P05": (InvalidTextError, "such as NUL"),
    "25006": (DatabaseUnavailableError, f"read-only at the moment: {REASON}"),
    "25P02": (TransactionError, "had failed, so nothing of it was stored"),
    "25P03": (StatementTimeoutError, f"did nothing for too long and was ended: {REASON}"),
    "25P04": (StatementTimeoutError, f"took too long and was ended: {REASON}"),
    "26000": (DatabaseError, f"{REASON}; behind PgBouncer or another pooler set DB_PGBOUNCER=true"),
    "28000": (DatabaseLoginError, f"refused the login: {REASON}"),
    "28P01": (DatabaseLoginError, "the user name or the password"),
    "3D000": (DatabaseMissingError, f"{REASON}; make it with: data-layer db create"),
    "40001": (ConcurrentChangeError, "repeat the transaction"),
    "40P01": (ConcurrentChangeError, "repeat the transaction"),
    "42501": (DatabasePermissionError, f"lacks a right: {REASON}"),
    "42703": (SchemaMismatchError, f"{REASON}; see: data-layer db check"),
    "42883": (SchemaMismatchError, f"{REASON}; see: data-layer db check"),
    "42P01": (SchemaMismatchError, f"{REASON}; see: data-layer db check"),
    "42P05": (DatabaseError, f"{REASON}; behind PgBouncer or another pooler set DB_PGBOUNCER=true"),
    "53100": (DatabaseError, f"disk of the PostgreSQL server is full: {REASON}"),
    "53300": (DatabaseUnavailableError, f"{REASON}; lower DB_MAX_CONNECTIONS"),
    "54000": (ValueTooLongError, REASON),
    "54001": (InvalidValueError, f"nested too deeply: {REASON}"),
    "55P03": (StatementTimeoutError, f"stopped the statement: {REASON}"),
    "57014": (StatementTimeoutError, "raise DB_STATEMENT_TIMEOUT"),
    "57P03": (DatabaseUnavailableError, f"not available: {REASON}"),
    "XX000": (DatabaseError, rf"refused the statement \(XX000\): {REASON}"),
}


@pytest.mark.parametrize("state", STATES)
async def test_every_state_has_its_error(data: DataLayer, state: str) -> None:
    kind, message = STATES[state]
    statement = text(f"DO $$ BEGIN RAISE '{REASON}' USING ERRCODE = '{state}'; END $$")
    with pytest.raises(kind, match=message) as by_execute:
        async with data.transaction() as tx:
            await tx.execute(statement)
    assert type(by_execute.value) is kind
    with pytest.raises(kind) as by_session:
        async with data.transaction() as tx:
            await (await tx.orm()).execute(statement)
    assert str(by_session.value) == str(by_execute.value)


STATEMENTS: dict[str, tuple[type[DataLayerError], str]] = {
    "SELECT 1 / 0": (InvalidValueError, "division by zero"),
    "SELECT CAST('x' AS integer)": (InvalidValueError, "invalid input syntax"),
    r"SELECT convert_from('\xff', 'UTF8')": (InvalidTextError, "UTF-8"),
    r"""SELECT CAST('{"a": "\u0000"}' AS jsonb) ->> 'a'""": (InvalidTextError, "NUL"),
    "SELECT lower(1, 2)": (SchemaMismatchError, "lower"),
    "SELECT FROM nowhere": (SchemaMismatchError, "nowhere"),
    "SELECT nothing FROM users": (SchemaMismatchError, "nothing"),
    "SELECT SELECT": (DatabaseError, "42601"),
    "SET LOCAL transaction_timeout = 200; SELECT pg_sleep(20)": (StatementTimeoutError, "took too long"),
    "SET LOCAL statement_timeout = 50; SELECT pg_sleep(20)": (StatementTimeoutError, "statement timeout"),
    "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(20)": (StatementTimeoutError, "user request"),
    "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(20)": (DatabaseUnavailableError, "administrator"),
    "SET TRANSACTION READ ONLY; DELETE FROM users": (DatabaseUnavailableError, "read-only"),
    "SET LOCAL ROLE pg_monitor; SELECT FROM users": (DatabasePermissionError, "users"),
    "COMMIT; VACUUM nowhere": (SchemaMismatchError, "nowhere"),
}


@pytest.mark.parametrize("sql", STATEMENTS)
async def test_what_real_statements_run_into(data: DataLayer, sql: str) -> None:
    kind, message = STATEMENTS[sql]
    with pytest.raises(kind, match=message) as caught:
        async with data.transaction() as tx:
            for statement in sql.split("; "):
                await tx.execute(text(statement))
    assert type(caught.value) is kind
    assert data.database.pool_figures()["in_use"] == 0
    async with data.transaction() as tx:
        assert await tx.users.count() == 0


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("a\0b", InvalidTextError, "NUL character"),
        ("\ud800", InvalidTextError, "half a surrogate pair"),
        (object(), DatabaseError, "cannot adapt type"),
        (10**40, InvalidValueError, "out of range"),
    ],
    ids=["nul", "surrogate", "object", "number"],
)
async def test_values_that_cannot_be_sent(
    data: DataLayer, value: object, kind: type[DataLayerError], message: str
) -> None:
    statement = text("SELECT CAST(:value AS text), CAST(:value AS integer)").bindparams(bindparam("value", value))
    with pytest.raises(kind, match=message):
        async with data.transaction() as tx:
            await tx.execute(statement)
    assert data.database.pool_figures()["in_use"] == 0


async def test_a_row_that_vanished_under_the_session_asks_for_a_new_reading(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    with pytest.raises(ConcurrentChangeError, match="read it again"):
        async with data.transaction() as tx:
            read = await tx.users.get(user.id)
            await tx.execute(text("DELETE FROM users"))
            read.first_name = "Gone"
    async with data.transaction() as tx:
        assert await tx.users.count() == 1


async def test_a_session_that_failed_before_is_told_in_our_words(data: DataLayer) -> None:
    async with data.transaction() as tx:
        tx.add(make_user(email="taken@example.com"))
    with pytest.raises(TransactionError, match="nothing of it was stored"):
        async with data.transaction() as tx:
            first = make_user()
            tx.add(first)
            await tx.flush()
            first.email = "taken@example.com"
            with pytest.raises(DuplicateError):
                await tx.flush()
            await tx.users.count()
    async with data.transaction() as tx:
        assert await tx.users.count() == 1


async def test_a_message_holds_neither_the_values_nor_the_address(data: DataLayer) -> None:
    secret = "a-value-that-nobody-may-see"
    async with data.transaction() as tx:
        tx.add(make_user(email="taken@example.com", password_hash=secret))
    with pytest.raises(DuplicateError) as caught:
        async with data.transaction() as tx:
            tx.add(make_user(email="taken@example.com", password_hash=secret))
    said = f"{caught.value} {caught.value.__cause__}"
    assert secret not in said
    assert not re.search(r"host=|postgresql://", said)
    with pytest.raises(SchemaMismatchError) as mismatch:
        async with data.transaction() as tx:
            await tx.execute(text("SELECT nothing FROM users WHERE password_hash = :hash").bindparams(hash=secret))
    assert secret not in f"{mismatch.value} {mismatch.value.__cause__}"


def _walk(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _walk(child)


async def _problem(data: DataLayer, statement: TextClause) -> Exception | None:
    try:
        async with data.transaction() as tx:
            (await tx.execute(statement)).all()
    except Exception as error:  # noqa: BLE001  (looked at)
        return error
    return None


def _is_fine(problem: Exception | None) -> bool:
    return problem is None or (
        isinstance(problem, DataLayerError) and not isinstance(problem, DatabaseUnavailableError)
    )


DRIVER_ERRORS = sorted(set(_walk(psycopg.Error)), key=lambda kind: (kind.__module__, kind.__qualname__))
SQLALCHEMY_ERRORS = sorted(set(_walk(SQLAlchemyError)), key=lambda kind: kind.__qualname__)


def test_every_error_of_the_driver_becomes_one_of_ours() -> None:
    """The whole tree, with a state and without."""
    assert len(DRIVER_ERRORS) > 250
    for kind in DRIVER_ERRORS:
        for message in ("", "anything", REASON):
            with pytest.raises(DataLayerError) as caught, translated():
                raise kind(message)
            assert caught.value.code
            assert str(caught.value)


@pytest.mark.parametrize("kind", SQLALCHEMY_ERRORS, ids=lambda kind: kind.__qualname__)
def test_every_error_of_sqlalchemy_becomes_one_of_ours(kind: type[SQLAlchemyError]) -> None:
    if issubclass(kind, StatementError):
        error: SQLAlchemyError = kind(REASON, "SELECT 1", {}, psycopg.ProgrammingError(REASON))
    else:
        error = kind.__new__(kind)
        error.args = (REASON,)
    with pytest.raises(DataLayerError), translated():
        raise error


def test_every_class_of_states_has_an_error() -> None:
    """The classes of PostgreSQL manual, appendix A, and one that does not exist yet."""
    classes = {state[:2] for state in psycopg.errors._sqlcodes} | {"Q9"}
    assert len(classes) > 40
    for start in classes:
        for rest in ("000", "P99", "999"):
            kind = type(f"Of{start}{rest}", (psycopg.DatabaseError,), {"sqlstate": f"{start}{rest}"})
            assert isinstance(translate(kind(REASON)), DataLayerError)


@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), 1e308 * 10, Decimal("sNaN"), Decimal(10) ** 140_000, "\ud800", "a\0b", b"\0" * 10, object(),
     datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), timedelta.max, date.min, ["\ud800"], [1, "a"],
     [[1], [1, 2]], {"a": 1}, {1, 2}, 1j,
     type, UUID(int=0), ip_address("::1"), range(3), float("nan")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["text", "integer", "timestamptz", "jsonb", "uuid", "float8"])
async def test_any_value_is_sent_or_refused_in_our_words(data: DataLayer, value: object, kind: str) -> None:
    statement = text(f"SELECT CAST(:value AS {kind})").bindparams(bindparam("value", value))
    assert _is_fine(await _problem(data, statement))
    assert data.database.pool_figures()["in_use"] == 0


@pytest.mark.parametrize(
    "sql",
    ["SELECT 'infinity'::timestamptz", "SELECT '4714-01-01 BC'::date", "SELECT '10000-01-01'::timestamptz",
     "SELECT repeat('x', 300)::bytea", "SELECT '(1,2)'::point", "SELECT interval '100000000 years'"],
)  # fmt: skip
async def test_any_value_is_read_or_refused_in_our_words(data: DataLayer, sql: str) -> None:
    assert _is_fine(await _problem(data, text(sql)))
    assert data.database.pool_figures()["in_use"] == 0


async def test_a_copy_and_a_listener_say_it_in_our_words_too(data: DataLayer, settings: Settings) -> None:
    with pytest.raises(SchemaMismatchError):
        async with driver_connection(data.database) as driver, driver.cursor().copy("COPY nowhere FROM STDIN") as copy:
            await copy.write("a")
    with pytest.raises(InvalidValueError):
        async with (
            driver_connection(data.database) as driver,
            driver.cursor().copy("COPY users (id) FROM STDIN") as copy,
        ):
            await copy.write("no id\n")
    listener = await Listener.open(data.database.address, settings.database, "channel", time_limit=5)
    with pytest.raises(SchemaMismatchError):
        await listener.fetch_one(NamedQuery("test", "SELECT nothing FROM users"), ())
    await listener.close()
    with pytest.raises(DatabaseUnavailableError):
        await listener.fetch_one(NamedQuery("test", "SELECT 1"), ())


class TestManyValues:
    async def test_a_filter_takes_any_number(self, data: DataLayer) -> None:
        user = make_user(status="active", last_login_ip="192.168.1.1")
        async with data.transaction() as tx:
            tx.add(user)
        others = [uuid7() for _ in range(70_000)]
        async with data.transaction() as tx:
            assert await tx.users.count(id=[*others, user.id]) == 1
            assert await tx.users.count(id=others) == 0
            assert [one.id for one in await tx.users.list(email=[*map(str, others), user.email])] == [user.id]
            assert await tx.users.find_one(id={user.id, None}) is not None
            assert await tx.users.count(id=[user.id], locked_until=[user.created_at, None]) == 1
            assert await tx.users.count(id=[user.id], created_at=[None]) == 0
            assert await tx.users.count(status=["active", "suspended"]) == 1
            assert await tx.users.count(status=[UserStatus.SUSPENDED]) == 0
            assert await tx.users.count(created_at=[user.created_at]) == 1
            assert await tx.users.count(last_login_ip=["192.168.1.1"]) == 1
            assert await tx.users.count(email_verified=[True, False]) == 1
            assert await tx.users.count(login_count=(0, 1)) == 1
            assert await tx.users.count(id=[]) == 0
            assert await tx.users.count(first_name=["Test" + "x" * 200]) == 0

    async def test_methods_for_objects_and_the_trail_take_any_number(self, data: DataLayer) -> None:
        keys, ids = [f"key-{number}" for number in range(70_000)], [uuid7() for _ in range(70_000)]
        async with data.transaction() as tx:
            assert await tx.stored_files.records(keys) == {}
            assert await tx.stored_files.known(keys) == set()
            assert await tx.stored_files.used_in_rows(keys) == set()
            assert await tx.stored_files.removable(ids=ids, keys=keys) == []
            assert await tx.stored_files.mark_deleted(ids) == []
            assert await tx.stored_files.abandon(ids) == []
            await tx.stored_files.forget(ids)
            assert await tx.files.remove(*ids) == []

    async def test_too_many_parameters_are_no_broken_connection(self, data: DataLayer) -> None:
        refusal = "sending query failed: number of parameters must be between 0 and 65535"
        assert not needs_new_connection(psycopg.OperationalError(refusal))
        assert needs_new_connection(psycopg.OperationalError("the connection is lost"))
        statement = text(f"SELECT {','.join(f':v{number}' for number in range(65_536))}")
        values = {f"v{number}": number for number in range(65_536)}
        pid = text("SELECT pg_backend_pid()")
        async with data.transaction() as tx:
            before = (await tx.execute(pid)).scalar_one()
        with pytest.raises(InvalidValueError, match="65,535"):
            async with data.transaction() as tx:
                await tx.execute(statement.bindparams(**values))
        async with data.transaction() as tx:
            assert (await tx.execute(pid)).scalar_one() == before
