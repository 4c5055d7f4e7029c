"""Generations that have ended already: what ``record`` and ``import_many`` store is what streaming them stores."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data_layer import DataLayer, Settings
from data_layer.context import request_context
from data_layer.entities.enums import (
    CodeStack,
    GenerationProvider,
    GenerationStatus,
    InputMode,
    RequestType,
    UserRole,
    UserStatus,
)
from data_layer.errors import (
    DataLayerError,
    DuplicateError,
    InvalidValueError,
    MissingReferenceError,
    NotFoundError,
    PermissionDeniedError,
    ValueTooLongError,
)
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.generations import (
    CodePiece,
    FinishedGeneration,
    FinishedVariant,
    GenerationRequest,
    VariantModel,
    VariantResult,
)
from data_layer.schemas.usage import UsageGroup
from data_layer.services.generations.recording import MOST_IMPORTED
from tests.services.generations.conftest import Owner, rows, stored_owner
from tests.support import forked, url_of_killed, wait_for_the_last_commit_of_killed

PAGE = FinishedVariant(code="<p>one</p>")
COMPLETED, FAILED, CANCELLED = GenerationStatus.COMPLETED, GenerationStatus.FAILED, GenerationStatus.CANCELLED

counts = st.none() | st.integers(0, 2_000_000)
texts = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
results = st.builds(
    VariantResult,
    model=st.none() | st.just(VariantModel(provider=GenerationProvider.CLAUDE, name="opus")),
    prompt_tokens=counts,
    completion_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    cost=st.none() | st.decimals(0, 99, places=9),
    generation_time_seconds=st.none() | st.floats(0, 1000),
)
codes = st.text(st.sampled_from("<p>a\t\n\\ä\0\ud83d\ude00"), min_size=1, max_size=12)
finished_variants = st.one_of(
    st.builds(FinishedVariant, code=codes, result=results),
    st.builds(
        FinishedVariant,
        code=codes | st.just(""),
        status=st.just(FAILED),
        result=results,
        error_message=texts.map(lambda text: text or ""),
        error_details=st.dictionaries(st.sampled_from("ab"), st.integers(0, 9)),
    ),
    # What is known of a variant that was cancelled while it was written goes to the ledger alone.
    st.builds(
        FinishedVariant,
        code=codes | st.just(""),
        status=st.just(CANCELLED),
        result=st.builds(VariantResult, cache_read_tokens=counts, cost=st.none() | st.decimals(0, 99, places=9)),
    ),
)
requests = st.builds(
    GenerationRequest,
    generation_type=st.sampled_from(RequestType),
    input_mode=st.sampled_from(InputMode),
    code_stack=st.sampled_from(CodeStack),
    prompt=texts,
    full_prompt=texts,
    design_system=texts,
    inputs=st.dictionaries(st.sampled_from(["a", "api_key"]), texts),
)
generations = st.builds(
    FinishedGeneration, request=requests, variants=st.lists(finished_variants, min_size=1, max_size=3).map(tuple)
)
stories = st.lists(st.tuples(generations, st.integers(0, 9)), min_size=1, max_size=3)
"""Generations, and which of the variants before each is its parent."""

STORED = {
    "generations": """
SELECT number, generation_type, input_mode, prompt, full_prompt, inputs, design_system, wanted_parent_hash,
    external_source, external_key, lineage, selected_variant,
    created_by = (SELECT user_id FROM projects WHERE id = :id), ended_at IS NOT NULL
FROM generations WHERE project_id = :id ORDER BY number
""",
    "codes": """
SELECT c.version, c.variant_index, c.code, c.code_hash, c.trimmed_hash, c.status, c.code_stack, c.provider, c.model,
    c.generation_type, c.original_prompt, c.prompt_tokens, c.completion_tokens, c.total_tokens,
    c.generation_time_seconds, c.error_message, c.error_details, c.metadata, c.metrics, c.lease_until, p.version,
    p.variant_index
