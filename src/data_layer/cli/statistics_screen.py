"""The statistics as one screen: each part in a few named lines, what matters first, what is unusual in colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from data_layer.cli.output import console, counted, plain, size
from data_layer.schemas.statistics import DatabaseStatistics, FileStatistics, FileUsage

if TYPE_CHECKING:
    from data_layer.cache.statistics import CacheStatistics
    from data_layer.services.statistics import Statistics

_WARNING = "yellow"
_MANY_CONNECTIONS = 0.8
_LONG_TRANSACTION_SECONDS = 60
_LARGE_LAG = 64 * 1024**2
_LITTLE_SPACE = 1024**3


@dataclass(frozen=True, slots=True)
class Fact:
    """One line: a name, a value, and how it is shown."""

    name: str
    value: str
    style: str = ""


def facts_of_database(now: DatabaseStatistics, last: Statistics | None, taken_at: datetime) -> Iterator[Fact]:
    """The server, its connections, what it does, and who follows it."""
    standby = ", a standby" if now.is_standby else ""
    yield Fact("Server", f"{now.server}{standby}, running for {_duration((taken_at - now.started_at).total_seconds())}")
    yield Fact("Size", _noted(now, "size") if now.size is None else size(now.size))
    yield from _connections(now)
    yield Fact("Hit rate", "no reads yet" if now.hit_rate is None else f"{now.hit_rate:.1%} of blocks from memory")
    yield _transactions(now, last, taken_at)
    yield from _followers(now)
    for name, reason in now.notes.items():
        if name != "size":
            yield Fact(name.replace("_", " ").capitalize(), reason, "dim")


def _connections(now: DatabaseStatistics) -> Iterator[Fact]:
    share = now.server_connections / now.connection_limit
    states = ", ".join(f"{count} {state}" for state, count in now.connections_by_state.items())
    yield Fact(
        "Connections",
        f"{now.server_connections} of {now.connection_limit}; here {states}",
        _WARNING if share > _MANY_CONNECTIONS else "",
    )
    if now.waiting_for_locks:
        yield Fact("Waiting", f"{counted(now.waiting_for_locks, 'connection')} for a lock", _WARNING)
    longest = now.longest_transaction_seconds
    if longest is not None and longest >= 1:
        style = _WARNING if longest > _LONG_TRANSACTION_SECONDS else ""
        yield Fact("Transaction", f"the oldest one is open for {_duration(longest)}", style)


def _transactions(now: DatabaseStatistics, last: Statistics | None, taken_at: datetime) -> Fact:
    text = f"{now.commits:,} committed, {now.rollbacks:,} rolled back, {counted(now.deadlocks, 'deadlock')}"
    before = last.database if last is not None else None
    if last is not None and before is not None and now.commits >= before.commits:
        text += f"; now {(now.commits - before.commits) / _between(last, taken_at):,.1f}/s"
    return Fact("Transactions", text)


def _followers(now: DatabaseStatistics) -> Iterator[Fact]:
    for replica in now.replicas:
        lag = "does not answer" if replica.lag_seconds is None else f"{replica.lag_seconds:.1f} s behind at most"
        text = f"{replica.address}: {'read from' if replica.is_used else 'left out'}, {lag}"
        yield Fact("Replica", text, "" if replica.is_used else _WARNING)
    for standby in now.standbys or ():
        lag = "lag unknown" if standby.lag_size is None else f"{size(standby.lag_size)} behind"
        seconds = "" if standby.lag_seconds is None else f" ({standby.lag_seconds:.1f} s)"
        text = f"{standby.name or 'hidden'}: {standby.state or 'hidden'}, {standby.synchronous or 'hidden'}, {lag}"
        yield Fact("Standby", text + seconds, _WARNING if (standby.lag_size or 0) > _LARGE_LAG else "")
    for slot in now.slots or ():
        if not slot.is_active:
            kept = size(slot.kept_size) if slot.kept_size is not None else "unknown"
            yield Fact("Slot", f"{slot.name}: nobody reads it, log kept for it: {kept}", _WARNING)


def facts_of_cache(now: CacheStatistics, last: Statistics | None, taken_at: datetime) -> Iterator[Fact]:
    """The servers; and this process, once it has read something."""
    running = _duration(now.server_uptime_seconds)
    yield Fact("Server", f"{now.server}, {now.topology}, running for {running}")
    share = now.server_memory_used / now.server_memory_limit if now.server_memory_limit else 0.0
    memory = f"{size(now.server_memory_used)} of {size(now.server_memory_limit)}"
    yield Fact("Memory", memory, _WARNING if share > _MANY_CONNECTIONS else "")
    yield Fact("Clients", f"{now.server_clients:,}")
    reads = f"{_rate(now.server_hit_rate)}; {now.server_hits:,} found, {now.server_misses:,} missed"
    before = last.cache if last is not None else None
    if last is not None and before is not None:
        hits, misses = now.server_hits - before.server_hits, now.server_misses - before.server_misses
        if hits >= 0 and misses >= 0:
            reads += f"; now {(hits + misses) / _between(last, taken_at):,.1f}/s"
    yield Fact("Hit rate", reads)
    if now.hit_rate is not None:
        yield Fact(
            "This process", f"{now.hit_rate:.1%}; {now.near.hits:,} near, {now.hits:,} far, {now.misses:,} missed"
        )
    evicted = f"{now.server_expired_keys:,} expired, {now.server_evicted_keys:,} evicted for lack of memory"
    yield Fact("Keys removed", evicted, _WARNING if now.server_evicted_keys else "")
    yield Fact("Keys of ours", f"{now.keys:,}" if now.keys_complete else f"more than {now.keys:,}")
    for server in now.servers:
        if server.error is not None:
            yield Fact("Failed", f"{server.name}: {server.error}", "red")


def facts_of_storage(now: FileStatistics) -> Iterator[Fact]:
    """The backend, and how much there is."""
    about = "≈ " if now.is_estimate else ""
    yield Fact("Backend", now.backend)
    if now.file_count is not None:
        estimate = ", estimated from a sample" if now.is_estimate else ""
        yield Fact("Objects", f"{about}{now.file_count:,} recorded, {about}{size(now.total_size)}{estimate}")
    unfinished = [usage for usage in now.by_state if usage.name != "stored"]
    if unfinished:
        yield Fact("Unfinished", ", ".join(f"{about}{usage.count:,} {usage.name}" for usage in unfinished))
    if now.free_size is not None:
        yield Fact("Free", size(now.free_size), _WARNING if now.free_size < _LITTLE_SPACE else "")
    for name, reason in now.notes.items():
        yield Fact(name.replace("_", " ").capitalize(), reason, "dim")


def _noted(now: DatabaseStatistics, name: str) -> str:
    return now.notes.get(name, "unknown")


def _between(last: Statistics, taken_at: datetime) -> float:
    return max((taken_at - last.taken_at).total_seconds(), 0.001)


def _rate(share: float | None) -> str:
    return "no reads yet" if share is None else f"{share:.1%}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))


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
