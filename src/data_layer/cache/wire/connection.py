"""One connection to one server: commands of one turn of the event loop leave together, answers come back in order.

It is opened from an address: transport, encryption and login, each within its time limit.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from hiredis import ProtocolError, PushNotification, Reader, ReplyError, pack_command

from data_layer.cache.address import ServerAddress
from data_layer.cache.errors import (
    ConnectionDemoted,
    ConnectionFailure,
    ConnectionGarbled,
    ConnectionLost,
    ConnectionTimedOut,
    is_demotion,
    translate,
)
from data_layer.cache.statistics import new_latencies, parse_info
from data_layer.errors import CacheReadOnlyError, ConfigurationError
from data_layer.observability.metrics.counters import Durations
from data_layer.settings.redis import RedisSettings

OnPush = Callable[[list[Any]], None]

Command: TypeAlias = tuple[str | bytes | int, ...]
# hiredis's own annotation says a tuple of one element.
pack = cast("Callable[[Command], bytes]", pack_command)

MAXIMUM_WAITING = 4096
"""Most answers that a connection waits for; until some arrive it takes no further commands."""
_MAXIMUM_UNWRITTEN = 2**20
_MAXIMUM_ANSWER = 2**28
_GRACE = 0.02
ROLE_CHECK_SECONDS = 0.25
"""How often a server is asked whether it is still a primary; no NAT or load balancer calls such a connection idle."""
_SILENCE_SECONDS = 0.4
_PROOF_SECONDS = 0.5
_LAST_ANSWERS_SECONDS = 0.1
_HELLO = pack(("HELLO",))
_INCOMPLETE: Final = object()


def _nothing() -> None:
    pass


class Connection(asyncio.Protocol):
    """Carries commands to one server. Used from one event loop.

    The oldest unanswered command decides: when it is overdue, the connection is closed, because all other answers come
    behind it. So there is one timer for the connection and none for a command.

    A caller that is cancelled leaves its place in the queue, and its answer is thrown away when it comes.

    With ``watch_role`` the connection is one to a primary, and ends as soon as the server shows that it is none any
    more: by its answer to a question that is asked four times a second, or by refusing a command. What was sent after
    that question was not carried out and may be repeated. A connection that has been silent for longer than that (this
    process stood still, or something on the way forgot it) has to answer before anything else is written to it.

    Args:
        name: the server, as errors show it.
        time_limit: seconds from the writing of a command to its answer.
        maximum_waiting: commands under way before the connection calls itself full.
        on_push: receives each message that is not an answer, such as ``[b"invalidate", [b"key"]]``.
        latencies: record how long each write waited for its last answer.
    """

    def __init__(
        self,
        name: str,
        time_limit: float,
        *,
        maximum_waiting: int = MAXIMUM_WAITING,
        on_push: OnPush | None = None,
        latencies: Durations | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.run_id = ""
        """Which process of a server answers here; empty where the server does not say."""
        self.answered = 0
        self.is_full = False
        self.on_full: Callable[[], None] = _nothing
        self.on_room: Callable[[], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing
        self._on_push = on_push
        self._latencies = latencies
        self._time_limit = time_limit
        self._maximum_waiting = maximum_waiting
        self._loop = loop
        self._create_future = loop.create_future
        self._call_soon = loop.call_soon
        self._reader = Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._unwritten: list[bytes] = []
        self._unwritten_size = 0
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._is_paused = False
        self._room = asyncio.Event()
        self._room.set()
        # The number of the last command of each write, when it was written, and whether callers wait for it.
        self._writes: deque[tuple[int, float, bool]] = deque()
        self._marks: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_doubtful = False
        self._reason: ConnectionFailure | None = None
        self._heard = loop.time()
        self._is_watched = self._is_holding = False
        self._closing_reason: str | None = None
        self._role_questions = 0
        self._role_timer: asyncio.TimerHandle | None = None
        self._proof_timer: asyncio.TimerHandle | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any longer."""
        return self._reason is not None

    @property
    def _is_ending(self) -> bool:
        return self._reason is not None or self._closing_reason is not None

    @property
    def reason(self) -> ConnectionFailure | None:
        """Why it is closed."""
        return self._reason

    @property
    def sent(self) -> int:
        """The number of the last command that was handed over."""
        return self.answered + len(self._waiting)

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Send one command; the future gets the answer, a ``ReplyError`` or a ``ConnectionFailure``, never raised."""
        waiter = self._create_future()
        if self._reason is not None:
            waiter.set_result(ConnectionLost(str(self._reason), was_written=False))
            return waiter
        if not self._unwritten:
            if self._is_watched and self._loop.time() - self._heard > _SILENCE_SECONDS:
                self.require_proof()
            self._call_soon(self._write)
        self._waiting.append(waiter)
        self._unwritten.append(packed)
        self._unwritten_size += len(packed)
        if self._unwritten_size > _MAXIMUM_UNWRITTEN:
            self._fill()
        return waiter

    async def run(self, *command: str | bytes | int) -> Any:
        """The answer to one command.

        Raises:
            CacheError: or the subclass that says what was wrong.
        """
        answer = await self.send(pack(command))
        if isinstance(answer, Exception):
            raise translate(answer, self.name) from None
        return answer

    def passed(self, number: int) -> asyncio.Future[None]:
        """Done when the command with this number and all before it were answered, or never will be."""
        mark = self._create_future()
        if self._reason is not None or number <= self.answered:
            mark.set_result(None)
        else:
            self._marks.append((number, mark))
        return mark

    def ask_role(self, confirmed: Callable[[], None]) -> None:
        """Ask whether the server is a primary, in this turn of the event loop, and call this as soon as it says so.

        Neither has to wait for a task, so a busy loop delays each of them by one turn at most. The connection ends if
        the server is not a primary, or does not answer.
        """
        if self._is_ending or self._transport is None:
            return
        self._write()
        self._waiting.append(cast("asyncio.Future[Any]", _RoleQuestion(partial(self._note_confirmation, confirmed))))
        if self._unwritten:  # Held back; it must not overtake them.
            self._unwritten.append(_HELLO)
            self._unwritten_size += len(_HELLO)
        else:
            self._note_write(has_callers=True)
            self._transport.write(_HELLO)

    async def has_room(self) -> None:
        """Wait until the connection is not full, or is closed."""
        await self._room.wait()

    def close(self, reason: str = "the connection was closed") -> None:
        """Close the connection at once; waiting callers get the reason."""
        self._break(ConnectionLost(reason))

    def finish(self, reason: str) -> None:
        """Write nothing more, and close the connection as soon as all that was written has been answered.

        What was not written may be sent elsewhere. Answers that take longer than 0.1 s are not waited for.
        """
        if not self._writes:
            self.close(reason)
        elif self._closing_reason is None:
            self._closing_reason = reason
            self._loop.call_later(_LAST_ANSWERS_SECONDS, self.close, reason)

    def watch_role(self) -> None:
        """From now on, check again and again that the server is there and a primary."""
        self._is_watched = True
        self._role_timer = self._loop.call_later(ROLE_CHECK_SECONDS, self._check_role)

    def require_proof(self) -> None:
        """Write nothing more until the server has answered that it is a primary."""
        if self._is_holding or self._is_ending or not self._is_watched:
            return
        self._write()
        self._is_holding = True
        self._ask_role()
        limit = min(_PROOF_SECONDS, self._time_limit)
        self._proof_timer = self._loop.call_later(limit, self._miss_proof)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is ready."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each complete answer to the caller whose turn it is."""
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _INCOMPLETE:
                if answer.__class__ is PushNotification:
                    self._push(answer)
                    continue
                if not waiting:
                    self._break(ConnectionGarbled())
                    return
                waiter = waiting.popleft()
                self.answered += 1
                if not waiter.done():
                    waiter.set_result(answer)
                if answer.__class__ is ReplyError and self._is_watched and is_demotion(answer):
                    self._break(ConnectionDemoted(str(answer)))
                    return
        except ProtocolError:
            self._break(ConnectionGarbled())
            return
        if reader.len() > _MAXIMUM_ANSWER:
            self._break(ConnectionGarbled())
        else:
            self._note_progress()

    def pause_writing(self) -> None:
        """The network takes nothing more at the moment."""
        self._is_paused = True
        self._fill()

    def resume_writing(self) -> None:
        """The network takes more again."""
        self._is_paused = False
        self._make_room()

    def connection_lost(self, error: Exception | None) -> None:
        """The other side has closed, or the network broke."""
        self._break(ConnectionLost(str(error) if error is not None else "the server closed the connection"))

    def _write(self) -> None:
        unwritten = self._unwritten
        if self._transport is None or not unwritten:
            return
        if self._is_holding or self._is_ending:
            if len(self._waiting) >= self._maximum_waiting:
                self._fill()
            return
        packet = unwritten[0] if len(unwritten) == 1 else b"".join(unwritten)
        unwritten.clear()
        self._unwritten_size = 0
        self._note_write(has_callers=True)
        self._transport.write(packet)
        if len(self._waiting) >= self._maximum_waiting:
            self._fill()
        elif self.is_full:
            self._make_room()

    def _note_write(self, *, has_callers: bool) -> None:
        now = self._loop.time()
        self._writes.append((self.sent, now, has_callers))
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._time_limit, self._look_for_overdue)

    def _note_progress(self) -> None:
        answered, writes, marks = self.answered, self._writes, self._marks
        if writes and writes[0][0] <= answered:
            self._heard = now = self._loop.time()
            while writes and writes[0][0] <= answered:
                _, written, has_callers = writes.popleft()
                if has_callers and self._latencies is not None:
                    self._latencies.note(now - written)
        while marks and marks[0][0] <= answered:
            _release(marks.popleft()[1])
        if self._closing_reason is not None and not writes:
            self.close(self._closing_reason)
        elif self.is_full:
            self._make_room()

    def _fill(self) -> None:
        if not self.is_full:
            self.is_full = True
            self._room.clear()
            self.on_full()

    def _make_room(self) -> None:
        is_busy = self._is_paused or self._unwritten_size > _MAXIMUM_UNWRITTEN
        if self.is_full and not is_busy and len(self._waiting) <= self._maximum_waiting // 2:
            self.is_full = False
            self._room.set()
            self.on_room()

    def _look_for_overdue(self) -> None:
        self._timer = None
        if not self._writes:
            self._is_doubtful = False
            return
        due = self._writes[0][1] + self._time_limit
        now = self._loop.time()
        if now < due:
            self._is_doubtful = False
            self._timer = self._loop.call_at(due, self._look_for_overdue)
        elif self._is_doubtful:
            self._break(ConnectionTimedOut())
        else:
            # If the loop was busy for long, the answer may be there already and only has to be read.
            self._is_doubtful = True
            self._timer = self._loop.call_at(now + _GRACE, self._look_for_overdue)

    def _check_role(self) -> None:
        """Ask for the role; a server that has not answered the last time has to before anything else is written."""
        self._role_timer = self._loop.call_later(ROLE_CHECK_SECONDS, self._check_role)
        if self._role_questions:
            self.require_proof()
        elif not self._unwritten and not self._is_paused:
            self._ask_role()

    def _ask_role(self) -> None:
        if self._transport is None:
            return
        self._role_questions += 1
        self._waiting.append(cast("asyncio.Future[Any]", _RoleQuestion(self._note_role)))
        self._note_write(has_callers=False)
        self._transport.write(_HELLO)

    def _note_role(self, answer: Any) -> None:
        self._role_questions -= 1
        if self._reason is not None or isinstance(answer, ConnectionFailure):
            return
        if isinstance(answer, dict) and answer.get(b"role") != b"master":
            self._break(ConnectionDemoted("the server is a replica now"))
        elif self._is_holding and not self._role_questions:
            self._is_holding = False
            self._write()

    def _note_confirmation(self, confirmed: Callable[[], None], answer: Any) -> None:
        if self._reason is not None:
            return
        if isinstance(answer, dict) and answer.get(b"role") == b"master":
            confirmed()
        else:
            self._break(ConnectionDemoted("the server does not say that it is a primary"))

    def _miss_proof(self, *, is_last: bool = False) -> None:
        """Give up a silent connection to which nothing but questions was written; else its time limit decides."""
        if not self._is_holding or any(has_callers for _, _, has_callers in self._writes):
            return
        if is_last:
            self._break(ConnectionTimedOut())
        else:  # As for an overdue command: the answer may only have to be read.
            self._proof_timer = self._loop.call_later(_GRACE, partial(self._miss_proof, is_last=True))

    def _push(self, message: list[Any]) -> None:
        if self._on_push is not None:
            self._on_push(message)

    def _break(self, reason: ConnectionFailure) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._room.set()
        for timer in (self._timer, self._role_timer, self._proof_timer):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self.on_closed()
        written = len(self._waiting) - len(self._unwritten)
        for number, waiter in enumerate(self._waiting):
            if not waiter.done():
                waiter.set_result(reason if number < written else ConnectionLost(str(reason), was_written=False))
        for _, mark in self._marks:
            _release(mark)
        for queue in (self._waiting, self._unwritten, self._marks, self._writes):
            queue.clear()


