"""The ``login_attempts`` table: levels that rise with every attempt and fall with time, changed in SQL only.

Everything that a statement decides it decides by the row it holds and the clock of the database, so attempts that
arrive at the same moment, at whatever process, are counted one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import named

EVERY = UUID(int=0)
"""Stands for all networks of an account, or for all accounts of a network."""

KNOWN_FOR = timedelta(days=90)
"""How long a network counts as known to an account after a login from there."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What attempts are counted for: an account, a network, or both together."""

    account: UUID
    network: UUID


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many attempts are free, and in how many seconds one is forgiven; afterwards each doubles the waiting time.

    The shortest and the longest waiting time are in seconds, too.
    """

    free: int
    forgiven_every: float
    first_wait: float
    longest_wait: float


@dataclass(frozen=True, slots=True)
class Counted:
    """A counted attempt. ``blocked_until`` is set when the next one has to wait; ``known`` after earlier successes."""

    blocked_until: datetime | None
    known: bool


_LEVEL = "greatest(0, a.level - extract(epoch FROM clock_timestamp() - a.leveled_at) / :forgiven_every) + 1"
# A level between free and free + 1 means the first waiting time, then twice, four times, …
_COUNT = named(
    "login_attempts.count",
    # Only a constant of ours stands in the text.
    text(f"""
INSERT INTO login_attempts AS a (account, network, level, leveled_at)
VALUES (:account, :network, 1, clock_timestamp())
ON CONFLICT (account, network) DO UPDATE SET
    level = {_LEVEL},
    leveled_at = clock_timestamp(),
    blocked_until = CASE WHEN {_LEVEL} > :free THEN
        clock_timestamp() + make_interval(
            secs => least(:longest_wait, :first_wait * power(2, least(ceil({_LEVEL} - :free) - 1, 30)))
        )
    END
WHERE a.blocked_until IS NULL OR a.blocked_until <= clock_timestamp()
RETURNING blocked_until, coalesce(last_succeeded_at > clock_timestamp() - :known_for, false) AS known
"""),  # noqa: S608
)

_WAIT = named(
    "login_attempts.wait",
    text("""
SELECT extract(epoch FROM blocked_until - clock_timestamp())
FROM login_attempts WHERE account = :account AND network = :network
"""),
)

# A row that was forgotten meanwhile is made again, to be locked: a later statement that inserted it would break the
# order of locks.
_GIVE_BACK = named(
    "login_attempts.give_back",
    text("""
INSERT INTO login_attempts AS a (account, network, level, leveled_at)
VALUES (:account, :network, 0, clock_timestamp())
ON CONFLICT (account, network) DO UPDATE SET
    level = greatest(0, a.level - 1),
    blocked_until = CASE WHEN a.blocked_until IS DISTINCT FROM :blocked_until THEN a.blocked_until END
"""),
)

_SUCCEED = named(
    "login_attempts.succeed",
    text("""
INSERT INTO login_attempts (account, network, level, leveled_at, last_succeeded_at)
VALUES (:account, :network, 0, clock_timestamp(), clock_timestamp())
ON CONFLICT (account, network) DO UPDATE SET level = 0, blocked_until = NULL, last_succeeded_at = clock_timestamp()
"""),
)

_IS_KNOWN = named(
    "login_attempts.is_known",
    text("""
SELECT EXISTS (
    SELECT FROM login_attempts WHERE account = :account AND network = :network
    AND last_succeeded_at > clock_timestamp() - :known_for
)
"""),
)

# Pairs before the account's own row, as counting goes.
_FORGET = named(
    "login_attempts.forget",
    text("""
DELETE FROM login_attempts WHERE (account, network) IN (
    SELECT account, network FROM login_attempts WHERE account = :account ORDER BY network DESC FOR UPDATE
)
"""),
)

_REMOVE_STALE = named(
    "login_attempts.remove_stale",
    text("""
WITH stale AS MATERIALIZED (
    SELECT account, network FROM login_attempts
    WHERE leveled_at < clock_timestamp() - interval '1 day'
      AND coalesce(last_succeeded_at < clock_timestamp() - :known_for, true)
    LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM login_attempts WHERE (account, network) IN (SELECT account, network FROM stale)
"""),
)


class LoginAttemptRepository:
    """Levels of failed logins.

    Count and give back a pair first, then its network, then its account, and touch no pair afterwards that may be new:
    with one order of locks no two transactions wait for each other.
    """

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    async def count(self, bucket: Bucket, allowance: Allowance) -> Counted | None:
        """Count an attempt before it is made; nothing is counted, and ``None`` answered, while one has to wait."""
        parameters = {
            "free": allowance.free,
            "forgiven_every": allowance.forgiven_every,
            "first_wait": allowance.first_wait,
            "longest_wait": allowance.longest_wait,
            "known_for": KNOWN_FOR,
        }
        result = await self._session.execute(_COUNT.bindparams(**_key(bucket), **parameters))
        row = result.mappings().one_or_none()
        return None if row is None else Counted(**row)

    async def waiting_time(self, bucket: Bucket) -> float:
        """For how many more seconds attempts are refused."""
        seconds = (await self._session.execute(_WAIT.bindparams(**_key(bucket)))).scalar_one_or_none()
        return max(0.0, float(seconds or 0))

    async def give_back(self, bucket: Bucket, counted: Counted) -> None:
        """Take an attempt back that was none after all, with the waiting time that it has caused."""
        await self._session.execute(_GIVE_BACK.bindparams(**_key(bucket), blocked_until=counted.blocked_until))

    async def succeed(self, pair: Bucket) -> None:
        """Forget the failures of a pair, and remember that the account knows the network."""
        await self._session.execute(_SUCCEED.bindparams(**_key(pair)))

    async def is_known(self, pair: Bucket) -> bool:
        """Whether the account knows the network."""
        statement = _IS_KNOWN.bindparams(**_key(pair), known_for=KNOWN_FOR)
        return bool((await self._session.execute(statement)).scalar_one())

    async def forget(self, account: UUID) -> None:
        """Remove everything about an account: its failures, and which networks it knows."""
        await self._session.execute(_FORGET.bindparams(account=account))

    async def remove_stale(self, *, limit: int = 1000) -> int:
        """Remove rows that mean nothing any more, at most ``limit``, and say how many."""
        statement = _REMOVE_STALE.bindparams(known_for=KNOWN_FOR, limit=limit)
        result = await self._session.execute(statement)
        return int(result.rowcount)  # type: ignore[attr-defined]  # A DELETE has it.


def _key(bucket: Bucket) -> dict[str, UUID]:
    return {"account": bucket.account, "network": bucket.network}
