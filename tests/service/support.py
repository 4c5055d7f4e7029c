"""The service as its users start it: a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psycopg
from pydantic import SecretStr

from data_layer import Settings
from data_layer.layer import open_migrator
from data_layer.testing.free_ports import free_port
from tests.embedded.support import wait_for

PROGRAM = Path(sys.executable).with_name("data-layer")
READY = "Press Ctrl-C to stop"
PATIENCE = 90  # Only for a machine that is very busy; it takes a few seconds.
STOP_SECONDS = 30
PAUSE = 0.05
# httpx loads all authorities of the world for each client otherwise, which is more work than a hundred requests.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_numbers = count(1)


def clean_environment() -> dict[str, str]:
    """Without what would have Python compile every library again at each start."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run_command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command to its end, in the folder."""
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def ask(url: str) -> httpx.Response:
    return httpx.get(url, timeout=PATIENCE, verify=NO_AUTHORITIES)


class Service:
    """``data-layer dev`` or ``start`` in a folder; killed at the end of its block, if it is still there."""

    def __init__(
        self, folder: Path, command: str = "dev", *, before: Sequence[str] = (), port: int = 0, **environment: str
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.metrics_port = int(environment.get("METRICS_PORT") or free_port())
        self._output = folder / f"output-{self.port}.txt"
        self.started = time.monotonic()
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*before, str(PROGRAM), *command.split()],
                cwd=folder,
                env=clean_environment()
                | {"PORT": str(self.port), "METRICS_PORT": str(self.metrics_port)}
                | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # So that a test can send Ctrl-C to the group, as a terminal does.
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for_output(self, text: str) -> None:
        assert wait_for(lambda: text in self.output or self.process.poll() is not None, PATIENCE), self.output
        assert text in self.output, self.output

    def wait_until_ready(self) -> float:
        """Return when it is ready; the seconds since its start."""

        def answers() -> bool:
            try:
                return self.get("/readyz").status_code == 200
            except httpx.TransportError:
                assert self.process.poll() is None, self.output
                return False

        assert wait_for(answers, PATIENCE, pause=PAUSE), self.output
        return time.monotonic() - self.started

    def wait_until_it_answers(self) -> None:
        """Return when it answers anything."""

        def answers() -> bool:
            try:
                return self.get("/livez").status_code == 200
            except httpx.TransportError:
                assert self.process.poll() is None, self.output
                return False

        assert wait_for(answers, PATIENCE, pause=PAUSE), self.output

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        lines = [line for line in self.output.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
        return [json.loads(line) for line in lines]

    def wait_for_event(self, name: str, number: int = 1) -> list[dict[str, Any]]:
        """Return the events of this name when there are so many."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.events if event["event"] == name]

        assert wait_for(lambda: len(found()) >= number, PATIENCE, pause=PAUSE), self.output
        return found()

    def get(self, path: str) -> httpx.Response:
        return ask(f"{self.url}{path}")

    def get_metrics(self, path: str = "/metrics") -> httpx.Response:
        return ask(f"http://127.0.0.1:{self.metrics_port}{path}")

    def end(self, number: signal.Signals = signal.SIGTERM, *, group: bool = False, times: int = 1) -> int:
        """Send a signal and return the exit code, which must be there soon."""
        for _ in range(times):
            if self.process.poll() is None:
                (os.killpg if group else os.kill)(self.process.pid, number)
                time.sleep(0.1)
        return self.process.wait(STOP_SECONDS)

    def fail(self) -> str:
        """Wait for its end by itself with exit code 1, and return what it said."""
        assert self.process.wait(PATIENCE) == 1, self.output
        assert "Traceback" not in self.output, self.output
        return self.output


def another_database(url: str) -> str:
    """The address of a database on the same server that does not exist yet."""
    parts = urlsplit(url)
    return parts._replace(path=f"/other_{os.getpid()}_{next(_numbers)}").geturl()


def migrate(url: str) -> None:
    """Create the database at this address, with all tables."""

    async def create() -> None:
        async with open_migrator(Settings(database_url=SecretStr(url), _env_file=None)) as migrator:
            migrator.create()
            migrator.migrate()

    asyncio.run(create())


def drop_database(url: str) -> None:
    parts = urlsplit(url)
    with psycopg.connect(parts._replace(path="/postgres").geturl(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{parts.path[1:]}" WITH (FORCE)')
