"""Charts as shapes of SVG, whose colours are in the style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from data_layer.schemas.statistics import FigureSample
from data_layer.schemas.usage import UsageSum

WIDTH = 720
HEIGHT = 180
_TOP = 1
SPARK_WIDTH = 100
SPARK_HEIGHT = 24
_LONGEST_STEP = timedelta(seconds=90)
"""Samples that are farther apart are not connected: nobody knows what was between them."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    day: date
    value: Decimal


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars of days, the first one on the left; ``highest`` is the value at the top."""

    bars: tuple[Bar, ...]
    highest: Decimal
    width: int = WIDTH
    height: int = HEIGHT


def bars_of_days(values: Mapping[date, Decimal], last: date, days: int) -> BarChart:
    """A bar for each day up to the last one; days without a value have none."""
    first = last - timedelta(days=days - 1)
    every = [first + timedelta(days=number) for number in range(days)]
    highest = max((values.get(day, Decimal(0)) for day in every), default=Decimal(0))
    step = WIDTH / days
    room = HEIGHT - _TOP
    bars = []
    for number, day in enumerate(every):
        value = values.get(day, Decimal(0))
        height = float(value / highest) * room if highest else 0.0
        if value and height < 2:
            height = 2.0
        bars.append(
            Bar(
                round(number * step + step * 0.14, 1),
                round(HEIGHT - height, 1),
                round(step * 0.72, 1),
                round(height, 1),
                day,
                value,
            )
        )
    return BarChart(tuple(bars), highest)


@dataclass(frozen=True, slots=True)
class CostsOfDays:
    """What the days of one currency have cost: a chart, and all of them together."""

    chart: BarChart
    total: Decimal


def costs_of_days(sums: Sequence[UsageSum], last: date, days: int) -> dict[str, CostsOfDays]:
    """The costs of each currency.

    Args:
        sums: usage by day.
        last: the last day.
        days: how many there are.
    """
    costs = {}
    for currency in sorted({each.currency for each in sums}):
        by_day = {each.day: each.cost for each in sums if each.currency == currency and each.day is not None}
        costs[currency] = CostsOfDays(bars_of_days(by_day, last, days), sum(by_day.values(), Decimal(0)))
    return costs


def shares_of(values: Sequence[tuple[str, int]], most: int = 8) -> list[tuple[str, int, float]]:
    """Names with their values, and each value as a share of the largest one, in percent."""
    ordered = sorted(values, key=lambda each: -each[1])[:most]
    largest = max((value for _, value in ordered), default=0) or 1
    return [(name, value, round(value * 100 / largest, 1)) for name, value in ordered]


@dataclass(frozen=True, slots=True)
class Line:
    """A figure over time as paths of SVG, the latest moment on the right; where it was not measured there is a gap."""

    line: str
    area: str
    lowest: float | None
    highest: float | None
    width: int = SPARK_WIDTH
    height: int = SPARK_HEIGHT


Point = tuple[datetime, float | None]


def line_of(points: Iterable[Point], since: datetime, until: datetime) -> Line:
    """The line of a figure between two moments."""
    runs = list(_runs(points))
    values = [value for run in runs for _, value in run]
    if not values:
        return Line("", "", None, None)
    lowest, highest = min(values), max(values)
    length, room = until - since, SPARK_HEIGHT - 2

    def place(moment: datetime, value: float) -> tuple[float, float]:
        x = SPARK_WIDTH * ((moment - since) / length)
        y = SPARK_HEIGHT - 1 - room * (value - lowest) / (highest - lowest) if highest > lowest else SPARK_HEIGHT / 2
        return round(x, 2), round(y, 2)

    lines, areas = [], []
    for run in runs:
        places = [place(moment, value) for moment, value in run]
        corners = "L".join(f"{x},{y}" for x, y in places)
        # One sample alone is a dot, by the round ends that lines have.
        lines.append(f"M{corners}" if len(places) > 1 else f"M{corners}h0.01")
        areas.append(f"M{places[0][0]},{SPARK_HEIGHT}L{corners}L{places[-1][0]},{SPARK_HEIGHT}Z")
    return Line("".join(lines), "".join(areas), lowest, highest)


def _runs(points: Iterable[Point]) -> Iterator[list[tuple[datetime, float]]]:
    """The points that belong together, without what was not measured."""
    run: list[tuple[datetime, float]] = []
    for moment, value in points:
        if run and (value is None or moment - run[-1][0] > _LONGEST_STEP):
            yield run
            run = []
        if value is not None:
            run.append((moment, float(value)))
    if run:
        yield run


LINES = (
    "database_size",
    "connections",
    "block_hit_rate",
    "waiting_for_locks",
    "cache_size",
    "cache_hit_rate",
    "keys",
    "near_size",
    "latency_ms",
    "stored_size",
    "file_count",
    "free_size",
)
"""The figures that are drawn as they are; commits count up, and are drawn as a rate."""


def lines_of(samples: Sequence[FigureSample], since: datetime, until: datetime) -> dict[str, Line]:
    """The lines of all figures between two moments, by their names."""
    lines = {name: line_of(((each.taken_at, getattr(each, name)) for each in samples), since, until) for name in LINES}
    rates = ((sample.taken_at, rate) for sample, rate in commit_rates(samples))
    return lines | {"commit_rate": line_of(rates, since, until)}


def commit_rates(samples: Sequence[FigureSample]) -> Iterator[tuple[FigureSample, float | None]]:
    """Each sample but the first one, and the commits in a second since the one before; None where it is not known."""
    for before, sample in pairwise(samples):
        seconds = (sample.taken_at - before.taken_at).total_seconds()
        if before.commits is None or sample.commits is None or not seconds or sample.commits < before.commits:
            yield sample, None
        else:
            yield sample, (sample.commits - before.commits) / seconds


def each_minute(samples: Sequence[FigureSample]) -> list[tuple[FigureSample, float | None]]:
    """The last sample of each minute with its commits in a second, the newest first."""
    minutes = {
        sample.taken_at.replace(second=0, microsecond=0): (sample, rate) for sample, rate in commit_rates(samples)
    }
    return [minutes[minute] for minute in sorted(minutes, reverse=True)]
