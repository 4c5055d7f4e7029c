"""The ``generations`` and ``generation_events`` tables, and the variants that are being written."""

# ruff: noqa: S608  (only texts of this module stand in the statements; values are passed as parameters)
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Integer, Select, Uuid, and_, bindparam, false, func, select, text
from uuid_utils.compat import uuid7

from data_layer.database.statements import CompiledStatement, NamedQuery, Statement, named
from data_layer.entities import GeneratedCode, Generation, GenerationEvent, Project
from data_layer.entities.enums import CodeStack, GenerationStatus
from data_layer.entities.time_ordered_ids import first_id_at
from data_layer.repositories import generation_statements as sql
from data_layer.repositories.generated import SUMMARIES_OF, code_summaries, summaries_where
from data_layer.repositories.repository import MAXIMUM_NUMBER, Repository, ViewRows, check_limit, check_number, is_any
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.generations import GenerationRow, ShownVariant, TreeRow, VariantResult


@dataclass(frozen=True, slots=True)
class Unsaved:
    """What a writer has received and the database does not know yet.

    Attributes:
        code: the whole code so far; None if it has not changed.
        last_sequence: number of the last piece of it.
        known_sequences: the numbers of which the database may know one as the last: a checkpoint whose answer was lost
            may have been stored.
        events: sequence number, kind and payload, the latter as JSON.
        note: what had to be replaced in the code.
        growth: how the code has grown, packed.
        event_ids: those of the events, which say when they were received; by default it was now.
    """

    code: str | None
    last_sequence: int
    known_sequences: Sequence[int]
    events: Sequence[tuple[int, str, str]] = ()
    note: dict[str, Any] = field(default_factory=dict)
    growth: bytes | None = None
    event_ids: Sequence[UUID] = ()

    @property
    def columns(self) -> tuple[list[UUID], list[int], list[str], list[str]]:
        """The events, column by column, each with an id."""
        numbers, kinds, payloads = ([event[place] for event in self.events] for place in range(3))
        ids = list(self.event_ids) or [uuid7() for _ in self.events]
        return ids, numbers, kinds, payloads  # type: ignore[return-value]  # By place.


@dataclass(frozen=True, slots=True)
class VariantEnd:
    """How a variant ends."""

    status: GenerationStatus
    result: VariantResult = field(default_factory=VariantResult)
    message: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VariantState:
    """A stored variant, as its writer continues it."""

    id: UUID
    index: int
    status: GenerationStatus
    last_sequence: int
    code: str
    owner_id: UUID
    project_id: UUID
    started_at: datetime
    growth: bytes | None = None


@dataclass(frozen=True, slots=True)
class VariantProgress:
    """How far a variant is in the database, without its code."""

    id: UUID
    index: int
    status: GenerationStatus
    last_sequence: int
    writer: str | None
    is_abandoned: bool


@dataclass(frozen=True, slots=True)
class StoredVariant:
    """A variant as followers read it."""

    id: UUID
    index: int
    status: GenerationStatus
    last_sequence: int
    error_message: str | None
    code: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class BilledVariant:
    """What is recorded with the cost of a variant, and what its writer has reported of it."""

    id: UUID
    owner_id: UUID
    project_id: UUID
    code_stack: CodeStack
    provider: str
    model: str
    reported: dict[str, Any] | None


HIDDEN = "hidden_at"
"""In the metadata of a variant: when its owner has deleted it where the tree is not shown."""

