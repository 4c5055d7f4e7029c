"""Durations by classes: what parts of the data layer count, and what is read when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

DURATION_LIMITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper limits of the classes, in seconds, for what a request may wait for. What takes longer is in one more class."""


class Durations:
    """How many durations there were in each class, and their sum in seconds. Used by one event loop."""

    __slots__ = ("_counts", "_limits", "sum")

    def __init__(self, limits: Sequence[float] = DURATION_LIMITS) -> None:
        self._limits = tuple(limits)
        self._counts = [0] * (len(limits) + 1)
        self.sum = 0.0

    def note(self, seconds: float) -> None:
        """One more duration."""
        self._counts[bisect_left(self._limits, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def cumulated(self) -> list[tuple[float, int]]:
        """Each upper limit, the last one infinite, with how many were not longer."""
        return list(zip((*self._limits, float("inf")), accumulate(self._counts), strict=True))
