"""The process above several workers: it starts them, replaces those that die or hang, and ends with them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from data_layer.concurrency import Backoff, cancel_and_wait
from data_layer.config import Settings
from data_layer.errors import ConfigurationError, WorkerFailedError
from data_layer.observability.log import get_log
from data_layer.server.connections import ConnectionLimits
from data_layer.server.listening import authority, listen_for_metrics
from data_layer.server.starting import StartingServer
from data_layer.server.stopping import StoppedBeforeReady, StopRequest
from data_layer.server.supervisor_link import FORWARDED
from data_layer.server.worker import Worker
from data_layer.web.deadlines import HELD_SECONDS

log = get_log(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_GOOD_SECONDS = 60.0
"""A worker that has served for so long is replaced quickly again."""
_SPARE_SECONDS = 3.0
"""How much longer than a worker's own limit the supervisor waits before it kills it."""


class Supervisor:
    """Keeps WORKERS processes serving on one listening socket.

    The first one starts alone: whatever keeps it from starting would stop all of them, and is reported once. While none
    is ready, at the start and after crashes, the supervisor answers requests itself, with 503, and keeps the calls that
    nobody sends again for the next worker (``StartingServer``). It stops doing so before a worker takes the first
    request: once a client has seen the service ready, no answer says otherwise.

    What there is once for all workers runs on this object's event loop and is entered in ``_run``, beside the folder,
    such as METRICS_PORT, which is taken at once. The folder is private, for Unix sockets of the workers, which find it
    in ``Role.folder``.

    Args:
        settings: how many workers, and how long everything may take.
        listener: belongs to this object from now on.
        stop: ends it.
        command: starts a worker, which gets its assignment as one more argument.

    Raises:
        ConfigurationError: METRICS_PORT cannot be had.
    """

    def __init__(
        self, settings: Settings, listener: socket.socket, stop: StopRequest, *, command: Sequence[str]
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._metrics_listener = listen_for_metrics(settings.metrics)
        self._stop = stop
        self._command = command
        self._folder = Path()
        self._workers: dict[int, Worker] = {}
        self._was_ready = asyncio.Event()
        limits = ConnectionLimits.of(settings.service, settings.database.db_max_connections)
        self._starting = StartingServer(listener, limits, HELD_SECONDS if settings.hosted.is_enabled else {})
        self._ended_well = True

    async def run(self) -> bool:
        """Serve until the end, and return whether all workers have closed everything in order.

        Raises:
            StoppedBeforeReady: it was asked to stop while the first worker was still starting.
            ConfigurationError: the private folder cannot be made anywhere.
            WorkerFailedError: the first worker could not start.
            EmbeddedServerError: the embedded servers could not.
        """
        with self._stop.by_signals(), self._forwarding_signals():
            async with AsyncExitStack() as stack:
                await self._run(stack)
        return self._ended_well

    async def _run(self, stack: AsyncExitStack) -> None:
        stack.enter_context(self._listener)
        self._folder = Path(stack.enter_context(_private_folder()))
        if self._metrics_listener is not None:
            from data_layer.server.metrics import metrics_of_workers

            stack.enter_context(self._metrics_listener)
            await stack.enter_async_context(metrics_of_workers(self._folder, self._metrics_listener))
        self._answer_if_no_worker_does()
        stack.push_async_callback(self._starting.end)
        if self._settings.database.is_embedded or self._settings.redis.is_embedded:
            await self._stop.unless(self._start_embedded_servers(stack))
        keepers = [asyncio.create_task(self._keep(0))]
        try:
            await self._until_ready(keepers[0])
            keepers += [asyncio.create_task(self._keep(number)) for number in range(1, self._settings.service.workers)]
            log.info("service_started", address=f"http://{authority(self._settings.service)}", workers=len(keepers))
            await self._stop.asked.wait()
            log.info("service_stopping")
        finally:
            # Each worker has its own share in the listening socket, which ends with the last of them.
            await self._starting.end()
            self._listener.close()
            await self._end(keepers)

    async def _start_embedded_servers(self, stack: AsyncExitStack) -> None:
        """Be the one service of their folder; the workers find them running."""
        from data_layer.layer.servers import embedded_servers

        await stack.enter_async_context(embedded_servers(self._settings, exclusive=True))

    def _answer_if_no_worker_does(self) -> None:
        taken = any(worker.takes_requests for worker in self._workers.values())
        if not taken and not self._stop.asked.is_set():
            self._starting.open()

    async def _until_ready(self, first: asyncio.Task[None]) -> None:
        ready = asyncio.create_task(self._was_ready.wait())
        asked = asyncio.create_task(self._stop.asked.wait())
        await asyncio.wait([first, ready, asked], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        asked.cancel()
        if first.done():
            first.result()
        if not self._was_ready.is_set():
            raise StoppedBeforeReady(self._stop.signal)

    async def _keep(self, number: int) -> None:
        """Have a worker of this number until everything is to stop."""
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while not self._stop.asked.is_set():
            failure, seconds = await self._run_worker(number)
            if self._stop.asked.is_set():
                return
            if not self._was_ready.is_set():
                raise failure
            if seconds > _GOOD_SECONDS:
                pauses.reset()
            pause = pauses.next()
            log.warning("worker_ended", number=number, code=failure.code, reason=str(failure), restart_seconds=pause)
            await self._stop.comes_within(pause)

    async def _run_worker(self, number: int) -> tuple[WorkerFailedError, float]:
        """From the start of a worker to its end: why it ended, and for how many seconds it had served."""
        try:
            worker = await Worker.start(
                self._command,
                number,
                workers=self._settings.service.workers,
                listener=self._listener,
                folder=self._folder,
            )
        except OSError as error:
            return WorkerFailedError(f"no process could be started for worker {number}: {error.strerror}"), 0.0
        self._workers[number] = worker
        log.info("worker_started", number=number, pid=worker.pid)
        if self._stop.asked.is_set():
            worker.send("stop")
        watch = asyncio.create_task(self._kill_when_it_hangs(worker))
        handing_over = asyncio.create_task(self._hand_over(worker))
        try:
            await worker.ended(before_serving=self._starting.close, on_ready=self._was_ready.set)
        finally:
            await cancel_and_wait(watch, handing_over)
        self._answer_if_no_worker_does()
        self._ended_well &= worker.ended_well or not self._stop.asked.is_set()
        return worker.why_it_ended, worker.ready_seconds

    async def _hand_over(self, worker: Worker) -> None:
        """Have a worker answer the calls that have waited for one."""
        await worker.ready.wait()
        await self._starting.hand_over(worker.channel)

    async def _kill_when_it_hangs(self, worker: Worker) -> None:
        limit = self._settings.service.worker_timeout
        if limit == 0:
            return
        await worker.hangs(limit)
        if not self._stop.asked.is_set():  # Afterwards there is a limit for everything together.
            log.error("worker_hangs", pid=worker.pid, seconds=limit)
            worker.kill()

    async def _end(self, keepers: list[asyncio.Task[None]]) -> None:
        self._stop.ask()
        self._tell_all("stop")
        forwarding = asyncio.create_task(self._forward_force())
        limit = self._settings.seconds_until_closed + self._settings.service.shutdown_timeout + _SPARE_SECONDS
        _, late = await asyncio.wait(keepers, timeout=limit)
        if late:
            for worker in self._workers.values():
                worker.kill()
        await asyncio.gather(*keepers, return_exceptions=True)
        await cancel_and_wait(forwarding)

    async def _forward_force(self) -> None:
        await self._stop.forced.wait()
        self._tell_all("force")

    def _tell_all(self, word: str) -> None:
        for worker in self._workers.values():
            worker.send(word)

    @contextmanager
    def _forwarding_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in FORWARDED:
            loop.add_signal_handler(number, self._forward, number)
        try:
            yield
        finally:
            for number in FORWARDED:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    def _forward(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            if worker.is_ready:  # Before, it may not have learnt yet that such a signal does not end it.
                worker.send_signal(number)


def _private_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="data-layer-", ignore_cleanup_errors=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(
            f"the workers need a private folder, and none can be made ({reason}); set TMPDIR to a folder that can be "
            "written, or use one worker"
        ) from None
