"""What a variant has cost: recorded with its end, however it ends, and settled with what was set aside for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from data_layer.entities import GeneratedCode, UsageEntry
from data_layer.entities.enums import GenerationStatus, UsageOutcome
from data_layer.entities.validation import new_values
from data_layer.errors import DuplicateError, InvalidValueError
from data_layer.repositories.generations import BilledVariant
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.generations import VariantModel, VariantResult
from data_layer.schemas.usage import NewUsage, Reservation
from data_layer.services.usage import (
    LONGEST_RESERVATION,
    check_amount,
    check_currency,
    record_usage,
    reserve_amount,
)

USAGE = "usage"
"""Where the metadata of a variant keeps what its writer has reported so far."""

_FIGURES = ("prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens", "cost")


def check_result(result: VariantResult) -> VariantResult:
    """The same result, whose figures can be recorded.

    Raises:
        InvalidValueError: one is out of range; ``field`` says which.
    """
    model = result.model or VariantModel()
    new_values(UsageEntry, **ledger_values(result, model))
    new_values(GeneratedCode, provider=model.provider, model=model.name, **code_values(result))
    return result


def ledger_values(result: VariantResult, model: VariantModel) -> dict[str, Any]:
    """What the ledger keeps of a result, its cost with eight decimals.

    Raises:
        InvalidValueError: the cost or the currency cannot be one.
    """
    check_currency(result.currency)
    cost = check_amount(result.cost or Decimal(0), "cost", may_be_zero=True)
    return {
        **_figures(result),
        "cost": cost,
        "provider": model.provider,
        "model": model.name,
        "currency": result.currency,
    }


def code_values(result: VariantResult) -> dict[str, Any]:
    """What a code keeps of the result of its variant."""
    counts = (result.prompt_tokens, result.completion_tokens)
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "total_tokens": None if counts == (None, None) else sum(count or 0 for count in counts),
        "generation_time_seconds": result.generation_time_seconds,
    }


def merged(reported: VariantResult | None, given: VariantResult) -> VariantResult:
    """What is given, and what was reported before where nothing is given."""
    if reported is None:
        return given
    values = given.model_dump(exclude_unset=True, exclude_none=True)
    return reported.model_copy(update=values if given.model is None else values | {"model": given.model})


def packed(result: VariantResult) -> dict[str, Any]:
    """A result for the metadata of a variant."""
    return {USAGE: result.model_dump(mode="json", exclude_none=True)}


async def reserve_for(
    tx: UnitOfWork, owner_id: UUID, codes: Sequence[GeneratedCode], amount: Decimal | None, currency: str
) -> Sequence[Reservation]:
    """Set this amount aside for each variant, under the variant's id, so that whatever ends it can settle it.

    It would end by itself after a day: a variant whose writer dies ends long before.

    Raises:
        BudgetExceededError: the budget has less left.
    """
    if amount is None:
        return ()
    return [
        await reserve_amount(
            tx,
            Reservation(
                id=code.id,
                user_id=owner_id,
                amount=amount,
                currency=currency,
                expires_at=datetime.now(UTC),
                is_limited=True,
            ),
            LONGEST_RESERVATION,
        )
        for code in codes
    ]


async def charge(
    tx: UnitOfWork,
    project_id: UUID,
    code_ids: Collection[UUID],
    status: GenerationStatus,
    given: VariantResult | None = None,
) -> None:
    """Record what variants of a project have cost that have just ended in this way, and release what was set aside.

    Where nothing is known, nothing is recorded.
    """
    for variant in await tx.generations.billed(project_id, code_ids):
        result = merged(_reported(variant), given or VariantResult())
        if is_known(result):
            # An application may have recorded it by itself: that entry stays.
            with suppress(DuplicateError):
                await record_usage(tx, variant.owner_id, _usage(variant, status, result))
        await tx.budgets.release(variant.id, variant.owner_id)


def usage_entry(variant: GeneratedCode, owner_id: UUID, result: VariantResult) -> UsageEntry | None:
    """What the ledger says of a variant that is inserted together with it; None where nothing is known.

    Raises:
        InvalidValueError: a figure is out of range; ``field`` says which.
    """
    if not is_known(result):
        return None
    return UsageEntry(
        user_id=owner_id,
        key=str(variant.id),
        outcome=UsageOutcome(variant.status.value),
        project_id=variant.project_id,
        code_id=variant.id,
        code_stack=variant.code_stack,
        **ledger_values(result, VariantModel(provider=variant.provider, name=variant.model)),
    )


async def charge_late(
    tx: UnitOfWork, project_id: UUID, code_id: UUID, status: GenerationStatus, given: VariantResult
) -> None:
    """Record what was not known yet when a variant ended without its writer, such as by a cancellation.

    Repeating it changes nothing: only what is missing in the first entry is recorded, once.
    """
    for variant in await tx.generations.billed(project_id, [code_id]):
        result = merged(_reported(variant), given)
        usage, is_news = _usage(variant, status, result), is_known(result)
        first = await tx.usage.find_one(user_id=variant.owner_id, key=str(variant.id))
        if first is not None:
            missing = {name: max(value - getattr(first, name), 0) for name, value in _figures(result).items()}
            # The currency of the first entry, because amounts of two are not compared.
            usage = usage.model_copy(update=missing | {"key": f"{variant.id}/late", "currency": first.currency})
            is_news = any(missing.values())
        if is_news:
            with suppress(DuplicateError):
                await record_usage(tx, variant.owner_id, usage)


def _usage(variant: BilledVariant, status: GenerationStatus, result: VariantResult) -> NewUsage:
    model = result.model
    return NewUsage(
        key=str(variant.id),
        provider=variant.provider if model is None else model.provider,
        model=variant.model if model is None else model.name,
        outcome=UsageOutcome(status.value),
        project_id=variant.project_id,
        code_id=variant.id,
        code_stack=variant.code_stack,
        currency=result.currency,
        **_figures(result),
    )


def _figures(result: VariantResult) -> dict[str, Any]:
    return {
        "input_tokens": result.prompt_tokens or 0,
        "output_tokens": result.completion_tokens or 0,
        "cache_read_tokens": result.cache_read_tokens or 0,
        "cache_write_tokens": result.cache_write_tokens or 0,
        "cost": result.cost or Decimal(0),
    }


def is_known(result: VariantResult) -> bool:
    """Whether there is anything to record."""
    return any(getattr(result, name) is not None for name in _FIGURES)


def _reported(variant: BilledVariant) -> VariantResult | None:
    try:
        return None if variant.reported is None else VariantResult.model_validate(variant.reported)
    except InvalidValueError:  # The metadata of a variant belong to the application, too.
        return None
