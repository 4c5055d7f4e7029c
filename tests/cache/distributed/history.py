"""What the processes did, one line for each event, and the checker of it.

All times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

BOUND = 1.0
"""Seconds after which nobody may read what was replaced."""


@dataclass(frozen=True, slots=True)
class Event:
    """A write that was acknowledged at ``ended``, or a read that gave ``version``.

    ``kind`` is write, read (through the cache), get (from the cache alone), fresh (past the cache, which is filled) or
    database (what shows the others what they should have seen).
    """

    process: str
    kind: str
    row: int
    version: int
    began: float
    ended: float


class Recorder:
    """Appends events to the file of one process, each with one system call, so that a kill loses nothing before it."""

    def __init__(self, folder: Path) -> None:
        self._process = str(os.getpid())
        self._file = os.open(folder / self._process, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, kind: str, row: int, version: int, began: float, ended: float) -> None:
        os.write(self._file, f"{self._process} {kind} {row} {version} {began!r} {ended!r}\n".encode())


def read_events(folder: Path) -> list[Event]:
    """The events of all processes, by their beginning."""
    events = []
    for file in folder.iterdir():
        for line in file.read_text().splitlines():
            process, kind, row, version, began, ended = line.split()
            events.append(Event(process, kind, int(row), int(version), float(began), float(ended)))
    return sorted(events, key=lambda event: event.began)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history shows. ``stalest`` is for how many seconds the worst read was out of date when it began."""

    events: int
    reads: int
    writes: int
    stale_reads: int
    stalest: float
    violations: list[str] = field(default_factory=list)


class _Versions:
    """The newest version of a row that was known at a time."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._newest: list[int] = []

    def add(self, time: float, version: int) -> None:
        """In the order of time."""
        if not self._newest or version > self._newest[-1]:
            self._times.append(time)
            self._newest.append(version)

    def newest_at(self, time: float) -> int:
        position = bisect_right(self._times, time)
        return self._newest[position - 1] if position else 0

    def outdated_since(self, version: int) -> float | None:
        """When a newer version than this became known."""
        position = bisect_right(self._newest, version)
        return self._times[position] if position < len(self._times) else None


def check(events: Iterable[Event], bound: float = BOUND) -> Verdict:
    """Looks for reads that are older than what was known, to anybody, more than ``bound`` seconds before they began.

    A version is known when its write was acknowledged, and also when somebody has read it: then it is committed,
    even if its writer died. What a process itself has had acknowledged, and what was known to anybody when a fresh
    read began, it has to see at once.
    """
    events = list(events)
    known: dict[int, _Versions] = defaultdict(_Versions)
    own: dict[tuple[str, int], _Versions] = defaultdict(_Versions)
    for event in sorted(events, key=lambda event: event.ended):
        known[event.row].add(event.ended, event.version)
        if event.kind == "write":
            own[event.process, event.row].add(event.ended, event.version)
    reads = [event for event in events if event.kind != "write"]
    violations, stale, stalest = [], 0, 0.0
    for read in reads:
        since = known[read.row].outdated_since(read.version)
        if since is not None and since <= read.began:
            stale += 1
            stalest = max(stalest, read.began - since)
        patience = 0.0 if read.kind in {"fresh", "database"} else bound
        expected = max(
            known[read.row].newest_at(read.began - patience), own[read.process, read.row].newest_at(read.began)
        )
        if read.version < expected:
            violations.append(f"{read} should have seen at least version {expected}")
    return Verdict(len(events), len(reads), len(events) - len(reads), stale, stalest, violations)
