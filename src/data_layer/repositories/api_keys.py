"""The ``api_keys`` table: found by the hash of a key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, or_, select

from data_layer.database.statements import NamedQuery
from data_layer.entities import ApiKey
from data_layer.entities.enums import ApiScope, UserRole, UserStatus
from data_layer.repositories.repository import Repository, check_limit, chosen_once

# The snapshot says which transactions the answer knows of; see ``services.sessions.watermark``.
_FIND = NamedQuery(
    "api_keys.find_account",
    """
SELECT api_keys.id, api_keys.user_id, users.role, users.status, api_keys.scopes,
    extract(epoch FROM api_keys.expires_at - now())::float8,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_postmaster_start_time()::text
FROM api_keys JOIN users ON users.id = api_keys.user_id
WHERE api_keys.key_hash = %s AND api_keys.revoked_at IS NULL
    AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
""",
)
# Rows are locked in the order of their ids, so that two processes that write do not wait in a circle.
_RECORD_USE = NamedQuery(
    "api_keys.record_use",
    """
WITH used AS (
    SELECT api_keys.id, now() - make_interval(secs => age) AS at
    FROM api_keys JOIN unnest(%s::uuid[], %s::float8[]) AS seen (id, age) ON seen.id = api_keys.id
    ORDER BY api_keys.id FOR NO KEY UPDATE OF api_keys
)
UPDATE api_keys SET last_used_at = greatest(last_used_at, used.at) FROM used WHERE api_keys.id = used.id
""",
)


@dataclass(frozen=True, slots=True)
class FoundApiKey:
    """A key that is in force, its account in whatever state, and what the database knew: see ``FoundSession``."""

    id: UUID
    user_id: UUID
    role: UserRole
    status: UserStatus
    scopes: frozenset[ApiScope]
    seconds_left: float | None
    as_of: int
    server: str


class ApiKeyRepository(Repository[ApiKey]):
    """Rows of ``api_keys``."""

    entity = ApiKey

    async def find_account(self, key_hash: str) -> FoundApiKey | None:
        """The key with this hash, if it is neither revoked nor expired."""
        row = await self._session.fetch_one(_FIND, (key_hash,))
        if row is None:
            return None
        key_id, user_id, role, status, scopes, seconds_left, as_of, server = row
        # A scope that this version does not know, because a later one has stored it, allows nothing here.
        known = frozenset(ApiScope(scope) for scope in scopes if scope in _SCOPES)
        return FoundApiKey(key_id, user_id, UserRole(role), UserStatus(status), known, seconds_left, as_of, server)

    async def count_live(self, user_id: UUID) -> int:
        """How many keys of a person are in force."""
        is_live = (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))
        statement = select(func.count()).select_from(ApiKey).where(ApiKey.user_id == user_id, *is_live)
        return int((await self._session.execute(statement)).scalar_one())

    async def record_use(self, seen: Collection[tuple[UUID, float]]) -> None:
        """Move ``last_used_at`` on: for each key how many seconds ago it was used."""
        await self._session.run((_RECORD_USE, ([each[0] for each in seen], [each[1] for each in seen])))

    async def of_user(self, user_id: UUID, limit: int, after: UUID | None) -> Sequence[ApiKey]:
        """A page of the keys of a person, the newest first."""
        check_limit(limit)
        statement = select(ApiKey).where(ApiKey.user_id == user_id).order_by(ApiKey.id.desc()).limit(limit)
        return await self._session.find(statement if after is None else statement.where(ApiKey.id < after))

    async def remove(self, user_id: UUID) -> int:
        """Remove all keys of a person; how many."""
        return (await self._session.change(delete(ApiKey).where(ApiKey.user_id == user_id))).rowcount

    async def count_ended(self, before: datetime) -> int:
        """How many keys were revoked or expired before a time."""
        statement = select(func.count()).select_from(ApiKey).where(_ended(before))
        return int((await self._session.execute(statement)).scalar_one())

    async def remove_ended(self, before: datetime, *, limit: int) -> int:
        """Remove keys that were revoked or expired before a time; how many, ``limit`` at most."""
        ended = select(ApiKey.id).where(_ended(before))
        some = chosen_once(ended.limit(limit).with_for_update(skip_locked=True))
        return (await self._session.change(delete(ApiKey).where(ApiKey.id.in_(some)))).rowcount


_SCOPES = frozenset(ApiScope)


def _ended(before: datetime) -> ColumnElement[bool]:
    return or_(ApiKey.revoked_at < before, ApiKey.expires_at < before)
