"""What PostgreSQL, the driver and SQLAlchemy say becomes one of our errors, whatever way a statement takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import bindparam, text

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

if TYPE_CHECKING:
    from data_layer import DataLayer

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
