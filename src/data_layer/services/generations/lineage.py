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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from uuid_utils.compat import uuid7

from data_layer.database.entity_session import Answer
from data_layer.entities import AuditLog, GeneratedCode, Generation, GenerationEvent, Project, UsageEntry
from data_layer.entities.columns import WHITE_SPACE
from data_layer.entities.enums import AuditAction, GenerationStatus, GenerationType, RequestType
from data_layer.entities.time_ordered_ids import id_at
from data_layer.errors import DuplicateError, InvalidValueError, NotFoundError, ValueTooLongError
from data_layer.repositories.audit_rows import Row
from data_layer.repositories.lineage import KnownGeneration, Wanted
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import Attachment, FileView
from data_layer.schemas.generations import GenerationView, VariantModel
from data_layer.schemas.lineage import EarlierTurn, ParentVariant, ReceivedGeneration, ReceivedVariant
from data_layer.services.audit.recording import make_row
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.files.ingest import SaveRequest, new_reference
from data_layer.services.files.owners import require_owner
from data_layer.services.generations.access import open_project, views_of
from data_layer.services.generations.accounting import code_values, usage_entry
from data_layer.services.generations.gallery import Gallery
from data_layer.services.generations.growth import checked, end_of
from data_layer.services.generations.requests import CODE_TYPES, without_secrets
from data_layer.services.generations.shown import variants_shown_as
from data_layer.services.generations.streams import MAXIMUM_CODE, checked_event
from data_layer.services.generations.text import encoded, storable
from data_layer.services.image_files import describe_file, new_image_entry, new_image_row, show_screenshot
from data_layer.services.page_images import hold_images, names_kept_here
from data_layer.services.permissions import Permission, as_of_now, require
from data_layer.services.project_keys import keys_of_project

_LONGEST_NAME = 80
_MOST_EVENT_BYTES = 2**21
_NOBODY = VariantModel()
_Files = Mapping[UUID, tuple[FileView, UUID]]
"""Files that are there, each with the id of its object."""


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
            files = await tx.files.views_of({*received.files, *(image.file_id for image in received.images)})
            target = await _find_target(tx, arrival, owner_id, project_id)
            if target.generation is None:
                _insert_generation(tx, target, arrival, files)
            added = _insert_variants(tx, target, arrival)
            if not added:
                return await _view(tx, target.generation_id)
            if reservation_id is not None:
                _charge(tx, owner_id, arrival, added, reservation_id)
            await _insert_images(tx, target, arrival, files)
            hold_images(tx, target.project_id, arrival.texts)
            kept = _keep_files(tx, target, arrival)
            tx.generations.close(target.generation_id, target.project_id)
            tx.invalidate(*keys_of_project(target.project_id, owner_id))
            tx.audit.add_numbered(_entry(actor.user_id or owner_id, target, added), target.generation_id)
            return await _placed(tx, target, arrival, kept)

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
            arrival = await _of_shown(tx, arrival, owner_id, project_id)
            return await _find_parent(tx, arrival, owner_id, project_id)


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
    def wanted(self) -> Wanted:
        """By what its parent and its project are found."""
        turns = ((turn.code, turn.conversation) for turn in reversed(self.turns))
        return Wanted(
            at=self.received.at,
            key=self.received.key,
            base=_trimmed(self.base),
            lineage=self.lineage,
            turns=[(code.trimmed, conversation) for code, conversation in turns if code is not None],
            siblings=self.lineage.get("variants", ()),
            before=self.before,
            codes=[code.trimmed for code in self.codes.values() if code is not None],
            conversation=self.conversation,
            root=self.root,
            is_first=not self.turns,
        )

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


def _checked(variant: ReceivedVariant) -> _Code | None:
    if variant.status.is_running:
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


async def _find_parent(
    tx: UnitOfWork, arrival: _Arrival, owner_id: UUID, project_id: UUID | None
) -> ParentVariant | None:
    if arrival.base is None:
        return None
    return await tx.lineage.find_parent(owner_id, project_id, arrival.wanted)


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


@dataclass(frozen=True, slots=True)
class _Target:
    """Where variants go; ``generation`` is what has arrived before, ``is_new_project`` that there is no project yet."""

    owner_id: UUID
    project_id: UUID
    generation_id: UUID
    generation: KnownGeneration | None
    is_new_project: bool


