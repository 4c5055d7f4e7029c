"""Families of samples as prometheus-client knows them, made from what was counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

PREFIX = "data_layer_"


def counter(name: str, documentation: str, value: float) -> Metric:
    """A counter without labels; the name ends in ``_total``."""
    return CounterMetricFamily(PREFIX + name, documentation, value=value)


def counters(name: str, documentation: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    """A counter for each tuple of values of the labels."""
    family = CounterMetricFamily(PREFIX + name, documentation, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def gauge(name: str, documentation: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(PREFIX + name, documentation, value=value)


def gauges(name: str, documentation: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    """A gauge for each tuple of values of the labels."""
    family = GaugeMetricFamily(PREFIX + name, documentation, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def histograms(
    name: str,
    documentation: str,
    labels: Sequence[str],
    values: Mapping[tuple[str, ...], tuple[Iterable[tuple[float, int]], float]],
) -> Metric:
    """A histogram for each tuple of values of the labels.

    Args:
        name: ends in the unit.
        documentation: what is measured.
        labels: names.
        values: upper limits with how many were not above them, the last one infinite; and the sum.
    """
    family = HistogramMetricFamily(PREFIX + name, documentation, labels=labels)
    for key, (cumulated, total) in values.items():
        family.add_metric(key, [(_written(limit), count) for limit, count in cumulated], total)
    return family


def _written(limit: float) -> str:
    return "+Inf" if limit == math.inf else repr(limit)


def information(name: str, documentation: str, values: Mapping[str, str]) -> Metric:
    """Facts as labels of one sample that is always 1; ``_info`` is added to the name."""
    return InfoMetricFamily(PREFIX + name, documentation, value=dict(values))
