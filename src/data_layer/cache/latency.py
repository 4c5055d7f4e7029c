"""How long answers take: a histogram that needs no more room however many are noted."""

from __future__ import annotations

import math
from itertools import accumulate

_SHORTEST = 1e-6
_STEPS_PER_DOUBLING = 8
_BUCKETS = 30 * _STEPS_PER_DOUBLING


class LatencyHistogram:
    """Durations from a microsecond to a quarter of an hour, each known to about 5 %."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self._buckets = [0] * _BUCKETS

    def note(self, seconds: float) -> None:
        """One more duration."""
        number = int(math.log2(seconds / _SHORTEST) * _STEPS_PER_DOUBLING) if seconds > _SHORTEST else 0
        self._buckets[min(number, _BUCKETS - 1)] += 1
        self.count += 1
        self.sum += seconds

    def cumulated(self) -> list[tuple[float, int]]:
        """Upper limits in seconds, from 64 µs fourfold to 4.2 s and an infinite one, with how many were not longer."""
        below = list(accumulate(self._buckets))
        doublings = range(6, 23, 2)
        limits = [(_SHORTEST * 2**doubling, below[doubling * _STEPS_PER_DOUBLING - 1]) for doubling in doublings]
        return [*limits, (math.inf, self.count)]

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share of all durations lies, such as 0.5 or 0.99; nothing without any."""
        if not self.count:
            return None
        wanted = math.ceil(share * self.count)
        number = next(number for number, upto in enumerate(accumulate(self._buckets)) if upto >= wanted)
        return float(_SHORTEST * 2 ** ((number + 0.5) / _STEPS_PER_DOUBLING))