class _RoleQuestion:
    """Stands among the waiting futures, and handles its answer before the next one is read."""

    __slots__ = ("set_result",)

    def __init__(self, note: Callable[[Any], None]) -> None:
        self.set_result = note

    def done(self) -> bool:
        return False


def _release(mark: asyncio.Future[None]) -> None:
    if not mark.done():
        mark.set_result(None)


CLIENT_NAME = "data-layer"
"""What CLIENT LIST shows."""


class Connector:
    """Opens connections, with the time limits and the authorities that the settings name.

    Raises:
        ConfigurationError: when REDIS_TLS_CA holds no certificate.
    """

    def __init__(self, settings: RedisSettings, *, tls: bool) -> None:
        self.connect_timeout = settings.redis_connect_timeout / 1000
        self.command_timeout = settings.redis_command_timeout / 1000
        self.latencies = new_latencies()
        """Of the connections to servers that hold data."""
        self._context = tls_context(settings.redis_tls_ca) if tls else None

    async def open(
        self,
        address: ServerAddress,
        *,
        maximum_waiting: int = MAXIMUM_WAITING,
        on_push: OnPush | None = None,
        is_measured: bool = False,
        is_primary: bool = False,
    ) -> Connection:
        """A connection that is logged in and has its database selected.

        Args:
            address: where to.
            maximum_waiting: commands under way before it calls itself full.
            on_push: receives messages that are not answers.
            is_measured: whether its latencies are recorded.
            is_primary: whether to require a primary, and to end the connection when the server is one no longer.

        Raises:
            CacheError: or the subclass that says why there is none.
        """
        latencies = self.latencies if is_measured else None
        connection = Connection(
            str(address), self.command_timeout, maximum_waiting=maximum_waiting, on_push=on_push, latencies=latencies
        )
        try:
            await self._connect(address, connection)
            await _introduce(connection, address, is_primary=is_primary)
        except BaseException:
            # The event loop does not always close it: cancellation at the end of a TLS handshake leaves a
            # connection behind that waits half a minute for the server to say goodbye.
            connection.close()
            raise
        return connection

    async def _connect(self, address: ServerAddress, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.connect_timeout):
                if address.socket_path is not None:
                    await loop.create_unix_connection(lambda: connection, address.socket_path)
                elif not address.tls:
                    await loop.create_connection(lambda: connection, address.host, address.port)
                else:
                    await loop.create_connection(
                        lambda: connection, address.host, address.port, ssl=self._context, server_hostname=address.host
                    )
        except (OSError, UnicodeError) as error:
            # Without the cause, which repeats the text.
            raise translate(error, connection.name) from None