async def _find_target(tx: UnitOfWork, arrival: _Arrival, owner_id: UUID, project_id: UUID | None) -> _Target:
    """The generation that has arrived before, or else the project of a new one. Nobody else changes this now."""
    known, found = await tx.lineage.begin(
        owner_id, arrival.received.source, arrival.wanted, finds_project=project_id is None
    )
    if known is None:
        place = project_id or found
        return _Target(owner_id, place or uuid7(), uuid7(), None, place is None)
    if known.owner_id != owner_id:
        raise DuplicateError("this source has used the key for another person", field="key")
    return _Target(owner_id, known.project_id, known.id, known, is_new_project=False)


def _insert_generation(tx: UnitOfWork, target: _Target, arrival: _Arrival, files: _Files) -> None:
    received = arrival.received
    kept = [_file_of(files, file_id, target.owner_id) for file_id in received.files]
    if target.is_new_project:
        _insert_project(tx, target, arrival, kept)
    tx.add(
        Generation(
            id=target.generation_id,
            project_id=target.project_id,
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
            created_by=target.owner_id,
            started_at=received.at,
        )
    )


def _insert_project(tx: UnitOfWork, target: _Target, arrival: _Arrival, files: Sequence[FileView]) -> None:
    prompts = (*(turn.prompt for turn in arrival.turns), _storable(arrival.received.prompt))
    words = next((" ".join(prompt.split()) for prompt in prompts if prompt and prompt.strip()), "Untitled")
    project = Project(id=target.project_id, user_id=target.owner_id, name=words[:_LONGEST_NAME].strip())
    shown = next((file for file in files if file.image_format is not None), None)
    if shown is not None:
        show_screenshot(project, shown)
    tx.add(project)
    tx.add(
        AuditLog.data_action(
            *(AuditAction.PROJECT_CREATE, target.owner_id, "project", project.id),
            "Created a project for what was received",
        )
    )


def _insert_variants(tx: UnitOfWork, target: _Target, arrival: _Arrival) -> dict[int, GeneratedCode]:
    """Insert the variants that are not there, and return them by their indexes."""
    known = target.generation
    received = arrival.received
    added: dict[int, GeneratedCode] = {}
    for variant in received.variants:
        if known is not None and variant.index in known.indexes:
            continue
        code, result = arrival.codes[variant.index], variant.result
        model = result.model or variant.model
        events = arrival.events[variant.index]
        row = added[variant.index] = GeneratedCode(
            project_id=target.project_id,
            generation_id=target.generation_id,
            variant_index=variant.index,
            code=code.text if code else "",
            metadata_=code.note if code else {},
            code_stack=received.code_stack,
            provider=model.provider,
            model=model.name,
            status=variant.status,
            generation_type=CODE_TYPES[received.generation_type],
            original_prompt=_storable(received.prompt),
            **code_values(result),
            error_message=_storable(variant.message),
            parent_id=known.parent_id if known else None,
            last_sequence=len(events),
        )
        tx.add(row)
        growth = checked(variant.growth, row.code.encode())
        if growth is not None:
            tx.generations.set_growth(row.id, growth)
        for number, (kind, payload) in enumerate(events, 1):
            # When each came is not known: it was before the end.
            event_id = uuid7() if growth is None else id_at(end_of(growth))
            tx.add(GenerationEvent(id=event_id, code_id=row.id, sequence=number, kind=kind, payload=payload))
    return added


def _keep_files(tx: UnitOfWork, target: _Target, arrival: _Arrival) -> Answer | None:
    """Let the files of a new generation belong to its project; the answer says how many of them were there."""
    files = arrival.received.files
    return None if target.generation or not files else tx.files.keep_for_project(files, target.project_id)


async def _insert_images(tx: UnitOfWork, target: _Target, arrival: _Arrival, files: _Files) -> None:
    """Keep the images that were made for variants, each once in its project."""
    # One that was deleted meanwhile is left out: the page must not be lost for that.
    made = {each.file_id: each.image for each in arrival.received.images if each.file_id in files}
    views = {file_id: files[file_id] for file_id in made if files[file_id][0].owner_id == target.owner_id}
    if not views:
        return
    known = (
        set()
        if target.is_new_project
        else await tx.images.stored_under(target.project_id, [file.key for file, _ in views.values()])
    )
    for file_id, (file, object_id) in views.items():
        if file.key in known:
            continue
        known.add(file.key)
        row = new_image_row(target.project_id, made[file_id], GenerationStatus.COMPLETED)
        describe_file(row, file)
        row.image_url = None if file.public_name is None else f"{PUBLIC_PATH}{file.public_name}"
        tx.add(row)
        tx.add(new_image_entry(row, target.owner_id))
        request = SaveRequest(target.owner_id, file.file_name, Attachment(image_id=row.id))
        tx.files.add(new_reference(object_id, request))


