"""What answers on the listening socket while no worker is ready, and keeps for the next one what nobody sends again."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from data_layer.concurrency import cancel_and_wait
from data_layer.observability.log import get_log
from data_layer.server.connections import ConnectionLimits
from data_layer.server.http_server import HttpServer
from data_layer.server.lifecycle import LifecycleMiddleware

log = get_log(__name__)

_LONGEST_LINE = 8 * 1024
_PAUSE = 0.02
_AT_ONCE = 16
_ACCEPT_PAUSE = 1.0
_FINISH_SECONDS = 1.0
_ENDED = getattr(select, "POLLRDHUP", select.POLLHUP)  # macOS reports the end of the other side as POLLHUP.


class StartingServer:
    """Answers while no worker is ready: ``/livez`` that the service lives, everything else with 503 and ``starting``.

    A call that nobody sends again is not read. Its connection waits for the next worker, which gets it as it is, and so
    finds the whole request and the address of the client, also when the client has gone meanwhile. It is refused only
    when its time is over, or when the service ends.

    Args:
        listener: the listening socket, from which connections are taken while this is open.
        limits: what clients may do.
        held_seconds: for how many seconds a call waits that nobody sends again, by its path.
    """

    def __init__(self, listener: socket.socket, limits: ConnectionLimits, held_seconds: Mapping[str, float]) -> None:
        self._listener = listener
        self._limits = limits
        self._held_seconds = held_seconds
        self._lifecycle = LifecycleMiddleware()
        self._http: HttpServer | None = None
        self._is_open = False
        self._sorting: dict[asyncio.Task[None], socket.socket] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._closing = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Take connections. Harmless when it does."""
        if self._http is None:
            self._http = HttpServer(
                self._lifecycle, None, finish_seconds=self._limits.lingering_seconds, limits=self._limits
            )
            self._http.start()
            self._listener.setblocking(False)
            self._is_open = True
            self._listen()

    async def close(self) -> None:
        """Take no further connections, and finish the answers under way; what waits goes on waiting. Harmless twice."""
        async with self._closing:
            if self._http is not None:
                self._is_open = False
                asyncio.get_running_loop().remove_reader(self._listener)
                sorting = dict(self._sorting)
                await cancel_and_wait(*sorting)
                for task, connection in sorting.items():
                    if task.cancelled():  # Before it was known what is asked; a worker may find out.
                        self._wait(connection, self._limits.request_seconds)
                if self._answering:
                    await asyncio.wait(self._answering)
                # Clients that still send what was refused do not keep the worker waiting.
                closing = asyncio.create_task(self._http.close(), name="starting-server-closing")
                self._endings.add(closing)
                closing.add_done_callback(self._endings.discard)
                await asyncio.wait([closing], timeout=_FINISH_SECONDS)
                self._http = None

    async def end(self) -> None:
        """Close, and refuse what waits."""
        self._lifecycle.start_draining()
        for connection in list(self._waiting):
            self._give_up(connection)
        await self.close()
        for connection in list(self._waiting):
            self._give_up(connection)
        if self._endings:
            await asyncio.wait(self._endings)

    async def hand_over(self, channel: socket.socket) -> None:
        """Give what waits to a worker.

        Args:
            channel: leads to it; see ``taking_over``.
        """
        while self._waiting:
            connection = next(iter(self._waiting))
            try:
                socket.send_fds(channel, [b"."], [connection.fileno()])
            except BlockingIOError:
                await asyncio.sleep(_PAUSE)
            except OSError as error:
                log.warning("connections_not_handed_over", reason=error.strerror, number=len(self._waiting))
                return  # It has ended; the next one takes them.
            else:
                self._waiting.pop(connection).cancel()
                connection.close()

    def _listen(self) -> None:
        if self._is_open:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("connection_not_accepted", reason=error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener)
            loop.call_later(_ACCEPT_PAUSE, self._listen)  # Too many files are open.
            return
        connection.setblocking(False)
        if not self._held_seconds or len(self._sorting) + len(self._waiting) >= self._limits.connections:
            self._answer(connection)
            return
        task = asyncio.create_task(self._sort(connection), name="starting-connection")
        self._sorting[task] = connection
        task.add_done_callback(self._sorting.pop)

    async def _sort(self, connection: socket.socket) -> None:
        """Answer a connection, or let it wait for a worker."""
        seconds = self._held_seconds.get(await _path_asked_for(connection, self._limits.request_seconds))
        if seconds is None:
            self._answer(connection)
        else:
            self._wait(connection, seconds)

    def _wait(self, connection: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiting[connection] = loop.call_later(seconds, self._give_up, connection)

    def _give_up(self, connection: socket.socket) -> None:
        """Refuse a connection that has waited."""
        self._waiting.pop(connection).cancel()
        self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if self._http is None:
            connection.close()
        else:
            _take(connection, self._http, self._answering)


def _take(connection: socket.socket, http: HttpServer, tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.create_task(http.take(connection), name="connection-taken")
    tasks.add(task)
    task.add_done_callback(tasks.discard)


@contextmanager
def taking_over(channel: socket.socket | None, http: HttpServer) -> Iterator[None]:
    """Answer the connections that the supervisor hands over, for the block.

    Args:
        channel: brings them; None for a process without a supervisor.
        http: answers them.
    """
    if channel is None:
        yield
        return
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def receive() -> None:
        try:
            said, descriptors, *_ = socket.recv_fds(channel, _AT_ONCE, _AT_ONCE)
        except BlockingIOError:
            return
        if not said:
            loop.remove_reader(channel)  # The supervisor is gone.
        for descriptor in descriptors:
            _take(socket.socket(fileno=descriptor), http, tasks)

    channel.setblocking(False)
    loop.add_reader(channel, receive)
    try:
        yield
    finally:
        loop.remove_reader(channel)


async def _path_asked_for(connection: socket.socket, seconds: float) -> str:
    """The path in the first line of a request, which stays unread; an empty one where that does not come in time."""
    line = b""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(seconds):
            while b"\n" not in line and len(line) < _LONGEST_LINE:
                await _readable(connection)
                is_complete = _sends_nothing_more(connection)  # Asked first: what came before the end is read below.
                found = connection.recv(_LONGEST_LINE, socket.MSG_PEEK)
                if is_complete and b"\n" not in found:
                    break
                if found == line:
                    await asyncio.sleep(_PAUSE)
                line = found
    words = line.partition(b"\n")[0].split(b" ")
    return words[1].partition(b"?")[0].decode("latin-1") if len(words) == 3 else ""


def _sends_nothing_more(connection: socket.socket) -> bool:
    """Whether the client has ended its side; unread bytes hide that from ``recv``."""
    poll = select.poll()
    poll.register(connection, _ENDED)
    return bool(poll.poll(0))


async def _readable(connection: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
