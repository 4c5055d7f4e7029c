"""Generations that have ended already: one in one statement, or many with COPY; past the ORM, with all that belongs.

A generation, its codes, what they have cost and the audit entry are stored together or not at all. The triggers give
the number, count for the project, hash the codes and add to the sums of the day, as they do for every other writer.
"""

# ruff: noqa: S608  (only names of columns and their types stand in the statements; values are passed as parameters)
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

import orjson

from data_layer.database.entity_session import Answer, EntitySession
from data_layer.database.statements import NamedQuery, NumberedQuery
from data_layer.entities import AuditLog, Entity, GeneratedCode, Generation, UsageEntry
from data_layer.repositories import audit_rows
from data_layer.repositories.numbered_rows import NumberedRows, Shape, Texts, Values, add_rows, column_list, text_of


@dataclass(frozen=True, slots=True)
class FinishedRows:
    """The rows of one generation, but for what the database gives or knows from another of these rows.

    Attributes:
        generation: of ``generations``, without project, number, time and ``created_by``.
        codes: of ``generated_codes``, by index.
        usage: of ``usage_entries``; only for what is known to have cost something.
        entry: of ``audit_logs``; its new values get the number.
    """

    generation: Values
    codes: Sequence[Values]
    usage: Sequence[Values]
    entry: audit_rows.Row


_GIVEN: dict[type[Entity], tuple[str, ...]] = {
    Generation: (
        *("id", "generation_type", "input_mode", "prompt", "full_prompt", "inputs", "design_system"),
        *("external_source", "external_key", "selected_variant"),
    ),
    GeneratedCode: (
        *("id", "name", "variant_index", "code", "metadata_", "code_stack", "provider", "model", "status"),
        *("generation_type", "parent_id", "prompt_tokens", "completion_tokens", "total_tokens"),
        *("generation_time_seconds", "error_message", "error_details"),
    ),
    UsageEntry: ("id", "code_id", "cache_read_tokens", "cache_write_tokens", "cost", "currency"),
}
_OF_CODE = {
    "key": "id",
    "code_stack": "code_stack",
    "provider": "provider",
    "model": "model",
    "outcome": "status",
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
}
"""What the ledger says of a variant as its code does; a number of tokens that is not known counts as none."""

_OF_GENERATION = {"user_id": "owned.user_id", "resource_id": "made.id"}
"""What the audit entry says of a generation that is stored in the same statement."""

_NEW_VALUES = audit_rows.COLUMNS.index("new_values")
_IMPORTED = {
    Generation: ("project_id", "created_by", "number", "started_at", "ended_at", "created_at", "updated_at"),
    GeneratedCode: ("project_id", "generation_id", "original_prompt", "created_at", "updated_at"),
    UsageEntry: ("user_id", "project_id", "at", *_OF_CODE),
}
"""What is sent with COPY in addition to what is given."""


@lru_cache(maxsize=256)
def _record(generation: Shape, codes: Shape, entry: Shape, usage: Shape, *, is_owner_acting: bool) -> NumberedQuery:
    """The statement for rows of these shapes; there are few, because the same columns are given again and again.

    What stands in several rows is sent once: each parameter costs time in this process and in the server.
    """
    new = NumberedRows()
    creator, is_allowed = "NULL", ""
    if is_owner_acting:
        creator = "owned.user_id"
        is_allowed = " AND EXISTS (SELECT FROM users WHERE users.id = user_id AND users.status = 'active')"
    with_number = column_list(
        f"new.{name} || jsonb_build_object('number', made.number)" if name == "new_values" else f"new.{name}"
        for name in entry[0]
    )
    parts = [
        f"""owned AS (
    SELECT id, user_id FROM projects
    WHERE id = {new.place("uuid")} AND user_id = {new.place("uuid")} AND status <> 'deleted'{is_allowed}
)""",
        f"""made AS (
    INSERT INTO generations (ended_at, project_id, created_by, {column_list(generation[0])})
    SELECT now(), owned.id, {creator}, new.* FROM owned, {new.rows(Generation, generation)}
    RETURNING id, project_id, number, prompt
)""",
        f"""codes AS (
    INSERT INTO generated_codes (project_id, generation_id, original_prompt, {column_list(codes[0])})
    SELECT made.project_id, made.id, made.prompt, new.* FROM made, {new.rows(GeneratedCode, codes)}
    RETURNING {column_list(dict.fromkeys(_OF_CODE.values()))}
)""",
        f"""audit AS (
    INSERT INTO audit_logs ({column_list(_OF_GENERATION)}, {column_list(entry[0])})
    SELECT {column_list(_OF_GENERATION.values())}, {with_number} FROM owned, made, {new.rows(AuditLog, entry)}
)""",
    ]
    if usage[1]:
        of_code = column_list(
            f"coalesce(codes.{column}, 0)" if column.endswith("_tokens") else f"codes.{column}"
            for column in _OF_CODE.values()
        )
        parts.append(
            f"""usage AS (
    INSERT INTO usage_entries (user_id, project_id, {column_list(_OF_CODE)}, {column_list(usage[0])})
    SELECT owned.user_id, owned.id, {of_code}, new.* FROM owned, codes, {new.rows(UsageEntry, usage)}
    WHERE new.code_id = codes.id
)"""
        )
    return NumberedQuery("generations.record", f"WITH {', '.join(parts)} SELECT number FROM made")


