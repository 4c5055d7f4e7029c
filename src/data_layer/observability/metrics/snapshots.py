"""All samples of one process at one moment, and those of several worker processes added up at one address.

Every worker listens on a Unix socket in a folder that is private to the service; each connection is sent a snapshot.
What a worker had counted stays when it ends, so that no counter ever falls: its last act is to leave its snapshot in a
file, and after a worker that was killed the last answer counts, which is a few seconds old at most.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder

from data_layer.concurrency import cancel_and_wait
from data_layer.observability.log import get_log

Series = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a sample and its labels."""


class AcrossWorkers(StrEnum):
    """What the samples of several processes make together."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(slots=True)
class Family:
    """The samples of one metric. ``type`` is Prometheus's."""

    name: str
    documentation: str
    type: str
    across_workers: AcrossWorkers
    samples: dict[Series, float]

    @property
    def only_grows(self) -> bool:
        """Whether it must never fall, not even when a process has ended."""
        return self.type in {"counter", "histogram", "summary"}


Snapshot = dict[str, Family]
"""Families by their names."""


def take(metrics: Iterable[Metric], across_workers: Mapping[str, AcrossWorkers]) -> Snapshot:
    """What a registry collects, without the times at which series began: nobody asks for them, and they double it."""
    snapshot: Snapshot = {}
    for metric in metrics:
        samples = {
            (sample.name, tuple(sample.labels.items())): sample.value
            for sample in metric.samples
            if not sample.name.endswith("_created")
        }
        how = AcrossWorkers.MAX if metric.type == "info" else across_workers.get(metric.name, AcrossWorkers.SUM)
        snapshot[metric.name] = Family(metric.name, metric.documentation, metric.type, how, samples)
    return snapshot


def encode(snapshot: Snapshot) -> bytes:
    """The bytes for another process."""
    return orjson.dumps(
        [
            [family.name, family.documentation, family.type, family.across_workers, list(family.samples.items())]
            for family in snapshot.values()
        ]
    )


def decode(content: bytes) -> Snapshot:
    """What another process has encoded.

    Raises:
        ValueError: it is incomplete.
    """
    snapshot: Snapshot = {}
    for name, documentation, kind, across_workers, samples in orjson.loads(content):
        found = {_series(series): _value(value) for series, value in samples}
        snapshot[name] = Family(name, documentation, kind, AcrossWorkers(across_workers), found)
    return snapshot


