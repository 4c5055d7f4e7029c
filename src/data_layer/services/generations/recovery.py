"""What a writer had published when it died, and had not stored yet: readers have seen it, so it is not lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from data_layer.entities.time_ordered_ids import id_at
from data_layer.repositories.generations import StoredVariant, Unsaved, VariantProgress
from data_layer.repositories.unit_of_work import Transactions
from data_layer.services.generations.followed import FollowedVariant
from data_layer.services.generations.growth import Growth
from data_layer.services.generations.live import Change, is_tag_of
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
            if each.status.is_running and (each.is_abandoned or not only_abandoned)
        }
        stored = await tx.generations.stored_variants(list(progress)) if progress else ()
        growths = await tx.generations.growths(list(progress)) if progress else {}
    if not stored:
        return ()
    entries = await live.entries(generation_id)
    tag = next((entry.tag for entry in reversed(entries) if entry.tag), "")
    published = {each.index: _Published(each, growths.get(each.id)) for each in stored}
    for entry in entries:
        for change in entry.changes if entry.tag == tag else ():
            if change.variant in published:
                published[change.variant].apply(tag, change, entry.at)
    return [
        found for each in published.values() if (found := _recovered(each, progress[each.variant.id], tag)) is not None
    ]


class _Published:
    """A variant as it was published, and how it has come from what is stored."""

    def __init__(self, stored: StoredVariant, growth: bytes | None) -> None:
        self.variant = FollowedVariant(stored)
        self.growth = Growth.resumed(growth, self.variant.code, stored.started_at)
        self._times: dict[int, int] = {}

    def apply(self, tag: str, change: Change, at: int) -> None:
        """Go on with a change that was published at this moment."""
        before = self.variant.code
        if self.variant.apply(tag, change):
            self.growth.note_whole(before, self.variant.code, at=at)
            self._times |= {event[0]: at for event in change.events}

    @property
    def event_ids(self) -> Sequence[UUID]:
        """Ids of the events that say when they were published."""
        times = (datetime.fromtimestamp(self._times[event[0]] / 1000, UTC) for event in self.variant.events)
        return [id_at(moment) for moment in times]


def _recovered(published: _Published, progress: VariantProgress, tag: str) -> Recovered | None:
    variant = published.variant
    if progress.writer is None or not is_tag_of(progress.writer, tag) or variant.sequence <= progress.last_sequence:
        return None
    unsaved = Unsaved(
        code=variant.code.decode(),
        last_sequence=variant.sequence,
        known_sequences=(progress.last_sequence,),
        events=tuple(variant.events),
        note=variant.note,
        growth=published.growth.packed(variant.code, is_plain=True),
        event_ids=published.event_ids,
    )
    return Recovered(variant.id, progress.writer, unsaved)
