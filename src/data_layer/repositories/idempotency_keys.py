"""The ``idempotency_keys`` table: who carries a request out, and how it was answered."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import named

KEPT_FOR = timedelta(days=1)
"""How long an answer is given again."""


class Claim(NamedTuple):
    """An attempt to carry out the request that a key stands for.

    Attributes:
        scope: within which keys are the same: a person's id, or a hash of a request that needs no login.
        key: a hash of what the client sent.
        attempt: which try.
    """

    scope: UUID
    key: UUID
    attempt: UUID


class Answered(NamedTuple):
    """How a request was answered; both are empty while it still runs."""

    fingerprint: bytes | None
    answer: bytes | None


# One statement decides, by the row that it holds: of two that come at once one gets the key.
_CLAIM = named(
    "idempotency_keys.claim",
    text("""
INSERT INTO idempotency_keys AS known (user_id, key, attempt, lease_until, created_at)
VALUES (:scope, :key, :attempt, clock_timestamp() + :lease, clock_timestamp())
ON CONFLICT (user_id, key) DO UPDATE SET
    attempt = excluded.attempt, lease_until = excluded.lease_until, created_at = excluded.created_at,
    fingerprint = NULL, answer = NULL
WHERE known.lease_until < clock_timestamp() OR known.created_at < clock_timestamp() - :kept_for
RETURNING attempt
"""),
)
_FIND = named(
    "idempotency_keys.find",
    text("SELECT fingerprint, answer FROM idempotency_keys WHERE user_id = :scope AND key = :key"),
)
_OURS = "WHERE user_id = :scope AND key = :key AND attempt = :attempt AND lease_until IS NOT NULL"
_EXTEND = named(
    "idempotency_keys.extend",
    text(f"UPDATE idempotency_keys SET lease_until = clock_timestamp() + :lease {_OURS}"),  # noqa: S608  (a constant)
)
_ANSWER = named(
    "idempotency_keys.answer",
    text(
        "UPDATE idempotency_keys SET lease_until = NULL, fingerprint = :fingerprint, answer = :answer "  # noqa: S608
        f"{_OURS}"
    ),
)
_RELEASE = named(
    "idempotency_keys.release",
    text(f"DELETE FROM idempotency_keys {_OURS}"),  # noqa: S608  (a constant)
)
_REMOVE_OLD = named(
    "idempotency_keys.remove_old",
    text("""
WITH old AS MATERIALIZED (
    SELECT user_id, key FROM idempotency_keys WHERE created_at < clock_timestamp() - :kept_for
    ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency_keys WHERE (user_id, key) IN (SELECT user_id, key FROM old)
"""),
)


class IdempotencyKeyRepository:
    """Keys of requests. Only the attempt that has claimed a key, and whose lease nobody took, changes its row."""

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    async def claim(self, claim: Claim, lease: timedelta) -> bool:
        """Take a key that is new, or a day old, or whose lease has ended; whether it was to be had."""
        values = claim._asdict() | {"lease": lease, "kept_for": KEPT_FOR}
        return (await self._session.execute(_CLAIM.bindparams(**values))).first() is not None

    async def find(self, claim: Claim) -> Answered | None:
        """How the request with this key was answered, if there was one."""
        statement = _FIND.bindparams(scope=claim.scope, key=claim.key)
        row = (await self._session.execute(statement)).first()
        return None if row is None else Answered(row.fingerprint, row.answer)

    async def extend(self, claim: Claim, lease: timedelta) -> None:
        """Have the lease end later."""
        await self._session.execute(_EXTEND.bindparams(**claim._asdict(), lease=lease))

    async def answer(self, claim: Claim, fingerprint: bytes, answer: bytes) -> None:
        """Keep how the request was answered."""
        await self._session.execute(_ANSWER.bindparams(**claim._asdict(), fingerprint=fingerprint, answer=answer))

    async def release(self, claim: Claim) -> None:
        """Give the key back: nothing was done."""
        await self._session.execute(_RELEASE.bindparams(**claim._asdict()))

    async def remove_old(self, *, limit: int) -> int:
        """Remove some that are older than a day; how many."""
        result = await self._session.execute(_REMOVE_OLD.bindparams(kept_for=KEPT_FOR, limit=limit))
        return int(result.rowcount)  # type: ignore[attr-defined]  # A DELETE has it.
