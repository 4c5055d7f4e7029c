"""Variants are streamed by one writer, stored while they are, and end once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings
from data_layer.entities import AuditLog, GeneratedCode
from data_layer.entities.enums import AuditAction, GenerationProvider, GenerationStatus, ProjectStatus, UserRole
from data_layer.errors import (
    DataLayerError,
    DuplicateError,
    GenerationEndedError,
    InvalidValueError,
    MissingReferenceError,
    NotFoundError,
    ValueTooLongError,
    WriterReplacedError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM
from data_layer.schemas.generations import (
    CodePiece,
    GenerationRequest,
    VariantEvent,
    VariantModel,
    VariantResult,
    WholeCode,
)
from data_layer.services.generations import streams
from data_layer.services.generations.streams import MAXIMUM_CODE
from tests.services.generations.conftest import Owner, let_leases_run_out, rows, started, stored_owner

COMPLETED, FAILED, CANCELLED = GenerationStatus.COMPLETED, GenerationStatus.FAILED, GenerationStatus.CANCELLED


async def test_a_generation_is_streamed_and_ends(data: DataLayer, owner: Owner) -> None:
    request = {"prompt": "a shop", "inputs": {"stack": "x", "openAiApiKey": "sk-1", "nested": [{"authToken": "t"}]}}
    generation = await started(data, owner, 2, **request)
    write = data.generations
    token = generation.writer_token
    assert generation.number == 1
    await write.append(owner.actor, token, 0, 1, CodePiece("<ht"), VariantEvent("thinking", {"text": "hm"}))
    await write.append(owner.actor, token, 0, 3, CodePiece("ml>"))
    await write.append(owner.actor, token, 1, 1, WholeCode("<a>"), WholeCode("<b>"))
    result = VariantResult(
        model=VariantModel(provider=GenerationProvider.CLAUDE, name="m"), prompt_tokens=3, completion_tokens=4
    )

    first = await write.complete(owner.actor, token, 0, result)
    second = await write.fail(owner.actor, token, 1, "quota", details={"code": 429})

    assert (first.code, first.status, first.provider, first.total_tokens) == ("<html>", COMPLETED, "claude", 7)
    assert (second.code, second.status, second.error_message) == ("<b>", FAILED, "quota")
    assert (first.version, second.version, first.original_prompt) == (1, 1, "a shop")
    [view] = await write.history(owner.actor, owner.project_id)
    assert view.status is COMPLETED
    assert view.ended_at is not None
    assert [code.code_size for code in view.variants] == [6, 3]
    assert await rows(data, "SELECT sequence, kind, payload FROM generation_events") == [
        (2, "thinking", {"text": "hm"})
    ]
    [(inputs,)] = await rows(data, "SELECT inputs FROM generations")
    assert inputs == {"stack": "x", "nested": [{}]}
    [(writer,)] = await rows(data, "SELECT DISTINCT writer FROM generated_codes")
    assert writer not in token
    assert token not in repr(generation)


async def test_each_write_is_recorded(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    await data.generations.append(owner.actor, generation.writer_token, 0, 1, CodePiece("x"))
    code = await data.generations.complete(owner.actor, generation.writer_token, 0)
    await data.generations.rate(owner.actor, code.id, stars=4, words="fine")
    await data.generations.count_copy(owner.actor, code.id)
    await data.generations.rename(owner.actor, code.id, " Shop ")
    await data.generations.mark_favorite(owner.actor, code.id)
    async with data.transaction() as tx:
        entries = await tx.audit.list()
    assert [(entry.action, entry.new_values) for entry in entries] == [
        (AuditAction.CODE_GENERATE, {"project_id": str(owner.project_id), "number": 1, "variants": 1}),
        (AuditAction.CODE_UPDATE, {"status": "completed"}),
        (AuditAction.CODE_RATE, {"rating": 4}),
        (AuditAction.CODE_COPY, {}),
        (AuditAction.CODE_UPDATE, {"name": "Shop"}),
        (AuditAction.CODE_UPDATE, {"is_favorite": True}),
    ]
    stored = await data.generations.version(owner.actor, owner.project_id, 1)
    assert (stored.rating, stored.feedback, stored.copy_count) == (4, {"words": "fine"}, 1)


async def test_what_was_received_before_changes_nothing(data: DataLayer, owner: Owner) -> None:
    token = (await started(data, owner)).writer_token
    write = data.generations
    await write.append(owner.actor, token, 0, 1, CodePiece("a"), CodePiece("b"))
    assert await write.append(owner.actor, token, 0, 1, CodePiece("a"), CodePiece("b"), CodePiece("c")) == 3
    assert await write.append(owner.actor, token, 0, 2, WholeCode("late")) == 3
    await write.store(owner.actor, token)
    assert await write.append(owner.actor, token, 0, 3, CodePiece("c")) == 3
    assert await write.append(owner.actor, token, 0, 10, CodePiece("d")) == 10
    done = await write.complete(owner.actor, token, 0)
    assert done.code == "abcd"
    assert await write.complete(owner.actor, token, 0) == done
    assert await write.append(owner.actor, token, 0, 10, CodePiece("late")) == 10
    with pytest.raises(GenerationEndedError):
        await write.append(owner.actor, token, 0, 11, CodePiece("new"))
    with pytest.raises(GenerationEndedError, match="completed"):
        await write.fail(owner.actor, token, 0, "late")


async def test_a_checkpoint_is_written_by_itself(
    data: DataLayer, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHECKPOINT_SECONDS", 0.1)
    token = (await started(data, owner)).writer_token
    state = "SELECT code, status, last_sequence, lease_until > now() FROM generated_codes"
    assert await rows(data, state) == [("", "pending", 0, True)]
    await data.generations.append(owner.actor, token, 0, 1, CodePiece("part"))
    async with asyncio.timeout(30):
        while (await rows(data, state))[0][0] != "part":
            await asyncio.sleep(0.1)
    assert await rows(data, state) == [("part", "processing", 1, True)]


async def test_the_writer_does_not_wait_for_the_database(data: DataLayer, owner: Owner) -> None:
    """While a checkpoint waits for a row that somebody holds locked, pieces are taken, and none is lost."""
    generation = await started(data, owner)
    token, write = generation.writer_token, data.generations
    await write.append(owner.actor, token, 0, 1, CodePiece("a"))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    async with data.transaction() as tx:
        await tx.codes.get(generation.variant_ids[0], lock=True)
        storing = asyncio.create_task(write.store(owner.actor, token))
        async with asyncio.timeout(30):
            while (await tx.execute(text(waiting))).scalar_one() == 0:
                await asyncio.sleep(0.01)
        for number in range(2, 200):
            await write.append(owner.actor, token, 0, number, CodePiece("x"))
        assert not storing.done()
    await storing
    assert await rows(data, "SELECT code FROM generated_codes") == [("a",)]
    done = await write.complete(owner.actor, token, 0)
    assert done.code == "a" + "x" * 198


async def test_a_lease_that_runs_out_ends_the_variant_as_failed(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 2)
    token = generation.writer_token
    await data.generations.append(owner.actor, token, 0, 1, CodePiece("streamed"))
    await data.generations.append(owner.actor, token, 1, 1, CodePiece("done"))
    await data.generations.store(owner.actor, token)
    await data.generations.complete(owner.actor, token, 1)
    assert await data.maintenance.end_expired_variants() == 0, "a lease that holds"
    await let_leases_run_out(data)

    assert await data.maintenance.end_expired_variants() == 1
    assert await data.maintenance.end_expired_variants() == 0

    [view] = await data.generations.history(owner.actor, owner.project_id)
    assert [code.status for code in view.variants] == [FAILED, COMPLETED]
    assert view.ended_at is not None
    failed = await data.generations.version(owner.actor, owner.project_id, 1, 0)
    assert (failed.code, "writer stopped" in str(failed.error_message)) == ("streamed", True)
    async with data.transaction() as tx:
        assert await tx.audit.count(resource_id=str(failed.id), source=None, level="warning") == 1
    # The writer learns it with its next checkpoint.
    await data.generations.append(owner.actor, token, 0, 2, CodePiece("more"))
    await data.generations.store(owner.actor, token)
    with pytest.raises(GenerationEndedError, match="failed"):
        await data.generations.append(owner.actor, token, 0, 3, CodePiece("more"))
    with pytest.raises(GenerationEndedError, match="failed"):
        await data.generations.complete(owner.actor, token, 0)


async def test_another_process_goes_on_with_the_token(data: DataLayer, owner: Owner, settings: Settings) -> None:
    generation = await started(data, owner)
    await data.generations.append(owner.actor, generation.writer_token, 0, 5, CodePiece("a"))
    await data.generations.store(owner.actor, generation.writer_token)
    async with DataLayer(settings) as other:
        assert await other.generations.append(owner.actor, generation.writer_token, 0, 5, CodePiece("a")) == 5
        await other.generations.append(owner.actor, generation.writer_token, 0, 6, CodePiece("b"))
    await data.generations.append(owner.actor, generation.writer_token, 0, 7, CodePiece("lost"))
    with pytest.raises(WriterReplacedError):
        await data.generations.complete(owner.actor, generation.writer_token, 0)
    assert await rows(data, "SELECT code, last_sequence, status FROM generated_codes") == [("ab", 6, "processing")]


async def test_a_writer_whose_lease_was_taken_over_is_refused(
    data: DataLayer, owner: Owner, settings: Settings
) -> None:
    generation = await started(data, owner, 2)
    token = generation.writer_token
    await data.generations.append(owner.actor, token, 0, 1, CodePiece("a"))
    async with DataLayer(settings) as other:
        await data.generations.store(owner.actor, token)
        taken = await other.generations.take_over(owner.actor, generation.id)
        assert taken.last_sequences == (1, 0)
        await other.generations.append(owner.actor, taken.writer_token, 0, 2, CodePiece("b"))
        done = await other.generations.complete(owner.actor, taken.writer_token, 0)
        assert done.code == "ab"
        await data.generations.append(owner.actor, token, 1, 1, CodePiece("of the former writer"))
        await data.generations.store(owner.actor, token)
        assert await rows(data, "SELECT code FROM generated_codes WHERE variant_index = 1") == [("",)]
        with pytest.raises(WriterReplacedError):
            await other.generations.append(owner.actor, token, 0, 3, CodePiece("c"))
    with pytest.raises(WriterReplacedError):
        await data.generations.append(owner.actor, token, 1, 2, CodePiece("c"))
    with pytest.raises(WriterReplacedError):
        await data.generations.complete(owner.actor, token, 1)
    here = await data.generations.take_over(owner.actor, generation.id)
    with pytest.raises(WriterReplacedError):
        await data.generations.append(owner.actor, token, 1, 2, CodePiece("c"))
    await data.generations.fail(owner.actor, here.writer_token, 1, "no")
    with pytest.raises(GenerationEndedError):
        await data.generations.take_over(owner.actor, generation.id)


async def test_cancelling_keeps_what_was_streamed(data: DataLayer, owner: Owner, settings: Settings) -> None:
    generation = await started(data, owner, 3)
    token = generation.writer_token
    for variant in range(3):
        await data.generations.append(owner.actor, token, variant, 1, CodePiece(f"{variant}"))
    await data.generations.complete(owner.actor, token, 0)
    view = await data.generations.cancel(owner.actor, generation.id, 1)
    assert [code.status for code in view.variants] == [COMPLETED, CANCELLED, GenerationStatus.PENDING]
    await data.generations.store(owner.actor, token)
    async with DataLayer(settings) as other:
        view = await other.generations.cancel(owner.actor, generation.id)
    assert [code.status for code in view.variants] == [COMPLETED, CANCELLED, CANCELLED]
    assert view.ended_at is not None
    assert await rows(data, "SELECT code FROM generated_codes ORDER BY variant_index") == [("0",), ("1",), ("2",)]
    assert await data.generations.cancel(owner.actor, generation.id) == view
    with pytest.raises(GenerationEndedError, match="cancelled"):
        await data.generations.complete(owner.actor, token, 2)
    with pytest.raises(InvalidValueError):
        await data.generations.cancel(owner.actor, generation.id, 3)


@pytest.mark.parametrize("round_", range(5))
async def test_however_ends_race_there_is_one(data: DataLayer, owner: Owner, settings: Settings, round_: int) -> None:
    generation = await started(data, owner)
    token = generation.writer_token
    await data.generations.append(owner.actor, token, 0, 1, CodePiece("x"))
    await data.generations.store(owner.actor, token)
    await let_leases_run_out(data)
    async with DataLayer(settings) as other:
        ends: list[Any] = [
            data.generations.complete(owner.actor, token, 0),
            other.generations.fail(owner.actor, token, 0, "no"),
            other.generations.cancel(owner.actor, generation.id),
            data.maintenance.end_expired_variants(),
        ]
        ends = ends[round_ % 4 :] + ends[: round_ % 4]
        answers = await asyncio.gather(*ends, return_exceptions=True)
    unexpected = [a for a in answers if isinstance(a, BaseException) and not isinstance(a, DataLayerError)]
    assert not unexpected
    refused = (GenerationEndedError, WriterReplacedError)
    assert all(isinstance(a, refused) for a in answers if isinstance(a, BaseException))
    [(status, ended)] = await rows(data, "SELECT status, ended_at FROM generations JOIN generated_codes ON true")
    assert status in {"completed", "failed", "cancelled"}
    assert ended is not None
    async with data.transaction() as tx:
        entries = await tx.audit.list(resource_type="generated_code")
    assert [entry.new_values for entry in entries] == [{"status": status}]


async def test_variants_that_end_together_close_their_generation(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 8)
    write, token = data.generations, generation.writer_token
    for variant in range(8):
        await write.append(owner.actor, token, variant, 1, CodePiece("x"))
    await asyncio.gather(*(write.complete(owner.actor, token, variant) for variant in range(8)))
    [(ended,)] = await rows(data, "SELECT ended_at FROM generations")
    assert ended is not None


async def test_nothing_of_the_code_is_lost_silently(data: DataLayer, owner: Owner) -> None:
    token = (await started(data, owner)).writer_token
    write = data.generations
    await write.append(owner.actor, token, 0, 1, CodePiece("a\0b\ud83d"), CodePiece("\ude00c\ud800d"))
    await write.append(owner.actor, token, 0, 3, VariantEvent("tool", {"out": "x\0\ud800", "deep": [{"\0": 1}]}))
    done = await write.complete(owner.actor, token, 0)
    assert done.code == "a\u2400b\U0001f600c\ufffdd"
    assert done.metadata == {"replaced_characters": {"nul": 1, "half_surrogate_pair": 1}}
    [(payload,)] = await rows(data, "SELECT payload FROM generation_events")
    assert payload == {"out": "x\u2400\ufffd", "deep": [{"\u2400": 1}]}


async def test_the_largest_code_and_one_byte_more(data: DataLayer, owner: Owner) -> None:
    token = (await started(data, owner)).writer_token
    write = data.generations
    await write.append(owner.actor, token, 0, 1, WholeCode("\0" + "x" * (MAXIMUM_CODE - 5)))
    with pytest.raises(ValueTooLongError):
        await write.append(owner.actor, token, 0, 2, VariantEvent("e"), CodePiece("\U0001f600"), CodePiece("y"))
    assert await write.append(owner.actor, token, 0, 2, CodePiece("yz")) == 2, "nothing of it was taken"
    done = await write.complete(owner.actor, token, 0)
    assert len(done.code) == MAXIMUM_CODE - 2
    assert await rows(data, "SELECT count(*) FROM generation_events") == [(0,)]


async def test_ten_thousand_events(data: DataLayer, owner: Owner) -> None:
    token = (await started(data, owner)).writer_token
    for number in range(1, 10_001):
        await data.generations.append(owner.actor, token, 0, number, VariantEvent("thinking", {"text": f"{number}"}))
    await data.generations.complete(owner.actor, token, 0, code="x")
    counted = "SELECT count(*), min(sequence), max(sequence) FROM generation_events"
    assert await rows(data, counted) == [(10_000, 1, 10_000)]


BAD_PIECES: list[Any] = [
    "text",
    None,
    CodePiece(None),  # type: ignore[arg-type]
    WholeCode(b"x"),  # type: ignore[arg-type]
    VariantEvent(""),
    VariantEvent("k" * 51),
    VariantEvent("a\0"),
    VariantEvent(7),  # type: ignore[arg-type]
    VariantEvent("k", []),  # type: ignore[arg-type]
    VariantEvent("k", {"a": {1}}),
    VariantEvent("k", {1: "a"}),  # type: ignore[dict-item]
    VariantEvent("k", {"a": float("nan")}),
]


@pytest.mark.parametrize("piece", BAD_PIECES)
async def test_pieces_that_are_refused_change_nothing(data: DataLayer, owner: Owner, piece: Any) -> None:
    token = (await started(data, owner)).writer_token
    with pytest.raises(InvalidValueError):
        await data.generations.append(owner.actor, token, 0, 1, CodePiece("x"), piece)
    with pytest.raises(InvalidValueError):
        await data.generations.complete(owner.actor, token, 0)
    assert await data.generations.append(owner.actor, token, 0, 1, CodePiece("y")) == 1


async def test_bad_arguments(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 2)
    token, write = generation.writer_token, data.generations
    for variant in (2, -1, True, None, "0"):
        with pytest.raises(InvalidValueError, match="variant"):
            await write.append(owner.actor, token, variant, 1, CodePiece("x"))  # type: ignore[arg-type]
    for sequence in (0, -1, 2**31, True, None, "1"):
        with pytest.raises(InvalidValueError, match="sequence"):
            await write.append(owner.actor, token, 0, sequence, CodePiece("x"))  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="sequence"):
        await write.append(owner.actor, token, 0, 2**31 - 1, CodePiece("x"), CodePiece("y"))
    for bad in ("", "x", None, token + "x", token[:-1], token.upper()):
        with pytest.raises((InvalidValueError, NotFoundError, WriterReplacedError)):
            await write.append(owner.actor, bad, 0, 1, CodePiece("x"))  # type: ignore[arg-type]
    forged = token[:-3] + ("AAA" if token[-3:] != "AAA" else "BBB")
    with pytest.raises(WriterReplacedError):
        await write.append(owner.actor, forged, 0, 1, CodePiece("x"))
    for models in ([], [VariantModel()] * 17):
        with pytest.raises(InvalidValueError, match="variants"):
            await write.start(owner.actor, owner.project_id, GenerationRequest(), models)
    with pytest.raises(InvalidValueError):
        await write.fail(owner.actor, token, 0, "a\0")


async def test_a_parent_in_another_project_is_refused(data: DataLayer, owner: Owner) -> None:
    other = await stored_owner(data)
    generation = await started(data, other)
    for parent in (generation.variant_ids[0], uuid7()):
        with pytest.raises(MissingReferenceError):
            await started(data, owner, parent_id=parent)
    assert await data.generations.history(owner.actor, owner.project_id) == ()
    assert (await started(data, owner)).number == 1, "no gap"


async def test_an_external_key_is_unique_in_its_source(data: DataLayer, owner: Owner) -> None:
    await started(data, owner, external_source="app", external_key="k")
    await started(data, owner, external_source="other", external_key="k")
    with pytest.raises(DuplicateError):
        await started(data, owner, external_source="app", external_key="k")


async def test_a_project_that_is_deleted_meanwhile(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner, 2)
    token = generation.writer_token
    await data.generations.append(owner.actor, token, 0, 1, CodePiece("x"))
    async with data.transaction() as tx:
        (await tx.projects.get(owner.project_id)).status = ProjectStatus.DELETED
    assert (await data.generations.complete(owner.actor, token, 0)).status is COMPLETED
    with pytest.raises(NotFoundError):
        await started(data, owner)
    with pytest.raises(NotFoundError):
        await data.generations.history(owner.actor, owner.project_id)
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(owner.project_id))
    await data.generations.append(owner.actor, token, 1, 1, CodePiece("x"))
    with pytest.raises(NotFoundError):
        await data.generations.complete(owner.actor, token, 1)


async def test_only_the_owner_writes_and_reads(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    token, write = generation.writer_token, data.generations
    await write.append(owner.actor, token, 0, 1, CodePiece("x"))
    code = await write.complete(owner.actor, token, 0)
    others = [(await stored_owner(data, role=role)).actor for role in UserRole]
    for actor in (*others, ANONYMOUS):
        calls: list[Any] = [
            write.start(actor, owner.project_id, GenerationRequest(), [VariantModel()]),
            write.append(actor, token, 0, 2, CodePiece("y")),
            write.renew(actor, token),
            write.store(actor, token),
            write.complete(actor, token, 0),
            write.fail(actor, token, 0, "m"),
            write.cancel(actor, generation.id),
            write.take_over(actor, generation.id),
            write.select(actor, generation.id, 0),
            write.rename(actor, code.id, "n"),
            write.mark_favorite(actor, code.id),
            write.rate(actor, code.id, stars=1),
            write.count_copy(actor, code.id),
            write.count_download(actor, code.id),
            write.history(actor, owner.project_id),
            write.version(actor, owner.project_id, 1),
            write.latest(actor, owner.project_id),
            write.diff(actor, owner.project_id, 1, 1),
            write.restore(actor, owner.project_id, 1),
        ]
        for call in calls:
            with pytest.raises(NotFoundError):
                await call
    assert await rows(data, "SELECT copy_count, rating FROM generated_codes") == [(0, None)]
    assert (await write.version(SYSTEM, owner.project_id, 1)).code == "x"


async def test_moderators_read_when_they_say_why_and_that_is_recorded(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    await data.generations.complete(owner.actor, generation.writer_token, 0, code="x")
    user, moderator, admin = [(await stored_owner(data, role=role)).actor for role in UserRole]
    for actor in (moderator, admin):
        with pytest.raises(InvalidValueError, match="reason"):
            await data.generations.version(actor, owner.project_id, 1, reason=" ")
        assert (await data.generations.version(actor, owner.project_id, 1, reason="report 7")).code == "x"
    with pytest.raises(NotFoundError):
        await data.generations.version(user, owner.project_id, 1, reason="curious")
    async with data.transaction() as tx:
        entries: list[AuditLog] = list(await tx.audit.list(action=AuditAction.ADMIN_DATA_EXPORT))
    assert [(entry.user_id, entry.resource_id, entry.details) for entry in entries] == [
        (actor.user_id, str(owner.project_id), "report 7") for actor in (moderator, admin)
    ]


async def test_pieces_that_arrive_at_once_in_another_process_are_all_kept(
    data: DataLayer, owner: Owner, settings: Settings
) -> None:
    """The first call there loads the generation: those beside it must not write into a copy of their own."""
    generation = await started(data, owner, 4)
    token = generation.writer_token
    async with DataLayer(settings) as other:
        await asyncio.gather(
            *(other.generations.append(owner.actor, token, variant, 1, CodePiece(str(variant))) for variant in range(4))
        )
        await other.generations.store(owner.actor, token)
    stored = await rows(data, "SELECT code FROM generated_codes ORDER BY variant_index")
    assert stored == [("0",), ("1",), ("2",), ("3",)]


async def test_a_writer_that_comes_back_replaces_what_this_process_remembers(
    data: DataLayer, owner: Owner, settings: Settings
) -> None:
    generation = await started(data, owner)
    async with DataLayer(settings) as other:
        taken = await other.generations.take_over(owner.actor, generation.id)
    await data.generations.append(owner.actor, taken.writer_token, 0, 1, CodePiece("kept"))
    await data.generations.store(owner.actor, taken.writer_token)
    assert await rows(data, "SELECT code FROM generated_codes") == [("kept",)]


async def test_batches_may_reach_any_process(data: DataLayer, settings: Settings, owner: Owner) -> None:
    """As behind a load balancer: none is lost, also one that is sent again, and any process can end the variant."""
    async with DataLayer(settings) as second, DataLayer(settings) as third:
        processes = [each.generations for each in (data, second, third)]
        generation = await started(data, owner, 2)
        token = generation.writer_token
        for number in range(1, 13):
            writing = processes[number % 3]
            pieces = (CodePiece(f"<{number}>"), VariantEvent("thinking", {"number": number}))
            for variant in (0, 1):
                assert await writing.write(owner.actor, token, variant, 2 * number, *pieces) == 2 * number + 1
            again = processes[(number + 1) % 3]
            assert await again.write(owner.actor, token, 0, 2 * number, *pieces) == 2 * number + 1
        expected = "".join(f"<{number}>" for number in range(1, 13))
        assert {code.code for code in await stored_codes(data, generation.id)} == {expected}

        ended = [await processes[number].complete(owner.actor, token, number) for number in (0, 1)]
        assert [code.code for code in ended] == [expected, expected]
        for writing in processes:
            with pytest.raises(GenerationEndedError):
                await writing.write(owner.actor, token, 0, 100, CodePiece("late"))
            assert (await writing.complete(owner.actor, token, 0)).code == expected
        events = await rows(data, "SELECT count(*) FROM generation_events")
        assert events == [(2 * 12,)]


async def test_a_process_that_is_behind_renews_the_lease_and_ends_what_others_have_written(
    data: DataLayer, settings: Settings, owner: Owner
) -> None:
    async with DataLayer(settings) as other:
        generation = await started(data, owner)
        token = generation.writer_token
        await other.generations.write(owner.actor, token, 0, 1, CodePiece("<p>"))
        await let_leases_run_out(data)
        await data.generations.renew(owner.actor, token)
        assert await rows(data, "SELECT lease_until > now() FROM generated_codes") == [(True,)]
        await other.generations.write(owner.actor, token, 0, 2, CodePiece("one"))
        ended = await data.generations.complete(owner.actor, token, 0)
        assert (ended.code, ended.status) == ("<p>one", COMPLETED)


async def test_a_process_that_was_behind_and_has_no_code_of_its_own_ends_the_variant(
    data: DataLayer, settings: Settings, owner: Owner
) -> None:
    async with DataLayer(settings) as other:
        generation = await started(data, owner)
        await other.generations.write(owner.actor, generation.writer_token, 0, 1, CodePiece("<p>"))
        assert (await data.generations.complete(owner.actor, generation.writer_token, 0)).code == "<p>"
        with pytest.raises(GenerationEndedError):
            await other.generations.fail(owner.actor, generation.writer_token, 0, "no answer")


async def stored_codes(data: DataLayer, generation_id: UUID) -> list[GeneratedCode]:
    async with data.transaction() as tx:
        return list(await tx.codes.list(generation_id=generation_id))