FROM generated_codes c LEFT JOIN generated_codes p ON p.id = c.parent_id WHERE c.project_id = :id ORDER BY 1, 2
""",
    "usage": """
SELECT c.version, c.variant_index, u.key = c.id::text, u.user_id = p.user_id, u.provider, u.model, u.code_stack,
    u.outcome, u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.cost, u.currency
FROM usage_entries u JOIN generated_codes c ON c.id = u.code_id JOIN projects p ON p.id = u.project_id
WHERE u.project_id = :id ORDER BY 1, 2
""",
    "days": """
SELECT provider, model, code_stack, outcome, currency, entries, input_tokens, output_tokens, cache_read_tokens,
    cache_write_tokens, cost
FROM usage_days WHERE project_id = :id ORDER BY 1, 2, 3, 4
""",
    "project": """
SELECT generation_count, last_generated_at IS NOT NULL, revision, status, updated_at > created_at,
    EXISTS (SELECT FROM project_search_changes WHERE project_id = :id)
FROM projects WHERE id = :id
""",
    "audit": """
SELECT action, level, category, a.user_id = p.user_id, resource_type, resource_id = g.id::text,
    new_values = jsonb_build_object('project_id', p.id, 'number', g.number,
        'variants', (SELECT count(*) FROM generated_codes WHERE generation_id = g.id)),
    ip_address, source, is_success, context
