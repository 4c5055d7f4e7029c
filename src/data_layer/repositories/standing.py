"""The role and the status of an account, which decide what it may do; read alone, or beside what it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select

from data_layer.database.statements import CompiledStatement
from data_layer.entities import User
from data_layer.entities.enums import UserRole, UserStatus

Standing = tuple[UserRole, UserStatus]
STANDING = CompiledStatement(
    "users.standing", lambda: select(User.role, User.status).where(User.id == bindparam("user_id"))
)


def read_standing(rows: Sequence[Sequence[Any]]) -> Standing | None:
    """What ``STANDING`` found; None if the account does not exist."""
    return (UserRole(rows[0][0]), UserStatus(rows[0][1])) if rows else None
