"""The snapshots of several processes as one, as if a single process had counted everything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from data_layer.observability.metrics.snapshots import AcrossWorkers, Family, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    if math.isnan(first) or math.isnan(second):  # Who does not know says nothing.
        return second if math.isnan(first) else first
    match how:
        case AcrossWorkers.MAX:
            return max(first, second)
        case AcrossWorkers.MIN:
            return min(first, second)
        case AcrossWorkers.SUM:
            return first + second
