"""Recording a request through the services: where it belongs, its media, and what waited on disk."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from data_layer.entities.enums import CodeStack, GenerationStatus, InputMode, RequestType, UsageOutcome
from data_layer.errors import (
    CacheError,
    DamagedCodeError,
    DatabaseError,
    DataLayerError,
    DeadlineExceededError,
    DuplicateError,
    FileTooLargeError,
    GenerationEndedError,
    InvalidFileError,
    InvalidValueError,
    LimitReachedError,
    MissingReferenceError,
    NotFoundError,
    NotInitializedError,
    OverloadedError,
    StorageFullError,
    StorageUnavailableError,
)
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.recorder.protocol import Request
from data_layer.recorder.spill import Entry, HeldMedia
from data_layer.schemas.actors import Actor
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import (
    GenerationRequest,
    Piece,
    VariantEvent,
    VariantResult,
    WholeCode,
    WriterState,
)
from data_layer.schemas.lineage import EarlierTurn, ReceivedGeneration, ReceivedVariant
from data_layer.schemas.projects import ProjectDraft
from data_layer.schemas.usage import NewUsage
from data_layer.services.generations.text import encoded, storable, storable_json

log = get_log(__name__)

SOURCE = "screenshot-to-code"
MEDIA_TYPES = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "video/mp4", "video/webm", "video/quicktime"}
)
_LONGEST_NAME = 80
_MEDIA_SECONDS = 30.0
_ROOT_SECONDS = 7 * 86_400.0
_ANY_CLOCK = timedelta(hours=1)
"""A parent has begun by the clock of the database; by that of this process it may look later."""
_TRANSIENT = (
    DatabaseError,
    DeadlineExceededError,
    NotInitializedError,
    OSError,
    OverloadedError,
    StorageFullError,
    StorageUnavailableError,
)


def is_transient(error: Exception) -> bool:
    """Whether what failed may succeed later. What cannot is taken from the queue, so that it holds up nothing."""
    return isinstance(error, _TRANSIENT) and not isinstance(error, DamagedCodeError)


@dataclass(slots=True)
class Place:
    """Where a request belongs."""

    project_id: UUID
    parent_id: UUID | None = None


@dataclass(slots=True)
class VariantRecord:
    """How a variant has ended, as it is kept on disk.

    Attributes:
        events: what happened while it was made, as far as it was not handed over.
        sequence: the number of the last piece that was.
    """

    index: int
    status: GenerationStatus
    code: str = ""
    message: str | None = None
    result: VariantResult = field(default_factory=VariantResult)
    events: tuple[VariantEvent, ...] = ()
    sequence: int = 0
    growth: bytes | None = None
    """How the code grew, packed."""

    @property
    def pieces(self) -> list[Piece]:
        """What was said of it."""
        return [*self.events, self.whole] if self.code else list(self.events)

    @property
    def whole(self) -> WholeCode:
        """Its code."""
        return WholeCode(self.code, self.growth)


def generation_request(request: Request, key: str, parent_id: UUID | None, inputs: dict[str, Any]) -> GenerationRequest:
    """The request as the services take it."""
    return GenerationRequest(
        generation_type=request.generation_type,
        input_mode=request.input_mode,
        code_stack=request.code_stack,
        parent_id=parent_id,
        prompt=_storable(request.prompt),
        full_prompt=_storable(request.full_prompt),
        design_system=_storable(request.design_system),
        inputs=inputs,
        external_source=SOURCE,
        external_key=key,
    )


def inputs_of(request: Request, media: Sequence[HeldMedia]) -> dict[str, Any]:
    """What a generation keeps beside the texts of its request: no bytes, and nothing that is not named here."""
    inputs: dict[str, Any] = {
        "images": [each.describe() for each in media if not each.is_video and not each.is_refused],
        "videos": [each.describe() for each in media if each.is_video and not each.is_refused],
        "options": dict(request.options),
    }
    if request.selected_element is not None:
        inputs["selected_element"] = _storable(request.selected_element)
    return inputs


def received(
    request: Request,
    key: str,
    at: datetime,
    variants: Sequence[VariantRecord] = (),
    inputs: dict[str, Any] | None = None,
) -> ReceivedGeneration:
    """The request for the services that find its place by hashes."""
    unknown = (ReceivedVariant(index=0, status=GenerationStatus.FAILED),)
    return ReceivedGeneration(
        source=SOURCE,
        key=key,
        at=at,
        generation_type=request.generation_type,
        input_mode=request.input_mode,
        code_stack=request.code_stack,
        prompt=request.spoken,
        full_prompt=request.full_prompt,
        design_system=request.design_system,
        inputs=inputs or {},
        base_code=request.base_code,
        base_variants=request.base_variants,
        earlier=tuple(EarlierTurn(prompt=text, code=code) for text, code in request.earlier),
        variants=tuple(
            ReceivedVariant(
                index=each.index,
                code=each.code,
                status=each.status,
                result=each.result,
                message=each.message,
                events=each.events,
                growth=each.growth,
            )
            for each in variants
        )
        or unknown,
    )


async def find_place(data: DataLayer, actor: Actor, request: Request, *, key: str, media: Sequence[HeldMedia]) -> Place:
    """Where a request belongs: below the variant that it changes, beside the one that it repeats, or in a new project.

    A code that is unknown was imported: it becomes the root of a new project.
    """
    if request.base_code is not None and request.base_code.strip():
        parent = await data.generations.find_parent(actor, received(request, key, datetime.now(UTC) + _ANY_CLOCK))
        if parent is not None:
            await _go_on_with(data, actor, parent.generation_id, parent.variant_index)
            return Place(parent.project_id, parent.id)
        return await _import(data, actor, request, key)
    known = None
    with suppress(CacheError):
        known = await data.cache.get(_root_keys(actor, _root_of(request, media))[0])
    if isinstance(known, str):
        with suppress(NotFoundError, ValueError):
            return Place((await data.projects.open(actor, UUID(known))).id)
    return Place(await _new_project(data, actor, request, media))


async def _go_on_with(data: DataLayer, actor: Actor, generation_id: UUID, variant: int) -> None:
    """Select the variant that is edited: the page does not say which one its person has chosen."""
    with suppress(NotFoundError):  # It was deleted in this moment, which the start notices.
        await data.generations.select(actor, generation_id, variant)


@dataclass(frozen=True, slots=True)
class Root:
    """By what a first request is known when it comes again; ``hashes`` are those of its media, in their order."""

    code_stack: CodeStack
    input_mode: InputMode
    prompt: str
    hashes: tuple[str, ...] = ()


async def remember_root(data: DataLayer, actor: Actor, root: Root, project_id: UUID) -> None:
    """Have the same request, when it comes again, become a sibling of this one."""
    with suppress(DataLayerError):
        for key in _root_keys(actor, root):
            await data.cache.set(key, str(project_id), ttl=_ROOT_SECONDS)


def _root_of(request: Request, media: Sequence[HeldMedia]) -> Root:
    hashes = tuple(each.sha256 for each in media)
    return Root(request.code_stack, request.input_mode, request.prompt, hashes)


async def remember_request(
    data: DataLayer, actor: Actor, request: Request, media: Sequence[HeldMedia], project_id: UUID
) -> None:
    """Have a request that changes nothing become a sibling when it comes again."""
    if request.base_code is None:
        await remember_root(data, actor, _root_of(request, media), project_id)


async def _import(data: DataLayer, actor: Actor, request: Request, key: str) -> Place:
    """Store the code that is changed in a project, which its prompt names. Repeating it finds the same one."""
    root = await data.generations.receive(
        actor,
        ReceivedGeneration(
            source=SOURCE,
            key=f"{key}-import",
            at=datetime.now(UTC),
            generation_type=RequestType.IMPORT,
            input_mode=InputMode.TEXT,
            code_stack=request.code_stack,
            prompt=_name(request, "Imported code"),
            variants=(ReceivedVariant(index=0, code=request.base_code or ""),),
        ),
    )
    return Place(root.project_id, root.variants[0].id)


async def _new_project(data: DataLayer, actor: Actor, request: Request, media: Sequence[HeldMedia]) -> UUID:
    draft = ProjectDraft(
        name=_name(request, f"{request.input_mode.value.capitalize()} of {datetime.now(UTC):%d %B %Y}")
    )
    image = next((each for each in media if not each.is_video), None)
    project_id = None  # Once there is one, whatever fails afterwards must not lead to another one.
    if image is not None:
        try:
            async with asyncio.timeout(_MEDIA_SECONDS):
                content = await asyncio.to_thread(image.read)
                project_id = (
                    await data.projects.create(actor, draft, screenshot=content, file_name=image.file_name)
                ).id
                [file] = await data.files.list(owner_id=actor.user_id, attached_to=Attachment(project_id=project_id))
                image.file_id = str(file.id)
        except (DataLayerError, TimeoutError, OSError) as error:
            log.warning("screenshot_not_stored", code=getattr(error, "code", type(error).__name__))
    return project_id or (await data.projects.create(actor, draft)).id


async def store_media(data: DataLayer, actor: Actor, project_id: UUID, media: Sequence[HeldMedia]) -> bool:
    """Store what is not stored yet, as files of the project; whether nothing is left to be stored.

    A project that is gone needs no media. What the page calls their type is not compared with what they are: browsers
    go by the ending of a file's name.
    """
    for each in media:
        if each.file_id is not None or each.is_refused:
            continue
        try:
            async with asyncio.timeout(_MEDIA_SECONDS):
                file = await data.files.save(
                    await asyncio.to_thread(each.read),
                    owner_id=actor.user_id,
                    file_name=each.file_name,
                    attached_to=Attachment(project_id=project_id),
                    allowed_types=MEDIA_TYPES,
                )
        except (InvalidFileError, FileTooLargeError, InvalidValueError) as error:
            each.is_refused = True
            log.warning("media_refused", code=error.code, content_type=each.content_type)
        except (NotFoundError, MissingReferenceError) as error:
            log.warning("media_without_project", code=error.code, project_id=str(project_id))
            return True
        except (DataLayerError, TimeoutError, OSError) as error:
            log.warning("media_not_stored", code=getattr(error, "code", type(error).__name__))
            return False
        else:
            each.file_id = str(file.id)
    return True


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of an entry: its project, what was said in it, and whether its media are stored as well."""

    project_id: UUID
    pieces: list[Piece]
    is_whole: bool


