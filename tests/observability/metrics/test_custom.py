"""Metrics of an application's own: names that Prometheus likes, and series that are known beforehand."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from threading import Thread
from typing import Any

import pytest

from data_layer.entities.enums import CodeStack
from data_layer.errors import InvalidValueError
from data_layer.observability.metrics.registry import MOST_CUSTOM_METRICS, Metrics
from data_layer.observability.metrics.snapshots import AcrossWorkers


def values(metrics: Metrics, family: str) -> dict[tuple[str, ...], float]:
    """The samples of a family, by what is left of their names and the values of their labels."""
    return {
        (name.removeprefix(family), *(value for _, value in labels)): value
        for (name, labels), value in metrics.snapshot()[family].samples.items()
    }


def test_a_counter_counts_by_its_labels_from_nought() -> None:
    metrics = Metrics()
    rendered = metrics.counter("pages_rendered", "Pages drawn.", {"engine": ("chromium", "webkit")})
    rendered.inc(engine="webkit")
    rendered.inc(2, engine="webkit")
    assert values(metrics, "pages_rendered") == {
        ("_total", "chromium"): 0,
        ("_total", "webkit"): 3,
        ("_total", "other"): 0,
    }


def test_a_gauge_and_a_histogram_measure() -> None:
    metrics = Metrics()
    open_editors = metrics.gauge("open_editors", "Editors that are open.")
    open_editors.set(4)
    open_editors.inc(-1)
    size = metrics.histogram("prompt_bytes", "Size of prompts.", limits=(100, 1000))
    size.observe(100)
    size.observe(5000)
    with metrics.histogram("render_seconds", "Time to draw.").time():
        pass
    assert values(metrics, "open_editors") == {("",): 3}
    assert values(metrics, "prompt_bytes") == {
        ("_bucket", "100.0"): 1,
        ("_bucket", "1000.0"): 1,
        ("_bucket", "+Inf"): 2,
        ("_count",): 2,
        ("_sum",): 5100,
    }
    assert values(metrics, "render_seconds")["_count",] == 1


def test_labels_may_come_from_an_enumeration() -> None:
    metrics = Metrics()
    metrics.counter("codes", "Codes.", {"stack": CodeStack}).inc(stack=CodeStack.REACT_TAILWIND)
    assert values(metrics, "codes")["_total", CodeStack.REACT_TAILWIND.value] == 1


def test_values_without_end_make_no_series_and_break_nothing(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    logins = metrics.counter("logins", "Logins.", {"way": ("password",)})
    before = values(metrics, "logins").keys()
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            logins.inc(way=f"user{number}@example.com")
    assert values(metrics, "logins").keys() == before
    assert values(metrics, "logins")["_total", "other"] == 1000
    (record,) = caplog.records
    assert record.message == "metric_label_value_unknown"
    assert "user" not in str(vars(record)["event_fields"]), "what came from outside is in no log"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("PagesRendered", "lower-case"),
        ("pages-rendered", "lower-case"),
        ("", "lower-case"),
        ("pages__rendered", "lower-case"),
        ("p" * 101, "characters at most"),
        ("data_layer_pages", "belong to others"),
        ("process_pages", "belong to others"),
        ("pages_count", "belongs to Prometheus"),
        ("pages_total_sum", "belongs to Prometheus"),
        ("render_milliseconds", "measure in seconds"),
        ("render_ms", "measure in seconds"),
        ("prompt_kilobytes", "measure in bytes"),
        ("cpu_percent", "measure in ratio"),
    ],
)
def test_names_against_the_convention_are_refused(name: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        Metrics().counter(name, "What it means.")


def test_only_a_counter_may_be_a_total() -> None:
    metrics = Metrics()
    metrics.counter("pages_total", "Pages.").inc()
    assert values(metrics, "pages") == {("_total",): 1}
    with pytest.raises(InvalidValueError, match="belongs to Prometheus"):
        metrics.gauge("open_total", "Open.")
    with pytest.raises(InvalidValueError, match="belongs to Prometheus"):
        metrics.histogram("open_total", "Open.")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"le": ("a",)}, "cannot be a label"),
        ({"instance": ("a",)}, "cannot be a label"),
        ({"__name": ("a",)}, "cannot be a label"),
        ({"Way": ("a",)}, "cannot be a label"),
        ({"way": ()}, "list the values"),
        ({"way": ("",)}, "empty, too long or not printable"),
        ({"way": ("a\nb",)}, "empty, too long or not printable"),
        ({"user": map(str, range(200))}, "201 series, and 200 are allowed"),
        ({"one": map(str, range(20)), "two": map(str, range(20))}, "441 series"),
    ],
)
def test_labels_that_could_grow_are_refused(labels: Mapping[str, Any], reason: str) -> None:
    metrics = Metrics()
    with pytest.raises(InvalidValueError, match=reason):
        metrics.counter("logins", "Logins.", labels)
    assert "logins" not in metrics.snapshot()


def test_a_metric_needs_a_meaning() -> None:
    with pytest.raises(InvalidValueError, match="say what it means"):
        Metrics().counter("logins", " ")


def test_the_same_declaration_gives_the_same_metric_and_another_is_refused() -> None:
    metrics = Metrics()
    first = metrics.counter("logins", "Logins.", {"way": ("password",)})
    assert metrics.counter("logins", "Logins.", {"way": ("password",)}) is first
    for labels in ({"way": ("token",)}, {}):
        with pytest.raises(InvalidValueError, match="there is another metric logins"):
            metrics.counter("logins", "Logins.", labels)
    with pytest.raises(InvalidValueError, match="there is another metric logins"):
        metrics.gauge("logins", "Logins.")


def test_the_number_of_metrics_is_limited() -> None:
    metrics = Metrics()
    for number in range(MOST_CUSTOM_METRICS):
        metrics.counter(f"logins_of_{number}", "Logins.")
    with pytest.raises(InvalidValueError, match="use labels"):
        metrics.counter("one_more", "Logins.")


def test_wrong_use_is_told_in_terms_of_the_metric() -> None:
    metrics = Metrics()
    logins = metrics.counter("logins", "Logins.", {"way": ("password",)})
    wrong: tuple[dict[str, Any], ...] = ({}, {"who": "me"}, {"way": "password", "who": "me"})
    for labels in wrong:
        with pytest.raises(InvalidValueError, match="the metric logins has other labels: way"):
            logins.inc(**labels)
    with pytest.raises(InvalidValueError, match="logins cannot fall"):
        logins.inc(-1, way="password")
    with pytest.raises(InvalidValueError, match="growing limits"):
        metrics.histogram("render_seconds", "Time.", limits=(2, 1))


def test_several_threads_may_count() -> None:
    metrics = Metrics()
    logins = metrics.counter("logins", "Logins.", {"way": ("password",)})

    def count() -> None:
        for _ in range(1000):
            logins.inc(way="password")

    threads = [Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(metrics, "logins")["_total", "password"] == 4000


def test_a_gauge_says_what_several_processes_make_together() -> None:
    metrics = Metrics()
    metrics.gauge("queue_age_seconds", "Age of the oldest task.", across_workers=AcrossWorkers.MAX)
    metrics.gauge("queue_length", "Tasks that wait.")
    snapshot = metrics.snapshot()
    assert snapshot["queue_age_seconds"].across_workers is AcrossWorkers.MAX
    assert snapshot["queue_length"].across_workers is AcrossWorkers.SUM


def test_each_data_layer_has_metrics_of_its_own() -> None:
    one, other = Metrics(), Metrics()
    one.counter("logins", "Logins.").inc()
    assert values(other, "process_start_time_seconds")
    assert "logins" not in other.snapshot()
