"""What variants have cost stands in the ledger, however they end, and budgets are settled with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from data_layer import DataLayer, Settings
from data_layer.entities.enums import GenerationProvider, GenerationStatus, UsageOutcome
from data_layer.errors import BudgetExceededError, GenerationEndedError, InvalidValueError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import CodePiece, GenerationRequest, VariantModel, VariantResult
from data_layer.schemas.usage import NewUsage, UsageEntryView
from tests.services.generations.conftest import Owner, let_leases_run_out, rows, started

COMPLETED, FAILED, CANCELLED = UsageOutcome.COMPLETED, UsageOutcome.FAILED, UsageOutcome.CANCELLED
RESULT = VariantResult(
    model=VariantModel(provider=GenerationProvider.CLAUDE, name="claude-x"),
    prompt_tokens=1200,
    completion_tokens=3400,
    cache_read_tokens=50_000,
    cache_write_tokens=700,
    cost=Decimal("0.12345678"),
)


async def ledger(data: DataLayer, owner: Owner) -> Sequence[UsageEntryView]:
    return list(reversed(await data.usage.entries(owner.actor)))


async def limit(data: DataLayer, owner: Owner, amount: str) -> None:
    assert owner.actor.user_id is not None
    await data.usage.set_budget(SYSTEM, owner.actor.user_id, Decimal(amount))


async def budget(data: DataLayer, owner: Owner) -> tuple[Any, Any]:
    found = await data.usage.budget(owner.actor)
    assert found is not None
    return found.spent, found.reserved


async def with_reserve(data: DataLayer, owner: Owner, amount: str, variants: int = 1) -> Any:
    models = [VariantModel()] * variants
    return await data.generations.start(
        owner.actor, owner.project_id, GenerationRequest(), models, reserve=Decimal(amount)
    )


async def test_a_completed_variant_is_recorded_once(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    token, write = generation.writer_token, data.generations
    await write.append(owner.actor, token, 0, 1, CodePiece("x"))
    for _ in range(2):
        done = await write.complete(owner.actor, token, 0, RESULT)
    [entry] = await ledger(data, owner)
    assert entry.model_dump(include={"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"}) == {
        "input_tokens": 1200,
        "output_tokens": 3400,
        "cache_read_tokens": 50_000,
        "cache_write_tokens": 700,
    }
    assert (entry.cost, entry.currency) == (Decimal("0.12345678"), "USD")
    assert (entry.provider, entry.model, entry.outcome) == ("claude", "claude-x", COMPLETED)
    assert (entry.project_id, entry.code_id, entry.code_stack) == (owner.project_id, done.id, done.code_stack)
    assert (done.prompt_tokens, done.completion_tokens, done.total_tokens) == (1200, 3400, 4600)


async def test_failed_and_cancelled_work_is_recorded(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 4)
    token, write = generation.writer_token, data.generations
    await write.fail(owner.actor, token, 0, "quota", result=RESULT)
    await write.report_usage(owner.actor, token, 1, VariantResult(prompt_tokens=5, cost=Decimal("0.1")))
    await write.report_usage(owner.actor, token, 1, VariantResult(completion_tokens=6, cost=Decimal("0.2")))
    await write.cancel(owner.actor, generation.id)
    first, second = await ledger(data, owner)
    assert (first.outcome, first.cost) == (FAILED, RESULT.cost)
    assert (second.outcome, second.input_tokens, second.output_tokens) == (CANCELLED, 5, 6)
    assert (second.cost, second.model) == (Decimal("0.2"), "unknown")


async def test_what_is_reported_outlives_the_writer(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 2)
    token, write = generation.writer_token, data.generations
    await write.report_usage(owner.actor, token, 1, RESULT)
    await write.store(owner.actor, token)
    await let_leases_run_out(data)
    assert await data.maintenance.end_expired_variants() == 2
    [entry] = await ledger(data, owner)
    assert (entry.outcome, entry.cost, entry.model) == (FAILED, RESULT.cost, "claude-x")
    assert entry.code_id == generation.variant_ids[1]
    await write.append(owner.actor, token, 1, 1, CodePiece("late"))
    await write.store(owner.actor, token)
    with pytest.raises(GenerationEndedError):
        await write.report_usage(owner.actor, token, 1, RESULT)


async def test_cancelled_in_another_process(data: DataLayer, settings: Settings, owner: Owner) -> None:
    """What was reported is recorded at once, what the writer knows in the end as well; nothing twice."""
    generation = await started(data, owner)
    token, write = generation.writer_token, data.generations
    await write.append(owner.actor, token, 0, 1, CodePiece("x"))
    await write.report_usage(owner.actor, token, 0, VariantResult(prompt_tokens=1000, cost=Decimal("0.1")))
    await write.store(owner.actor, token)
    async with DataLayer(settings) as other:
        await other.generations.cancel(owner.actor, generation.id)
    for _ in range(3):
        with pytest.raises(GenerationEndedError):
            await write.complete(owner.actor, token, 0, RESULT)
    entries = await ledger(data, owner)
    assert [(entry.outcome, entry.input_tokens, entry.cost) for entry in entries] == [
        (CANCELLED, 1000, Decimal("0.1")),
        (CANCELLED, 200, Decimal("0.02345678")),
    ]
    [total] = await data.usage.sums(owner.actor)
    assert (total.cost, total.output_tokens) == (RESULT.cost, 3400)


async def test_cancelled_in_this_process_before_its_cost_is_known(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    token, write = generation.writer_token, data.generations
    await write.append(owner.actor, token, 0, 1, CodePiece("x"))
    await write.cancel(owner.actor, generation.id)
    assert await ledger(data, owner) == []
    for end in (write.complete(owner.actor, token, 0, RESULT), write.fail(owner.actor, token, 0, "x", result=RESULT)):
        with pytest.raises(GenerationEndedError):
            await end
    [entry] = await ledger(data, owner)
    assert (entry.outcome, entry.cost) == (CANCELLED, RESULT.cost)


async def test_nothing_known_is_nothing_recorded(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 2)
    await data.generations.fail(owner.actor, generation.writer_token, 0, "x")
    await data.generations.cancel(owner.actor, generation.id)
    assert await ledger(data, owner) == []


async def test_an_entry_of_the_application_stays(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    own = NewUsage(key=str(generation.variant_ids[0]), provider="x", model="y", cost=Decimal(7))
    await data.usage.record(owner.actor, own)
    done = await data.generations.fail(owner.actor, generation.writer_token, 0, "x", result=RESULT)
    assert done.status is GenerationStatus.FAILED
    assert [entry.cost for entry in await ledger(data, owner)] == [Decimal(7)]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"prompt_tokens": -1}, "prompt_tokens"),
        ({"completion_tokens": 2**31}, "completion_tokens"),
        ({"prompt_tokens": 2**31 - 1, "completion_tokens": 1}, "total_tokens"),
        ({"cache_read_tokens": 10**13}, "cache_read_tokens"),
        ({"cost": Decimal(-1)}, "cost"),
        ({"cost": Decimal(10**6)}, "cost"),
        ({"cost": Decimal(1), "currency": "usd"}, "currency"),
        ({"generation_time_seconds": -1.0}, "generation_time_seconds"),
        ({"model": VariantModel(name="x" * 101)}, "model"),
    ],
)
async def test_figures_that_cannot_be_recorded(
    data: DataLayer, owner: Owner, values: dict[str, Any], field: str
) -> None:
    """They are refused before anything has ended."""
    generation = await started(data, owner)
    token, write = generation.writer_token, data.generations
    calls: list[Any] = [
        lambda result: write.complete(owner.actor, token, 0, result, code="x"),
        lambda result: write.fail(owner.actor, token, 0, "x", result=result),
        lambda result: write.report_usage(owner.actor, token, 0, result),
    ]
    for call in calls:
        with pytest.raises(InvalidValueError) as caught:
            await call(VariantResult(**values))
        assert caught.value.field == field
    assert await ledger(data, owner) == []
    done = await write.complete(owner.actor, token, 0, RESULT, code="x")
    assert done.status is GenerationStatus.COMPLETED


def test_infinite_costs_are_refused() -> None:
    for cost in ("Infinity", "NaN"):
        with pytest.raises(InvalidValueError, match="cost"):
            VariantResult(cost=Decimal(cost))


async def test_a_reserved_budget_is_settled_with_the_end(data: DataLayer, owner: Owner) -> None:
    await limit(data, owner, "10")
    generation = await with_reserve(data, owner, "2", 4)
    token, write = generation.writer_token, data.generations
    assert [each.id for each in generation.reservations] == list(generation.variant_ids)
    assert await budget(data, owner) == (0, 8)
    await write.complete(owner.actor, token, 0, RESULT, code="x")
    assert await budget(data, owner) == (RESULT.cost, 6)
    await write.fail(owner.actor, token, 1, "x")
    assert await budget(data, owner) == (RESULT.cost, 4)
    await write.cancel(owner.actor, generation.id, 2)
    assert await budget(data, owner) == (RESULT.cost, 2)
    await let_leases_run_out(data)
    await data.maintenance.end_expired_variants()
    assert await budget(data, owner) == (RESULT.cost, 0)


async def test_no_more_is_begun_than_the_budget_has(data: DataLayer, owner: Owner) -> None:
    """Four variants at once, several times at once: together they never set aside more than there is."""
    await limit(data, owner, "10")
    outcomes = await asyncio.gather(*(with_reserve(data, owner, "1", 4) for _ in range(6)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetExceededError)]
    assert len(refused) == 4
    assert len(outcomes) - len(refused) == 2
    assert await budget(data, owner) == (0, 8)
    assert await rows(data, "SELECT count(*) FROM generations") == [(2,)]
    assert await rows(data, "SELECT generation_count FROM projects") == [(2,)]
    for reserve in (Decimal(0), Decimal(-1), 0.5, Decimal("NaN")):
        with pytest.raises(InvalidValueError, match="reserve"):
            await data.generations.start(
                owner.actor,
                owner.project_id,
                GenerationRequest(),
                [VariantModel()],
                reserve=reserve,  # type: ignore[arg-type]
            )


async def test_a_budget_that_runs_out_in_the_middle(data: DataLayer, owner: Owner) -> None:
    """More cannot be set aside, which is a typed error; what was done is recorded, because it is paid for."""
    await limit(data, owner, "1")
    generation = await with_reserve(data, owner, "0.6")
    token, write = generation.writer_token, data.generations
    await write.append(owner.actor, token, 0, 1, CodePiece("half a page"))
    with pytest.raises(BudgetExceededError) as caught:
        await data.usage.extend(owner.actor, generation.reservations[0], amount=Decimal("1.5"))
    assert caught.value.remaining == 1
    assert await budget(data, owner) == (0, Decimal("0.6"))
    failed = await write.fail(
        owner.actor, token, 0, str(caught.value), result=VariantResult(completion_tokens=9, cost=Decimal("1.2"))
    )
    assert (failed.code, failed.status) == ("half a page", GenerationStatus.FAILED)
    view = await data.usage.budget(owner.actor)
    assert view is not None
    assert [view.spent, view.reserved, view.remaining] == [Decimal("1.2"), Decimal(0), Decimal("-0.2")]
    with pytest.raises(BudgetExceededError):
        await with_reserve(data, owner, "0.01")
    assert (await started(data, owner)).reservations == (), "without a reservation nothing is limited"


async def test_without_a_budget_nothing_is_limited(data: DataLayer, owner: Owner) -> None:
    generation = await with_reserve(data, owner, "500", 2)
    assert [each.is_limited for each in generation.reservations] == [False, False]
    await data.generations.complete(owner.actor, generation.writer_token, 0, RESULT, code="x")
    assert len(await ledger(data, owner)) == 1
