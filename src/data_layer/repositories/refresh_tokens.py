"""The ``refresh_tokens`` table: each token is exchanged once, and its row stays, so that a second use is noticed."""

# ruff: noqa: S608  (only texts of this package stand in the statements; values are passed as parameters)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select

from data_layer.database.statements import NamedQuery
from data_layer.entities import RefreshToken
from data_layer.repositories.repository import Repository, chosen_once
from data_layer.repositories.session_statements import LIVE

# The session's row is locked first, so that two exchanges of one family follow each other.
_LOCK_SESSION = NamedQuery(
    "refresh_tokens.lock_session",
    """
SELECT id FROM sessions WHERE id = (SELECT session_id FROM refresh_tokens WHERE token_hash = ANY(%s))
FOR NO KEY UPDATE
""",
)
_FIND = NamedQuery(
    "refresh_tokens.find",
    f"""
SELECT tokens.id, tokens.session_id, sessions.user_id, tokens.expires_at > now() AND {LIVE},
    extract(epoch FROM now() - tokens.used_at)::float8, successors.id, successors.token_hash,
    successors.expires_at, successors.used_at IS NOT NULL
FROM refresh_tokens AS tokens
JOIN sessions ON sessions.id = tokens.session_id
LEFT JOIN refresh_tokens AS successors ON successors.id = tokens.successor_id
WHERE tokens.token_hash = ANY(%s)
""",
)
_USE_ALL = NamedQuery(
    "refresh_tokens.use_all", "UPDATE refresh_tokens SET used_at = now() WHERE session_id = %s AND used_at IS NULL"
)
_USE = NamedQuery("refresh_tokens.use", "UPDATE refresh_tokens SET used_at = now(), successor_id = %s WHERE id = %s")
_INSERT = NamedQuery(
    "refresh_tokens.insert",
    f"""
INSERT INTO refresh_tokens (id, token_hash, session_id, expires_at, created_at)
SELECT %s, %s, id, expires_at, now() FROM sessions WHERE id = %s AND {LIVE}
RETURNING expires_at
""",
)


@dataclass(frozen=True, slots=True)
class FoundRefreshToken:
    """A refresh token: whether it and its session are in force, and what became of it.

    ``used_seconds_ago`` is ``None`` for one that was not exchanged yet.
    """

    id: UUID
    session_id: UUID
    user_id: UUID
    is_in_force: bool
    used_seconds_ago: float | None
    successor_id: UUID | None
    successor_hash: str | None
    successor_expires_at: datetime | None
    successor_is_used: bool


class RefreshTokenRepository(Repository[RefreshToken]):
    """Rows of ``refresh_tokens``."""

    entity = RefreshToken

    async def find_locked(self, hashes: Sequence[str]) -> FoundRefreshToken | None:
        """The token with one of these hashes; until the transaction ends nobody else exchanges one of its family."""
        _, row = await self._session.run((_LOCK_SESSION, (list(hashes),)), (_FIND, (list(hashes),)))
        return FoundRefreshToken(*row) if row else None

    async def begin(self, token_id: UUID, token_hash: str, session_id: UUID) -> datetime | None:
        """Insert a token that is in force as long as its session; its expiry, or ``None`` when that has ended.

        Those that the session has already count as used, so that one token alone leads on.
        """
        _, row = await self._session.run((_USE_ALL, (session_id,)), (_INSERT, (token_id, token_hash, session_id)))
        return row[0] if row else None

    async def exchange(self, token: FoundRefreshToken, successor_id: UUID, successor_hash: str) -> datetime | None:
        """Mark a token as used and insert its successor; the successor's expiry."""
        _, row = await self._session.run(
            (_USE, (successor_id, token.id)), (_INSERT, (successor_id, successor_hash, token.session_id))
        )
        return row[0] if row else None

    async def count_expired(self, before: datetime) -> int:
        """How many tokens expired before a time."""
        condition = RefreshToken.expires_at < before
        return int((await self._session.execute(select(func.count()).where(condition))).scalar_one())

    async def remove_expired(self, before: datetime, *, limit: int) -> int:
        """Remove tokens that expired before a time; how many, ``limit`` at most."""
        expired = select(RefreshToken.id).where(RefreshToken.expires_at < before)
        some = chosen_once(expired.limit(limit).with_for_update(skip_locked=True))
        return (await self._session.change(delete(RefreshToken).where(RefreshToken.id.in_(some)))).rowcount
