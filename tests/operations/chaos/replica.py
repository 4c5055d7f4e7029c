"""One replica: a process with a data layer of its own, under load until it is asked to stop."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from data_layer import DataLayer, Settings
from data_layer.observability.log import FIELDS
from tests.operations.chaos.journal import Journal
from tests.operations.chaos.load import Load, Rows
from tests.operations.chaos.resources import held_after, held_now, until
from tests.operations.chaos.sabotage import sabotage

_PATIENCE = 15.0


@dataclass(frozen=True)
class Orders:
    """What a replica is to do. It begins, stops and leaves when the files of these names are in the folder."""

    name: str
    settings: dict[str, Any]
    rows: Rows
    folder: Path
    sabotage: str | None

    @property
    def journals(self) -> Path:
        return self.folder / "journals"

    def is_time_to(self, do: str) -> bool:
        return (self.folder / do).exists()


async def follow(orders: Orders, journal: Journal) -> None:
    settings = Settings(**orders.settings)
    async with DataLayer(settings) as data:  # What is made once for each process counts for no leak.
        await Load(data, orders.rows, orders.journals, journal).once()
    closed = held_now()
    async with DataLayer(settings) as data:
        load = Load(data, orders.rows, orders.journals, journal)
        await load.once()
        idle = held_now()
        journal.note("ready")
        await until(lambda: orders.is_time_to("begin"))
        await load.run(lambda: orders.is_time_to("stop"))
        # Lines to the servers are counted there, not here; and threads when everything is closed.
        at_rest = await held_after(idle | dict.fromkeys(("file socket", "threads"), sys.maxsize), _PATIENCE)
        journal.note("idle", before=idle, after=at_rest, **await _own_figures_at_rest(data))
        await until(lambda: orders.is_time_to("leave"))
        began = monotonic()
    seconds = monotonic() - began
    journal.note("closed", before=closed, after=await held_after(closed, _PATIENCE), seconds=seconds)


async def _own_figures_at_rest(data: DataLayer) -> dict[str, Any]:
    """What the data layer reports once nothing is under way: audit entries are written after the load, too."""
    deadline = monotonic() + _PATIENCE
    await until(lambda: _rests(data) or monotonic() > deadline)
    figures = data.database.pool_figures()
    audit = data.audit.buffer_statistics()
    return {
        "in_use": figures["in_use"],
        "connections": figures["in_use"] + figures["idle"],
        "audit": audit.model_dump(mode="json"),
        "pending": data.cache._parts.intents.pending,
    }


def _rests(data: DataLayer) -> bool:
    return not (data.database.pool_figures()["in_use"] or data.cache._parts.intents.pending)


class _Lines(logging.Formatter):
    """Events with their fields, and when they happened by the clock of the journal."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{monotonic():.3f} {record.getMessage()} {getattr(record, FIELDS, '')}"


def work(orders: Orders) -> None:
    """The program of the process."""
    handler = logging.FileHandler(orders.folder / f"{orders.name}.log")
    handler.setFormatter(_Lines())
    logging.basicConfig(handlers=[handler])
    sabotage(orders.sabotage)
    asyncio.run(follow(orders, Journal(orders.journals, orders.name)))
