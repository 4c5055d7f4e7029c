"""Sessions that this process has read lately, as the objects that are handed out."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from data_layer.schemas.sessions import ActiveSession

_MOST_COPIES = 100_000


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
    """Copies by the hash of a token, or by the id of a session; those that came first are dropped first."""

    def __init__(self, most: int = _MOST_COPIES) -> None:
        self.by_key: dict[str, NearCopy] = {}
        self._keys: dict[UUID, set[str]] = {}
        self._most = most

    def put(self, key: str, copy: NearCopy) -> None:
        """Keep a copy, in place of any other under the key."""
        while len(self.by_key) >= self._most:
            self._drop(next(iter(self.by_key)))
        self.by_key[key] = copy
        self._keys.setdefault(copy.session.id, set()).add(key)

    def forget(self, session_ids: Iterable[UUID]) -> None:
        """Drop all copies of sessions."""
        for session_id in session_ids:
            for key in self._keys.pop(session_id, ()):
                self.by_key.pop(key, None)

    def clear(self) -> None:
        """Drop everything."""
        self.by_key.clear()
        self._keys.clear()

    def _drop(self, key: str) -> None:
        session_id = self.by_key.pop(key).session.id
        keys = self._keys[session_id]
        keys.discard(key)
        if not keys:
            del self._keys[session_id]
