"""An observer that remembers what it was called with. It has no tests."""

from __future__ import annotations

from collections.abc import Sequence

from data_layer.schemas.base import Outcome


class Recorder:
    """Remembers everything."""

    def __init__(self) -> None:
        self.round_trips: list[tuple[tuple[str, ...], float, str | None]] = []
        self.waits: list[tuple[float, str | None]] = []
        self.transactions: list[Outcome] = []

    def statements_ended(self, names: Sequence[str], seconds: float, error: str | None) -> None:
        self.round_trips.append((tuple(names), seconds, error))

    def connection_awaited(self, seconds: float, error: str | None) -> None:
        self.waits.append((seconds, error))

    def transaction_ended(self, outcome: Outcome, seconds: float) -> None:
        assert seconds >= 0
        self.transactions.append(outcome)

    @property
    def names(self) -> list[str]:
        return [name for names, _, _ in self.round_trips for name in names]

    def clear(self) -> None:
        self.round_trips.clear()
        self.waits.clear()
        self.transactions.clear()
