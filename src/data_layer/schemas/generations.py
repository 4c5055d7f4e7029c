"""What is asked for in a generation, what is streamed into it, and what can be seen of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from data_layer.entities.enums import CodeStack, GenerationProvider, GenerationStatus, InputMode, RequestType
from data_layer.schemas.base import Input, JsonObject, Value, View
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.projects import ProjectFull
from data_layer.schemas.usage import Reservation

Count = Annotated[int, Field(ge=0, lt=2**31)]


class GenerationRequest(Input):
    """What a generation was asked for.

    Attributes:
        parent_id: the variant that is being changed.
        inputs: files by their ids, the selected element and options as they came; what is named like a secret is left
            out.
        external_key: an id of the application that asks, once for each of its sources.
        external_source: names that application.
    """

    generation_type: RequestType = RequestType.CREATE
    input_mode: InputMode = InputMode.IMAGE
    code_stack: CodeStack = CodeStack.HTML_TAILWIND
    parent_id: UUID | None = None
    prompt: str | None = None
    full_prompt: str | None = None
    design_system: str | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    external_source: str | None = None
    external_key: str | None = None


class VariantModel(Input):
    """Who makes a variant."""

    provider: GenerationProvider = GenerationProvider.OTHER
    name: str = "unknown"


class VariantResult(Input):
    """What is known of a variant when it ends; what is not given stays empty.

    The four kinds of tokens do not overlap: ``prompt_tokens`` are those that no cache served. ``cost`` is exact.
    """

    model: VariantModel | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cost: Annotated[Decimal, Field(ge=0)] | None = None
    currency: str = "USD"
    generation_time_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class FinishedVariant(Input):
    """A variant that has ended already when it is stored.

    Attributes:
        code: of one that is complete, its code; of another, what there was of it.
        model: the model that made it, unless the result names one.
        status: how it ended: completed, failed or cancelled.
        result: what is known of it; what it has cost is recorded in the ledger.
        error_message: why it failed.
        error_details: of that failure.
        name: what its owner calls it.
    """

    replaced_texts = frozenset({"code"})

    code: str = ""
    model: VariantModel = VariantModel()
    status: GenerationStatus = GenerationStatus.COMPLETED
    result: VariantResult = VariantResult()
    error_message: str | None = None
    error_details: dict[str, Any] = Field(default_factory=dict)
    name: str | None = None


class FinishedGeneration(Input):
    """A generation of the past, to be imported.

    Attributes:
        request: what was asked for.
        variants: the answers, 1 to 16.
        selected: the variant that went on.
        at: when it ended; by default now.
        parent: the variant that it changed, where that is imported in the same call: the place of its generation among
            those that are imported, from 0, and of the variant in it. It takes the place of ``request.parent_id``.
    """

    request: GenerationRequest
    variants: tuple[FinishedVariant, ...]
    selected: Count = 0
    at: AwareDatetime | None = None
    parent: tuple[Count, Count] | None = None


@dataclass(frozen=True, slots=True)
class CodePiece:
    """Text that continues the code of a variant."""

    text: str


@dataclass(frozen=True, slots=True)
class WholeCode:
    """The whole code of a variant so far, in place of what came before.

    Attributes:
        code: the text.
        growth: how it grew, packed, where that was noted elsewhere; it takes the place of what is known of that.
    """

    code: str
    growth: bytes | None = None


@dataclass(frozen=True, slots=True)
class VariantEvent:
    """Something that happened while a variant was made, such as ``thinking`` or ``toolStart``."""

    kind: str
    payload: dict[str, Any] = field(default_factory=dict)


Piece = CodePiece | WholeCode | VariantEvent


class StartedGeneration(Value):
    """A generation that can be written. ``writer_token`` is a secret that lets its holder write the variants.

    ``reservations`` are what was set aside for each variant; `UsageService.extend` changes one.
    """

    id: UUID
    project_id: UUID
    number: int
    variant_ids: tuple[UUID, ...]
    writer_token: str = Field(repr=False)
    reservations: tuple[Reservation, ...] = ()


class RecordedGeneration(Value):
    """A generation that was stored as a whole."""

    id: UUID
    project_id: UUID
    number: int
    variant_ids: tuple[UUID, ...]


class WriterState(Value):
    """What a new writer continues: for each variant the last sequence number that is stored."""

    generation_id: UUID
    writer_token: str = Field(repr=False)
    last_sequences: tuple[int, ...]


class GenerationRow(View):
    """A generation by itself."""

    id: UUID
    project_id: UUID
    number: int
    generation_type: RequestType
    input_mode: InputMode
    prompt: str | None
    selected_variant: int
    created_by: UUID | None
    started_at: datetime
    ended_at: datetime | None


class GenerationView(GenerationRow):
    """A generation and its variants, without their code. Its status follows from theirs."""

    status: GenerationStatus
    variants: tuple[GeneratedCodeSummary, ...]


class ShownVariant(View):
    """A variant that is complete, with its code."""

    id: UUID
    generation_id: UUID
    variant_index: int
    code: str
    code_stack: CodeStack
    created_at: datetime


class ShownGeneration(Value):
    """A request of a person with its complete variants, wherever it is; ``external_key`` is None without a source."""

    id: UUID
    project_id: UUID
    external_key: str | None
    started_at: datetime
    variants: tuple[ShownVariant, ...]


class GenerationPage(Value):
    """A page of the requests of a person, and how many there are on all pages."""

    generations: tuple[ShownGeneration, ...]
    total: int


class GenerationFull(GenerationView):
    """Everything about a generation, without the code of its variants."""

    full_prompt: str | None
    inputs: JsonObject
    design_system: str | None
    external_source: str | None
    external_key: str | None


class TreeCode(StrEnum):
    """Which variants of a tree come with their code."""

    NONE = "none"
    SELECTED = "selected"
    ALL = "all"


class TreeRow(GenerationRow):
    """A generation with what was put into it."""

    inputs: JsonObject


class TreeVariant(GeneratedCodeSummary):
    """A variant; ``code`` is None where it was not asked for."""

    code: str | None = None


class TreeGeneration(TreeRow):
    """A generation of a tree. Its variants say by ``parent_id`` what they were made from."""

    status: GenerationStatus
    variants: tuple[TreeVariant, ...]


@dataclass(frozen=True, slots=True)
class OpenedTree:
    """A project and all its generations.

    Attributes:
        project: the project.
        fingerprint: the same as long as nothing of the tree has changed, counters aside.
        generations: last one first, read while it is iterated.
    """

    project: ProjectFull
    fingerprint: str
    generations: AsyncIterator[TreeGeneration]


class GrowthStep(Value):
    """From one state of a code to the next; the first one continues nothing.

    Attributes:
        at: milliseconds since the variant began.
        start: so many characters at the beginning stay.
        end: so many characters at the end stay.
        text: stands between them.
        length: how many characters the code has then.
        is_gap: whether there were states before it that are not known.
    """

    at: int
    start: int
    end: int
    text: str
    length: int
    is_gap: bool = False

    def apply(self, code: str) -> str:
        """The code that follows from the one before."""
        return f"{code[: self.start]}{self.text}{code[len(code) - self.end :]}"


class ReplayedEvent(Value):
    """Something that happened while a variant was made, ``at`` so many milliseconds after it began."""

    at: int
    sequence: int
    kind: str
    payload: JsonObject


class VariantReplay(Value):
    """How a variant was made.

    Attributes:
        code_id: which variant.
        generation_id: of which generation.
        status: of the variant.
        started_at: when it began.
        duration: milliseconds from then until the last of all this.
        is_known: whether it was kept how the code grew: it is of what is streamed, and not of what was stored whole.
        steps: how the code grew, first one first; the last one makes the code that is stored.
        events: what happened meanwhile, by their numbers.
        has_more_events: whether there are more events than are returned.
    """

    code_id: UUID
    generation_id: UUID
    status: GenerationStatus
    started_at: datetime
    duration: int
    is_known: bool
    steps: tuple[GrowthStep, ...]
    events: tuple[ReplayedEvent, ...]
    has_more_events: bool


class Hunk(Value):
    """Lines that differ, with their surroundings. Lines count from 1; ``lines`` begin with a blank, ``-`` or ``+``."""

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: tuple[str, ...]


class CodeDiff(Value):
    """How two codes differ; ``unified`` can be given to ``patch``."""

    old_id: UUID
    new_id: UUID
    unified: str
    hunks: tuple[Hunk, ...]
    added_lines: int
    removed_lines: int
