"""Generations that have ended already: one in one round trip, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from data_layer.entities import GeneratedCode, Generation, UsageEntry
from data_layer.entities.enums import AuditAction, GenerationStatus
from data_layer.entities.validation import new_values
from data_layer.errors import InvalidValueError, NotFoundError, ValueTooLongError
from data_layer.repositories.finished_generations import FinishedRows
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import FinishedGeneration, FinishedVariant, GenerationRequest, RecordedGeneration
from data_layer.services.audit.recording import make_row
from data_layer.services.generations.access import open_project
from data_layer.services.generations.accounting import code_values, is_known, ledger_values
from data_layer.services.generations.live import MAXIMUM_VARIANTS
from data_layer.services.generations.requests import generation_values, variant_values
from data_layer.services.generations.streams import MAXIMUM_CODE
from data_layer.services.generations.text import encoded, is_storable, storable
from data_layer.services.generations.variants import Variants
from data_layer.services.page_images import hold_images, names_kept_here
from data_layer.services.permissions import Permission
from data_layer.services.project_keys import keys_of_project

MOST_IMPORTED = 1000
"""Generations of one call."""

_LEDGER_ALONE = ("cache_read_tokens", "cache_write_tokens", "cost", "currency")


class Recording(Variants):
    """What is called with generations that nobody streams."""

    async def record(
        self,
        actor: Actor,
        project_id: UUID,
        request: GenerationRequest,
        variants: Sequence[FinishedVariant],
        *,
        selected: int = 0,
    ) -> RecordedGeneration:
        """Store a generation that has ended, with its codes and what they have cost, in one round trip.

        It stores what ``start``, ``append`` and ``complete`` or ``fail`` store, with one audit entry for all of it. A
        budget does not refuse it, because the money is spent.

        Args:
            actor: the owner of the project.
            project_id: where.
            request: what was asked for.
            variants: the answers, 1 to 16.
            selected: the variant that goes on.

        Raises:
            NotFoundError: the actor has no such project.
            MissingReferenceError: ``parent_id`` names no variant of this project.
            DuplicateError: the source has sent this ``external_key`` before.
            InvalidValueError: a value cannot be stored, or a variant has not ended; ``field`` says which.
        """
        if actor.user_id is not None:
            # Only owners may change code, so the statement itself can see whether the actor may.
            rows = _rows(actor.user_id, project_id, request, variants, selected=selected)
            async with self._transactions() as tx:
                tx.invalidate(*keys_of_project(project_id, actor.user_id))
                recorded = tx.finished_generations.record(project_id, actor.user_id, rows, is_owner_acting=True)
                if any(names_kept_here(code) for code in _texts(variants)):
                    await tx.flush()  # Only then it is known whether the project is the actor's.
                    if recorded.number is not None:
                        hold_images(tx, project_id, _texts(variants))
            if recorded.number is not None:
                return _recorded(project_id, recorded.number, rows)
        # Nothing was stored: this says why. The system may write for everybody.
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.CHANGE_CODE)
            rows = _rows(project.user_id, project_id, request, variants, selected=selected)
            tx.invalidate(*keys_of_project(project_id, project.user_id))
            recorded = tx.finished_generations.record(
                project_id, project.user_id, rows, is_owner_acting=actor.user_id is not None
            )
            await tx.flush()
            if recorded.number is None:  # Deleted in this moment.
                raise NotFoundError(f"no project has the id {project_id}")
            hold_images(tx, project_id, _texts(variants))
            return _recorded(project_id, recorded.number, rows)

    async def import_many(
        self, actor: Actor, project_id: UUID, generations: Sequence[FinishedGeneration]
    ) -> Sequence[RecordedGeneration]:
        """Store many generations of the past in this order, all or none: for a history that comes from elsewhere.

        Each is stored as by ``record``, with an audit entry of its own, which has the time of the import.

        Args:
            actor: the owner of the project.
            project_id: where.
            generations: 1 to 1000.

        Raises:
            NotFoundError, MissingReferenceError, DuplicateError, InvalidValueError: see ``record``.
        """
        if not 1 <= len(generations) <= MOST_IMPORTED:
            raise InvalidValueError(f"1 to {MOST_IMPORTED} generations are imported at once", field="generations")
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.CHANGE_CODE)
            imported: list[FinishedRows] = []
            for place, each in enumerate(generations):
                request = each.request
                if each.parent is not None:
                    request = request.model_copy(update={"parent_id": _parent(imported, each.parent, place)})
                owner_id = project.user_id
                imported.append(_rows(owner_id, project_id, request, each.variants, selected=each.selected))
            tx.invalidate(*keys_of_project(project_id, project.user_id))
            dated = list(zip(imported, (each.at for each in generations), strict=True))
            first = await tx.finished_generations.copy(project_id, project.user_id, actor.user_id, dated)
            if first is None:
                raise NotFoundError(f"no project has the id {project_id}")
            hold_images(tx, project_id, (code for each in generations for code in _texts(each.variants)))
        return [_recorded(project_id, number, rows) for number, rows in enumerate(imported, first)]


def _texts(variants: Sequence[FinishedVariant]) -> list[str]:
    return [variant.code for variant in variants]


def _rows(
    owner_id: UUID,
    project_id: UUID,
    request: GenerationRequest,
    variants: Sequence[FinishedVariant],
    *,
    selected: int,
) -> FinishedRows:
    """Everything of a generation, checked."""
    if not 1 <= len(variants) <= MAXIMUM_VARIANTS:
        raise InvalidValueError(f"a generation has 1 to {MAXIMUM_VARIANTS} variants", field="variants")
    if not 0 <= selected < len(variants):
        raise InvalidValueError("the generation has no such variant", field="selected")
    generation_id = uuid7()
    generation = {"id": generation_id, "selected_variant": selected} | new_values(
        Generation, **generation_values(request)
    )
    codes = [_code(index, variant, request) for index, variant in enumerate(variants)]
    # A currency or cost that cannot be one is refused of each variant, also where the ledger keeps nothing.
    entries = [_usage(code, variant) for code, variant in zip(codes, variants, strict=True)]
    usage = [entry for entry, variant in zip(entries, variants, strict=True) if is_known(variant.result)]
    entry = make_row(
        AuditAction.CODE_GENERATE,
        "Recorded a generation",
        user_id=owner_id,
        resource_type="generation",
        resource_id=generation_id,
        new_values={"project_id": str(project_id), "variants": len(codes)},
    )
    return FinishedRows(generation, codes, usage, entry)


def _code(index: int, variant: FinishedVariant, request: GenerationRequest) -> dict[str, Any]:
    if variant.status.is_running:
        raise InvalidValueError(f"variant {index} is {variant.status}; record it when it has ended", field="status")
    code = encoded(variant.code)
    if not code and variant.status is GenerationStatus.COMPLETED:
        raise InvalidValueError(f"variant {index} has no code, so it did not complete", field="code")
    if len(code) > MAXIMUM_CODE:
        raise ValueTooLongError(
            f"the code of a variant may have {MAXIMUM_CODE} bytes at most; this one has {len(code)}", field="code"
        )
    text, note = (variant.code, {}) if is_storable(code) else storable(code)
    model = variant.result.model or variant.model
    given = {"id": uuid7(), "variant_index": index, "code": text, "metadata_": note}
    values = variant_values(request, model)
    del values["original_prompt"]  # It is the generation's.
    return given | new_values(
        GeneratedCode,
        name=variant.name,
        status=variant.status,
        error_message=variant.error_message,
        error_details=variant.error_details,
        **values,
        **code_values(variant.result),
    )


def _usage(code: dict[str, Any], variant: FinishedVariant) -> dict[str, Any]:
    values = ledger_values(variant.result, variant.result.model or variant.model)
    return {"id": uuid7(), "code_id": code["id"]} | new_values(
        UsageEntry, **{name: values[name] for name in _LEDGER_ALONE}
    )


def _parent(imported: Sequence[FinishedRows], parent: tuple[int, int], place: int) -> UUID:
    generation, variant = parent
    if generation >= place or variant >= len(imported[generation].codes):
        raise InvalidValueError(f"the parent of generation {place} is not a variant of an earlier one", field="parent")
    found: UUID = imported[generation].codes[variant]["id"]
    return found


def _recorded(project_id: UUID, number: int, rows: FinishedRows) -> RecordedGeneration:
    return RecordedGeneration(
        id=rows.generation["id"],
        project_id=project_id,
        number=number,
        variant_ids=tuple(code["id"] for code in rows.codes),
    )
