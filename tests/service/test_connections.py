"""What strangers send before anybody knows who they are: raw bytes, without end, or not at all."""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from data_layer.observability.log import FIELDS
from data_layer.server.connections import ConnectionLimits
from data_layer.server.http_server import HttpServer
from data_layer.server.lifecycle import refuse
from data_layer.settings.service import ServiceSettings
from data_layer.web.streams import ON_LEAVING

from .support import NO_AUTHORITIES

LIMITS = ConnectionLimits()
QUICK = replace(LIMITS, request_seconds=1.0, lingering_seconds=1.0)
PATIENCE = 60
GET = b"GET /echo HTTP/1.1\r\nhost: service\r\n"
MUCH = 100 * 2**20


class Application:
    """Answers with the body and the headers that it got; what it should do otherwise stands in the path."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.may_answer = asyncio.Event()
        self.cancelled: list[str] = []

    async def until_asked(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.scopes) < number:
                await asyncio.sleep(0.01)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = b""
        if scope["path"] == "/held":
            try:
                await self.may_answer.wait()
            except asyncio.CancelledError:
                self.cancelled.append(scope["path"])
                raise
        if scope["path"] not in {"/early", "/held"}:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
                more = message["more_body"]
        if scope["path"] == "/early" and scope["query_string"] == b"last":
            await refuse(send, "starting", "the service is starting", "id")
            return
        content = b"x" * 2**24 if scope["path"] == "/large" else scope["path"].encode() + b" " + body
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


class Client:
    """A connection that sends bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, content: bytes) -> None:
        with suppress(ConnectionError):
            self.writer.write(content)
            await self.writer.drain()

    async def send_much(self, content: bytes, size: int = MUCH) -> int:
        """Send the same until so much is sent, or the other side has had enough; how much was sent."""
        sent = 0
        block = content * max(1, 65536 // len(content))
        with suppress(ConnectionError):
            while sent < size and not self.reader.at_eof():
                self.writer.write(block)
                await self.writer.drain()
                sent += len(block)
        return sent

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body

    async def refusal(self) -> tuple[int, str]:
        """The status and code of an error, after which the connection ends."""
        status, headers, body = await self.answer()
        assert headers["connection"] == "close"
        await self.ended()
        return status, json.loads(body)["code"]

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                assert await self.reader.read() == b""


class Served:
    """A server of the test's own, in its event loop."""

    def __init__(self, application: Application, server: HttpServer, port: int) -> None:
        self.application, self.server, self.port = application, server, port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return Client(reader, writer)

    async def ask(self, path: str) -> int:
        """The status of a request on a new connection."""
        client = await self.connect()
        await client.send(f"GET {path} HTTP/1.1\r\nhost: service\r\n\r\n".encode())
        return (await client.answer())[0]

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def serving(limits: ConnectionLimits = LIMITS) -> AsyncIterator[Served]:
    application = Application()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = HttpServer(application, listener, finish_seconds=1, limits=limits)
    served = Served(application, server, listener.getsockname()[1])
    server.start()
    try:
        yield served
    finally:
        application.may_answer.set()
        served.close()
        await server.close()


async def test_a_forced_end_leaves_no_request_and_no_connection() -> None:
    """Requests that go on would meet a data layer that is being closed."""
    application, forced = Application(), asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(application, listener, finish_seconds=PATIENCE)
    server.start()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    client = Client(reader, writer)
    await client.send(GET.replace(b"/echo", b"/held") + b"\r\n")
    await application.until_asked(1)
    forced.set()
    async with asyncio.timeout(PATIENCE / 2):
        await server.close(forced)
    assert application.cancelled == ["/held"]
    assert (await client.answer())[0] == 500
    await client.ended()
    writer.close()


@pytest.mark.parametrize(
    ("begin", "without_end", "refused"),
    [
        (b"GET /", b"a", (414, "request_uri_too_long")),
        (b"GET /?", b"a=b&", (414, "request_uri_too_long")),
        (GET + b"x: ", b"a", (431, "request_header_fields_too_large")),
        (GET, b"a", (431, "request_header_fields_too_large")),
        (GET, b"name: value\r\n", (431, "request_header_fields_too_large")),
        (b"", b"\r\n", (431, "request_header_fields_too_large")),
        (GET + b"transfer-encoding: chunked\r\n\r\n0\r\nx: ", b"a", (431, "request_header_fields_too_large")),
        (GET + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n1;", b"a", (431, "request_header_fields_too_large")),
        (GET + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"n: v\r\n", (431, "request_header_fields_too_large")),
    ],
    ids=["path", "query", "value", "name", "headers", "nothing", "trailer", "chunk extension", "trailers"],
)
async def test_what_has_no_end_is_refused_early(begin: bytes, without_end: bytes, refused: tuple[int, str]) -> None:
    async with serving() as served:
        client = await served.connect()
        await client.send(begin)
        sending = asyncio.create_task(client.send_much(without_end))
        assert await client.refusal() == refused
        assert await sending < MUCH
        assert await served.ask("/echo") == 200


@pytest.mark.parametrize("step", [1, 7, 4096])
async def test_what_is_within_the_limits_is_answered(step: int) -> None:
    value = b"v" * (LIMITS.head_bytes - 4 * 4096)
    request = b"POST /" + b"p" * (LIMITS.url_bytes - 1) + b" HTTP/1.1\r\nhost: service\r\nlong: " + value
    request += b"\r\ncontent-length: 3\r\n\r\nabc"
    async with serving() as served:
        client = await served.connect()
        pieces = [request[at : at + step] for at in range(0, len(request), step)] if step > 1 else [request]
        for piece in pieces:
            await client.send(piece)
        status, _, body = await client.answer()
        assert (status, body[-4:]) == (200, b" abc")
        assert dict(served.application.scopes[0]["headers"])[b"long"] == value


async def test_a_hundred_headers_and_no_more() -> None:
    async with serving() as served:
        fits = b"".join(b"h%d: v\r\n" % number for number in range(LIMITS.headers - 1))
        for more, status in ((b"", 200), (b"one: more\r\n", 431)):
            client = await served.connect()
            await client.send(GET + fits + more + b"\r\n")
            assert (await client.answer())[0] == status


async def test_a_large_body_is_no_large_head() -> None:
    async with serving() as served:
        client = await served.connect()
        size = 2**20
        await client.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + b"b" * size)
        assert len((await client.answer())[2]) == size + len("/echo ")
        await client.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        await client.send(b"1\r\nb\r\n" * 50_000 + b"0\r\n\r\n")
        assert len((await client.answer())[2]) == 50_000 + len("/echo ")


async def test_trailers_are_no_headers() -> None:
    async with serving() as served:
        client = await served.connect()
        await client.send(GET + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        await client.send(b"0\r\nauthorization: Bearer smuggled\r\n\r\n")
        assert (await client.answer())[0] == 200
        assert b"authorization" not in dict(served.application.scopes[0]["headers"])


@pytest.mark.parametrize(
    ("begin", "status"),
    [
        (b"", None),
        (b"G", 408),
        (b"GET / HTTP/1.1\r\nhost: service\r\nx: y", 408),
        (GET + b"content-length: 10\r\n\r\n12345", 408),
        (GET + b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n", 408),
        (GET + b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\nx", 408),
    ],
    ids=["nothing", "one letter", "half a head", "half a body", "no last chunk", "half a trailer"],
)
async def test_half_sent_requests_end(begin: bytes, status: int | None) -> None:
    async with serving(QUICK) as served:
        client = await served.connect()
        await client.send(begin)
        if status is not None:
            assert await client.refusal() == (408, "request_timeout")
        else:
            await client.ended()


async def drip(client: Client, content: bytes, seconds: float) -> None:
    """Send single bytes, each long before any limit, until the connection ends."""
    with suppress(ConnectionError):
        for number in range(10**6):
            client.writer.write(content[number % len(content) :][:1])
            await client.writer.drain()
            await asyncio.sleep(seconds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begin", "dripped"),
    [
        (b"", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000),
        (GET + b"content-length: 1000000\r\n\r\n", b"b"),
        (GET + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nb\r\n"),
        (GET + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["head", "body", "chunks", "trailers"],
)
async def test_dripping_bytes_gain_no_time(begin: bytes, dripped: bytes) -> None:
    async with serving(QUICK) as served:
        client = await served.connect()
        await client.send(begin)
        dripping = asyncio.create_task(drip(client, dripped, 0.05))
        assert await client.refusal() == (408, "request_timeout")
        await dripping


async def test_a_slow_but_steady_body_is_taken() -> None:
    async with serving(replace(QUICK, bytes_per_second=100.0)) as served:
        client = await served.connect()
        await client.send(GET + b"content-length: 3000\r\n\r\n")
        for _ in range(30):
            await client.send(b"b" * 100)
            await asyncio.sleep(0.1)  # Together three times the limit for a pause.
        assert (await client.answer())[0] == 200


async def test_a_client_that_we_keep_waiting_is_not_slow() -> None:
    async with serving(QUICK) as served:
        client = await served.connect()
        await client.send(b"PUT /held HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        other = await served.connect()
        await other.send(GET.replace(b"/echo", b"/held") + b"\r\n" + GET + b"\r\n" + GET + b"\r\n")
        unread = await served.connect()
        await unread.send(b"PUT /held HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + b"b" * 500_000)
        await asyncio.sleep(2.5)
        served.application.may_answer.set()
        assert (await client.answer())[0] == 200
        assert (await unread.answer())[0] == 200
        assert [(await other.answer())[2] for _ in range(3)] == [b"/held ", b"/echo ", b"/echo "]


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    async with serving(QUICK) as served:
        client = await served.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.sleep(4)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                assert len(await client.reader.read()) < 2**24


async def test_an_answer_before_the_body_is_seen_and_ends_the_connection() -> None:
    async with serving(QUICK) as served:
        client = await served.connect()
        await client.send(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000000\r\n\r\n")
        sending = asyncio.create_task(client.send_much(b"b", 2**50))
        assert (await client.answer())[0] == 200
        await client.ended()
        await sending


def post_with_httpx(port: int, body: bytes) -> tuple[int, bytes]:
    with httpx.Client(timeout=PATIENCE, verify=NO_AUTHORITIES) as client:
        answer = client.post(f"http://127.0.0.1:{port}/early?last", content=body)
        return answer.status_code, answer.content


def post_with_the_standard_library(port: int, body: bytes) -> tuple[int, bytes]:
    """As ``requests`` and ``urllib3`` do: everything is sent before an answer is read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/early?last", body)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("post", [post_with_httpx, post_with_the_standard_library])
@pytest.mark.parametrize("ends", [False, True], ids=["serving", "ending"])
async def test_the_last_answer_is_seen_by_clients_that_send_everything_first(
    post: Callable[[int, bytes], tuple[int, bytes]], *, ends: bool
) -> None:
    """33 MiB that nobody reads: closing at once would reset the connection, and the answer would be lost with it."""
    async with serving() as served:
        posting = asyncio.create_task(asyncio.to_thread(post, served.port, b"b" * 33 * 2**20))
        if ends:
            await served.application.until_asked(1)
            await served.server.close()
        status, content = await posting
        assert (status, json.loads(content)["code"]) == (503, "starting")


async def test_after_an_early_answer_the_connection_can_be_used_once_the_body_is_there() -> None:
    async with serving(QUICK) as served:
        client = await served.connect()
        await client.send(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12")
        assert (await client.answer())[0] == 200
        await client.send(b"345" + GET + b"\r\n")
        assert (await client.answer())[2] == b"/echo "


async def test_requests_that_are_sent_ahead_are_answered_in_order() -> None:
    async with serving() as served:
        client = await served.connect()
        number = 20_000
        requests = b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n for n in range(number))
        sending = asyncio.create_task(client.send(requests))
        for expected in range(number):
            assert (await client.answer())[2] == b"/%d " % expected
            if expected == 0:
                # Those behind wait in the kernel, or as bytes; each as a request would be a few kilobytes.
                assert len(served.application.scopes) < 1000
        await sending
        assert [scope["path"] for scope in served.application.scopes] == [f"/{n}" for n in range(number)]


async def test_what_was_sent_ahead_is_not_begun_after_the_last_answer() -> None:
    async with serving() as served:
        client = await served.connect()
        last = b"POST /early?last HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
        await client.send(last + b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1")
        assert (await client.answer())[0] == 503
        await client.ended()
        assert [scope["path"] for scope in served.application.scopes] == ["/early"]


@pytest.mark.parametrize("offer", [b"websocket", b"h2c", b"TLS/1.0, h2c"])
async def test_an_offer_of_another_protocol_is_ignored(offer: bytes) -> None:
    async with serving() as served:
        client = await served.connect()
        await client.send(GET + b"connection: upgrade\r\nupgrade: " + offer + b"\r\n\r\n" + GET + b"\r\n")
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", b"/echo ")
        await client.ended()


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        b"CONNECT evil:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        GET + b"host: another\r\n\r\n",
        GET + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        GET + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        GET + b"content-length: -1\r\n\r\n",
        GET + b"content-length: 99999999999999999999999999\r\n\r\n",
        GET + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        GET + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
        GET + b"a b: c\r\n\r\n",
        GET + b"a: \x00\r\n\r\n",
        GET + b" folded: yes\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused_in_our_words(request_: bytes) -> None:
    async with serving(QUICK) as served:
        client = await served.connect()
        await client.send(request_)
        assert await client.refusal() == (400, "bad_request")


async def test_a_refusal_names_its_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "data_layer.server")
    async with serving(QUICK) as served:
        client = await served.connect()
        await client.send(b"FOO / HTTP/1.1\r\n\r\n")
        _, _, body = await client.answer()
    [refused] = [record for record in caplog.records if record.message == "request_refused"]
    assert vars(refused)[FIELDS]["correlation_id"] == json.loads(body)["request_id"]


async def test_garbage_after_a_request_does_not_get_into_its_answer() -> None:
    async with serving() as served:
        client = await served.connect()
        await client.send(GET.replace(b"/echo", b"/held") + b"\r\n" + b"\x00garbage\r\n\r\n")
        await asyncio.sleep(0.2)
        served.application.may_answer.set()
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", b"/held ")
        await client.ended()


async def test_idle_connections_give_way_to_new_ones() -> None:
    async with serving(replace(LIMITS, connections=20)) as served:
        idle = [await served.connect() for _ in range(300)]
        for _ in range(5):
            assert await served.ask("/livez") == 200
        await asyncio.sleep(1.1)
        assert await served.ask("/echo") == 200  # By now they are known to be idle.
        await idle[0].ended()


async def test_half_sent_heads_give_way_too() -> None:
    async with serving(replace(LIMITS, connections=20)) as served:
        for _ in range(100):
            client = await served.connect()
            await client.send(b"GET / HTTP/1.1\r\nx: ")
        await asyncio.sleep(1.1)
        assert await served.ask("/echo") == 200


async def test_probes_are_answered_when_every_connection_is_busy() -> None:
    async with serving(replace(LIMITS, connections=10)) as served:
        busy = [await served.connect() for _ in range(10)]
        for client in busy:
            await client.send(GET.replace(b"/echo", b"/held") + b"\r\n")
        await served.application.until_asked(10)
        further = [await served.connect() for _ in range(100)]
        for path, status in (("/livez", 200), ("/readyz", 200), ("/echo", 503), ("/livez", 200)):
            assert await served.ask(path) == status
        served.application.may_answer.set()
        for client in busy:
            assert (await client.answer())[0] == 200
        await further[0].ended()
        assert await served.ask("/livez") == 200


@pytest.mark.parametrize(
    ("files", "connections"), [(256, 156), (2**20, 1000), (64, 16), (resource.RLIM_INFINITY, 1000)]
)
def test_connections_fit_the_files_that_may_be_open(
    files: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert ConnectionLimits.of(ServiceSettings(), pool_size=20).connections == connections


async def test_an_application_learns_that_its_client_has_gone() -> None:
    async with serving() as served:
        client = await served.connect()
        await client.send(GET.replace(b"/echo", b"/held") + b"\r\n")
        await served.application.until_asked(1)
        leave = served.application.scopes[0][ON_LEAVING]
        for meanwhile in (client.writer.transport.abort, lambda: None):  # Then it has gone already.
            left = asyncio.Event()
            leave(left.set)
            assert not left.is_set()
            meanwhile()
            async with asyncio.timeout(PATIENCE):
                await left.wait()
        served.application.may_answer.set()


async def test_a_client_that_goes_after_its_answer_leaves_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        client = await served.connect()
        await client.send(GET.replace(b"/echo", b"/held") + b"\r\n")
        await served.application.until_asked(1)
        served.application.scopes[0][ON_LEAVING](lambda: pytest.fail("it was answered"))
        served.application.may_answer.set()
        assert (await client.answer())[0] == 200
        client.writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            while served.server._server.server_state.connections:  # The end of the connection is noticed.
                await asyncio.sleep(0.01)
    assert not caplog.records
