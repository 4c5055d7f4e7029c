"""After a failover or an outage, Redis may hold for a moment what others changed while they could not tell it."""

from __future__ import annotations

from time import monotonic

QUARANTINE_SECONDS = 3.0
"""Longer than the longest pause between two attempts to reconnect: by then every living process has told it."""


class Quarantine:
    """While it lasts, ``get_or_load`` believes only the values that this process itself has loaded since it began.

    So a failover costs one load for each key and process that is read in these seconds.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._loaded: set[bytes] = set()

    @property
    def is_on(self) -> bool:
        """Whether it lasts."""
        return monotonic() < self._until

    def begin(self) -> None:
        """A primary was connected to that may lack something, now."""
        self._until = monotonic() + QUARANTINE_SECONDS
        self._loaded.clear()

    def covers(self, key: bytes) -> bool:
        """Whether the value in Redis is not to be believed."""
        return self.is_on and key not in self._loaded

    def release(self, key: bytes) -> None:
        """The value in Redis was loaded and stored just now."""
        if self.is_on:
            self._loaded.add(key)
