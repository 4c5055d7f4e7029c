"""Generations as an application that knows no ids hands them over: with the codes and texts that it has instead."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from data_layer.entities.enums import CodeStack, GenerationStatus, InputMode, RequestType
from data_layer.schemas.base import Input, Value
from data_layer.schemas.generations import VariantEvent, VariantModel, VariantResult
from data_layer.schemas.images import NewImage


class EarlierTurn(Input):
    """An earlier request of the same conversation, and the code that answered it, where the application knows it.

    ``shown`` is a hash of the images that came with it. With it, what belongs together is also found by what was asked.
    """

    prompt: str | None = None
    shown: str | None = None
    code: str | None = None


class ReceivedVariant(Input):
    """A variant that has ended.

    Attributes:
        events: what happened while it was made, 2 MiB at most.
        growth: how its code grew, packed, where that was noted.
    """

    index: int = Field(ge=0, lt=2**31)
    code: str | None = None
    status: GenerationStatus = GenerationStatus.COMPLETED
    model: VariantModel = VariantModel()
    result: VariantResult = VariantResult()
    message: str | None = None
    events: tuple[VariantEvent, ...] = Field((), max_length=10_000)
    growth: bytes | None = None


class ReceivedImage(Input):
    """An image that was made for a variant, and has a permanent address.

    Attributes:
        file_id: what ``data.files.publish`` has returned.
        image: what is known of it.
    """

    file_id: UUID
    image: NewImage = NewImage()


class ReceivedGeneration(Input):
    """A request with some of its variants; the others may come later, in a value with the same key.

    Attributes:
        source: names the application.
        key: its id of the request; the same request that comes again has the same.
        at: when it was made. A parent is looked for among earlier ones.
        shown: see ``EarlierTurn``.
        base_code: the code that is changed.
        base_variants: the codes of all variants of the version that is changed.
        base_index: which variant of its version the code that is changed is, from 0; it decides where two are the same.
        earlier: the conversation before ``prompt``, oldest first.
        inputs: see ``GenerationRequest``.
        files: files of the owner that were saved for it, such as its images; they go with its project from now on,
            and the first image is shown for a new one.
        images: those that were made for its variants; each has one row in the project, unless its file is gone.
    """

    replaced_texts = frozenset({"prompt", "full_prompt", "design_system", "base_code"})

    source: str
    key: str
    at: AwareDatetime
    generation_type: RequestType = RequestType.CREATE
    input_mode: InputMode = InputMode.IMAGE
    code_stack: CodeStack = CodeStack.HTML_TAILWIND
    prompt: str | None = None
    shown: str | None = None
    full_prompt: str | None = None
    design_system: str | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    base_code: str | None = None
    base_variants: tuple[str, ...] = ()
    base_index: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    earlier: tuple[EarlierTurn, ...] = ()
    files: tuple[UUID, ...] = Field((), max_length=100)
    images: tuple[ReceivedImage, ...] = Field((), max_length=100)
    variants: tuple[ReceivedVariant, ...] = Field(min_length=1)


class ParentVariant(Value):
    """The variant that a request changes."""

    id: UUID
    project_id: UUID
    generation_id: UUID
    version: int
    variant_index: int