_IS_SHOWN = f"generated_codes.status = 'completed' AND NOT generated_codes.metadata ? '{HIDDEN}'"
_SHOWN_OF_PERSON = f"""
FROM generations JOIN projects ON projects.id = generations.project_id
WHERE projects.user_id = %s AND projects.status <> 'deleted' AND NOT generations.lineage @> '{{"stand_in": true}}'
    AND EXISTS (SELECT FROM generated_codes WHERE generation_id = generations.id AND {_IS_SHOWN})
"""
_SHOWN_PAGE = NamedQuery(
    "generations.shown",
    f"""
SELECT generations.id, generations.project_id, generations.external_key, generations.started_at {_SHOWN_OF_PERSON}
ORDER BY generations.started_at DESC, generations.id DESC LIMIT %s OFFSET %s
""",
)
_COUNT_SHOWN = NamedQuery("generations.count_shown", f"SELECT count(*) {_SHOWN_OF_PERSON}")
_WITHOUT_SHOWN = NamedQuery(
    "projects.without_shown",
    f"""
SELECT id FROM projects WHERE id = ANY(%s) AND NOT EXISTS (
    SELECT FROM generated_codes WHERE project_id = projects.id AND {_IS_SHOWN}
)
""",
)


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A request of a person with something to show."""

    id: UUID
    project_id: UUID
    external_key: str | None
    started_at: datetime


def _page(*columns: ColumnElement[Any]) -> Select[tuple[Any, ...]]:
    of_project = Generation.project_id == bindparam("project_id", type_=Uuid())
    is_before = Generation.number < bindparam("before", type_=Integer())
    query = select(*columns).where(of_project, is_before).order_by(Generation.number.desc())
    return query.limit(bindparam("limit", type_=Integer()))


@cache
def _generation_rows() -> ViewRows[GenerationRow]:
    return ViewRows(GenerationRow, Generation)


@cache
def _tree_rows() -> ViewRows[TreeRow]:
    return ViewRows(TreeRow, Generation)


_TREE_PAGE = CompiledStatement("generations.tree_page", lambda: _page(*_tree_rows().columns))
_PAGE = CompiledStatement("generations.page", lambda: _page(*_generation_rows().columns))
# Both conditions say the same; the first one says it of the codes without asking their generations.
_PAGE_VARIANTS = CompiledStatement(
    "generations.page_variants",
    lambda: summaries_where(
        and_(
            GeneratedCode.project_id == bindparam("project_id", type_=Uuid()),
            GeneratedCode.generation_id.in_(_page(Generation.id.expression)),
        )
    ),
)


_VIEW = CompiledStatement(
    "generations.view",
    lambda: select(*_generation_rows().columns).where(Generation.id == bindparam("generation_id", type_=Uuid())),
)


def view_statements(generation_id: UUID) -> tuple[Statement, Statement]:
    """What reads a generation, and its variants without code, for ``read_view``."""
    return _VIEW.given(generation_id=generation_id), SUMMARIES_OF.given(generation_ids=[generation_id])


def read_view(
    rows: Sequence[Sequence[Any]], code_rows: Sequence[Sequence[Any]]
) -> tuple[GenerationRow | None, Sequence[GeneratedCodeSummary]]:
    """A generation, if it is there, and its variants."""
    found = _generation_rows().read(rows)
    return (found[0] if found else None), code_summaries().read(code_rows)


class GenerationRepository(Repository[Generation]):
    """Rows of ``generations``, and what happens to their variants while they are written."""

    entity = Generation

    async def lock(self, generation_id: UUID, project_id: UUID) -> bool:
        """Keep others from ending variants of this generation until the transaction ends; False when it is gone."""
        return await self._session.run((sql.LOCK, (generation_id, project_id))) != [None]

    async def checkpoint(
        self, code_id: UUID, project_id: UUID, writer: str, unsaved: Unsaved, lease_seconds: float
    ) -> bool:
        """Store what a writer has received and renew its lease; False when the writer may not write any more."""
        values = (
            unsaved.code,
            unsaved.growth,
            unsaved.last_sequence,
            _json(unsaved.note),
            lease_seconds,
            code_id,
            project_id,
            writer,
        )
        known = list(unsaved.known_sequences)
        return await self._session.run((sql.CHECKPOINT, (*values, known, *unsaved.columns))) != [None]

    async def end_variant(
        self, code_id: UUID, project_id: UUID, end: VariantEnd, writer: str | None, unsaved: Unsaved | None
    ) -> bool:
        """End a running variant of a generation that is locked.

        Args:
            code_id: which one.
            project_id: of which project.
            end: how.
            writer: the hash of the writer's token; None where somebody else ends it.
            unsaved: what its writer has received since the last checkpoint.

        Returns:
            False when it has ended already, or belongs to another writer.
        """
        result, model = end.result, end.result.model
        counts = (result.prompt_tokens, result.completion_tokens)
        total = None if counts == (None, None) else sum(count or 0 for count in counts)
        values = (
            *(end.status, unsaved and unsaved.code, unsaved and unsaved.growth, unsaved and unsaved.last_sequence),
            _json(unsaved.note if unsaved else {}),
            *(model and model.provider, model and model.name, *counts, total, result.generation_time_seconds),
            *(end.message, _json(end.details), code_id, project_id, writer, writer),
            [] if unsaved is None else list(unsaved.known_sequences),
        )
        events = unsaved.columns if unsaved else ([], [], [], [])
        return await self._session.run((sql.END, (*values, *events))) != [None]

    def close(self, generation_id: UUID, project_id: UUID) -> None:
        """Note with the next flush that a generation has ended, if none of its variants runs any more."""
        self._session.add_statement(sql.CLOSE, (generation_id, project_id))

    async def view(self, generation_id: UUID) -> tuple[GenerationRow | None, Sequence[GeneratedCodeSummary]]:
        """A generation, and its variants without code."""
        return read_view(*await self._session.fetch_all(*view_statements(generation_id)))

    async def find_expired(self, limit: int) -> Sequence[tuple[UUID, UUID]]:
        """Generations with variants whose writer's lease has run out, each with its project."""
        row = await self._session.fetch_one(sql.FIND_EXPIRED, (limit,))
        return list(zip(*row, strict=True)) if row else ()

    async def count_expired(self) -> int:
        """How many variants are running whose writer's lease has run out."""
        row = await self._session.fetch_one(sql.COUNT_EXPIRED, ())
        return int(row[0]) if row else 0

    async def expire(self, generation_id: UUID, project_id: UUID, message: str) -> Sequence[UUID]:
        """Fail the variants of a locked generation whose lease has run out, and return their ids."""
        [row] = await self._session.run((sql.EXPIRE, (message, generation_id, project_id)))
        return row[0] if row else ()

    async def take_over(self, generation_id: UUID, project_id: UUID, writer: str, lease_seconds: float) -> None:
        """Give a locked generation to another writer, with a lease of what still runs."""
        await self._session.run((sql.TAKE_OVER, (writer, lease_seconds, generation_id, project_id)))

    async def state(self, code_id: UUID) -> tuple[GenerationStatus, str | None, int] | None:
        """Status, hash of the writer's token and last sequence number of a variant; None when it is gone."""
        row = await self._session.fetch_one(sql.STATE, (code_id,))
        return None if row is None else (GenerationStatus(row[0]), row[1], row[2])

    async def variants_of(self, generation_id: UUID, writer: str) -> Sequence[VariantState]:
        """All variants that this writer has begun, with their code."""
        statement = (
            select(
                *(GeneratedCode.id, GeneratedCode.status, GeneratedCode.last_sequence, GeneratedCode.code),
                *(GeneratedCode.project_id, GeneratedCode.variant_index.label("index")),
                *(GeneratedCode.created_at.label("started_at"), GeneratedCode.growth),
                Project.user_id.label("owner_id"),
            )
            .join(Project, Project.id == GeneratedCode.project_id)
            .where(GeneratedCode.generation_id == generation_id, GeneratedCode.writer == writer)
            .order_by(GeneratedCode.variant_index)
        )
        rows = await self._session.execute(named("generated_codes.resume", statement))
        return [VariantState(**row) for row in rows.mappings()]

    async def billed(self, project_id: UUID, code_ids: Collection[UUID]) -> Sequence[BilledVariant]:
        """Variants of a project as the ledger records them, in the order in which the sums of a day are locked."""
        order = (GeneratedCode.provider, GeneratedCode.model, GeneratedCode.code_stack, GeneratedCode.id)
        statement = (
            select(
                *(GeneratedCode.id, GeneratedCode.project_id, GeneratedCode.code_stack, GeneratedCode.provider),
                *(GeneratedCode.model, Project.user_id.label("owner_id")),
                GeneratedCode.metadata_["usage"].label("reported"),
            )
            .join(Project, Project.id == GeneratedCode.project_id)
            .where(GeneratedCode.project_id == project_id, GeneratedCode.id.in_(list(code_ids)))
            .order_by(*order)
        )
        rows = await self._session.execute(named("generated_codes.billed", statement))
        return [BilledVariant(**row) for row in rows.mappings()]

    async def progress(self, generation_id: UUID) -> Sequence[VariantProgress]:
        """How far its variants are, by index; nothing when it is gone."""
        running = GeneratedCode.status.in_([GenerationStatus.PENDING, GenerationStatus.PROCESSING])
        statement = (
            select(
                *(GeneratedCode.id, GeneratedCode.variant_index.label("index"), GeneratedCode.status),
                *(GeneratedCode.last_sequence, GeneratedCode.writer),
                func.coalesce((GeneratedCode.lease_until < func.now()) & running, false()).label("is_abandoned"),
            )
            .where(GeneratedCode.generation_id == generation_id)
            .order_by(GeneratedCode.variant_index)
        )
        rows = await self._session.execute(named("generated_codes.progress", statement))
        return [VariantProgress(**row) for row in rows.mappings()]

    async def growths(self, code_ids: Sequence[UUID]) -> Mapping[UUID, bytes | None]:
        """How the codes of variants have grown, packed; None where that was not kept."""
        statement = select(GeneratedCode.id, GeneratedCode.growth).where(GeneratedCode.id.in_(code_ids))
        rows = await self._session.execute(named("generated_codes.growths", statement))
        return {row.id: row.growth for row in rows}

    def set_growth(self, code_id: UUID, growth: bytes) -> None:
        """Store with the next flush how the code of a variant has grown, packed."""
        self._session.add_statement(sql.SET_GROWTH, (growth, code_id))

    async def stored_variants(self, code_ids: Sequence[UUID]) -> Sequence[StoredVariant]:
        """Variants with their code, by index."""
        statement = (
            select(
                *(GeneratedCode.id, GeneratedCode.variant_index.label("index"), GeneratedCode.status),
                *(GeneratedCode.last_sequence, GeneratedCode.error_message, GeneratedCode.code),
                GeneratedCode.created_at.label("started_at"),
            )
            .where(GeneratedCode.id.in_(code_ids))
            .order_by(GeneratedCode.variant_index)
        )
        rows = await self._session.execute(named("generated_codes.stored", statement))
        return [StoredVariant(**row) for row in rows.mappings()]

    async def history(
        self, project_id: UUID, *, limit: int, before: int | None
    ) -> tuple[Sequence[GenerationRow], Sequence[GeneratedCodeSummary]]:
        """The generations of a project, last one first, and their variants without code, in one round trip.

        Args:
            project_id: of which project.
            limit: 1000 at most.
            before: the number of the last row of the page before.
        """
        check_limit(limit)
        if before is not None:
            check_number("before", before)
        values = {"project_id": project_id, "before": MAXIMUM_NUMBER if before is None else before, "limit": limit}
        rows, code_rows = await self._session.fetch_all(_PAGE.given(**values), _PAGE_VARIANTS.given(**values))
        generations, codes = _generation_rows().read(rows), code_summaries().read(code_rows)
        # Each statement has a snapshot of its own: what was added between the two moves the page of the second one.
        found = {code.generation_id for code in codes}
        missed = [generation.id for generation in generations if generation.id not in found]
        if missed:
            [code_rows] = await self._session.fetch_all(SUMMARIES_OF.given(generation_ids=missed))
            codes += code_summaries().read(code_rows)
        return generations, codes

    async def tree_page(self, project_id: UUID, *, limit: int, before: int | None) -> Sequence[TreeRow]:
        """The generations of a project with their inputs, last one first; the arguments are those of ``history``."""
        check_limit(limit)
        number = MAXIMUM_NUMBER if before is None else before
        [rows] = await self._session.fetch_all(_TREE_PAGE.given(project_id=project_id, before=number, limit=limit))
        return _tree_rows().read(rows)

    async def tree_fingerprint(self, project_id: UUID) -> str:
        """What changes whenever a generation or a variant of the project does, counters aside."""
        row = await self._session.fetch_one(sql.TREE_FINGERPRINT, (project_id, project_id))
        return str(row[0]) if row else ""

    async def shown(self, owner_id: UUID, *, limit: int, offset: int) -> tuple[Sequence[ShownRow], int]:
        """A page of the requests of a person that have a complete variant, newest first, and how many there are."""
        rows, [count] = await self._session.fetch_all(
            (_SHOWN_PAGE, (owner_id, limit, offset)), (_COUNT_SHOWN, (owner_id,))
        )
        return [ShownRow(*row) for row in rows], int(count[0])

    async def shown_variants(self, generation_ids: Sequence[UUID]) -> Sequence[ShownVariant]:
        """The complete variants of these generations that are not hidden, by index."""
        columns = [getattr(GeneratedCode, name) for name in ShownVariant.model_fields]
        statement = named(
            "generated_codes.shown",
            select(*columns)
            .where(is_any(GeneratedCode.generation_id, generation_ids), text(_IS_SHOWN))
            .order_by(GeneratedCode.variant_index),
        )
        rows = await self._session.execute(statement)
        return [ShownVariant.model_validate(dict(row)) for row in rows.mappings()]

    async def lock_variants(self, owner_id: UUID, code_ids: Collection[UUID]) -> Sequence[GeneratedCode]:
        """Those of these variants that belong to a person, locked in the order of their ids."""
        statement = (
            select(GeneratedCode)
            .join(Project, Project.id == GeneratedCode.project_id)
            .where(is_any(GeneratedCode.id, code_ids), Project.user_id == owner_id)
            .order_by(GeneratedCode.id)
            .with_for_update(of=GeneratedCode, key_share=True)
        )
        return await self._session.find(named("generated_codes.lock_variants", statement))

    async def without_shown(self, project_ids: Collection[UUID]) -> Sequence[UUID]:
        """Those of these projects that have nothing to show."""
        [rows] = await self._session.fetch_all((_WITHOUT_SHOWN, (list(project_ids),)))
        return [row[0] for row in rows]


