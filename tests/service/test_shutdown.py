"""The end of the service: load balancers notice, requests are finished, nothing is waited for without limit."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.embedded.support import wait_for

from .support import Service

pytestmark = pytest.mark.timeout(300)
BODY = b'{"email": "nobody@example.com", "password": "correct horse battery staple"}'
HALF = len(BODY) // 2
MODES = ["start", "start --workers 2"]


class HalfSent:
    """A log-in of somebody who has no account, of which the service has the head and half of the body."""

    def __init__(self, service: Service) -> None:
        self._connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
        head = f"POST /v1/sessions HTTP/1.1\r\nhost: service\r\ncontent-length: {len(BODY)}\r\n"
        expect = "content-type: application/json\r\nexpect: 100-continue\r\n\r\n"
        self._connection.sendall((head + expect).encode())

    def begin(self) -> None:
        # The service asks for the body: the request is under way.
        assert self._connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        self._connection.sendall(BODY[:HALF])

    def finish(self) -> HTTPResponse:
        self._connection.sendall(BODY[HALF:])
        return self.answer()

    def answer(self) -> HTTPResponse:
        response = HTTPResponse(self._connection)
        response.begin()
        return response

    def close(self) -> None:
        self._connection.close()


@contextmanager
def half_sent(service: Service) -> Iterator[HalfSent]:
    request = HalfSent(service)
    try:
        request.begin()
        yield request
    finally:
        request.close()


def is_closed(service: Service) -> bool:
    """Whether it takes no connection any more."""
    try:
        socket.create_connection(("127.0.0.1", service.port), timeout=60).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("command", MODES)
def test_requests_under_way_are_finished(new_folder: Path, prepared: dict[str, Any], command: str) -> None:
    patient: dict[str, Any] = {"SHUTDOWN_TIMEOUT": "200"}
    with Service(new_folder, command, **prepared | patient) as service:
        service.wait_until_ready()
        with half_sent(service) as request:
            service.process.terminate()
            assert wait_for(lambda: is_closed(service), 60), "it stops accepting"
            answer = request.finish()
            assert answer.status == 401, "the whole of the service still works"
            assert answer.getheader("connection") == "close"
        assert service.process.wait(60) == 0, service.output
    assert "Traceback" not in service.output
    assert wait_for(lambda: connections(prepared) == 0, 60), "PostgreSQL ends each of its processes on its own"


@pytest.mark.slow
@pytest.mark.parametrize("command", MODES)
def test_load_balancers_have_time_to_notice_and_a_second_signal_forces(
    new_folder: Path, prepared: dict[str, Any], command: str
) -> None:
    slow: dict[str, Any] = {"SHUTDOWN_DELAY": "200", "SHUTDOWN_TIMEOUT": "200"}
    with Service(new_folder, command, **prepared | slow) as service:
        service.wait_until_ready()
        with httpx.Client(base_url=service.url, timeout=60) as client:
            # With workers the supervisor may still answer for a moment after the first one has.
            assert wait_for(lambda: client.get("/readyz").headers.get("connection") != "close", 60)
            service.process.terminate()
            assert wait_for(lambda: client.get("/readyz").status_code == 503, 60)
            ready = client.get("/readyz")
            assert ready.json() == {"ready": False, "reason": "stopping"}
            assert not is_closed(service), "new connections are still taken"
            for path in ("/livez", "/health", "/docs"):
                answer = client.get(path)
                assert answer.status_code == 200, "requests are still answered"
                assert answer.headers["connection"] == "close"
        with half_sent(service) as request:
            assert [event["event"] for event in service.events].count("service_stopping") == 1
            assert service.process.poll() is None, "the 200 seconds have begun"
            service.process.terminate()
            assert request.answer().status == 503, "neither they nor the request are waited for"
            assert service.process.wait(60) == 0, service.output
    assert "Traceback" not in service.output
    assert "shutdown_timed_out" not in service.output


@pytest.mark.slow
def test_a_request_that_does_not_end_is_given_up_in_time(new_folder: Path, prepared: dict[str, Any]) -> None:
    """Twelve seconds are the request's, and eight are kept for closing, which is enough on a busy machine too."""
    with Service(new_folder, "start", **prepared, SHUTDOWN_TIMEOUT="20") as service:
        service.wait_until_ready()
        with half_sent(service) as request:
            service.process.terminate()
            assert request.answer().status == 503
            assert service.process.wait(60) == 0, service.output
    assert "request_abandoned" in service.output
    assert "shutdown_timed_out" not in service.output


@pytest.mark.slow
def test_what_does_not_end_in_time_is_ended(new_folder: Path, prepared: dict[str, str]) -> None:
    """The event loop hangs, so that nothing of the end in order can happen; the watchdog is a thread."""
    (new_folder / "sitecustomize.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGWINCH, lambda *_: time.sleep(600))\n"
    )
    environment: dict[str, Any] = prepared | {
        "SHUTDOWN_TIMEOUT": "3",
        "SHUTDOWN_DELAY": "15",
        "PYTHONPATH": str(new_folder),
    }
    with Service(new_folder, "start", **environment) as service:
        service.wait_until_ready()
        service.process.terminate()
        service.wait_for_event("service_stopping")
        service.process.send_signal(signal.SIGWINCH)
        assert service.process.wait(60) == 1
    assert "shutdown_timed_out" in service.output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_silent_database_keeps_nobody_from_asking_and_stopping(
    new_folder: Path, prepared: dict[str, Any], silent_server: int, number: signal.Signals
) -> None:
    nowhere: dict[str, Any] = {
        "DATABASE_URL": f"postgresql://u@127.0.0.1:{silent_server}/x",
        "DB_CONNECT_TIMEOUT": "600",
    }
    with Service(new_folder, "start", **prepared | nowhere) as service:
        service.wait_until_it_answers()
        assert service.get("/livez").json() == {"status": "alive"}
        ready = service.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "starting"})
        other = service.get("/v1/files/a")
        assert (other.status_code, other.json()["code"]) == (503, "starting")
        assert other.headers["retry-after"] == "1"
        assert service.end(number) == 128 + number
    assert service.output.rstrip().endswith("Stopped before it was ready.")


def connections(prepared: dict[str, str]) -> int:
    with psycopg.connect(prepared["DATABASE_URL"]) as connection:
        (number,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone() or (None,)
    return int(number or 0)