def render(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The text for Prometheus, in the format that it accepts, and its media type."""
    encoder, media_type = choose_encoder(accept)
    return encoder(_Rendered(snapshot)), media_type


class _Rendered:
    """A snapshot in the shape that prometheus-client's encoders take."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        for family in self._snapshot.values():
            metric = Metric(family.name, family.documentation, family.type)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


def _series(encoded: Any) -> Series:
    name, labels = encoded
    return name, tuple((label, value) for label, value in labels)


def _value(encoded: float | None) -> float:
    """JSON has no NaN."""
    return math.nan if encoded is None else encoded


GAUGES_THAT_ARE_NOT_SUMS: Final[Mapping[str, AcrossWorkers]] = {
    "data_layer_database_replica_lag_seconds": AcrossWorkers.MAX,
    "data_layer_workers_wanted": AcrossWorkers.MAX,
    "process_max_fds": AcrossWorkers.MIN,
    "process_start_time_seconds": AcrossWorkers.MIN,
    "python_info": AcrossWorkers.MAX,
}


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """All of them together: what is counted is added up, and gauges as their family says."""
    merged: Snapshot = {}
    for snapshot in snapshots:
        for name, family in snapshot.items():
            into = merged.setdefault(name, Family(name, family.documentation, family.type, family.across_workers, {}))
            for series, value in family.samples.items():
                before = into.samples.get(series)
                into.samples[series] = value if before is None else _together(family.across_workers, before, value)
    return merged


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """What stays of a process that has ended: what it had counted, but nothing that it had or was."""
    return {name: family for name, family in snapshot.items() if family.only_grows}


def _together(how: AcrossWorkers, first: float, second: float) -> float:
    if math.isnan(first) or math.isnan(second):  # A process that does not know its value adds nothing.
        return second if math.isnan(first) else first
    match how:
        case AcrossWorkers.MAX:
            return max(first, second)
        case AcrossWorkers.MIN:
            return min(first, second)
        case AcrossWorkers.SUM:
            return first + second


log = get_log(__name__)

LOOK_SECONDS = 5.0
"""How often the supervisor asks, whether or not anybody asks it."""

_ANSWER_SECONDS = 2.0
_SOCKET, _FINAL, _PARTIAL = ".sock", ".final", ".partial"


@asynccontextmanager
async def telling_supervisor(snapshot: Callable[[], Snapshot], folder: Path) -> AsyncIterator[None]:
    """Answer the supervisor inside, and leave a last snapshot at the end.

    Args:
        snapshot: what to report; called by this event loop.
        folder: the supervisor's. If it cannot be used, because its path is too long for a Unix socket for example, that
            is logged, and the worker goes on without reporting anything.
    """
    name = f"{os.getpid()}-{time.monotonic_ns()}"

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(encode(snapshot()))
            await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_unix_server(answer, sock=_listen(folder, name))
    except OSError as error:
        log.warning("worker_metrics_untold", reason=str(error))
        yield
        return
    try:
        yield
    finally:
        server.close()
        partial = folder / f"{name}{_PARTIAL}"
        with suppress(OSError):  # The supervisor has its last answer, if the folder is gone or the disk full.
            partial.write_bytes(encode(snapshot()))
            partial.rename(partial.with_suffix(_FINAL))
            (folder / f"{name}{_SOCKET}").unlink(missing_ok=True)


def _listen(folder: Path, name: str) -> socket.socket:
    """A socket that takes its name when it listens: one that refuses looks as if its worker had ended."""
    partial = folder / f"{name}{_PARTIAL}"
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(partial))
        listener.listen()
        partial.rename(partial.with_suffix(_SOCKET))
    except BaseException:
        listener.close()
        raise
    return listener


class AllWorkers:
    """What all workers of a folder have counted together, those that have ended included."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: dict[str, Snapshot] = {}
        self._silent: set[str] = set()
        self._ended: Snapshot = {}
        self._looking = asyncio.Lock()

    async def snapshot(self) -> Snapshot:
        """Everything as it is now. A worker that does not answer within two seconds is left out of the gauges."""
        async with self._looking:
            names = {path.stem for path in self._folder.iterdir() if path.suffix in {_SOCKET, _FINAL}}
            await asyncio.gather(*(self._look_at(name) for name in sorted(names | self._answers.keys())))
            answers = (
                without_gauges(answer) if name in self._silent else answer for name, answer in self._answers.items()
            )
            return merge([*answers, self._ended])

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Ask them every few seconds inside, so that little is lost with a worker that is killed."""
        task = asyncio.create_task(self._keep_looking(), name="worker-metrics")
        try:
            yield
        finally:
            await cancel_and_wait(task)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.snapshot()
            except OSError as error:
                log.warning("worker_metrics_failed", reason=str(error))

    async def _look_at(self, name: str) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                self._answers[name] = decode(await _ask(self._folder / f"{name}{_SOCKET}"))
            self._silent.discard(name)
        except (FileNotFoundError, ConnectionRefusedError):
            self._take_leave(name)
        except (OSError, TimeoutError, ValueError) as error:
            if name not in self._silent:
                log.warning("worker_metrics_unanswered", worker=name, reason=type(error).__name__)
            self._silent.add(name)

    def _take_leave(self, name: str) -> None:
        """Keep what a worker that has ended had counted, once."""
        last = self._answers.pop(name, {})
        final = self._folder / f"{name}{_FINAL}"
        with suppress(OSError, ValueError):
            last = decode(final.read_bytes())
        self._ended = merge([self._ended, without_gauges(last)])
        self._silent.discard(name)
        for path in (final, final.with_suffix(_SOCKET)):
            path.unlink(missing_ok=True)


async def _ask(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return await reader.read(-1)
    finally:
        writer.close()