def _charge(
    tx: UnitOfWork, owner_id: UUID, arrival: _Arrival, added: Mapping[int, GeneratedCode], reservation_id: UUID
) -> None:
    """Record what variants have cost."""
    entries = []
    for variant in arrival.received.variants:
        if variant.index in added:
            entries.append(usage_entry(added[variant.index], owner_id, variant.result))
            if variant.result.cost:
                tx.budgets.reduce(reservation_id, owner_id, variant.result.cost)
    # In the order in which the sums of a day are locked.
    for entry in sorted((entry for entry in entries if entry is not None), key=_sum_of):
        tx.add(entry)


def _sum_of(entry: UsageEntry) -> tuple[str, ...]:
    return entry.provider, entry.model, str(entry.code_stack), str(entry.id)


async def _placed(tx: UnitOfWork, target: _Target, arrival: _Arrival, kept: Answer | None) -> GenerationView:
    """Write everything, and link the generation and whatever has another parent now; it as it is then."""
    wants_parent = arrival.base is not None
    placement = await tx.lineage.place(target.project_id, target.generation_id, wants_parent=wants_parent)
    if kept is not None and kept.row != (len(set(arrival.received.files)),):
        raise NotFoundError("a file of the request was removed while it was received")
    if placement.unlinked:
        placement = await tx.lineage.link(target.project_id, target.generation_id, placement.unlinked)
    if wants_parent and target.generation_id in placement.unlinked:
        made = await _make_stand_ins(tx, target, arrival)
        unlinked = [*made, *placement.unlinked]
        placement = await tx.lineage.link(target.project_id, target.generation_id, unlinked)
    if placement.has_idle_stand_in:
        await tx.lineage.remove_stand_ins(target.project_id)
        return await _view(tx, target.generation_id)  # Its number may have changed.
    return views_of([placement.generation], placement.variants)[0]


async def _view(tx: UnitOfWork, generation_id: UUID) -> GenerationView:
    generation, variants = await tx.generations.view(generation_id)
    if generation is None:
        raise NotFoundError(f"no generation has the id {generation_id}")
    return views_of([generation], variants)[0]


async def _make_stand_ins(tx: UnitOfWork, target: _Target, arrival: _Arrival) -> list[UUID]:
    """Make generations from the codes before this one that the project does not have."""
    earlier = [step.code.trimmed for step in arrival.path if step.code is not arrival.base]
    missing = await tx.lineage.missing_codes(target.project_id, earlier) if earlier else set()
    made = []
    for step in arrival.path:
        if step.code is arrival.base or step.code.trimmed in missing:
            missing.discard(step.code.trimmed)
            made.append(_make_stand_in(tx, target, arrival.received, step))
    return made


def _make_stand_in(tx: UnitOfWork, target: _Target, child: ReceivedGeneration, step: _Step) -> UUID:
    stand_in = Generation(
        project_id=target.project_id,
        generation_type=RequestType.IMPORT,
        input_mode=child.input_mode,
        prompt=step.prompt,
        wanted_parent_hash=step.wanted,
        lineage={"stand_in": True} | step.lineage,
        created_by=target.owner_id,
        started_at=child.at,
    )
    tx.add(stand_in)
    tx.add(
        GeneratedCode(
            project_id=target.project_id,
            generation_id=stand_in.id,
            code=step.code.text,
            metadata_=step.code.note,
            code_stack=child.code_stack,
            provider=_NOBODY.provider,
            model=_NOBODY.name,
            generation_type=GenerationType.CREATE,
            status=GenerationStatus.COMPLETED,
        )
    )
    tx.generations.close(stand_in.id, target.project_id)
    return stand_in.id


def _file_of(files: _Files, file_id: UUID, owner_id: UUID) -> FileView:
    if file_id not in files:
        raise NotFoundError(f"no file has the id {file_id}")
    return require_owner(files[file_id][0], owner_id)


def _entry(user_id: UUID, target: _Target, added: Collection[int]) -> Row:
    return make_row(
        AuditAction.CODE_GENERATE,
        "Received variants",
        user_id=user_id,
        resource_type="generation",
        resource_id=target.generation_id,
        new_values={"project_id": str(target.project_id), "variants": sorted(added)},
    )
