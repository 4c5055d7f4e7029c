"""How a variant was made is kept while it is written, in whichever process, and read afterwards."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.errors import GrowthUnknownError, InvalidValueError, NotFoundError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import (
    CodePiece,
    FinishedVariant,
    GenerationRequest,
    Piece,
    StartedGeneration,
    VariantEvent,
    VariantReplay,
    WholeCode,
)
from tests.services.generations.conftest import Owner, let_leases_run_out, started, stored_owner


def states_of(replay: VariantReplay) -> list[str]:
    """The code after each step."""
    return list(accumulate(replay.steps, lambda code, step: step.apply(code), initial=""))[1:]


async def write(data: DataLayer, owner: Owner, generation: StartedGeneration, *batches: list[Piece]) -> list[str]:
    """Append batches whose moments differ by more than an interval; returns the code after each."""
    code, sequence, states = "", 1, []
    for batch in batches:
        await data.generations.append(owner.actor, generation.writer_token, 0, sequence, *batch)
        sequence += len(batch)
        for piece in batch:
            if isinstance(piece, CodePiece):
                code += piece.text
            elif isinstance(piece, WholeCode):
                code = piece.code
        states.append(code)
        await asyncio.sleep(0.12)  # Points of one interval are one.
    return states


async def test_a_replay_shows_how_the_code_grew_and_what_happened(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    states = await write(
        *(data, owner, generation),
        [VariantEvent("thinking", {"text": "hm"}), CodePiece("```html\n<h1>é😀</h1>")],
        [CodePiece("<p>draft</p>")],
        [VariantEvent("toolStart", {"name": "edit_file"})],
        [WholeCode("```html\n<h1>é😀</h1><p>final</p>")],
        [WholeCode("<h1>é😀</h1><p>final</p>"), CodePiece("<b>!</b>")],
    )
    done = await data.generations.complete(owner.actor, generation.writer_token, 0, code=states[-1] + "\n")

    replay = await data.generations.replay(owner.actor, done.id)

    found = states_of(replay)
    assert found[-1] == done.code == states[-1] + "\n"
    assert [state for state in found if state in states] == [each for each in dict.fromkeys(states) if each in found]
    assert {states[0], states[1], states[3]} <= set(found)
    assert replay.is_known
    assert not any(step.is_gap for step in replay.steps)
    assert [step.length for step in replay.steps] == [len(state) for state in found]
    times = {state: step.at for state, step in zip(found, replay.steps, strict=True)}
    assert [(event.sequence, event.kind) for event in replay.events] == [(1, "thinking"), (4, "toolStart")]
    assert times[states[0]] < times[states[1]] <= replay.events[1].at <= times[states[3]]
    assert replay.events[0].at < times[states[1]]
    assert replay.duration == max(replay.steps[-1].at, replay.events[-1].at)
    assert not replay.has_more_events
    for at, state in {at: state for state, at in times.items()}.items():  # The last one of each moment.
        assert await data.generations.state_at(owner.actor, done.id, at) == state
    assert await data.generations.state_at(owner.actor, done.id, 2**40) == done.code
    # Nobody else sees it, and nothing is counted as a view.
    stranger = await stored_owner(data, email=f"{uuid4()}@example.com")
    for refused in (
        data.generations.replay(stranger.actor, done.id),
        data.generations.state_at(stranger.actor, done.id, 0),
    ):
        with pytest.raises(NotFoundError):
            await refused
    assert (await data.generations.open_variant(owner.actor, done.id)).view_count == 0


async def test_what_was_stored_whole_is_not_replayed(data: DataLayer, owner: Owner) -> None:
    recorded = await data.generations.record(
        owner.actor, owner.project_id, GenerationRequest(), [FinishedVariant(code="<p>")]
    )
    [code_id] = recorded.variant_ids
    replay = await data.generations.replay(owner.actor, code_id)
    assert (replay.is_known, replay.steps, replay.events, replay.duration) == (False, (), (), 0)
    with pytest.raises(GrowthUnknownError):
        await data.generations.state_at(owner.actor, code_id, 0)
    with pytest.raises(InvalidValueError):
        await data.generations.state_at(owner.actor, code_id, -1)


async def test_what_was_changed_afterwards_is_not_replayed_and_a_copy_is(data: DataLayer, owner: Owner) -> None:
    generation = await started(data, owner)
    await write(data, owner, generation, [CodePiece("<a>")], [CodePiece("<b>")])
    done = await data.generations.complete(owner.actor, generation.writer_token, 0)
    copy = await data.projects.clone(owner.actor, owner.project_id)
    async with data.transaction() as tx:
        (await tx.codes.get(done.id)).code = "<i>"
    assert not (await data.generations.replay(owner.actor, done.id)).is_known
    copied = await data.generations.latest(owner.actor, copy.id)
    assert states_of(await data.generations.replay(owner.actor, copied.id)) == ["<a>", "<a><b>"]


async def test_batches_that_reach_several_processes_are_one_growth(
    data: DataLayer, settings: Settings, owner: Owner
) -> None:
    generation = await started(data, owner)
    async with DataLayer(settings) as other:
        code = ""
        for number in range(6):
            service = (data, other)[number % 2].generations
            code += f"<p>{number}</p>"
            await service.write(owner.actor, generation.writer_token, 0, number + 1, CodePiece(f"<p>{number}</p>"))
            await asyncio.sleep(0.12)
        edited = code.replace("<p>3</p>", "<b>3</b>")
        await other.generations.write(owner.actor, generation.writer_token, 0, 7, WholeCode(edited))
        await data.generations.complete(owner.actor, generation.writer_token, 0)
    replay = await data.generations.replay(owner.actor, generation.variant_ids[0])
    found = states_of(replay)
    assert found == [*("".join(f"<p>{n}</p>" for n in range(last + 1)) for last in range(6)), edited]
    assert not any(step.is_gap for step in replay.steps)


async def test_a_process_of_the_version_before_makes_a_gap(data: DataLayer, settings: Settings, owner: Owner) -> None:
    """It stores code, and no growth."""
    generation = await started(data, owner)
    code_id = generation.variant_ids[0]
    await write(data, owner, generation, [CodePiece("<a>")])
    await data.generations.store(owner.actor, generation.writer_token)
    async with data.transaction() as tx:
        await tx.execute(
            text("UPDATE generated_codes SET code = '<a><b>', last_sequence = 2 WHERE id = :id").bindparams(id=code_id)
        )
    replay = await data.generations.replay(owner.actor, code_id)
    assert [(step.text, step.is_gap) for step in replay.steps] == [("<a>", False), ("<b>", True)]
    async with DataLayer(settings) as other:
        await other.generations.append(owner.actor, generation.writer_token, 0, 3, WholeCode("<i>"))
        await other.generations.complete(owner.actor, generation.writer_token, 0)
    assert states_of(await data.generations.replay(owner.actor, code_id)) == ["<a>", "<a><b>", "<i>"]


async def test_what_an_abandoned_writer_has_stored_is_replayed(
    data: DataLayer, settings: Settings, owner: Owner
) -> None:
    async with DataLayer(settings) as other:
        generation = await started(other, owner)
        await write(other, owner, generation, [CodePiece("<a>")], [CodePiece("<b>"), VariantEvent("thinking", {})])
        await other.generations.store(owner.actor, generation.writer_token)
        await let_leases_run_out(data)
        await data.maintenance.run(SYSTEM)
    code_id: UUID = generation.variant_ids[0]
    assert (await data.generations.open_variant(owner.actor, code_id)).status == "failed"
    replay = await data.generations.replay(owner.actor, code_id)
    assert states_of(replay) == ["<a>", "<a><b>"]
    assert [event.kind for event in replay.events] == ["thinking"]