async def deliver(data: DataLayer, actor: Actor, entry: Entry) -> Delivered:
    """Record what waited on disk. Repeating it changes nothing.

    Raises:
        DataLayerError: it could not be recorded.
        KeyError, TypeError, ValueError: it was not written by this version.
    """
    record = entry.record
    request = request_of(record["request"])
    media = await asyncio.to_thread(entry.media)
    key, at = record["key"], datetime.fromisoformat(record["at"])
    variants = [variant_of(each) for each in record["variants"]]
    if record["generation_id"] is None:
        inputs = inputs_of(request, media)
        project_id = await _receive(data, actor, record, received(request, key, at, variants, inputs))
    else:
        project_id = UUID(record["project_id"])
        with suppress(NotFoundError):  # The project was deleted: there is nothing to end.
            await _end_started(data, actor, record, request, variants)
    pieces = [piece for each in variants for piece in each.pieces]
    return Delivered(project_id, pieces, await store_media(data, actor, project_id, media))


async def _receive(data: DataLayer, actor: Actor, record: dict[str, Any], wanted: ReceivedGeneration) -> UUID:
    """Store what never began, in the project that was found or made for it, if that is still there."""
    # Nothing was set aside for it; what it has cost is recorded in the same transaction.
    receive = partial(data.generations.receive, reservation_id=UUID(record["key"]))
    if record["project_id"] is not None:
        with suppress(NotFoundError):
            return (await receive(actor, wanted, project_id=UUID(record["project_id"]))).project_id
    return (await receive(actor, wanted)).project_id


