"""Each part in a few named lines; what somebody should look at has a colour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from data_layer.cli.output import counted, size
from data_layer.schemas.statistics import DatabaseStatistics, FileStatistics

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
