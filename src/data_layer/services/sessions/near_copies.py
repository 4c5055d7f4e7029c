"""Sessions that this process has read lately, as the objects that are handed out."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from data_layer.schemas.sessions import ActiveSession

_MOST_COPIES = 100_000
_MOST_REFUSALS = 1_000


class NearCopy:
    """A session, until when it may be handed out unasked (by the clock of the process), and how it was used since.

    ``requests`` and ``last_request`` belong to ``Activity``.
    """

    __slots__ = ("is_noted", "last_request", "requests", "session", "usable_until")

    def __init__(self, session: ActiveSession, usable_until: float) -> None:
        self.session = session
        self.usable_until = usable_until
        self.requests = 0
        self.last_request = 0.0
        self.is_noted = False


class NearCopies:
    """Copies by the hash of a token, or by the id of a session; those that came first are dropped first.

    Refusals are kept beside them for a moment: a client whose session has ended often sends many requests at once.
    """

    def __init__(self, most: int = _MOST_COPIES) -> None:
        self.by_key: dict[str, NearCopy] = {}
        self._keys: dict[UUID, set[str]] = {}
        self._refusals: dict[str, float] = {}
        self._most = most

    def put(self, key: str, copy: NearCopy) -> None:
        """Keep a copy, in place of any other under the key."""
        while len(self.by_key) >= self._most:
            self._drop(next(iter(self.by_key)))
        self.by_key[key] = copy
        self._keys.setdefault(copy.session.id, set()).add(key)

    def refuse(self, key: str, until: float) -> None:
        """Remember that the database has refused a key."""
        while len(self._refusals) >= _MOST_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[key] = until

    def refuses(self, key: str, now: float) -> bool:
        """Whether the database has just refused a key, and no session has changed since as far as is known here."""
        until = self._refusals.get(key)
        if until is None or now < until:
            return until is not None
        del self._refusals[key]
        return False

    def forget(self, session_ids: Iterable[UUID]) -> None:
        """Drop all copies of sessions, and all refusals."""
        self._refusals.clear()
        for session_id in session_ids:
            for key in self._keys.pop(session_id, ()):
                self.by_key.pop(key, None)

    def clear(self) -> None:
        """Drop everything."""
        self._refusals.clear()
        self.by_key.clear()
        self._keys.clear()

    def _drop(self, key: str) -> None:
        session_id = self.by_key.pop(key).session.id
        keys = self._keys[session_id]
        keys.discard(key)
        if not keys:
            del self._keys[session_id]
