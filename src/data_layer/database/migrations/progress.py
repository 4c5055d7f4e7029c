"""What a running migration tells those who wait for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_layer.database.migrations import Revision


class MigrationEvent(StrEnum):
    """What happened: ``WAITING`` is for another process, ``RETRIED`` after tables were locked by others."""

    WAITING = "waiting"
    STARTED = "started"
    RETRIED = "retried"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """One report: ``number`` of ``total`` counts from 1; while waiting for another process there is no revision."""

    event: MigrationEvent
    revision: Revision | None = None
    number: int = 0
    total: int = 0


ProgressListener = Callable[[MigrationProgress], None]


def ignore_progress(_: MigrationProgress) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Step:
    """One migration that is to be run or undone, as one of several."""

    revision: Revision
    number: int
    total: int
    listener: ProgressListener

    def report(self, event: MigrationEvent) -> None:
        """Tell the listener what happened to this step."""
        self.listener(MigrationProgress(event, self.revision, self.number, self.total))


def steps(revisions: tuple[Revision, ...], listener: ProgressListener) -> list[Step]:
    """The steps for these revisions, in this order."""
    return [Step(revision, number, len(revisions), listener) for number, revision in enumerate(revisions, 1)]