async def _introduce(connection: Connection, address: ServerAddress, *, is_primary: bool) -> None:
    greeting: list[str | int] = ["HELLO", 3]
    if address.password is not None:
        greeting += ["AUTH", address.username or "default", address.password]
    commands: list[Command] = [(*greeting, "SETNAME", CLIENT_NAME)]
    if address.database:
        commands.append(("SELECT", address.database))
    waiters = [connection.send(pack(command)) for command in commands]
    identity = connection.send(pack(("INFO", "server"))) if is_primary else None
    answers = [await waiter for waiter in waiters]
    for answer in answers:
        if isinstance(answer, Exception):
            raise translate(answer, connection.name)
    if identity is None:
        return
    if answers[0].get(b"role") != b"master":
        raise CacheReadOnlyError(
            f"Redis at {connection.name} is a replica, which is read only (READONLY) and may be out of date: "
            "name the primary in REDIS_HOST or REDIS_URL"
        )
    described = await identity
    # Without the right to ask, the connection works, but the near copy cannot verify which server it listens to.
    if isinstance(described, bytes):
        connection.run_id = str(parse_info(described).get("run_id", ""))
    elif isinstance(described, ConnectionFailure):
        raise translate(described, connection.name)
    connection.watch_role()


def tls_context(authority: Path | None) -> ssl.SSLContext:
    """Verify certificate and host name, against this authority or else the system's.

    Raises:
        ConfigurationError: when the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"REDIS_TLS_CA: {str(authority)!r} holds no readable certificate") from error
