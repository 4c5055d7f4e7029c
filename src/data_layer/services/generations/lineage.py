"""Generations of an application that knows no ids: it hands over codes, and their place in the tree is found by them.

They may arrive in any order, in pieces, several times and at once; the tree is the same in the end. A variant is found
by the SHA-256 of its code without white space at its ends, or of the page that a reader got of it, with its images at
other addresses, by what is left of both (``shown.py``). Where several have it, the exact code decides, then the set of
all variants of their version, then the conversation, then the index of the variant, then the time.

========================  =======================================================================================
the parent                what becomes of the child
========================  =======================================================================================
is there                  it is linked
is not there (yet)        stand-ins of type import are made from the code that it changes, and from those earlier in
                          its conversation
arrives later             all that waited for it are linked, and stand-ins that nothing is made from any more go
========================  =======================================================================================

Projects are found in the same way if none is named. A generation never moves to another project (decision 0030), so
what belongs together may lie in two where nothing said so in time: children of different variants that arrive before
it, or a version whose other variants arrive between its child and the variant that was changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from uuid_utils.compat import uuid7

from data_layer.entities import AuditLog, GeneratedCode, Generation, GenerationEvent, Project
from data_layer.entities.enums import AuditAction, CodeStack, GenerationStatus, GenerationType, RequestType
from data_layer.entities.texts import WHITE_SPACE
from data_layer.entities.time_ordered_ids import id_at
from data_layer.errors import DuplicateError, InvalidValueError, NotFoundError, ValueTooLongError
from data_layer.repositories.lineage import Candidates
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import Attachment, FileView
from data_layer.schemas.generations import GenerationView, VariantModel
from data_layer.schemas.lineage import EarlierTurn, ParentVariant, ReceivedGeneration, ReceivedVariant
from data_layer.services.acting import as_of_now
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.files.ingest import SaveRequest, new_reference
from data_layer.services.files.owners import require_owner
from data_layer.services.generations.access import open_project, view_of
from data_layer.services.generations.accounting import charge, code_values
from data_layer.services.generations.gallery import Gallery
from data_layer.services.generations.growth import checked, end_of
from data_layer.services.generations.requests import CODE_TYPES, without_secrets
from data_layer.services.generations.shown import variants_shown_as
from data_layer.services.generations.streams import MAXIMUM_CODE, checked_event
from data_layer.services.generations.text import encoded, storable
from data_layer.services.image_files import show_screenshot
from data_layer.services.image_rows import describe_file, new_image_entry, new_image_row
from data_layer.services.page_images import hold_images, names_kept_here
from data_layer.services.permissions import Permission, require
from data_layer.services.project_keys import work_keys

if TYPE_CHECKING:
    from data_layer.repositories.unit_of_work import UnitOfWork

_LONGEST_NAME = 80
_MOST_EVENT_BYTES = 2**21
_NOBODY = VariantModel()
_ENDED = (GenerationStatus.COMPLETED, GenerationStatus.FAILED, GenerationStatus.CANCELLED)


class Lineage(Gallery):
    """What an application without ids calls."""

    async def receive(
        self,
        actor: Actor,
        received: ReceivedGeneration,
        *,
        project_id: UUID | None = None,
        owner_id: UUID | None = None,
        reservation_id: UUID | None = None,
    ) -> GenerationView:
        """Store a request and variants of it that have ended, at its place in the tree.

        What was received before changes nothing. Costs are recorded with ``data.usage``, unless ``reservation_id`` says
        that it is done here.

        Within a project, every order of arrival makes the same tree. Without ``project_id``, children that arrive
        before their parent find each other by ``base_variants`` or by the codes of ``earlier`` turns; those that bring
        neither, nor say what was ``shown``, may begin a project each, and projects are never merged.

        Args:
            actor: the owner.
            received: the request.
            project_id: where it belongs. Without it, the project is found by the codes, or a new one is made.
            owner_id: whose projects, by default the actor's; of no use with ``project_id``.
            reservation_id: record what the variants that are new have cost, in the same transaction, and take it from
                this reservation, which may have ended.

        Raises:
            NotFoundError: the actor has no such project, or the owner no such file.
            DuplicateError: somebody else's application has used this ``source`` and ``key``.
            InvalidValueError: a value cannot be stored; ``field`` says which.
        """
        arrival = _Arrival(received)
        async with self._transactions() as tx:
            owner_id = await _owner(tx, actor, project_id, owner_id)
            arrival = await _of_shown(tx, arrival, owner_id, project_id)
            await tx.lineage.lock(owner_id)
            known = await _known(tx, received, owner_id)
            generation = known or await _insert(tx, arrival, owner_id, project_id)
            added = await _add_variants(tx, generation, arrival)
            if added:
                if reservation_id is not None:
                    await _charge(tx, generation, arrival, added, owner_id=owner_id, reservation_id=reservation_id)
                await _add_images(tx, generation, arrival, owner_id)
                await hold_images(tx, generation.project_id, arrival.texts)
                await _place(tx, generation, arrival)
                await tx.generations.close(generation.id)
            if added or known is None:
                tx.invalidate(*work_keys(generation.project_id, owner_id))
            generation = await tx.generations.get(generation.id, lock=True)  # Read again: its number may have changed.
            if added:
                tx.add(_entry(actor.user_id or owner_id, generation, added))
            return await view_of(tx, generation)

    async def find_parent(
        self,
        actor: Actor,
        received: ReceivedGeneration,
        *,
        project_id: UUID | None = None,
        owner_id: UUID | None = None,
    ) -> ParentVariant | None:
        """Return the variant that a request changes, if it is there. Nothing is stored.

        Raises:
            NotFoundError: the actor has no such project.
        """
        arrival = _Arrival(received)
        async with self._transactions() as tx:
            owner_id = await _owner(tx, actor, project_id, owner_id)
            return await _find_parent(tx, await _of_shown(tx, arrival, owner_id, project_id), owner_id, project_id)


def conversation_of(received: ReceivedGeneration) -> dict[str, Any]:
    """What distinguishes a generation from others with the same codes, for one that is streamed."""
    return _Arrival(received).lineage


class _Code:
    """A code as it is stored, and its hashes; ``field`` is what the caller calls it."""

    def __init__(self, code: str, field: str) -> None:
        given = encoded(code)
        if len(given) > MAXIMUM_CODE:
            raise ValueTooLongError(
                f"{field} may have {MAXIMUM_CODE} bytes at most; this has {len(given)}", field=field
            )
        self.text, self.note = storable(given)
        trimmed = self.text.strip(WHITE_SPACE)
        self.is_empty = not trimmed
        self.exact = hashlib.sha256(self.text.encode()).hexdigest()
        self.trimmed = hashlib.sha256(trimmed.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Turn:
    """An earlier turn of the conversation, with the conversations before and after it."""

    prompt: str | None
    code: _Code | None
    before: str | None
    conversation: str | None


@dataclass(frozen=True, slots=True)
class _Step:
    """A code on the way from the root to what was received; ``wanted`` is the hash of the one before it."""

    code: _Code
    prompt: str | None
    wanted: str | None
    lineage: dict[str, Any]


class _Arrival:
    """What was received, checked, with everything by which it is found; ``shown`` are variants that it changes."""

    def __init__(self, received: ReceivedGeneration, shown: Sequence[UUID] = ()) -> None:
        self.received = received
        self.codes = {variant.index: _checked(variant) for variant in received.variants}
        self.events = {variant.index: _checked_events(variant) for variant in received.variants}
        if len(self.codes) != len(received.variants):
            raise InvalidValueError("two variants have the same index", field="variants")
        self.base = _code(received.base_code, "base_code")
        self.turns = _turns(received.earlier)
        self.before = self.turns[-1].conversation if self.turns else None
        self.conversation = _conversation([*received.earlier, received])
        first = received.earlier[0] if received.earlier else received
        self.root = None if first.shown is None else _conversation([first])
        variants = [_code(text, "base_variants") for text in received.base_variants]
        others = [code.trimmed for code in variants if code is not None]
        self.lineage: dict[str, Any] = _conversations(_Turn(None, None, self.before, self.conversation))
        if self.base is not None:
            self.lineage["exact"] = self.base.exact
        if shown:
            self.lineage["shown"] = [str(code_id) for code_id in shown]
        if self.root is not None:
            self.lineage["root"] = self.root
        if received.base_index is not None:
            self.lineage["index"] = received.base_index
        if others:
            self.lineage["variants"] = sorted(set(others))

    @property
    def path(self) -> list[_Step]:
        """The codes before this one, as far as they are known, the first one first; the last is the base."""
        if self.base is None:
            return []
        known = [(turn, turn.code) for turn in self.turns if turn.code is not None]
        if known and known[-1][1].trimmed == self.base.trimmed:
            known[-1] = known[-1][0], self.base
        else:
            before = self.turns[-1].before if self.turns else None
            known.append((_Turn(None, self.base, before, self.before), self.base))
        wanted: list[str | None] = [None, *(code.trimmed for _, code in known[:-1])]
        return [
            _Step(code, turn.prompt, parent, _conversations(turn))
            for (turn, code), parent in zip(known, wanted, strict=True)
        ]

    @property
    def texts(self) -> list[str]:
        """The codes that the project may have from here on: those that came, and those that stand-ins are made from."""
        stored = [*self.codes.values(), self.base, *(turn.code for turn in self.turns)]
        return [code.text for code in stored if code is not None]

    @property
    def hashes(self) -> list[str]:
        """Of the codes that came."""
        return [code.trimmed for code in self.codes.values() if code is not None]


def _checked(variant: ReceivedVariant) -> _Code | None:
    if variant.status not in _ENDED:
        raise InvalidValueError(
            f"variant {variant.index} is {variant.status}; hand it over when it ends", field="status"
        )
    code = _code(variant.code, "code")
    if code is None and variant.status is GenerationStatus.COMPLETED:
        raise InvalidValueError(f"variant {variant.index} has no code, so it did not complete", field="code")
    return code


def _checked_events(variant: ReceivedVariant) -> list[tuple[str, dict[str, Any]]]:
    events = [checked_event(event) for event in variant.events]
    if sum(len(orjson.dumps(payload)) for _, payload in events) > _MOST_EVENT_BYTES:
        raise ValueTooLongError(
            f"the events of variant {variant.index} have more than {_MOST_EVENT_BYTES} bytes", field="events"
        )
    return events


def _code(text: str | None, field: str) -> _Code | None:
    code = None if text is None else _Code(text, field)
    return None if code is None or code.is_empty else code


def _trimmed(code: _Code | None) -> str | None:
    return None if code is None else code.trimmed


def _turns(earlier: Sequence[EarlierTurn]) -> list[_Turn]:
    turns: list[_Turn] = []
    for count, turn in enumerate(earlier, 1):
        conversation = _conversation(earlier[:count])
        before = turns[-1].conversation if turns else None
        turns.append(_Turn(_storable(turn.prompt), _code(turn.code, "earlier"), before, conversation))
    return turns


def _conversations(turn: _Turn) -> dict[str, Any]:
    values = {"before": turn.before, "conversation": turn.conversation}
    return {name: value for name, value in values.items() if value is not None}


def _conversation(turns: Iterable[EarlierTurn | ReceivedGeneration]) -> str:
    texts: list[str | list[str]] = []
    for turn in turns:
        text, shown = (_storable(turn.prompt) or "").strip(), _storable(turn.shown)
        texts.append(text if shown is None else [text, shown])
    return hashlib.sha256(orjson.dumps(texts)).hexdigest()


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(encoded(text))[0]


async def _owner(tx: UnitOfWork, actor: Actor, project_id: UUID | None, owner_id: UUID | None) -> UUID:
    if project_id is not None:
        return (await open_project(tx, actor, project_id, Permission.CHANGE_CODE)).user_id
    owner_id = owner_id or actor.user_id
    require(await as_of_now(tx, actor), Permission.CHANGE_PROJECT, owner=owner_id)
    if owner_id is None:
        raise InvalidValueError("owner_id is missing: the system has no projects", field="owner_id")
    return owner_id


async def _known(tx: UnitOfWork, received: ReceivedGeneration, owner_id: UUID) -> Generation | None:
    generation = await tx.generations.find_one(external_source=received.source, external_key=received.key)
    if generation is not None and (await tx.projects.get(generation.project_id)).user_id != owner_id:
        raise DuplicateError("this source has used the key for another person", field="key")
    return generation


async def _find_parent(
    tx: UnitOfWork, arrival: _Arrival, owner_id: UUID, project_id: UUID | None
) -> ParentVariant | None:
    if arrival.base is None:
        return None
    return await tx.lineage.find_parent(
        *(owner_id, project_id),
        at=arrival.received.at,
        key=arrival.received.key,
        wanted=arrival.base.trimmed,
        lineage=arrival.lineage,
    )


async def _of_shown(tx: UnitOfWork, arrival: _Arrival, owner_id: UUID, project_id: UUID | None) -> _Arrival:
    """The same with the code that a variant has, where what is changed is a page that was shown of it."""
    base = arrival.base
    if base is None or not names_kept_here(base.text):
        return arrival
    if await _find_parent(tx, arrival, owner_id, project_id) is not None:
        return arrival
    shown = await variants_shown_as(tx, base.text, owner_id=owner_id, project_id=project_id)
    if not shown:
        return arrival
    received = arrival.received.model_copy(update={"base_code": shown[0].code})
    return _Arrival(received, [code.id for code in shown])


async def _insert(tx: UnitOfWork, arrival: _Arrival, owner_id: UUID, project_id: UUID | None) -> Generation:
    received = arrival.received
    files = [require_owner(await tx.files.view(file_id), owner_id) for file_id in received.files]
    if project_id is None:
        project_id = await _find_project(tx, arrival, owner_id) or await _new_project(tx, arrival, owner_id, files)
    for file in files:
        if not await tx.files.keep(file.id, Attachment(project_id=project_id)):
            raise NotFoundError(f"no file has the id {file.id}")
    generation = Generation(
        project_id=project_id,
        generation_type=received.generation_type,
        input_mode=received.input_mode,
        prompt=_storable(received.prompt),
        full_prompt=_storable(received.full_prompt),
        design_system=_storable(received.design_system),
        inputs=without_secrets(received.inputs),
        external_source=received.source,
        external_key=received.key,
        wanted_parent_hash=_trimmed(arrival.base),
        lineage=arrival.lineage,
        created_by=owner_id,
        started_at=received.at,
    )
    tx.add(generation)
    await tx.flush()
    return generation


async def _find_project(tx: UnitOfWork, arrival: _Arrival, owner_id: UUID) -> UUID | None:
    """The project of the parent, of an ancestor, of what waits for the same version or for one of the codes.

    Where the application says what was shown, also that of the same conversation: its other variants may come later,
    and a first request that was made again within a week stands beside the one before.
    """
    parent = await _find_parent(tx, arrival, owner_id, None)
    if parent is not None:
        return parent.project_id
    for turn in reversed(arrival.turns):
        if turn.code is not None:
            ancestor = await tx.lineage.find_parent(
                *(owner_id, None),
                at=arrival.received.at,
                key=arrival.received.key,
                wanted=turn.code.trimmed,
                lineage={"before": turn.conversation},
            )
            if ancestor is not None:
                return ancestor.project_id
    siblings = arrival.lineage.get("variants", [])
    found = await tx.lineage.find_waiting(owner_id, siblings, arrival.before) or await tx.lineage.find_waiting(
        owner_id, arrival.hashes, arrival.conversation
    )
    if found is None and arrival.root is not None:
        found = await tx.lineage.find_conversation(
            owner_id, arrival.root, is_first=not arrival.turns, at=arrival.received.at
        )
    return found


async def _new_project(tx: UnitOfWork, arrival: _Arrival, owner_id: UUID, files: Sequence[FileView]) -> UUID:
    prompts = (*(turn.prompt for turn in arrival.turns), _storable(arrival.received.prompt))
    words = next((" ".join(prompt.split()) for prompt in prompts if prompt and prompt.strip()), "Untitled")
    project = Project(user_id=owner_id, name=words[:_LONGEST_NAME].strip())
    shown = next((file for file in files if file.image_format is not None), None)
    if shown is not None:
        show_screenshot(project, shown)
    tx.add(project)
    tx.add(
        AuditLog.data_action(
            *(AuditAction.PROJECT_CREATE, owner_id, "project", project.id, "Created a project for what was received")
        )
    )
    await tx.flush()
    return project.id


async def _add_variants(tx: UnitOfWork, generation: Generation, arrival: _Arrival) -> list[int]:
    """Insert the variants that are not there; their indexes."""
    siblings = await tx.codes.summaries_of([generation.id])
    known = {variant.variant_index for variant in siblings}
    added = [variant for variant in arrival.received.variants if variant.index not in known]
    grown: list[tuple[UUID, bytes]] = []
    for variant in added:
        code, result = arrival.codes[variant.index], variant.result
        model = result.model or variant.model
        events = arrival.events[variant.index]
        row = GeneratedCode(
            project_id=generation.project_id,
            generation_id=generation.id,
            variant_index=variant.index,
            code=code.text if code else "",
            metadata_=code.note if code else {},
            code_stack=arrival.received.code_stack,
            provider=model.provider,
            model=model.name,
            status=variant.status,
            generation_type=CODE_TYPES[arrival.received.generation_type],
            original_prompt=generation.prompt,
            **code_values(result),
            error_message=_storable(variant.message),
            parent_id=siblings[0].parent_id if siblings else None,
            last_sequence=len(events),
        )
        tx.add(row)
        growth = checked(variant.growth, row.code.encode())
        if growth is not None:
            grown.append((row.id, growth))
        for number, (kind, payload) in enumerate(events, 1):
            # When each came is not known: it was before the end.
            event_id = uuid7() if growth is None else id_at(end_of(growth))
            tx.add(GenerationEvent(id=event_id, code_id=row.id, sequence=number, kind=kind, payload=payload))
    await tx.flush()
    for code_id, growth in grown:
        await tx.generations.set_growth(code_id, growth)
    return sorted(variant.index for variant in added)


async def _add_images(tx: UnitOfWork, generation: Generation, arrival: _Arrival, owner_id: UUID) -> None:
    """Keep the images that were made for variants, each once in its project."""
    for each in arrival.received.images:
        try:
            file = require_owner(await tx.files.view(each.file_id), owner_id)
        except NotFoundError:  # Deleted meanwhile: the page must not be lost for that.
            continue
        if await tx.images.count(project_id=generation.project_id, storage_key=file.key):
            continue
        row = new_image_row(generation.project_id, each.image, GenerationStatus.COMPLETED)
        describe_file(row, file)
        row.image_url = None if file.public_name is None else f"{PUBLIC_PATH}{file.public_name}"
        tx.add(row)
        tx.add(new_image_entry(row, owner_id))
        await tx.flush()
        stored = await tx.files.object_of(file.id)
        tx.files.add(new_reference(stored.id, SaveRequest(owner_id, file.file_name, Attachment(image_id=row.id))))


async def _charge(
    tx: UnitOfWork,
    generation: Generation,
    arrival: _Arrival,
    added: Sequence[int],
    *,
    owner_id: UUID,
    reservation_id: UUID,
) -> None:
    """Record what variants have cost."""
    ids = {code.variant_index: code.id for code in await tx.codes.summaries_of([generation.id])}
    for variant in arrival.received.variants:
        if variant.index in added:
            await charge(tx, [ids[variant.index]], variant.status, variant.result)
            if variant.result.cost:
                await tx.budgets.reduce(reservation_id, owner_id, variant.result.cost)


async def _place(tx: UnitOfWork, generation: Generation, arrival: _Arrival) -> None:
    """Link a generation, and everything whose parent may be another one now."""
    waiting = await tx.lineage.to_link(generation.project_id, generation.id)
    waiting = await _link(tx, waiting)
    if generation.id in waiting and arrival.base is not None:
        made = await _make_stand_ins(tx, generation, arrival)
        await _link(tx, [*made, *waiting])
    await tx.lineage.remove_stand_ins(generation.project_id)


async def _link(tx: UnitOfWork, generations: Sequence[UUID]) -> list[UUID]:
    """Link what has a parent; the others."""
    left = list(generations)
    for candidates in Candidates:
        left = [generation for generation in left if not await tx.lineage.link(generation, candidates)]
    return left


async def _make_stand_ins(tx: UnitOfWork, generation: Generation, arrival: _Arrival) -> list[UUID]:
    """Make generations from the codes before this one that the project does not have."""
    return [
        await _make_stand_in(tx, generation, arrival.received.code_stack, step)
        for step in arrival.path
        if step.code is arrival.base or not await tx.lineage.has_code(generation.project_id, step.code.trimmed)
    ]


async def _make_stand_in(tx: UnitOfWork, child: Generation, stack: CodeStack, step: _Step) -> UUID:
    stand_in = Generation(
        project_id=child.project_id,
        generation_type=RequestType.IMPORT,
        input_mode=child.input_mode,
        prompt=step.prompt,
        wanted_parent_hash=step.wanted,
        lineage={"stand_in": True} | step.lineage,
        created_by=child.created_by,
        started_at=child.started_at,
    )
    tx.add(stand_in)
    await tx.flush()
    tx.add(
        GeneratedCode(
            project_id=child.project_id,
            generation_id=stand_in.id,
            code=step.code.text,
            metadata_=step.code.note,
            code_stack=stack,
            provider=_NOBODY.provider,
            model=_NOBODY.name,
            generation_type=GenerationType.CREATE,
            status=GenerationStatus.COMPLETED,
        )
    )
    await tx.flush()
    await tx.generations.close(stand_in.id)
    return stand_in.id


def _entry(user_id: UUID, generation: Generation, added: Sequence[int]) -> AuditLog:
    return AuditLog.data_action(
        *(AuditAction.CODE_GENERATE, user_id, "generation", generation.id, "Received variants"),
        new_values={
            "project_id": str(generation.project_id),
            "number": generation.number,
            "variants": list(added),
        },
    )