async def _end_started(
    data: DataLayer, actor: Actor, record: dict[str, Any], request: Request, variants: Sequence[VariantRecord]
) -> None:
    generation_id = UUID(record["generation_id"])
    ended = []
    try:
        writer = await data.generations.take_over(actor, generation_id)
    except GenerationEndedError:
        ended = list(variants)
    else:
        for each in variants:
            try:
                await _end(data, actor, writer, each)
            except GenerationEndedError:
                ended.append(each)
    if ended:
        await _deliver_ended(data, actor, record, request, ended)


async def _deliver_ended(
    data: DataLayer, actor: Actor, record: dict[str, Any], request: Request, ended: Sequence[VariantRecord]
) -> None:
    """Record what became of variants that somebody else has ended, because their lease had run out for example.

    What completed stands beside the others, with all that happened; of the rest, what it has cost is recorded.
    """
    generation_id = UUID(record["generation_id"])
    late: list[VariantRecord] = []
    known = {each.variant_index: each for each in (await data.generations.open(actor, generation_id)).variants}
    for each in ended:
        there = known[each.index]
        if (each.status, there.status) != (GenerationStatus.COMPLETED, GenerationStatus.FAILED):
            await _charge(data, actor, there, each.result)
        else:
            before = (await data.generations.replay(actor, there.id)).events
            said = tuple(
                VariantEvent(event.kind, dict(event.payload)) for event in before if event.sequence <= each.sequence
            )
            late.append(replace(each, index=len(late), events=(*said, *each.events)))
    if late:
        await _deliver_beside(data, actor, record, request, late)


async def _deliver_beside(
    data: DataLayer, actor: Actor, record: dict[str, Any], request: Request, late: Sequence[VariantRecord]
) -> None:
    """Store complete variants in a generation of their own, with the same parent."""
    if record["parent_id"] is not None:
        with suppress(NotFoundError):  # The page may have said its code in the form in which it was handed out.
            parent = await data.generations.open_variant(actor, UUID(record["parent_id"]))
            request = replace(request, base_code=parent.code)
    wanted = received(request, f"{record['key']}-late", datetime.fromisoformat(record["at"]), late)
    await _receive(data, actor, record, wanted)