class GenerationEventRepository(Repository[GenerationEvent]):
    """Rows of ``generation_events``."""

    entity = GenerationEvent

    async def page(
        self, code_id: UUID, *, after: int, limit: int
    ) -> tuple[int, Sequence[tuple[int, str, dict[str, Any]]]]:
        """Events of a variant in their order: sequence number, kind and payload.

        Args:
            code_id: which variant.
            after: the number of the last event of the page before.
            limit: the length of the page.

        Returns:
            Up to which number the events are stored, and the page.
        """
        check_number("after", after)
        stored = await self._session.fetch_one(sql.STORED_SEQUENCE, (code_id,))
        if stored is None:
            return 0, ()
        statement = (
            select(GenerationEvent.sequence, GenerationEvent.kind, GenerationEvent.payload)
            .where(GenerationEvent.code_id == code_id, GenerationEvent.sequence > after)
            .order_by(GenerationEvent.sequence)
            .limit(limit)
        )
        rows = await self._session.execute(named("generation_events.page", statement))
        return stored[0], [(row.sequence, row.kind, row.payload) for row in rows]

    async def timed_page(
        self, code_id: UUID, *, after: int, limit: int
    ) -> Sequence[tuple[UUID, int, str, dict[str, Any]]]:
        """Events of a variant as ``page`` returns them, with their ids, which say when they were received."""
        check_number("after", after)
        statement = (
            select(GenerationEvent.id, GenerationEvent.sequence, GenerationEvent.kind, GenerationEvent.payload)
            .where(GenerationEvent.code_id == code_id, GenerationEvent.sequence > after)
            .order_by(GenerationEvent.sequence)
            .limit(limit)
        )
        rows = await self._session.execute(named("generation_events.timed_page", statement))
        return [(row.id, row.sequence, row.kind, row.payload) for row in rows]

    async def remove_old(self, before: datetime | None, *, limit: int) -> int:
        """Remove events that are older than this, the oldest first; how many. Their ids say how old they are."""
        if before is None:
            return 0
        row = await self._session.fetch_one(sql.REMOVE_OLD_EVENTS, (first_id_at(before), limit))
        return int(row[0]) if row else 0

    async def count_old(self, before: datetime | None) -> int:
        """How many there are to remove."""
        if before is None:
            return 0
        row = await self._session.fetch_one(sql.COUNT_OLD_EVENTS, (first_id_at(before),))
        return int(row[0]) if row else 0


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()