FROM audit_logs a JOIN generations g ON g.id::text = a.resource_id JOIN projects p ON p.id = g.project_id
WHERE p.id = :id ORDER BY g.number
""",
}


async def stored(data: DataLayer, project_id: UUID) -> dict[str, Any]:
    return {name: await rows(data, statement, id=project_id) for name, statement in STORED.items()}


async def streamed(data: DataLayer, owner: Owner, finished: FinishedGeneration, parent_id: UUID | None) -> list[UUID]:
    """Store a generation as one that is written."""
    request = finished.request.model_copy(update={"parent_id": parent_id})
    models = [variant.model for variant in finished.variants]
    started = await data.generations.start(owner.actor, owner.project_id, request, models)
    for index, variant in enumerate(finished.variants):
        await data.generations.append(owner.actor, started.writer_token, index, 1, CodePiece(variant.code))
        end = (owner.actor, started.writer_token, index)
        if variant.status is COMPLETED:
            await data.generations.complete(*end, variant.result)
        elif variant.status is FAILED:
            message, details = variant.error_message or "", variant.error_details
            await data.generations.fail(*end, message, details=details, result=variant.result)
        else:
            await data.generations.store(owner.actor, started.writer_token)
            await data.generations.cancel(owner.actor, started.id, index)
            with pytest.raises(DataLayerError):  # It ended in another way; its cost is recorded nevertheless.
                await data.generations.complete(*end, variant.result)
    return list(started.variant_ids)


async def test_what_is_known_late_to_have_cost_nothing_is_recorded_like_that(data: DataLayer) -> None:
    by_stream, by_record = [await stored_owner(data) for _ in range(2)]
    nothing = FinishedVariant(status=CANCELLED, result=VariantResult(cache_read_tokens=0))
    finished = FinishedGeneration(request=GenerationRequest(), variants=(nothing,))
    await streamed(data, by_stream, finished, None)
    await data.generations.record(by_record.actor, by_record.project_id, finished.request, finished.variants)
    expected = await stored(data, by_stream.project_id)
    assert len(expected["usage"]) == 1
    assert (await stored(data, by_record.project_id))["usage"] == expected["usage"]


@hypothesis_settings(
    max_examples=12, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(story=stories)
async def test_recording_stores_what_streaming_stores(
    data: DataLayer, story: list[tuple[FinishedGeneration, int]]
) -> None:
    by_stream, by_record, by_import = [await stored_owner(data) for _ in range(3)]
    written: list[UUID] = []
    recorded: list[UUID] = []
    imported: list[FinishedGeneration] = []
    places: list[tuple[int, int]] = []
    with request_context(ip_address="192.0.2.1", source="test"):
        for finished, choice in story:
            parent = None if not written else choice % len(written)
            written += await streamed(data, by_stream, finished, None if parent is None else written[parent])
            request = finished.request.model_copy(update={"parent_id": None if parent is None else recorded[parent]})
            made = await data.generations.record(by_record.actor, by_record.project_id, request, finished.variants)
            recorded += made.variant_ids
            imported.append(finished.model_copy(update={"parent": None if parent is None else places[parent]}))
            places += [(len(imported) - 1, index) for index in range(len(finished.variants))]
        done = await data.generations.import_many(by_import.actor, by_import.project_id, imported)

    expected = await stored(data, by_stream.project_id)
    assert await stored(data, by_record.project_id) == expected
    assert await stored(data, by_import.project_id) == expected
    assert [each.number for each in done] == list(range(1, len(story) + 1))
    for owner in (by_record, by_import):
        ours, theirs = [await data.generations.history(each.actor, each.project_id) for each in (owner, by_stream)]
        assert [view.status for view in ours] == [view.status for view in theirs]
        assert [(view.number, len(view.variants)) for view in ours] == [
            (view.number, len(view.variants)) for view in theirs
        ]


async def test_what_is_found_and_selected(data: DataLayer, owner: Owner) -> None:
    request = GenerationRequest(prompt="a kiosk for lemonade")
    variants = [FinishedVariant(code="<p>Zwetschgen</p>"), FinishedVariant(code="<p>Quitten</p>")]
    recorded = await data.generations.record(owner.actor, owner.project_id, request, variants, selected=1)

    latest = await data.generations.latest(owner.actor, owner.project_id)
    assert (latest.id, latest.code) == (recorded.variant_ids[1], "<p>Quitten</p>")
    for words, count in (("lemonade", 1), ("Quitten", 1), ("Zwetschgen", 0)):
        page = await data.projects.search(owner.actor, words)
        assert len(page.hits) == count, words


async def test_history_is_imported_with_its_time(data: DataLayer, owner: Owner) -> None:
    at = datetime(2020, 2, 29, 12, tzinfo=UTC)
    cost = VariantResult(cost=Decimal("1.5"))
    finished = FinishedGeneration(
        request=GenerationRequest(), variants=(FinishedVariant(code="x", result=cost),), at=at
    )
    await data.generations.import_many(owner.actor, owner.project_id, [finished])

    [view] = await data.generations.history(owner.actor, owner.project_id)
    assert (view.started_at, view.ended_at, view.variants[0].created_at) == (at, at, at)
    [day] = await data.usage.sums(owner.actor, [UsageGroup.DAY])
    assert (day.day, day.cost) == (at.date(), Decimal("1.5"))
    [(entry_time,)] = await rows(data, "SELECT created_at FROM audit_logs WHERE action = 'code_generate'")
    assert datetime.now(UTC) - entry_time < timedelta(minutes=5)


async def call(
    data: DataLayer, how: str, actor: Actor, project_id: UUID, request: GenerationRequest, *variants: FinishedVariant
) -> Any:
    if how == "record":
        return await data.generations.record(actor, project_id, request, variants)
    finished = FinishedGeneration(request=request, variants=variants)
    return await data.generations.import_many(actor, project_id, [finished])


both = pytest.mark.parametrize("how", ["record", "import_many"])


@both
@pytest.mark.parametrize(
    ("field", "request_fields", "variant"),
    [
        ("external_key", {"external_source": "s", "external_key": "k" * 256}, {}),
        ("external_source", {"external_source": "s" * 65}, {}),
        ("inputs", {"inputs": {"a": float("nan")}}, {}),
        ("prompt", {"prompt": "\0"}, {}),
        ("full_prompt", {"full_prompt": "\ud800"}, {}),
        ("code", {}, {"code": ""}),
        ("status", {}, {"status": GenerationStatus.PROCESSING}),
        ("model", {}, {"model": VariantModel(name="m" * 101)}),
        ("model", {}, {"result": VariantResult(model=VariantModel(name="m\0"))}),
        ("currency", {}, {"result": VariantResult(currency="usd")}),
        ("cost", {}, {"result": VariantResult(cost=Decimal("1e9"))}),
        ("total_tokens", {}, {"result": VariantResult(prompt_tokens=2**31 - 1, completion_tokens=2**31 - 1)}),
        ("name", {}, {"name": "n" * 256}),
        ("name", {}, {"name": "\0"}),
        ("error_message", {}, {"status": FAILED, "error_message": "\0"}),
        ("error_details", {}, {"status": FAILED, "error_details": {"a": {1, 2}}}),
    ],
)
async def test_what_cannot_be_stored_names_its_field(  # noqa: PLR0917  (parameters of the test)
    data: DataLayer, owner: Owner, how: str, field: str, request_fields: dict[str, Any], variant: dict[str, Any]
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(
            *(data, how, owner.actor, owner.project_id, GenerationRequest(**request_fields)),
            FinishedVariant(**{"code": "<p>"} | variant),
        )
    assert caught.value.field == field
    assert await rows(data, "SELECT 1 FROM generations") == []


@both
@pytest.mark.parametrize("number", [0, 17])
async def test_the_number_of_variants(data: DataLayer, owner: Owner, how: str, number: int) -> None:
    with pytest.raises(InvalidValueError, match="1 to 16 variants"):
        await call(data, how, owner.actor, owner.project_id, GenerationRequest(), *[PAGE] * number)


@both
async def test_variants_have_their_names(data: DataLayer, owner: Owner, how: str) -> None:
    named = FinishedVariant(code="<p>two</p>", name="Zwetschgen")
    await call(data, how, owner.actor, owner.project_id, GenerationRequest(), PAGE, named)
    assert await rows(data, "SELECT name FROM generated_codes ORDER BY variant_index") == [(None,), ("Zwetschgen",)]


async def test_a_variant_that_does_not_exist_is_not_selected(data: DataLayer, owner: Owner) -> None:
    with pytest.raises(InvalidValueError, match="no such variant"):
        await data.generations.record(owner.actor, owner.project_id, GenerationRequest(), [PAGE], selected=1)


async def test_the_largest_code(data: DataLayer, owner: Owner) -> None:
    largest = "x" * (5 * 2**20)
    await call(data, "record", owner.actor, owner.project_id, GenerationRequest(), FinishedVariant(code=largest))
    assert (await data.generations.latest(owner.actor, owner.project_id)).code == largest
    with pytest.raises(ValueTooLongError):
        await call(
            data, "record", owner.actor, owner.project_id, GenerationRequest(), FinishedVariant(code=largest + "x")
        )


@both
async def test_a_parent_in_another_project(data: DataLayer, owner: Owner, how: str) -> None:
    other = await stored_owner(data)
    foreign = await data.generations.record(other.actor, other.project_id, GenerationRequest(), [PAGE])
    for parent_id in (foreign.variant_ids[0], uuid4()):
        with pytest.raises(MissingReferenceError):
            await call(data, how, owner.actor, owner.project_id, GenerationRequest(parent_id=parent_id), PAGE)
    assert await stored(data, owner.project_id) == await stored(data, (await stored_owner(data)).project_id)


@both
async def test_the_same_key_twice(data: DataLayer, owner: Owner, how: str) -> None:
    request = GenerationRequest(external_source="app", external_key="1")
    await call(data, how, owner.actor, owner.project_id, request, PAGE)
    before = await stored(data, owner.project_id)
    with pytest.raises(DuplicateError):
        await call(data, how, owner.actor, owner.project_id, request, PAGE)
    assert await stored(data, owner.project_id) == before


async def test_an_import_is_all_or_nothing(data: DataLayer, owner: Owner) -> None:
    request = GenerationRequest(external_source="app", external_key="1")
    good = FinishedGeneration(request=GenerationRequest(), variants=(PAGE,))
    before = await stored(data, owner.project_id)
    for bad in (
        [
            good,
            FinishedGeneration(request=request, variants=(PAGE,)),
            FinishedGeneration(request=request, variants=(PAGE,)),
        ],
        [good, FinishedGeneration(request=GenerationRequest(parent_id=uuid4()), variants=(PAGE,))],
        [good, FinishedGeneration(request=GenerationRequest(), variants=(FinishedVariant(),))],
        *([good, good.model_copy(update={"parent": parent})] for parent in [(1, 0), (0, 1), (2, 0)]),
        [good.model_copy(update={"parent": (0, 0)})],
        [],
        [good] * (MOST_IMPORTED + 1),
    ):
        with pytest.raises(DataLayerError):
            await data.generations.import_many(owner.actor, owner.project_id, bad)
        assert await stored(data, owner.project_id) == before


@both
async def test_who_may(data: DataLayer, owner: Owner, how: str) -> None:
    strangers = [await stored_owner(data, role=role) for role in UserRole]
    for actor in (*(stranger.actor for stranger in strangers), Actor()):
        with pytest.raises(NotFoundError):
            await call(data, how, actor, owner.project_id, GenerationRequest(), PAGE)
    for actor in (owner.actor, SYSTEM):
        with pytest.raises(NotFoundError):
            await call(data, how, actor, uuid4(), GenerationRequest(), PAGE)
    await call(data, how, SYSTEM, owner.project_id, GenerationRequest(), PAGE)
    assert await rows(data, "SELECT count(*), count(created_by) FROM generations") == [(1, 0)]
    await data.projects.delete(owner.actor, owner.project_id)
    for actor in (owner.actor, SYSTEM):
        with pytest.raises(NotFoundError):
            await call(data, how, actor, owner.project_id, GenerationRequest(), PAGE)
    await data.projects.restore(owner.actor, owner.project_id)
    assert owner.actor.user_id
    async with data.transaction() as tx:
        (await tx.users.get(owner.actor.user_id)).status = UserStatus.SUSPENDED
    with pytest.raises(PermissionDeniedError):
        await call(data, how, owner.actor, owner.project_id, GenerationRequest(), PAGE)
    assert await rows(data, "SELECT count(*) FROM generations") == [(1,)]


async def test_recording_takes_one_round_trip(data: DataLayer, owner: Owner) -> None:
    await data.generations.record(owner.actor, owner.project_id, GenerationRequest(), [PAGE])
    seen: list[tuple[str, ...]] = []

    class Observer:
        def statements_ended(self, names: Any, *_: Any) -> None:
            seen.append(tuple(names))

        def connection_awaited(self, *_: Any) -> None: ...

        def transaction_ended(self, *_: Any) -> None: ...

    data.database.observation.add(Observer())
    result = VariantResult(cost=Decimal(1))
    variants = [FinishedVariant(code="<p>", result=result)] * 3
    await data.generations.record(owner.actor, owner.project_id, GenerationRequest(), variants)
    assert seen == [("generations.record",)]


PROCESSES, WRITERS, ROUNDS = 4, 13, 4


@pytest.mark.slow
async def test_fifty_recorders_in_four_processes(data: DataLayer, owner: Owner, settings: Settings) -> None:
    result = VariantResult(prompt_tokens=1, cost=Decimal("0.5"))
    variants = [FinishedVariant(code="<p>", result=result)] * 2
    bad = GenerationRequest(parent_id=uuid4())

    async def write() -> None:
        async with DataLayer(settings.replaced(db_max_connections=5, db_connect_timeout=60)) as mine:

            async def record() -> None:
                for _ in range(ROUNDS):
                    await mine.generations.record(owner.actor, owner.project_id, GenerationRequest(), variants)

            async def import_some() -> None:
                for _ in range(ROUNDS):
                    finished = FinishedGeneration(request=GenerationRequest(), variants=tuple(variants))
                    await mine.generations.import_many(owner.actor, owner.project_id, [finished] * 3)

            async def fail() -> None:
                for _ in range(ROUNDS):
                    with suppress(MissingReferenceError):
                        await mine.generations.record(owner.actor, owner.project_id, bad, variants)

            writers = (record, import_some, fail)
            await asyncio.gather(*(writers[number % 3]() for number in range(WRITERS)))

    statuses = await asyncio.gather(*(asyncio.to_thread(os.waitpid, forked(write), 0) for _ in range(PROCESSES)))

    assert [status for _, status in statuses] == [0] * PROCESSES
    expected = PROCESSES * ROUNDS * sum((1, 3, 0)[number % 3] for number in range(WRITERS))
    numbers = await rows(data, "SELECT number FROM generations ORDER BY number")
    assert [number for (number,) in numbers] == list(range(1, expected + 1))
    assert await rows(data, "SELECT generation_count FROM projects") == [(expected,)]
    assert await rows(data, "SELECT count(*) FROM audit_logs WHERE action = 'code_generate'") == [(expected,)]
    assert await rows(data, "SELECT sum(entries), sum(cost) FROM usage_days") == [(2 * expected, Decimal(expected))]


@pytest.mark.parametrize("seconds", [0.05, 0.15, 0.3])
async def test_a_process_that_is_killed_leaves_nothing_half(
    data: DataLayer, owner: Owner, settings: Settings, seconds: float
) -> None:
    result = VariantResult(prompt_tokens=1)
    variants = [FinishedVariant(code="<p>" * 1000, result=result)] * 3
    assert settings.database.database_url
    url = settings.database.database_url.get_secret_value()

    async def write() -> None:
        async with DataLayer(settings.replaced(database_url=url_of_killed(url), db_max_connections=5)) as mine:

            async def record() -> None:
                while True:
                    await mine.generations.record(owner.actor, owner.project_id, GenerationRequest(), variants)

            async def import_some() -> None:
                finished = FinishedGeneration(request=GenerationRequest(), variants=tuple(variants))
                while True:
                    await mine.generations.import_many(owner.actor, owner.project_id, [finished] * 20)

            await asyncio.gather(record(), record(), import_some())

    child = forked(write)
    while not await rows(data, "SELECT 1 FROM generations LIMIT 1"):
        await asyncio.sleep(0.01)
    await asyncio.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, child, 0)
    await asyncio.to_thread(wait_for_the_last_commit_of_killed, url)

    await data.generations.record(owner.actor, owner.project_id, GenerationRequest(), variants)  # Nothing is locked.
    numbers = [number for (number,) in await rows(data, "SELECT number FROM generations ORDER BY number")]
    assert numbers == list(range(1, len(numbers) + 1))
    counted = await rows(
        data,
        """
