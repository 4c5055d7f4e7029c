from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_layer.errors import EmbeddedServerError
from data_layer.testing import leftovers
from data_layer.testing.redis_server import RedisServer


def test_it_leaves_nothing_behind() -> None:
    with RedisServer(unix_socket=True) as server:
        folder = server.folder
        assert server.socket_path.is_socket()
        server.pause()
    assert not folder.exists()
    with pytest.raises(EmbeddedServerError):
        _ = server.folder


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(EmbeddedServerError, match="did not start"), RedisServer(options=["nonsense yes"]):
        pass


def test_two_run_side_by_side_and_a_restart_keeps_the_port() -> None:
    with RedisServer() as one, RedisServer() as other:
        assert one.port != other.port
        port = one.port
        one.restart()
        assert one.port == port


def test_what_is_kept_and_what_is_gone() -> None:
    with RedisServer() as server:
        server.execute("SET", "key", "value")
        server.restart(keep_data=True)
        assert server.execute("GET", "key") == "value"
        server.restart()
        assert server.execute("GET", "key") is None


STARTS_AND_WAITS = """
import time
from data_layer.testing.redis_server import RedisServer
with RedisServer() as server:
    print(server.pid, server.folder, flush=True)
    time.sleep(60)
"""


def test_it_ends_with_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS_AND_WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid, folder = process.stdout.readline().split()
        os.kill(int(pid), 0)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while Path(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(int(pid), 0)


@pytest.mark.parametrize("number", ["kept", "given again"])
def test_only_the_process_that_was_watched_is_killed(tmp_path: Path, number: str) -> None:
    """Another one may have its number by now, be it a thread of the tests."""
    folder = tmp_path / "server"
    folder.mkdir()
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        birth = leftovers._birth(process.pid) if number == "kept" else "1"
        watched = f"+{process.pid} {birth} {folder}\n"
        subprocess.run([sys.executable, leftovers.__file__], input=watched, text=True, check=True, timeout=20)
        assert not folder.exists()
        if number == "given again":
            assert process.poll() is None
            process.terminate()
    assert process.returncode == (-signal.SIGKILL if number == "kept" else -signal.SIGTERM)
