"""Looks at the servers from outside: their processes, their data, and other processes that use them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psycopg
import redis

from data_layer.embedded import EmbeddedAddresses, EmbeddedServers

USER_PROCESS = Path(__file__).with_name("user_process.py")
LONG_NAME = "x" * 100
BOTH = ("postgresql", "valkey")


def both_servers(folder: Path) -> EmbeddedServers:
    return EmbeddedServers(folder, postgresql=True, valkey=True, database_name="postgres")


def postgresql_only(folder: Path) -> EmbeddedServers:
    return EmbeddedServers(folder, postgresql=True, valkey=False, database_name="postgres")


def valkey_only(folder: Path) -> EmbeddedServers:
    return EmbeddedServers(folder, postgresql=False, valkey=True, database_name="postgres")


def processes_of(folder: Path) -> dict[int, str]:
    """Every process that works in the folder or has it on its command line, other than this one."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] in {b"Z", b"X"}:
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command or (entry / "cwd").readlink().is_relative_to(folder):
                found[int(entry.name)] = command
    return found


def assert_no_process(folder: Path) -> None:
    assert wait_for(lambda: not processes_of(folder), pause=0.05), processes_of(folder)


def wait_for(condition: Callable[[], object], seconds: float = 30, *, pause: float = 0.01) -> bool:
    """Whether it holds in time. The pause is longer where asking is a good deal of work for a busy machine."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def process_id(folder: Path, part: str) -> int:
    """The one process of the folder whose command line holds ``part``, not counting what it is just forking."""
    alike = {number for number, command in processes_of(folder).items() if part in command}
    (found,) = {number for number in alike if parent_of(number) not in alike}
    return found


def parent_of(number: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[1])
    return 0


def guardian_id(folder: Path) -> int:
    return process_id(folder, "start_guardian.py")


def postgres_id(folder: Path) -> int:
    return process_id(folder, "bin/postgres -D")


def valkey_id(folder: Path) -> int:
    return process_id(folder, "valkey-server")


def write(addresses: EmbeddedAddresses, value: str) -> None:
    """Store a value in each server that runs."""
    if addresses.database_url is not None:
        with psycopg.connect(addresses.database_url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
            connection.execute("INSERT INTO kept VALUES (%s)", [value])
    if addresses.redis_url is not None:
        with redis_client(addresses) as client:
            client.rpush("kept", value)


def read(addresses: EmbeddedAddresses) -> list[list[str]]:
    """The values of each server that runs, in the order in which they were written."""
    found = []
    if addresses.database_url is not None:
        with psycopg.connect(addresses.database_url) as connection:
            found.append([row[0] for row in connection.execute("SELECT value FROM kept").fetchall()])
    if addresses.redis_url is not None:
        with redis_client(addresses) as client:
            found.append(client.lrange("kept", 0, -1))
    return found


def permissions(folder: Path) -> dict[str, int]:
    """The permission bits of the folder and of everything directly in it, by name."""
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (folder, *folder.iterdir())}


def environment_names(number: int) -> set[str]:
    pairs = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
    return {os.fsdecode(pair.partition(b"=")[0]) for pair in pairs}


def listens_on_network(number: int) -> bool:
    """Whether the process has a TCP socket of any kind."""
    try:
        open_files = [str(path.readlink()) for path in Path(f"/proc/{number}/fd").iterdir()]
    except FileNotFoundError:  # a short-lived worker
        return False
    sockets = {f"socket:[{line.split()[9]}]" for name in ("tcp", "tcp6") for line in _lines(f"/proc/net/{name}")}
    return bool(sockets & set(open_files))


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="ascii").splitlines()[1:]


def redis_client(addresses: EmbeddedAddresses) -> redis.Redis:
    return redis.Redis.from_url(str(addresses.redis_url), decode_responses=True)


def python_script(name: str, *arguments: str) -> list[str]:
    """A command that runs a script of this folder."""
    return [sys.executable, str(Path(__file__).with_name(name)), *arguments]


class UserProcess:
    """Another process that uses the servers of a folder, in a process group of its own."""

    def __init__(self, folder: Path, *wanted: str, command: Sequence[str] = (), **environment: str) -> None:
        self.process = subprocess.Popen(
            [*command, sys.executable, str(USER_PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"EMBEDDED_FOLDER": str(folder), "EMBEDDED_SERVERS": " ".join(wanted)} | environment,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def answer(self) -> dict[str, Any]:
        """What it said once it had started, or failed to."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with status {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def addresses(self) -> EmbeddedAddresses:
        answer = self.answer()
        assert "error" not in answer, answer["error"]
        return EmbeddedAddresses(answer["database_url"], answer["redis_url"])

    def leave(self, seconds: float = 15) -> int:
        """Let it stop in order, and return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(seconds)

    def interrupt(self) -> None:
        """What Ctrl-C on its terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
