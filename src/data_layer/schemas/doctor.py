"""What ``data-layer doctor`` finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from data_layer.schemas.base import Value


class Outcome(StrEnum):
    """What a check came to. Skipped: it could not be made, because of another one."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(Value):
    """One line of the doctor.

    Attributes:
        part: settings, process, database, cache or storage.
        check: what was looked at; together with the part a name that stays the same between versions.
        outcome: how it was.
        meaning: what was seen, and what follows from it.
        advice: what to do, where something is to be done.
        caused_by: the check that kept this one from being made, as ``part.check``.
        seconds: how long it took.
    """

    part: str
    check: str
    outcome: Outcome
    meaning: str
    advice: str | None = None
    caused_by: str | None = None
    seconds: float = 0.0


class Examination(Value):
    """All findings. ``outcome`` is that of the worst one, where what was skipped does not count."""

    version: str
    time_limit: float
    outcome: Outcome
    counts: dict[Outcome, int]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: Sequence[Finding], *, version: str, time_limit: float) -> Self:
        """Add them up."""
        counted = Counter(finding.outcome for finding in findings)
        worst = next((outcome for outcome in (Outcome.FAILED, Outcome.WARNING) if counted[outcome]), Outcome.OK)
        return cls(
            version=version,
            time_limit=time_limit,
            outcome=worst,
            counts={outcome: counted[outcome] for outcome in Outcome},
            findings=tuple(findings),
        )
