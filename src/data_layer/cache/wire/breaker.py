"""Whether a server may be asked at all, after it has failed again and again."""

from __future__ import annotations

from enum import StrEnum

from data_layer.concurrency import Backoff

FAILURES_BEFORE_OPENING = 5
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


class BreakerState(StrEnum):
    """Closed: commands pass. Open: they are refused at once. Half open: refused, while one attempt is made."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class CircuitBreaker:
    """Counts failures in a row, and says when to refuse and how long to wait before the next attempt.

    After an attempt that succeeded, one failure is enough to open it again, until a command was answered.

    Pauses double from ``first_pause`` to ``longest_pause`` seconds; each is shortened by up to half at random, so
    that many processes do not come back at the same moment.
    """

    def __init__(
        self,
        failures: int = FAILURES_BEFORE_OPENING,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self.state = BreakerState.CLOSED
        self._threshold = failures
        self._pauses = Backoff(first_pause, longest_pause, jitter=0.5)
        self._failures = 0

    @property
    def is_closed(self) -> bool:
        """Whether commands pass."""
        return self.state is BreakerState.CLOSED

    def note_failure(self) -> None:
        """A connection could not be made, broke, or kept a command waiting for too long."""
        self._failures += 1
        if self._failures >= self._threshold:
            self.state = BreakerState.OPEN

    def note_answer(self) -> None:
        """Commands were answered."""
        self._failures = 0
        self._pauses.reset()

    def next_pause(self) -> float:
        """Seconds until the next attempt."""
        return self._pauses.next()

    def try_again(self) -> None:
        """The attempt begins."""
        self.state = BreakerState.HALF_OPEN

    def note_success_of_attempt(self) -> None:
        """The attempt went well: commands pass again."""
        self._failures = self._threshold - 1
        self.state = BreakerState.CLOSED
