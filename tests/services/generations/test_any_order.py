"""Whatever is called in whatever order: what was streamed is kept, and each variant ends once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.entities.enums import GenerationStatus
from data_layer.errors import GenerationEndedError, InvalidValueError, WriterReplacedError
from data_layer.schemas.generations import (
    CodePiece,
    GenerationRequest,
    Piece,
    StartedGeneration,
    VariantEvent,
    VariantModel,
    WholeCode,
)
from tests.services.generations.conftest import Owner, rows

VARIANTS = 2
COMPLETED, FAILED, CANCELLED = GenerationStatus.COMPLETED, GenerationStatus.FAILED, GenerationStatus.CANCELLED
STORED = """
SELECT code, last_sequence, CASE WHEN status IN ('pending', 'processing') THEN NULL ELSE status END,
    lease_until IS NULL, ARRAY(SELECT sequence FROM generation_events WHERE code_id = generated_codes.id ORDER BY 1)
FROM generated_codes WHERE generation_id = :id ORDER BY variant_index
"""

pieces = st.one_of(
    st.sampled_from(["a", "bb", "ä"]).map(CodePiece),
    st.sampled_from(["", "x", "yy"]).map(WholeCode),
    st.just(VariantEvent("e")),
)
variants = st.integers(0, VARIANTS - 1)
steps = st.one_of(
    st.tuples(st.just("append"), variants, st.integers(1, 9), pieces),
    st.tuples(st.sampled_from(["complete", "fail", "cancel"]), variants),
    st.tuples(st.sampled_from(["store", "expire", "restart", "take_over"])),
)


@dataclass
class Variant:
    """A variant as it should be."""

    code: str = ""
    last: int = 0
    events: set[int] = field(default_factory=set)
    end: GenerationStatus | None = None

    def take(self, sequence: int, piece: Piece) -> None:
        match piece:
            case CodePiece():
                self.code += piece.text
            case WholeCode():
                self.code = piece.code
            case VariantEvent():
                self.events.add(sequence)
        self.last = sequence


class Story:
    """A generation and what it should be."""

    def __init__(self, data: DataLayer, owner: Owner, generation: StartedGeneration) -> None:
        self.data = data
        self.actor = owner.actor
        self.id = generation.id
        self.token = generation.writer_token
        self.variants = [Variant() for _ in range(VARIANTS)]

    async def append(self, index: int, sequence: int, piece: Piece) -> None:
        variant = self.variants[index]
        is_new = sequence > variant.last
        if is_new and variant.end is not None:
            with pytest.raises(GenerationEndedError):
                await self.data.generations.append(self.actor, self.token, index, sequence, piece)
            return
        if is_new:
            variant.take(sequence, piece)
        assert await self.data.generations.append(self.actor, self.token, index, sequence, piece) == variant.last

    async def complete(self, index: int) -> None:
        variant = self.variants[index]
        call = self.data.generations.complete(self.actor, self.token, index)
        if variant.end is None and not variant.code:
            with pytest.raises(InvalidValueError, match="no code"):
                await call
            return
        await self._ends(variant, COMPLETED, call)

    async def fail(self, index: int) -> None:
        await self._ends(
            self.variants[index], FAILED, self.data.generations.fail(self.actor, self.token, index, "message")
        )

    async def cancel(self, index: int) -> None:
        view = await self.data.generations.cancel(self.actor, self.id, index)
        variant = self.variants[index]
        variant.end = variant.end or CANCELLED
        assert view.variants[index].status is variant.end

    async def store(self) -> None:
        await self.data.generations.store(self.actor, self.token)

    async def expire(self) -> None:
        await self.store()
        async with self.data.transaction() as tx:
            lease = text(
                "UPDATE generated_codes SET lease_until = now() - interval '1 s' "
                "WHERE generation_id = :id AND lease_until IS NOT NULL"
            )
            await tx.execute(lease.bindparams(id=self.id))
        assert await self.data.maintenance.end_expired_variants() == sum(
            variant.end is None for variant in self.variants
        )
        for variant in self.variants:
            variant.end = variant.end or FAILED
        # The writer learns it by its next checkpoint.
        await self.data.generations.renew(self.actor, self.token)
        await self.store()

    async def restart(self) -> None:
        settings = self.data.settings
        await self.data.close()
        self.data = await DataLayer(settings).open()

    async def take_over(self) -> None:
        running = [index for index, variant in enumerate(self.variants) if variant.end is None]
        if not running:
            with pytest.raises(GenerationEndedError):
                await self.data.generations.take_over(self.actor, self.id)
            return
        former = self.token
        taken = await self.data.generations.take_over(self.actor, self.id)
        self.token = taken.writer_token
        assert taken.last_sequences == tuple(variant.last for variant in self.variants)
        with pytest.raises(WriterReplacedError):
            await self.data.generations.append(self.actor, former, running[0], 10, CodePiece("late"))

    async def _ends(self, variant: Variant, end: GenerationStatus, call: Any) -> None:
        variant.end = variant.end or end
        if variant.end is not end:
            with pytest.raises(GenerationEndedError, match=variant.end):
                await call
            return
        done = await call
        assert (done.status, done.code) == (variant.end, variant.code)


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(steps, max_size=25))
async def test_whatever_happens_in_whatever_order(
    data: DataLayer, settings: Settings, owner: Owner, steps: list[tuple[Any, ...]]
) -> None:
    writing = await DataLayer(settings).open()
    models = [VariantModel()] * VARIANTS
    generation = await writing.generations.start(owner.actor, owner.project_id, GenerationRequest(), models)
    story = Story(writing, owner, generation)
    try:
        for name, *arguments in steps:
            await getattr(story, name)(*arguments)
    finally:
        await story.data.close()
    assert await rows(data, STORED, id=generation.id) == [
        (variant.code, variant.last, variant.end, variant.end is not None, sorted(variant.events))
        for variant in story.variants
    ]
    [(ended,)] = await rows(data, "SELECT ended_at FROM generations WHERE id = :id", id=generation.id)
    assert (ended is not None) == all(variant.end is not None for variant in story.variants)
    await data.generations.cancel(owner.actor, generation.id)  # Its lease would run out in another story.
