"""HTTP connections with limits: how large a head may be, how long a request may take, how many connections there are.

uvicorn reads with httptools, which is fast but holds whatever arrives: heads, trailers and chunk extensions of any
length, for as long as the client likes. ``LimitedConnection`` bounds all of it, in what the parser sees and not in
what it reports, because it reports a header only once that is complete.

===========================  =================================================  ======================================
a client that                is limited by                                      gets
===========================  =================================================  ======================================
sends a long URL             ``url_bytes``                                      414
sends a long head, trailer   ``head_bytes`` without anything of a body,         431
or chunk extension           ``headers``
sends no Host, or two        RFC 9112                                           400
sends its head slowly        ``request_seconds`` for the whole head             408
sends its body slowly        ``request_seconds``, and ``bytes_per_second``      408
sends on after the answer    ``lingering_seconds`` for each pause, and          the answer, and is disconnected
                             ``request_seconds`` in all
reads its answer slowly      ``request_seconds``, and ``bytes_per_second``      is disconnected
sends nothing                ``request_seconds``, or keep-alive after an        is disconnected
                             answer
sends requests ahead         one at a time is parsed while another is answered  answers, one after the other
opens many connections       ``connections``                                    takes the place of one that waits
===========================  =================================================  ======================================

Where every connection is busy, further ones are only asked whether they are probes, so that an orchestrator does not
kill a process because it is in demand.
"""

from __future__ import annotations

import asyncio
import math
import resource
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from data_layer.observability.log import get_log
from data_layer.server.lifecycle import MEDIA_TYPE, new_request_id, problem, refuse, with_close
from data_layer.web.streams import ON_LEAVING

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from data_layer.settings.service import ServiceSettings

log = get_log(__name__)

PROBES = frozenset({"/livez", "/readyz"})
"""Always answered: process managers and load balancers rely on them."""

