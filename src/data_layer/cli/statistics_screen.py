"""The figures as one screen: what matters first, what is unusual in colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from data_layer.cli.output import console, plain, size
from data_layer.cli.statistics_facts import Fact, facts_of_cache, facts_of_database, facts_of_storage
from data_layer.schemas.statistics import DatabaseStatistics, FileUsage

if TYPE_CHECKING:
    from data_layer.services.statistics import Statistics

_WIDE = 132
_MOST_ROWS = 20
_LEAST_ROWS = 5
_ROWS_BESIDE, _ROWS_ABOVE = 12, 34  # Of titles, and of the facts in a narrow terminal.
_NAME_WIDTH = 13
_GAP = Text("")


class Screen:
    """Renders one look after the other, and what happened per second between them.

    Args:
        seconds: between two looks, if there are several.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._last: Statistics | None = None

    def print(self, figures: Statistics) -> None:
        """Print below what was printed before."""
        with console.capture() as capture:
            console.print(self.render(figures))
        # Rich fills the last column with blanks.
        text = "\n".join(line.rstrip() for line in capture.get().split("\n"))
        console.file.write(text)
        console.file.flush()

    def render(self, figures: Statistics) -> RenderableType:
        """One screen for the present size of the terminal."""
        last, self._last = self._last, figures
        is_wide = console.is_terminal and console.width >= _WIDE
        rows = self._rows(is_wide=is_wide)
        summary = _joined([*self._head(figures), *_summary(figures, last)])
        details = _joined(_details(figures, rows))
        if not is_wide:
            return Group(summary, _GAP, details) if details.renderables else summary
        grid = Table.grid(padding=(0, 3, 0, 0))
        grid.add_column(width=console.width // 2 - 3)
        grid.add_column(width=console.width - console.width // 2 - 3)
        grid.add_row(summary, details)
        return grid

    def _rows(self, *, is_wide: bool) -> int:
        """How many rows of a list there is room for; what is printed once may be longer than the screen."""
        if self._seconds is None:
            return _MOST_ROWS
        free = console.height - (_ROWS_BESIDE if is_wide else _ROWS_ABOVE)
        return max(_LEAST_ROWS, min(free // 2, _MOST_ROWS))

    def _head(self, figures: Statistics) -> list[RenderableType]:
        if self._seconds is None:
            return []
        moment = f"{figures.taken_at:%Y-%m-%d %H:%M:%S} UTC"
        head = Text.assemble(("data-layer stats", "bold"), f"  {moment}  every {self._seconds:g} s, Ctrl-C ends")
        problems = [Text(plain(f"{name}: {reason}"), style="red") for name, reason in figures.errors.items()]
        return [head, *problems]


def _summary(figures: Statistics, last: Statistics | None) -> Iterable[RenderableType]:
    if figures.database is not None:
        facts = facts_of_database(figures.database, last, figures.taken_at)
        yield _section(f"Database {figures.database.name}", facts)
    if figures.cache is not None:
        yield _section("Cache", facts_of_cache(figures.cache, last, figures.taken_at))
    if figures.storage is not None:
        yield _section("Storage", facts_of_storage(figures.storage))


def _details(figures: Statistics, rows: int) -> Iterable[RenderableType]:
    database, storage = figures.database, figures.storage
    if database is not None:
        yield from _tables(database, rows)
    if storage is not None:
        about = "≈ " if storage.is_estimate else ""
        for title, usages in (("Files by type", storage.by_type), ("Files by owner", storage.by_owner)):
            if usages:
                yield _usage(title, usages[: max(3, rows // 2)], about)
    if database is not None:
        yield from _statements(database, rows)
        yield from _unused_indexes(database, rows)


def _tables(database: DatabaseStatistics, rows: int) -> Iterable[RenderableType]:
    if not database.tables:
        return
    table = _table(("Name", "Rows ≈", "Dead", "Size", "Indexes", "Vacuumed"), right=5)
    largest = sorted(database.tables, key=lambda each: -(each.size + each.index_size))
    for each in largest[:rows]:
        share = each.dead_rows / max(each.rows + each.dead_rows, 1)
        is_bad = share > 0.2 and each.dead_rows > 1000
        table.add_row(
            Text(plain(each.name)),
            f"{each.rows:,}",
            Text(f"{share:.0%}", style="yellow" if is_bad else ""),
            size(each.size),
            size(each.index_size),
            _ago(each.vacuumed_at),
        )
    yield _titled("Tables", table, len(largest) - rows)


def _statements(database: DatabaseStatistics, rows: int) -> Iterable[RenderableType]:
    if not database.statements:
        return
    table = _table(("Calls", "Mean", "Longest", "Total", "Statement"), right=4, first_right=True)
    table.columns[-1].no_wrap, table.columns[-1].overflow = True, "ellipsis"
    shown = database.statements[: max(3, rows // 2)]
    for each in shown:
        table.add_row(
            f"{each.calls:,}",
            _milliseconds(each.mean_ms),
            _milliseconds(each.maximum_ms),
            str(timedelta(seconds=round(each.total_ms / 1000))),
            Text(plain(each.statement[:200])),
        )
    yield _titled("Statements that took the most time", table)


def _unused_indexes(database: DatabaseStatistics, rows: int) -> Iterable[RenderableType]:
    if not database.unused_indexes:
        return
    table = _table(("Name", "Table", "Size"), right=1)
    limit = max(3, rows // 2)
    for each in database.unused_indexes[:limit]:
        table.add_row(Text(plain(each.name)), Text(plain(each.table)), size(each.size))
    since = f" since {database.counted_since:%Y-%m-%d}" if database.counted_since else ""
    yield _titled(f"Indexes not used on this server{since}", table, len(database.unused_indexes) - limit)


def _usage(title: str, usages: Sequence[FileUsage], about: str) -> RenderableType:
    table = _table(("Name", "Objects", "Size"), right=2)
    for usage in usages:
        table.add_row(Text(plain(usage.name)), f"{about}{usage.count:,}", f"{about}{size(usage.stored_size)}")
    return _titled(title, table)


def _table(columns: Sequence[str], *, right: int, first_right: bool = False) -> Table:
    """A table of which all columns but the first, or but the last, stand on the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        is_right = number < right if first_right else number >= len(columns) - right
        table.add_column(column, justify="right" if is_right else "left", overflow="fold")
    return table


def _titled(title: str, table: Table, further: int = 0) -> RenderableType:
    more = [Text(f"… and {further} more", style="dim")] if further > 0 else []
    return Group(Text(plain(title), style="bold"), table, *more)


def _section(title: str, facts: Iterable[Fact]) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True, min_width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(fact.name, Text(plain(fact.value), style=fact.style))
    return Group(Text(plain(title), style="bold"), table)


def _joined(blocks: Iterable[RenderableType]) -> Group:
    parts: list[RenderableType] = []
    for block in blocks:
        parts += [_GAP, block] if parts else [block]
    return Group(*parts)


def _ago(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    seconds = max(0, round((datetime.now(UTC) - moment).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def _milliseconds(duration: float) -> str:
    return f"{duration:,.1f} ms" if duration < 1000 else f"{duration / 1000:,.1f} s"