async def _charge(data: DataLayer, actor: Actor, there: GeneratedCodeSummary, result: VariantResult) -> None:
    """Record what a variant has cost that somebody else has ended, unless something was recorded at its end."""
    model = result.model
    usage = NewUsage(
        key=str(there.id),
        provider=there.provider if model is None else model.provider,
        model=there.model if model is None else model.name,
        outcome=UsageOutcome(there.status.value),
        project_id=there.project_id,
        code_id=there.id,
        code_stack=there.code_stack,
        input_tokens=result.prompt_tokens or 0,
        output_tokens=result.completion_tokens or 0,
        cache_read_tokens=result.cache_read_tokens or 0,
        cache_write_tokens=result.cache_write_tokens or 0,
        cost=result.cost or Decimal(0),
        currency=result.currency,
    )
    if result.prompt_tokens or result.completion_tokens or usage.cost:
        with suppress(DuplicateError):
            await data.usage.record(actor, usage)


async def _end(data: DataLayer, actor: Actor, writer: WriterState, end: VariantRecord) -> None:
    token, result = writer.writer_token, end.result
    last = writer.last_sequences[end.index]
    pieces = end.pieces
    if last > end.sequence:  # A delivery that was interrupted has handed the events over, or somebody else writes.
        pieces = [piece for piece in pieces if isinstance(piece, WholeCode)]
    if pieces:
        try:
            await data.generations.append(actor, token, end.index, last + 1, *pieces)
        except LimitReachedError:  # Events are worth less than the code.
            await data.generations.append(actor, token, end.index, last + 1, end.whole)
    if end.status is GenerationStatus.COMPLETED:
        await data.generations.complete(actor, token, end.index, result, code=end.code)
    elif end.status is GenerationStatus.CANCELLED:
        await data.generations.report_usage(actor, token, end.index, result)
        await data.generations.cancel(actor, writer.generation_id, end.index)
    else:
        await data.generations.fail(actor, token, end.index, end.message or "the variant failed", result=result)


def packed_request(request: Request) -> dict[str, Any]:
    """A request for the disk, without its media."""
    packed: dict[str, Any] = storable_json(
        {
            "generation_type": request.generation_type.value,
            "input_mode": request.input_mode.value,
            "code_stack": request.code_stack.value,
            "prompt": request.prompt,
            "full_prompt": request.full_prompt,
            "selected_element": request.selected_element,
            "spoken": request.spoken,
            "earlier": [list(turn) for turn in request.earlier],
            "base_code": request.base_code,
            "base_variants": list(request.base_variants),
            "design_system": request.design_system,
            "options": request.options,
        }
    )
    return packed


def request_of(packed: dict[str, Any]) -> Request:
    """The request that was packed."""
    lists = {
        "earlier": tuple((text, code) for text, code in packed["earlier"]),
        "base_variants": tuple(packed["base_variants"]),
    }
    kinds = {"generation_type": RequestType, "input_mode": InputMode, "code_stack": CodeStack}
    chosen = {name: kind(packed[name]) for name, kind in kinds.items()}
    return Request(**packed | lists | chosen)


def packed_variant(variant: VariantRecord) -> dict[str, Any]:
    """A variant for the disk."""
    return {
        "index": variant.index,
        "status": variant.status.value,
        "code": _storable(variant.code),
        "message": _storable(variant.message),
        "result": variant.result.model_dump(mode="json"),
        "events": [[each.kind, storable_json(each.payload)] for each in variant.events],
        "sequence": variant.sequence,
        "growth": None if variant.growth is None else b64encode(variant.growth).decode(),
    }


def variant_of(packed: dict[str, Any]) -> VariantRecord:
    """The variant that was packed."""
    result, status = VariantResult.model_validate(packed["result"]), GenerationStatus(packed["status"])
    events = tuple(VariantEvent(kind, payload) for kind, payload in packed["events"])
    known = packed["index"], status, packed["code"], packed["message"]
    growth = packed.get("growth")
    return VariantRecord(*known, result, events, packed["sequence"], None if growth is None else b64decode(growth))


def _name(request: Request, otherwise: str) -> str:
    words = " ".join((_storable(request.prompt) or "").split())
    return words[:_LONGEST_NAME].strip() or otherwise


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(encoded(text))[0]


def _root_keys(actor: Actor, root: Root) -> list[str]:
    """The key of a request, and that of its repetition: the page leaves the words out where there are images."""
    prompts = dict.fromkeys((root.prompt, "")) if root.hashes else [root.prompt]
    known = [[root.code_stack.value, root.input_mode.value, prompt, *root.hashes] for prompt in prompts]
    return [f"recorder:root:{actor.user_id}:{hashlib.sha256(repr(each).encode()).hexdigest()}" for each in known]
