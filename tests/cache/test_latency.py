from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from data_layer.cache.statistics import new_latencies


def test_nothing_is_known_before_the_first_one() -> None:
    assert new_latencies().quantile(0.5) is None


@given(st.lists(st.floats(2e-6, 100), min_size=1), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_known_to_a_tenth(durations: list[float], share: float) -> None:
    histogram = new_latencies()
    for duration in durations:
        histogram.note(duration)
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    found = histogram.quantile(share)
    assert found is not None
    assert 0.9 < found / exact < 1.1


def test_what_is_out_of_range_is_noted_at_its_end() -> None:
    histogram = new_latencies()
    for duration in (0.0, -1.0, 1e9):
        histogram.note(duration)
    low, high = histogram.quantile(0.5), histogram.quantile(1)
    assert low is not None
    assert high is not None
    assert low < 2e-6
    assert high > 500
