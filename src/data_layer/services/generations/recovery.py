"""What a writer had published when it died, and had not stored yet: readers have seen it, so it is not lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from data_layer.repositories.generations import Unsaved
from data_layer.services.generations.followed import RUNNING, FollowedVariant
from data_layer.services.generations.live import is_tag_of

if TYPE_CHECKING:
    from data_layer.repositories.generations import VariantProgress
    from data_layer.repositories.unit_of_work import Transactions
    from data_layer.services.generations.publishing import LiveStreams


class Recovered(NamedTuple):
    """What is to be stored of a variant, in the name of its writer."""

    code_id: UUID
    writer: str
    unsaved: Unsaved


async def published_but_not_stored(
    transactions: Transactions, live: LiveStreams, generation_id: UUID, *, only_abandoned: bool
) -> Sequence[Recovered]:
    """What the stream of a generation has and the database lacks; nothing if the stream cannot be read."""
    async with transactions() as tx:
        progress = {
            each.id: each
            for each in await tx.generations.progress(generation_id)
            if each.status in RUNNING and (each.is_abandoned or not only_abandoned)
        }
        stored = await tx.generations.stored_variants(list(progress)) if progress else ()
    if not stored:
        return ()
    entries = await live.entries(generation_id)
    tag = next((entry.tag for entry in reversed(entries) if entry.tag), "")
    variants = {each.index: FollowedVariant(each) for each in stored}
    for change in (change for entry in entries if entry.tag == tag for change in entry.changes):
        if change.variant in variants:
            variants[change.variant].apply(tag, change)
    return [
        found for variant in variants.values() if (found := _recovered(variant, progress[variant.id], tag)) is not None
    ]


def _recovered(variant: FollowedVariant, progress: VariantProgress, tag: str) -> Recovered | None:
    if progress.writer is None or not is_tag_of(progress.writer, tag) or variant.sequence <= progress.last_sequence:
        return None
    known = (progress.last_sequence,)
    unsaved = Unsaved(variant.code.decode(), variant.sequence, known, tuple(variant.events), variant.note)
    return Recovered(variant.id, progress.writer, unsaved)
