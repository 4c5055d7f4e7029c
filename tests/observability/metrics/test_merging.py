"""Several processes as one: what is counted is added up, gauges as they say, and nothing ever falls."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from data_layer.observability.metrics.registry import Metrics
from data_layer.observability.metrics.snapshots import (
    AcrossWorkers,
    Family,
    Snapshot,
    decode,
    encode,
    merge,
    render,
    without_gauges,
)


def counted(*durations: float, gauge: float = 0) -> Snapshot:
    """What a process tells that has done something."""
    metrics = Metrics()
    metrics.gauge("age_seconds", "Age.", across_workers=AcrossWorkers.MAX).set(gauge)
    metrics.gauge("depth", "Depth.", across_workers=AcrossWorkers.MIN).set(gauge)
    metrics.gauge("length", "Length.").set(gauge)
    histogram = metrics.histogram("work_seconds", "Work.", {"kind": ("a", "b")}, limits=(1, 2))
    tasks = metrics.counter("tasks", "Tasks.")
    for duration in durations:
        tasks.inc()
        histogram.observe(duration, kind="a")
    return metrics.snapshot()


def one(snapshot: Snapshot, family: str, name: str = "") -> float:
    (value,) = (value for (found, _), value in snapshot[family].samples.items() if found == (name or family))
    return value


durations = st.lists(st.integers(0, 4).map(float), max_size=5)


@settings(max_examples=30)
@given(st.lists(durations, min_size=1, max_size=4))
def test_it_is_as_if_one_process_had_counted_everything(workers: list[list[float]]) -> None:
    together = merge(counted(*worker) for worker in workers)
    alone = counted(*(duration for worker in workers for duration in worker))
    for family in ("tasks", "work_seconds"):
        assert together[family].samples == alone[family].samples


def test_gauges_are_added_up_or_the_largest_or_the_smallest() -> None:
    together = merge([counted(gauge=3), counted(gauge=5)])
    assert [one(together, name) for name in ("length", "age_seconds", "depth")] == [8, 5, 3]


def test_who_does_not_know_says_nothing() -> None:
    together = merge([counted(gauge=math.nan), counted(gauge=5), counted(gauge=math.nan)])
    assert [one(together, name) for name in ("length", "age_seconds", "depth")] == [5, 5, 5]


def test_facts_about_processes() -> None:
    snapshot = counted()
    together = merge([snapshot, snapshot])
    for name in ("process_max_fds", "process_start_time_seconds"):
        assert one(together, name) == one(snapshot, name)
    assert one(together, "python_info") == 1
    assert one(together, "process_open_fds") == 2 * one(snapshot, "process_open_fds")


def test_of_a_process_that_has_ended_only_stays_what_it_had_counted() -> None:
    left = without_gauges(counted(1, gauge=7))
    assert one(left, "tasks", "tasks_total") == 1
    assert not left.keys() & {"length", "age_seconds", "process_resident_memory_bytes", "python_info"}


def test_what_travels_arrives() -> None:
    snapshot = counted(0.5, 7, gauge=2)
    assert decode(encode(snapshot)) == snapshot


def test_a_value_that_nobody_knows_travels_too() -> None:
    family = Family("lag", "Lag.", "gauge", AcrossWorkers.MAX, {("lag", (("server", "a"),)): math.nan})
    (value,) = decode(encode({"lag": family}))["lag"].samples.values()
    assert math.isnan(value)


def test_prometheus_reads_what_is_written() -> None:
    content, media_type = render(merge([counted(0.5), counted(1.5, 9)]))
    assert media_type.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(content.decode())}
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for sample in families["work_seconds"].samples
        if sample.labels["kind"] == "a"
    }
    assert samples["work_seconds_bucket", "1.0"] == 1
    assert samples["work_seconds_bucket", "+Inf"] == 3
    assert samples["work_seconds_sum", None] == 11
    assert not any(name.endswith("_created") for name in families)


def test_openmetrics_for_who_prefers_it() -> None:
    content, media_type = render(counted(), "application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert media_type.startswith("application/openmetrics-text")
    assert content.endswith(b"# EOF\n")
