"""What a follower of a generation receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from data_layer.entities.enums import GenerationStatus


@dataclass(frozen=True, slots=True)
class CodeState:
    """The whole code of a variant: at the beginning, and when what the reader has cannot be continued.

    Attributes:
        variant: which one.
        sequence: the number of the last piece that is in it.
        status: of the variant.
        code: the text.
        position: of this event, for ``follow(…, after=position)``.
    """

    variant: int
    sequence: int
    status: GenerationStatus
    code: str
    position: str


@dataclass(frozen=True, slots=True)
class CodePatch:
    """What has become of the code since the last event of this variant.

    Attributes:
        variant: which one.
        sequence: the number of the last piece that is in it.
        start: so many characters at the beginning stay.
        end: so many characters at the end stay.
        text: stands between them.
        position: of this event.
    """

    variant: int
    sequence: int
    start: int
    end: int
    text: str
    position: str

    def apply(self, code: str) -> str:
        """The code that follows from the one before."""
        return f"{code[: self.start]}{self.text}{code[len(code) - self.end :]}"


@dataclass(frozen=True, slots=True)
class StreamedEvent:
    """Something that happened while a variant was made; ``sequence`` is its own number."""

    variant: int
    sequence: int
    kind: str
    payload: dict[str, Any]
    position: str


@dataclass(frozen=True, slots=True)
class VariantEnded:
    """A variant has ended. Its code is the one that the events before it have given."""

    variant: int
    code_id: UUID
    status: GenerationStatus
    error_message: str | None
    position: str


FollowedEvent = CodeState | CodePatch | StreamedEvent | VariantEnded
