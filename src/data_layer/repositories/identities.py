"""The ``user_identities`` table: found by issuer and subject."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import Sql
from data_layer.entities import UserIdentity
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.repositories.repository import Repository

# The snapshot says which transactions the answer knows of; see ``services.sessions.watermark``.
_FIND_ACCOUNT = Sql(
    "user_identities.find_account",
    """
SELECT users.id, users.role, users.status,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_postmaster_start_time()::text
FROM user_identities JOIN users ON users.id = user_identities.user_id
WHERE user_identities.issuer = %s AND user_identities.subject = %s
""",
)


def subject_key(issuer: str, subject: str) -> str:
    """Where the cache keeps whose an identity is."""
    return f"subject:{hashlib.sha256(f'{issuer} {subject}'.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class IdentifiedAccount:
    """The account of an identity, and what the database knew when it said so: see ``FoundSession``."""

    user_id: UUID
    role: UserRole
    status: UserStatus
    as_of: int
    server: str


class UserIdentityRepository(Repository[UserIdentity]):
    """Rows of ``user_identities``."""

    entity = UserIdentity

    def __init__(self, session: EntitySession, invalidate: Callable[..., None]) -> None:
        super().__init__(session)
        self._invalidate = invalidate

    async def find_account(self, issuer: str, subject: str) -> IdentifiedAccount | None:
        """The account of an identity, in whatever state it is."""
        row = await self._session.fetch_one(_FIND_ACCOUNT, (issuer, subject))
        if row is None:
            return None
        user_id, role, status, as_of, server = row
        return IdentifiedAccount(user_id, UserRole(role), UserStatus(status), as_of, server)

    async def remove(self, user_id: UUID, issuer: str | None = None) -> int:
        """Remove the identities of an account, or the one of an issuer; how many."""
        statement = delete(UserIdentity).where(UserIdentity.user_id == user_id)
        if issuer is not None:
            statement = statement.where(UserIdentity.issuer == issuer)
        removed = (await self._session.change(statement.returning(UserIdentity.issuer, UserIdentity.subject))).all()
        self._invalidate(*(subject_key(row.issuer, row.subject) for row in removed))
        return len(removed)
