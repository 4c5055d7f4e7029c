"""All samples of one process at one moment, how they reach another process, and how several add up to one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder

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
