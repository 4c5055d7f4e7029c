"""Charts as shapes of SVG, whose colours are in the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from data_layer.schemas.usage import UsageSum

WIDTH = 720
HEIGHT = 180
_TOP = 1


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
