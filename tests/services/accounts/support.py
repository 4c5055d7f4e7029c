"""Accounts for tests, and time that passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from data_layer import AuditLog, DataLayer, request_context
from data_layer.errors import AuthenticationError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.users import UserFull

FIRST_WAIT = 30
PASSWORD = "correct horse battery staple"
HOME, CAFE, ELSEWHERE = "192.0.2.10", "198.51.100.20", "203.0.113.30"


async def make_account(data: DataLayer, email: str = "ann@example.com", **values: Any) -> UserFull:
    """An account that is open, with PASSWORD."""
    given: dict[str, Any] = {
        "first_name": "Ann",
        "last_name": "Other",
        "password": PASSWORD,
        "email_verified": True,
    } | values
    return await data.accounts.create(SYSTEM, email=email, **given)


def acting(user: UserFull) -> Actor:
    return Actor.user(user.id, user.role)


@contextmanager
def coming_from(ip_address: str, user_agent: str = "tests") -> Iterator[None]:
    with request_context(ip_address=ip_address, user_agent=user_agent):
        yield


async def try_to_log_in(data: DataLayer, email: str, password: str, *, ip_address: str = HOME) -> str:
    """The code of the answer, or ``in``."""
    with coming_from(ip_address):
        try:
            await data.accounts.authenticate(email, password)
        except AuthenticationError as error:
            return error.code
    return "in"


async def pass_time(data: DataLayer, seconds: float) -> None:
    """Let the rows of logging in become older: the database's own clock cannot be set."""
    columns = {
        "login_attempts": ("leveled_at", "blocked_until", "last_succeeded_at"),
        "users": ("email_verification_expires_at", "reset_password_expires_at", "locked_until"),
    }
    async with data.transaction() as tx:
        for table, names in columns.items():
            changes = ", ".join(f"{name} = {name} - make_interval(secs => :seconds)" for name in names)
            await tx.execute(text(f"UPDATE {table} SET {changes}").bindparams(seconds=seconds))


async def trail(data: DataLayer) -> Sequence[AuditLog]:
    await data.audit.flush()
    async with data.transaction() as tx:
        return await tx.audit.list(limit=1000)


async def actions(data: DataLayer) -> list[str]:
    return [str(entry.action) for entry in await trail(data)]


async def stored_hash(data: DataLayer, user: UserFull) -> str | None:
    async with data.transaction() as tx:
        return await tx.users.secret(user.id, "password_hash")