SELECT (SELECT generation_count FROM projects), (SELECT count(*) FROM generated_codes),
    (SELECT count(*) FROM usage_entries), (SELECT sum(entries) FROM usage_days),
    (SELECT count(*) FROM audit_logs WHERE action = 'code_generate')
""",
    )
    assert counted == [(len(numbers), *[3 * len(numbers)] * 3, len(numbers))]


@pytest.mark.parametrize("changed", [{"db_pgbouncer": True}, {"db_sql_comments": True}])
async def test_recording_through_a_pooler_and_with_comments(
    data: DataLayer, owner: Owner, settings: Settings, changed: dict[str, Any]
) -> None:
    result = VariantResult(prompt_tokens=1)
    variants = [FinishedVariant(code="100 % of <p>", result=result)] * 2
    async with DataLayer(settings.replaced(**changed)) as other:
        with request_context(correlation_id="a%s$1"):
            for number in (1, 2):
                recorded = await other.generations.record(
                    owner.actor, owner.project_id, GenerationRequest(prompt="$1 %s"), variants
                )
                assert recorded.number == number
    assert (await data.generations.latest(owner.actor, owner.project_id)).code == "100 % of <p>"
    assert await rows(data, "SELECT DISTINCT prompt FROM generations") == [("$1 %s",)]
