"""Everything that is being recorded, and what waits on disk to be delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from time import monotonic, time
from typing import Any
from uuid import UUID

from starlette.types import ASGIApp

from data_layer.concurrency import cancel_and_wait, settled
from data_layer.entities.enums import UserRole
from data_layer.errors import DatabaseUnavailableError, NotInitializedError, PoolTimeoutError
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.recorder.assets import ALIVE_SECONDS, MOST_OF_A_RUN, Assets, WaitingAssets, WaitingList, named_in
from data_layer.recorder.delivery import deliver, is_transient
from data_layer.recorder.run import Run
from data_layer.recorder.spill import Entry, SpillFolder
from data_layer.recorder.tape import Tape
from data_layer.recorder.usage import CURRENT
from data_layer.schemas.actors import Actor

log = get_log(__name__)

DELIVERY_SECONDS = 2.0
_CLOSE_SECONDS = 6.0
_SETTLE_SECONDS, _SETTLE_PAUSE = 10.0, 0.05
_AWAY = (DatabaseUnavailableError, NotInitializedError, PoolTimeoutError)
"""What concerns all entries, so that the next one need not be tried."""


class Recorder:
    """Runs the tasks of the application and of the recording, which outlive the connection that began them.

    Args:
        data: records.
        folder: for what cannot be recorded now.
        application: theirs, which has the local assets.
    """

    def __init__(self, data: DataLayer, folder: Path, application: ASGIApp) -> None:
        self._data = data
        self.assets = Assets(data, application)
        self._keeping: set[asyncio.Task[None]] = set()
        self.spill = SpillFolder(folder)
        self._waiting_assets = WaitingAssets(folder / "assets.waiting")
        self._applications: set[asyncio.Task[None]] = set()
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._lock = asyncio.Lock()
        self._delivering: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver what waits on disk."""
        self._delivering = asyncio.create_task(self._deliver_regularly(), name="recorder-delivery")

    async def close(self) -> None:
        """End the applications, and record what they have made so far, or keep it on disk."""
        for task in self._applications:
            task.cancel()
        if self._applications:
            await asyncio.wait(self._applications, timeout=_CLOSE_SECONDS / 3)
        if self._runs:
            await asyncio.wait(self._runs, timeout=_CLOSE_SECONDS)
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=_CLOSE_SECONDS)
        await cancel_and_wait(*self._runs, *self._keeping, self._delivering)

    def begin(self, actor: Actor, tape: Tape, application: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run the application for one connection, and record what the tape hears of it.

        Returns:
            The task of the application.
        """
        running = asyncio.create_task(self._run(application, tape), name="recorded-application")
        self._applications.add(running)
        running.add_done_callback(self._applications.discard)
        run = Run(self._data, self.spill, actor, tape, stop=running.cancel, keeper=self)
        recording = asyncio.create_task(run.record(), name="recording")
        self._runs[recording] = run
        recording.add_done_callback(lambda task: self._runs.pop(task, None))
        return running

    def keep_assets(self, actor: Actor, project_id: UUID, addresses: Iterable[str]) -> None:
        """Keep images in the background."""
        wanted, until = tuple(addresses), time() + ALIVE_SECONDS
        owner_id = actor.user_id
        if owner_id is None or not wanted:
            return

        async def note_and_keep() -> None:
            add = self._waiting_assets.add
            [waiting] = await _locked(lambda: [add(owner_id, project_id, wanted, until)])
            await self._keep(waiting)

        self._keep_in_background(note_and_keep())

    def _keep_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="asset-keeping")
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _keep(self, waiting: WaitingList) -> None:
        """Keep what is on a list; if this process ends before, the next one does."""
        actor = Actor.user(waiting.owner_id, UserRole.USER)
        try:
            await self.assets.keep(actor, waiting.project_id, waiting.addresses, until=waiting.until)
        except asyncio.CancelledError:
            waiting.release()
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is: nothing else may be disturbed)
            log.warning("assets_not_kept", reason=f"{type(error).__name__}: {error}")
        await asyncio.to_thread(waiting.remove)

    async def _take_up_assets(self) -> None:
        """Go on with what a process has left that has ended."""
        for waiting in await _locked(self._waiting_assets.abandoned):
            self._keep_in_background(self._keep(waiting))

    async def settle(self, run: Run, code: str) -> None:
        """Wait until everything that the request of a run may continue is recorded."""
        deadline = monotonic() + _SETTLE_SECONDS
        others = [other for other in self._runs.values() if other is not run]
        while any(other.writes(run.actor, code) for other in others) and monotonic() < deadline:  # noqa: ASYNC110
            # Tapes change, none of which waits for this.
            await asyncio.sleep(_SETTLE_PAUSE)
        try:
            await self.deliver()
        except Exception as error:  # noqa: BLE001  (whatever lies on disk: this request is a different one)
            log.warning("delivery_failed", reason=f"{type(error).__name__}: {error}")

    async def _run(self, application: Callable[[], Awaitable[None]], tape: Tape) -> None:
        CURRENT.set(tape)
        try:
            await application()
        except asyncio.CancelledError:
            tape.end("the service was stopped")
            raise
        except Exception as error:
            tape.end(f"the application failed: {type(error).__name__}")
            raise
        tape.end()

    async def _deliver_regularly(self) -> None:
        try:
            await asyncio.to_thread(self.spill.remove_leftovers)
            await asyncio.to_thread(self._waiting_assets.remove_leftovers)
        except OSError as error:
            log.warning("spill_folder_unreadable", reason=type(error).__name__)
        while True:
            try:
                await self._take_up_assets()
                await self.deliver()
            except Exception as error:  # noqa: BLE001  (whatever it is: delivering must go on)
                log.warning("delivery_failed", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(DELIVERY_SECONDS)

    async def deliver(self) -> None:
        """Record what waits on disk. One entry that cannot be recorded does not hold up the others."""
        async with self._lock:
            await self._deliver()

    async def _deliver(self) -> None:
        for key in await asyncio.to_thread(self.spill.waiting):
            with self.spill.claim(key) as entry:
                if entry is not None and not await self._deliver_entry(key, entry):
                    return

    async def _deliver_entry(self, key: str, entry: Entry) -> bool:
        """Record one entry; whether it is worth trying the next one now."""
        try:
            await asyncio.to_thread(entry.load)
            actor = Actor.user(UUID(entry.record["owner_id"]), UserRole.USER)
            delivered = await deliver(self._data, actor, entry)
        except Exception as error:  # noqa: BLE001  (whatever is on disk, such as what another version has written)
            code = getattr(error, "code", type(error).__name__)
            if is_transient(error):
                log.info("delivery_waits", key=key, code=code)
                return not isinstance(error, _AWAY)
            log.error("delivery_rejected", key=key, code=code)  # noqa: TRY400  (not a stdlib logger)
            await asyncio.to_thread(self.spill.reject, key)
            return True
        if delivered.is_whole:
            self.keep_assets(actor, delivered.project_id, sorted(named_in(delivered.pieces))[:MOST_OF_A_RUN])
            log.info("recording_delivered", key=key)
            await asyncio.to_thread(self.spill.remove, key)
        return True


async def _locked(lock: Callable[[], list[WaitingList]]) -> list[WaitingList]:
    """The lists that a function locks in a thread; when the caller is cancelled meanwhile, they are left to others."""
    locking = asyncio.create_task(asyncio.to_thread(lock))
    cancellation = await settled(locking)
    if cancellation is not None:
        for waiting in locking.result():
            waiting.release()
        raise cancellation
    return locking.result()
