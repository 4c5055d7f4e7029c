"""The service as it is started, with few files to open and strangers who take connections and do nothing."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.embedded.support import wait_for

from .support import PAUSE, Service

pytestmark = pytest.mark.timeout(300)
FEW_FILES = ("bash", "-c", 'ulimit -n 256 && exec "$0" "$@"')
STRANGERS = 300
HALF_A_HEAD = b"GET /livez HTTP/1.1\r\nhost: a\r\nx: "
HALF_A_BODY = b"POST /v1/sessions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"


def get_raw(service: Service, path: str) -> bytes:
    """The first line of an answer on a new connection, of which nothing is repeated."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: service\r\nconnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            return answer.readline().strip()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["start", "start --workers 2"])
def test_probes_are_answered_whoever_else_is_connected(
    new_folder: Path, prepared: dict[str, str], command: str
) -> None:
    settings: dict[str, Any] = prepared | {"DB_MAX_CONNECTIONS": "10", "HTTP_REQUEST_TIMEOUT": "10"}
    with Service(new_folder, command, before=FEW_FILES, **settings) as service, ExitStack() as stack:
        service.wait_until_ready()
        begun = time.monotonic()
        for sent in (b"", HALF_A_HEAD, HALF_A_BODY):
            for _ in range(STRANGERS):
                stranger = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=30))
                stranger.sendall(sent)
            for path in ("/livez", "/readyz") * 3:
                assert get_raw(service, path) == b"HTTP/1.1 200 OK", (sent, path)
        # Those who have sent half a body hold their places until their time is over, and no longer.
        assert wait_for(lambda: get_raw(service, "/health") == b"HTTP/1.1 200 OK", 60, pause=PAUSE)
        assert time.monotonic() - begun < 120
        assert "Too many open files" not in service.output
        assert service.end() == 0, service.output
    assert "Traceback" not in service.output


@pytest.mark.slow
def test_a_service_that_only_starts_is_protected_too(new_folder: Path, silent_server: int) -> None:
    with (
        Service(
            new_folder,
            "start --workers 2",
            before=FEW_FILES,
            DATABASE_URL=f"postgresql://user:word@127.0.0.1:{silent_server}/name",
            DB_CONNECT_TIMEOUT="60",
        ) as service,
        ExitStack() as stack,
    ):
        service.wait_until_it_answers()
        for _ in range(STRANGERS):
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=30))
        assert get_raw(service, "/livez") == b"HTTP/1.1 200 OK"
