"""Entries that belong to no transaction: collected in memory, written many at once, kept on disk when that fails.

An entry is either written, or on disk, or counted as lost. Losing happens when memory and disk are both full, and to
what was still in memory (the last ``AUDIT_FLUSH_INTERVAL``) when the process is killed. Entries are written again
after a doubtful end; their ids keep that from making two of one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from data_layer.concurrency import Backoff, cancel_and_wait, is_set_within
from data_layer.database.engine import Database
from data_layer.durability import sync_folder
from data_layer.errors import ConflictError, DatabaseError, DataLayerError, InvalidValueError
from data_layer.observability.log import get_log
from data_layer.repositories.audit_rows import Row, copy_rows, insert_lines, line_of, without_user
from data_layer.schemas.audit import AuditBufferStatistics

log = get_log(__name__)

_ENOUGH = 2_000
"""Entries that are written before the interval has passed."""
_BATCH = 5_000
"""Entries that are written at once: each COPY is a commit, and a server that is slow still takes so many in time."""
_REPLAYED_AT_ONCE = 500
_WRITE_SECONDS = 5.0
_CLOSE_SECONDS = 3.0
# After an outage of any length everything is written within five seconds; a look at a dead server costs little.
_SHORTEST_REST, _LONGEST_REST = 1.0, 4.0
_REST_OF_REPLAYS = 30.0
_REFUSED = (ConflictError, InvalidValueError)
"""What the database will never take, however often it is tried."""


class AuditBuffer:
    """Takes entries at once and writes them soon.

    Args:
        database: where to.
        spill: the folder for what cannot be written.
        capacity: entries that may wait in memory.
        interval: seconds after which even a few are written.
    """

    def __init__(self, database: Database, spill: SpillFolder, *, capacity: int, interval: float) -> None:
        self._database = database
        self._spill = spill
        self._capacity = capacity
        self._interval = interval
        self._rows: deque[Row] = deque()
        self._in_flight: list[Row] = []
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._rests_until = 0.0
        self._replays_after = 0.0
        self._pauses = Backoff(_SHORTEST_REST, _LONGEST_REST)
        self._counts = dict.fromkeys(("recorded", "written", "spilled", "replayed", "rejected", "lost"), 0)
        self._lost_and_told = 0
        self._unreadable: set[Path] = set()

    def start(self) -> None:
        """Begin to write in the background."""
        self._task = asyncio.create_task(self._run(), name="audit-buffer")

    def add(self, row: Row) -> None:
        """Take an entry. It neither waits nor fails; an entry that does not fit is counted as lost."""
        self._counts["recorded"] += 1
        if self._is_closed or len(self._rows) + len(self._in_flight) >= self._capacity:
            self._counts["lost"] += 1
            return
        self._rows.append(row)
        if len(self._rows) >= _ENOUGH and not self._wake.is_set():
            self._wake.set()

    async def flush(self) -> None:
        """Return when everything recorded so far is written, or on disk."""
        async with self._writing:
            while self._rows:
                self._in_flight = [self._rows.popleft() for _ in range(min(_BATCH, len(self._rows)))]
                await self._write_safely(self._in_flight)
                self._in_flight = []

    async def close(self) -> None:
        """Write what waits within three seconds, and keep the rest on disk."""
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.flush()
        await cancel_and_wait(self._task)
        rest = [*self._in_flight, *self._rows]
        self._in_flight, self._rows = [], deque()
        if rest:
            await self._keep(rest)
        self._tell_losses()

    def statistics(self) -> AuditBufferStatistics:
        """How many entries went which way since the start, and how many wait."""
        waiting = len(self._rows) + len(self._in_flight)
        return AuditBufferStatistics(**self._counts, waiting=waiting, bytes_on_disk=self._spill.size())

    async def _run(self) -> None:
        with suppress(OSError):
            await asyncio.to_thread(self._spill.remove_leftovers)
        while True:
            await is_set_within(self._wake, self._interval)
            self._wake.clear()
            await self.flush()
            self._tell_losses()
            await self._replay_safely()

    async def _write_safely(self, rows: Sequence[Row]) -> None:
        try:
            await self._write(rows)
        except Exception as error:  # noqa: BLE001  (whatever it is: recording must go on)
            log.warning("audit_flush_failed", reason=f"{type(error).__name__}: {error}")
            await self._keep(rows)

    async def _replay_safely(self) -> None:
        if time.monotonic() < self._replays_after:
            return
        try:
            await self._replay()
        except Exception as error:  # noqa: BLE001  (whatever it is: recording must go on)
            log.warning("audit_replay_failed", reason=f"{type(error).__name__}: {error}")
            self._replays_after = time.monotonic() + _REST_OF_REPLAYS

    async def _write(self, rows: Sequence[Row]) -> None:
        if self._rests:
            await self._keep(rows)
            return
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await copy_rows(self._database, rows)
        except _REFUSED:
            # One bad entry makes PostgreSQL refuse all of them: it is looked for among the others.
            rejected = await self._insert([line_of(row) for row in rows])
            self._count("written", len(rows) - rejected)
        except (DataLayerError, TimeoutError, OSError) as error:
            self._begin_rest(error)
            await self._keep(rows)
        else:
            self._pauses.reset()
            self._count("written", len(rows))

    async def _keep(self, rows: Sequence[Row]) -> None:
        try:
            kept = await asyncio.to_thread(lambda: self._spill.keep(rows[0][0], [line_of(row) for row in rows]))
        except Exception as error:  # noqa: BLE001  (the disk refuses, or an entry cannot be written at all)
            log.warning("audit_spill_failed", reason=f"{type(error).__name__}: {error}")
            kept = False
        self._count("spilled" if kept else "lost", len(rows))

    async def _replay(self) -> None:
        """Write what is on disk, oldest first, for as long as the database takes it."""
        for path in await asyncio.to_thread(self._spill.waiting):
            if self._rests:
                return
            claim = await self._claim(path)
            if claim is None:
                continue
            try:
                async with asyncio.timeout(_WRITE_SECONDS * (1 + len(claim.lines) // _BATCH)):
                    rejected = await self._insert(claim.lines)
                await asyncio.to_thread(claim.finish)
                self._count("replayed", len(claim.lines) - rejected)
                log.info("audit_entries_replayed", count=len(claim.lines))
            except (DataLayerError, TimeoutError) as error:
                self._begin_rest(error)
            finally:
                claim.close()
            if self._wake.is_set():  # What is new comes first; of what is old at least one file has had its turn.
                return

    async def _claim(self, path: Path) -> Claim | None:
        """Take a file over; one that cannot be read, which is reported once, keeps no other from being written."""
        try:
            return await asyncio.to_thread(self._spill.claim, path)
        except OSError as error:
            if path not in self._unreadable:
                self._unreadable.add(path)
                log.warning("audit_spill_unreadable", file=str(path), reason=f"{type(error).__name__}: {error}")
            return None

    async def _insert(self, lines: Sequence[bytes]) -> int:
        """Write entries that may be there already; how many of them the database will never take."""
        rejected = 0
        for start in range(0, len(lines), _REPLAYED_AT_ONCE):
            rejected += await self._insert_or_divide(lines[start : start + _REPLAYED_AT_ONCE])
        return rejected

    async def _insert_or_divide(self, lines: Sequence[bytes]) -> int:
        try:
            await insert_lines(self._database, lines)
        except _REFUSED as error:
            if len(lines) == 1:
                return await self._insert_without_user(lines[0], error)
            middle = len(lines) // 2
            return await self._insert_or_divide(lines[:middle]) + await self._insert_or_divide(lines[middle:])
        return 0

    async def _insert_without_user(self, line: bytes, reason: DataLayerError) -> int:
        """An entry may name a user whose own transaction was rolled back in the end; it counts all the same."""
        anonymous = without_user(line)
        if anonymous is not None:
            with suppress(*_REFUSED):
                await insert_lines(self._database, [anonymous])
                return 0
        log.warning("audit_entry_rejected", reason=str(reason))
        with suppress(OSError):
            await asyncio.to_thread(self._spill.reject, line)
        self._count("rejected", 1)
        return 1

    @property
    def _rests(self) -> bool:
        """Whether the database has just failed, so that asking it again would only keep everybody waiting."""
        return time.monotonic() < self._rests_until

    def _begin_rest(self, error: Exception) -> None:
        rest = self._pauses.next()
        code = error.code if isinstance(error, DatabaseError) else type(error).__name__
        log.warning("audit_write_failed", code=code, reason=str(error), retry_seconds=rest)
        self._rests_until = time.monotonic() + rest

    def _count(self, name: str, amount: int) -> None:
        self._counts[name] += amount

    def _tell_losses(self) -> None:
        lost = self._counts["lost"] - self._lost_and_told
        if lost:
            self._lost_and_told += lost
            log.error("audit_entries_lost", count=lost)


_SUFFIX = ".jsonl"
_PARTIAL = ".partial"
_REJECTED = "rejected.ndjson"
_LEFTOVER_SECONDS = 3600
_numbers = count()


class Claim:
    """A file that this process alone works on, until ``close``."""

    def __init__(self, path: Path, file: BinaryIO, lines: list[bytes]) -> None:
        self._path = path
        self._file = file
        self.lines = lines

    def finish(self) -> None:
        """Remove the file: all its entries were written."""
        self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)

    def close(self) -> None:
        """Let others have it."""
        self._file.close()


class SpillFolder:
    """A folder of entries that wait. All methods block; call them in a thread.

    Args:
        folder: made when it is first needed, for the owner alone.
        limit: the largest size of all files together, in bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def keep(self, name: str, lines: Sequence[bytes]) -> bool:
        """Store entries; ``False`` when they do not fit under the limit.

        Args:
            name: sorts by time, such as the id of the first entry.
            lines: one entry each.

        Raises:
            OSError: when the disk refuses; nothing was stored then.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.size() + sum(map(len, lines)) + len(lines) > self._limit:
            return False
        path = self._folder / f"{name}-{os.getpid()}-{next(_numbers)}{_SUFFIX}"
        partial = path.with_suffix(_PARTIAL)
        try:
            self._write(partial, lines)
            partial.rename(path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)
        return True

    def reject(self, line: bytes) -> None:
        """Keep an entry that the database will never take, for people to look at; under the same limit."""
        if self.size() + len(line) <= self._limit:
            self._append(self._folder / _REJECTED, line)

    def waiting(self) -> list[Path]:
        """The files, oldest first."""
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)
        except FileNotFoundError:
            return []

    def size(self) -> int:
        """The size of all files, in bytes."""
        total = 0
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total

    def claim(self, path: Path) -> Claim | None:
        """Take a file over, unless another process works on it or has finished it."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another one may have finished it between opening and locking.
            if path.exists():
                return Claim(path, file, file.read().splitlines())
        except BlockingIOError:
            pass
        file.close()
        return None

    def remove_leftovers(self) -> None:
        """Remove what processes left that died while they wrote a file: its entries were never promised."""
        oldest = time.time() - _LEFTOVER_SECONDS
        with suppress(FileNotFoundError):
            for path in self._folder.glob(f"*{_PARTIAL}"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()

    def _write(self, path: Path, lines: Sequence[bytes]) -> None:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def _append(self, path: Path, line: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(line + b"\n")
