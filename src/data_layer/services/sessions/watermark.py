"""What this process knows of changed sessions: the ground on which a copy of a session may be believed.

The table ``sessions`` is the truth. A *copy* (in this process or in Redis) was read from it in some snapshot of
PostgreSQL. Triggers write every change that could make a copy wrong (revoked, removed, shortened, another role or
status of the user) into the journal ``session_changes``, in the same transaction and under its number. Each process
reads the journal once a second, and at once when it is notified.

A copy says ``as_of``, the oldest transaction that had not ended when it was read. So all transactions before ``as_of``
are in it, and whether later ones are is unknown. This process knows every change from the transaction ``floor`` on,
up to its last reading. Therefore a copy is believed only if

1. ``as_of >= floor``: what the copy may lack, this process would know;
2. no change of this session from ``as_of`` on is known;
3. the last reading was *asked for* less than ``LEASE_SECONDS`` ago: what it lacks was committed after that;
4. copy and journal come from the same run of the same server, because after a failover or a restore the numbers of
   transactions begin again somewhere else.

Together: a change that was committed more than ``LEASE_SECONDS`` ago is either in the copy (it is before ``as_of``) or
known here (then rule 2 refuses the copy). Nothing in this depends on Redis: not on invalidations that arrive, nor on
what Redis holds after a restart, a failover or a restore. Nor does it depend on the clocks of machines, only on how
much time passes here. Transactions that stay open for long are no exception, because the journal is read by snapshots
(see ``repositories.session_changes``); they lower ``as_of``, and cost only copies of sessions that changed meanwhile.

A process that has just started has a ``floor`` of that moment. It believes no copy that is older, and reads each
session once from the database; copies in Redis that were written since, by whomever, it believes at once.

Whatever cannot be believed is asked of the database. A copy never refuses anybody: only the database does. Its refusal
counts for a quarter of a second for the same token, as long as no change of a session becomes known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from data_layer.repositories.session_changes import ChangeBatch

LEASE_SECONDS = 1.5
"""How long after a reading was asked for copies are believed: the bound for a change to be seen everywhere."""

_MOST_CHANGES = 50_000
_LONGEST_GAP = 60.0
_FOR_EVER = 2**63


class Watermark:
    """The changes that this process knows, and until when copies may be believed. Times are of its own clock."""

    def __init__(self) -> None:
        self.fresh_until = float("-inf")
        self._known: str | None = None
        self._server = ""
        self._floor = _FOR_EVER
        self._changes: dict[UUID, int] = {}
        self._read_at = float("-inf")
        self._clock_offset = 0.0

    def known_at(self, now: float) -> str | None:
        """The snapshot to read on from, or ``None`` to begin again: the journal is not kept for ever."""
        return self._known if now - self._read_at < _LONGEST_GAP else None

    def take(self, reading: ChangeBatch, *, asked_at: float, known: str | None) -> Mapping[UUID, int] | None:
        """Take a reading over.

        Args:
            reading: what the journal showed.
            asked_at: when it was asked for.
            known: what the reading went on from.

        Returns:
            The sessions whose copies are to be dropped; ``None``: all. Unless ``fresh_until`` is later than
            ``asked_at`` then, the journal is to be read again.
        """
        self._read_at = asked_at
        self._clock_offset = reading.clock - asked_at
        if known is None or reading.server != self._server:
            self._restart(reading)
            return None
        if reading.changes is None:
            self._do_without(reading)
            self.fresh_until = asked_at + LEASE_SECONDS
            return None
        self._known = reading.snapshot
        self._changes.update(reading.changes)
        self._forget_oldest()
        self.fresh_until = asked_at + LEASE_SECONDS
        return reading.changes

    def vouches_for(self, session_id: UUID, as_of: int, server: str) -> bool:
        """Whether a copy holds all changes of its session that this process can know of."""
        return server == self._server and as_of >= self._floor and self._changes.get(session_id, -1) < as_of

    def believes(self, now: float, as_of: int, server: str, *ids: UUID) -> bool:
        """Whether a copy that depends on these ids may be believed now.

        Args:
            now: the time by this process's clock.
            as_of: how far the journal was when the copy was read.
            server: that it was read from.
            ids: of the sessions, keys or accounts whose change makes the copy a wrong one.
        """
        return now < self.fresh_until and all(self.vouches_for(each, as_of, server) for each in ids)

    def abandon(self, session_ids: Iterable[UUID]) -> None:
        """Believe no copy of these sessions any more: this process has ended them itself."""
        self._changes.update(dict.fromkeys(session_ids, _FOR_EVER))

    def database_time(self, now: float) -> float:
        """The database's clock, in seconds since 1970; too late by what the last reading took, never too early."""
        return now + self._clock_offset

    def _restart(self, reading: ChangeBatch) -> None:
        # The next reading shows all changes by transactions that had not ended: so they are covered from here on.
        self._known = f"{reading.oldest}:{reading.oldest}:"
        self._server = reading.server
        self._floor = reading.oldest
        self._changes.clear()
        self.fresh_until = float("-inf")

    def _do_without(self, reading: ChangeBatch) -> None:
        # Too many to be remembered. To restart would show them again for as long as an older transaction is open.
        self._known = reading.snapshot
        self._floor = reading.next_one
        self._changes.clear()

    def _forget_oldest(self) -> None:
        if len(self._changes) <= _MOST_CHANGES:
            return
        by_age = sorted(self._changes, key=self._changes.__getitem__)
        for session_id in by_age[: _MOST_CHANGES // 2]:
            self._floor = max(self._floor, self._changes.pop(session_id) + 1)
