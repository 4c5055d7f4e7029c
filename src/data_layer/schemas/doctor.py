"""What ``data-layer doctor`` finds, in texts that each face says in its language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Self, TypeAlias

from pydantic import PlainSerializer

from data_layer.schemas.base import Value

Filling: TypeAlias = "str | int | float | Text"
"""What stands in a place of a text: a name or code, a number, or a text of its own."""
VERBATIM = "%(text)s"
"""The template of what others said, such as a server; it is the same in every language."""


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence for people, which can be translated: ``str`` has it in English.

    Attributes:
        template: English, with places such as ``%(name)s``; what translators know it by.
        values: what stands in the places. Numbers are written as the language writes them.
    """

    template: str
    values: Mapping[str, Filling] = field(default_factory=dict)

    @classmethod
    def verbatim(cls, text: str) -> Self:
        """A text of somebody else, which nobody translates."""
        return cls(VERBATIM, {"text": text})

    def masked(self, mask: Callable[[str], str]) -> Text:
        """The same with names and code as ``mask`` leaves them."""
        return Text(self.template, {name: _masked(value, mask) for name, value in self.values.items()})

    def __str__(self) -> str:
        if not self.values:
            return self.template
        return self.template % {name: _english(value) for name, value in self.values.items()}


def _masked(value: Filling, mask: Callable[[str], str]) -> Filling:
    if isinstance(value, Text):
        return value.masked(mask)
    return mask(value) if isinstance(value, str) else value


def _english(value: Filling) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_Said = Annotated[Text, PlainSerializer(str, return_type=str)]


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
        meaning: what was seen, and what follows from it; English in JSON.
        advice: what to do, where something is to be done; English in JSON.
        caused_by: the check that kept this one from being made, as ``part.check``.
        seconds: how long it took.
    """

    part: str
    check: str
    outcome: Outcome
    meaning: _Said
    advice: _Said | None = None
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