def _copy(entity: type[Entity]) -> NamedQuery:
    table = entity.__tablename__
    return NamedQuery(
        f"{table}.copy", f"COPY {table} ({', '.join(_IMPORTED[entity])}, {column_list(_GIVEN[entity])}) FROM STDIN"
    )


_COPY = {entity: _copy(entity) for entity in _GIVEN}

# The numbers are taken before the rows are sent, as for the copy of a project: the trigger leaves those alone that the
# project has counted. The row stays locked, so nobody else gets one of them.
_TAKE_NUMBERS = NamedQuery(
    "projects.take_numbers",
    """
UPDATE projects SET generation_count = generation_count + %s, last_generated_at = now(), updated_at = now()
WHERE id = %s
RETURNING generation_count, now()
""",
)


class Recorded:
    """The number of a generation, once its statement was sent; ``None`` if nothing was stored."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    @property
    def number(self) -> int | None:
        """See the class."""
        row = self._answer.row
        return None if row is None else int(row[0])


class FinishedGenerationRepository:
    """Stores generations that have ended."""

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    def record(self, project_id: UUID, owner_id: UUID, rows: FinishedRows, *, is_owner_acting: bool) -> Recorded:
        """Store one with the next flush, or together with the commit if nothing else is to be written.

        Nothing is stored if the project is gone, deleted or somebody else's, or if its owner acts and is not active.
        """
        parameters: Texts = [str(project_id), str(owner_id)]
        entry = dict(zip(audit_rows.COLUMNS, rows.entry, strict=True))
        for name in _OF_GENERATION:
            del entry[name]
        shapes = [add_rows(parameters, *table) for table in ((rows.generation,), rows.codes, (entry,), rows.usage)]
        return Recorded(self._session.add_statement(_record(*shapes, is_owner_acting=is_owner_acting), parameters))

    async def copy(
        self,
        project_id: UUID,
        owner_id: UUID,
        created_by: UUID | None,
        imported: Sequence[tuple[FinishedRows, datetime | None]],
    ) -> int | None:
        """Store many of a project, each with the time when it ended; the database's time where that is unknown.

        Returns:
            The number of the first one; ``None`` if the project is gone.
        """
        [row] = await self._session.run((_TAKE_NUMBERS, (len(imported), project_id)))
        if row is None:
            return None
        last, now = row
        first: int = last - len(imported) + 1
        project, owner, creator = str(project_id), str(owner_id), text_of(created_by)
        ends = [str(at or now) for _, at in imported]
        dated = [(rows, end) for (rows, _), end in zip(imported, ends, strict=True)]

        def generations() -> Iterator[Texts]:
            for number, (rows, at) in enumerate(dated, first):
                yield [project, creator, str(number), at, at, at, at, *_texts(Generation, rows.generation)]

        def codes() -> Iterator[Texts]:
            for rows, at in dated:
                head = [project, str(rows.generation["id"]), rows.generation["prompt"], at, at]
                yield from ([*head, *_texts(GeneratedCode, code)] for code in rows.codes)

        def usage() -> Iterator[Texts]:
            for rows, at in dated:
                codes = {code["id"]: code for code in rows.codes}
                for entry in rows.usage:
                    yield [owner, project, at, *_of_code(codes[entry["code_id"]]), *_texts(UsageEntry, entry)]

        for entity, texts in ((Generation, generations()), (GeneratedCode, codes()), (UsageEntry, usage())):
            await self._session.copy(_COPY[entity], texts)
        numbered = (_numbered(rows.entry, number) for number, (rows, _) in enumerate(dated, first))
        await self._session.copy(audit_rows.COPY_NOW, numbered)
        return first


def _numbered(entry: audit_rows.Row, number: int) -> Texts:
    texts = audit_rows.texts_of(entry)
    texts[_NEW_VALUES] = text_of(orjson.loads(texts[_NEW_VALUES] or "{}") | {"number": number})
    return texts


def _of_code(code: Values) -> Texts:
    return [text_of(code[name] or 0 if name.endswith("_tokens") else code[name]) for name in _OF_CODE.values()]


def _texts(entity: type[Entity], values: Values) -> Texts:
    return [text_of(values[name]) for name in _GIVEN[entity]]