_BLOCK = 4096
"""Bytes that the parser gets at once while it reads no body: limits are kept to within so many."""
_SPARE_CONNECTIONS = 16
"""Connections over the limit that are kept to be asked whether they are probes."""
_FEWEST_CONNECTIONS = 16
_OTHER_FILES = 64
"""Descriptors in addition to those of connections to clients and to the database: Redis, storage, logs, libraries."""
_FRESH_SECONDS = 1.0
"""A connection that has waited for less is not yet taken for idle."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What clients may do before anybody knows who they are.

    ``request_seconds``: for a head, for each pause in a body, and for each pause in reading the answer.
    ``bytes_per_second``: the slowest body, and the slowest reader.
    """

    connections: int = 1000
    url_bytes: int = 8 * 1024
    head_bytes: int = 32 * 1024
    headers: int = 100
    request_seconds: float = 20.0
    bytes_per_second: float = 1024.0
    lingering_seconds: float = 5.0

    @classmethod
    def of(cls, settings: ServiceSettings, pool_size: int) -> Self:
        """Those of the settings, with no more connections than this process may open files for (``ulimit -n``)."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = settings.http_max_connections
        if files != resource.RLIM_INFINITY:
            left = files - pool_size - _OTHER_FILES - _SPARE_CONNECTIONS
            most = min(most, max(_FEWEST_CONNECTIONS, left))
        return cls(connections=most, request_seconds=settings.http_request_timeout)


class _Phase(Enum):
    """What a connection is doing with the request that it reads."""

    IDLE = auto()
    """Nothing of it is there."""
    HEAD = auto()
    BODY = auto()
    LINGERING = auto()
    """It has been answered, or refused, before all of it was there."""
    READ = auto()
    """It is complete, and not yet answered."""


class LimitedConnection(HttpToolsProtocol):
    """A connection that keeps to ``ConnectionLimits``; ``check`` must be called about once a second.

    The scope of a request holds ``ON_LEAVING``, with which streams learn that the client has gone.
    """

    # So few attributes are left to the dictionary of each connection that Python shares its keys.
    __slots__ = (
        "_backlog",
        "_call_at_end",
        "_deadline",
        "_excess",
        "_has_begun",
        "_is_deaf",
        "_limits",
        "_phase",
        "_reports",
        "_unreported",
        "_unsent",
        "waiting_since",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._phase = _Phase.IDLE
        self._deadline = math.inf
        self.waiting_since = math.inf  # By the clock of the event loop.
        self._backlog = b""
        self._excess: HTTPStatus | None = None
        self._has_begun = False  # A request, of which not everything is there.
        self._is_deaf = False  # Whatever else arrives is ignored.
        self._lingers_until = math.inf
        # Bytes since the parser last reported something that it does not keep, and whether it just did.
        self._unreported = 0
        self._reports = False
        # When the progress of sending was last looked at, and how many bytes waited then.
        self._unsent = (0.0, 0)
        self._call_at_end: Callable[[], None] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a request, so that none is lost with it."""
        return self._unanswered() is None and self._phase in {_Phase.IDLE, _Phase.HEAD, _Phase.LINGERING}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102  (asyncio)
        super().connection_made(transport)  # type: ignore[arg-type]
        self._rest(self._limits.request_seconds)
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102  (asyncio)
        super().connection_lost(exc)
        call, self._call_at_end = self._call_at_end, None
        if call is not None:
            call()

    def data_received(self, data: bytes) -> None:  # noqa: D102  (asyncio)
        if self._is_deaf:
            self._go_on_lingering()
            return
        self._unset_keepalive_if_required()
        if self._phase is _Phase.IDLE:
            self._begin_head()
        self._backlog += data
        self._parse()

    def resume_writing(self) -> None:  # noqa: D102  (asyncio)
        self._unsent = (self.loop.time(), self.transport.get_write_buffer_size())
        super().resume_writing()

    def check(self, now: float) -> None:
        """Enforce the limits of time."""
        if self._is_stalled(now):
            log.info("connection_aborted", reason="the client does not read its answer")
            self.transport.abort()
        elif self.transport.is_closing() or now < self._deadline:
            return
        elif self._keeps_client_waiting():
            self._deadline = now + self._limits.request_seconds
        elif self._has_begun and self._phase in {_Phase.HEAD, _Phase.BODY}:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    # What the parser reports

    def on_message_begin(self) -> None:  # noqa: D102  (httptools)
        self._reports, self._has_begun = True, True
        if self._phase is not _Phase.HEAD:
            self._begin_head()
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[ON_LEAVING] = self._call_on_leaving

    def on_url(self, url: bytes) -> None:  # noqa: D102  (httptools)
        super().on_url(url)
        if len(self.url) > self._limits.url_bytes:
            self._excess = HTTPStatus.REQUEST_URI_TOO_LONG

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102  (httptools)
        if self._phase is not _Phase.HEAD:
            return  # A trailer, which must not pass for a header: the head has been acted on.
        super().on_header(name, value)
        if len(self.headers) > self._limits.headers:
            self._excess = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

    def on_headers_complete(self) -> None:  # noqa: D102  (httptools)
        self._reports = True
        if self._is_ambiguous():
            self._excess = HTTPStatus.BAD_REQUEST
        if self._excess is None:
            before = self.cycle
            super().on_headers_complete()
            if self.cycle is not before:  # And not a WebSocket.
                has_body = self.scope["method"] != "HEAD"
                self.cycle.transport = AnswerTransport(self.transport, self.end, has_body=has_body)
            self._phase = _Phase.BODY
            self._deadline = self.loop.time() + self._limits.request_seconds

    def on_body(self, body: bytes) -> None:  # noqa: D102  (httptools)
        self._reports = True
        if self._excess is not None:
            return
        if self._phase is _Phase.BODY:
            earned = self._deadline + len(body) / self._limits.bytes_per_second
            self._deadline = min(earned, self.loop.time() + self._limits.request_seconds)
        self._go_on_lingering()
        super().on_body(body)

    def on_message_complete(self) -> None:  # noqa: D102  (httptools)
        self._reports, self._has_begun = True, False
        if self._excess is not None:
            return
        super().on_message_complete()
        if self.parser.should_upgrade() and self._should_upgrade():
            return  # It is handed over in a moment.
        if self.cycle.response_complete:
            self._rest(self.timeout_keep_alive)
        else:
            self._phase, self._deadline = _Phase.READ, math.inf

    def on_response_complete(self) -> None:
        """Go on with what was sent ahead, or wait for the next request."""
        super().on_response_complete()
        self._call_at_end = None
        if self.transport.is_closing():
            return
        if self._backlog:
            self.loop.call_soon(self._parse)
        if not self.cycle.response_complete:
            return  # It answered one before.
        if self._phase is _Phase.READ:
            self._rest(self.timeout_keep_alive)
        elif self._phase is _Phase.BODY:
            self._linger()

    def shutdown(self) -> None:
        """Close the connection because the server ends, once its request is answered and all of it was read."""
        if self._phase is _Phase.LINGERING:
            self.end()
        else:
            super().shutdown()

    def end(self) -> None:
        """Close the connection after an answer, or go on reading a while where its request is not complete."""
        is_incomplete = self._phase in {_Phase.BODY, _Phase.LINGERING}
        if not is_incomplete or self.pipeline or self.transport.is_closing():
            self.transport.close()  # What was sent ahead is not answered any more.
        elif not self._is_deaf:
            self._is_deaf, self._backlog = True, b""
            self.flow.resume_reading()
            self.transport.write_eof()
            if self._phase is _Phase.BODY:
                self._linger()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        del msg
        self._refuse(HTTPStatus.BAD_REQUEST)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, unless its head is to be refused."""
        if self._excess is None:
            self._is_deaf, self._backlog = True, b""
            super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Answer as if no other protocol had been offered, and close: the parser reads nothing after an offer."""
        self._is_deaf = True
        if self.cycle.response_started:
            self.transport.close()
        self.cycle.keep_alive = False

    def _parse(self) -> None:
        """Parse what has arrived, but only one request ahead of the one that is being answered."""
        data, position = memoryview(self._backlog), 0
        self._backlog = b""
        while position < len(data) and self._listens():
            block = data[position : position + _BLOCK]
            position += len(block)
            self._reports = False
            super().data_received(block)  # type: ignore[arg-type]  # The parser takes any buffer.
            self._unreported = 0 if self._reports else self._unreported + len(block)
            if self._unreported > self._limits.head_bytes:
                self._excess = self._excess or HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            if self._excess is not None:
                self._refuse(self._excess)
        if position < len(data) and not self._is_deaf:
            self._backlog = bytes(data[position:])
            self.flow.pause_reading()

    def _is_ambiguous(self) -> bool:
        """Whether it is not clear whom the request is for (RFC 9112, 3.2): proxies might understand it otherwise."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        return hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1")

    def _call_on_leaving(self, call: Callable[[], None]) -> None:
        if self.transport.is_closing():
            self.loop.call_soon(call)
        else:
            self._call_at_end = call

    def _unanswered(self) -> RequestResponseCycle | None:
        """The last request, while there is one that is not answered yet."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first one, whatever uvicorn declares.
        return None if cycle is None or cycle.response_complete else cycle

    def _listens(self) -> bool:
        return not (self.pipeline or self._is_deaf or self.transport.is_closing())

    def _keeps_client_waiting(self) -> bool:
        if self._phase is _Phase.BODY and self.cycle.waiting_for_100_continue:
            return True
        return self.flow.read_paused and not self._is_deaf

    def _begin_head(self) -> None:
        self._phase, self._deadline = _Phase.HEAD, self.loop.time() + self._limits.request_seconds

    def _rest(self, seconds: float) -> None:
        """Wait for a request."""
        self._phase, self.waiting_since = _Phase.IDLE, self.loop.time()
        self._deadline = self.waiting_since + seconds

    def _linger(self) -> None:
        """Ignore the rest for a while: if the connection was closed at once, the client might not see the answer."""
        now = self.loop.time()
        self._phase = _Phase.LINGERING
        self._lingers_until = now + max(self._limits.request_seconds, self._limits.lingering_seconds)
        self._deadline = now + self._limits.lingering_seconds

    def _go_on_lingering(self) -> None:
        """Ignore more, if the client is sending: many read no answer before they have sent all."""
        if self._phase is _Phase.LINGERING:
            self._deadline = min(self.loop.time() + self._limits.lingering_seconds, self._lingers_until)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer that the request is refused, where an answer can still be sent, and close the connection."""
        if self._is_deaf:
            return
        self._is_deaf, self._backlog = True, b""
        cycle = self._unanswered()
        if cycle is not None and self._phase is not _Phase.BODY:
            cycle.keep_alive = False  # A request before is being answered; that answer is the last one.
            self._deadline = math.inf
            return
        if cycle is not None and (cycle.response_started or self.pipeline):
            self.transport.abort()
            return
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        request_id = new_request_id()
        log.info("request_refused", status=status.value, reason=status.phrase, correlation_id=request_id)
        self.flow.resume_reading()
        self.transport.write(self._refusal(status, request_id))
        self.transport.write_eof()
        self._linger()

    def _refusal(self, status: HTTPStatus, request_id: str) -> bytes:
        body = problem(status, status.name.lower(), f"the request was refused: {status.phrase.lower()}", request_id)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode()), *(b": ".join(header) for header in headers)]
        return b"\r\n".join([*lines, b"", body])

    def _is_stalled(self, now: float) -> bool:
        """Whether the client has read too little of its answer since the last look."""
        since, before = self._unsent
        waiting = self.transport.get_write_buffer_size()
        if waiting == 0 or before == 0:
            self._unsent = (now, waiting)
            return False
        if now - since < self._limits.request_seconds:
            return False
        self._unsent = (now, waiting)
        return before - waiting < min(before, self._limits.bytes_per_second * self._limits.request_seconds)

    # How many there are

    def _make_room(self) -> None:
        """Close those that have waited longest; if not enough do, take only probes on this one."""
        most = self._limits.connections
        self._close_waiting(len(self.connections) - most, older_than=_FRESH_SECONDS)
        self._close_waiting(len(self.connections) - most - _SPARE_CONNECTIONS, older_than=0.0)
        if len(self.connections) > most + _SPARE_CONNECTIONS:
            self.drop()
        elif len(self.connections) > most:
            self.app = _ProbesOnly(self.app)

    def _close_waiting(self, number: int, *, older_than: float) -> None:
        if number <= 0:
            return
        before = self.waiting_since - older_than
        others = [other for other in self.connections if isinstance(other, LimitedConnection) and other is not self]
        waiting = [other for other in others if other.is_waiting and other.waiting_since <= before]
        for other in sorted(waiting, key=lambda other: other.waiting_since)[:number]:
            other.drop()

    def drop(self) -> None:
        """End the connection at once; it does not count any more."""
        self.connections.discard(self)
        self.transport.abort()


class AnswerTransport(asyncio.Transport):
    """The transport as one request and its answer see it: closing it means that the answer was the last one.

    The head of an answer waits for its body, which mostly follows at once, until the event loop turns: each call of the
    system costs as much as parsing the request.

    Args:
        transport: of the connection.
        end: called in place of closing it.
        has_body: whether the answer may have one; without, the head does not wait.
    """

    __slots__ = ("_end", "_has_begun", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None], *, has_body: bool) -> None:
        super().__init__()
        self._transport = transport
        self._end = end
        self._has_begun = not has_body
        self._head: bytes | bytearray | memoryview | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; the first ones a moment later, together with the next."""
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data))
        elif self._has_begun:
            self._transport.write(data)
        else:
            self._has_begun, self._head = True, data
            asyncio.get_running_loop().call_soon(self._flush)

    def is_closing(self) -> bool:
        """Whether the connection ends."""
        return self._transport.is_closing()

    def close(self) -> None:
        """End the connection after what was written."""
        self._flush()
        self._end()

    def _flush(self) -> None:
        head, self._head = self._head, None
        if head is not None and not self._transport.is_closing():
            self._transport.write(head)


class _ProbesOnly:
    """Answers probes, refuses everything else, and closes the connection."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in PROBES:
            request_id = new_request_id()
            log.warning("request_refused", status=503, reason="all connections are in use", correlation_id=request_id)
            await refuse(send, "overloaded", "too many connections are open; try again in a moment", request_id)
            return

        async def answer(message: Message) -> None:
            await send(with_close(message))

        await self._application(scope, receive, answer)
