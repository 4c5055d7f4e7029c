"""One process's connection to the guardian of a folder; starts the guardian where there is none."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_layer.embedded.folders import FileLock, listen
from data_layer.embedded.processes import wait_until_gone
from data_layer.errors import EmbeddedServerError

_PATIENCE = 75.0
"""Seconds for a guardian that ends, one that starts, and initdb and both servers on a slow disk."""
STOP_SECONDS = 8.0
"""Seconds that the guardian has to stop the servers; it needs less, by its servers' ``stop_steps``."""
_START_GUARDIAN = Path(__file__).with_name("start_guardian.py")


class GuardianLink:
    """A connection that keeps the servers alive. Not bound to an event loop: it may be closed under another one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._guardian = 0

    async def ask_for(self, request: dict[str, str]) -> dict[str, Any]:
        """Ask for servers and wait for their addresses.

        Raises:
            EmbeddedServerError: the guardian could not start them.
            ConnectionError: the guardian is about to end; another one must be started.
        """
        answer = await self._exchange(request)
        self._guardian = int(answer["pid"])
        if "error" in answer:
            raise EmbeddedServerError(answer["error"])
        return answer

    async def leave(self, seconds: float) -> None:
        """Inform the guardian that this user goes; if it was the last, return when all processes have ended.

        Raises:
            EmbeddedServerError: they have not after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                answer = await self._exchange({"leave": True})
                if answer["last"]:
                    await self._wait_for_the_end()
        except ConnectionError:
            pass
        except TimeoutError:
            raise self._still_there(seconds) from None
        else:
            if not answer["last"]:
                return
        if self._guardian and not await wait_until_gone(self._guardian, deadline - time.monotonic()):
            raise self._still_there(seconds)

    def close(self) -> None:
        """Close the connection; the guardian takes this as leaving."""
        self._connection.close()

    def _still_there(self, seconds: float) -> EmbeddedServerError:
        return EmbeddedServerError(
            f"the embedded servers did not stop in {seconds:g} seconds; end their guardian, process {self._guardian}."
        )

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._connection, json.dumps(request).encode() + b"\n")
        while b"\n" not in self._received:
            part = await loop.sock_recv(self._connection, 65536)
            if not part:
                raise ConnectionError("the guardian has closed the connection")
            self._received += part
        line, self._received = self._received.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _wait_for_the_end(self) -> None:
        while await asyncio.get_running_loop().sock_recv(self._connection, 65536):
            pass


async def connect(folder: Path, request: dict[str, str]) -> tuple[GuardianLink, dict[str, Any]]:
    """Reach the folder's guardian, starting it if need be, and get the addresses of the servers in the request.

    Raises:
        EmbeddedServerError: the servers, or the guardian itself, could not be started.
    """
    lock = FileLock(folder / "guardian.lock")
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                found = await _try_to_connect(folder, lock, request)
                if found is not None:
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        holder = lock.read_note().get("pid", "unknown")
        raise EmbeddedServerError(
            f"the embedded servers of {folder} did not answer in {_PATIENCE:g} seconds; "
            f"end their guardian (process {holder}) and try again."
        ) from None


async def _try_to_connect(
    folder: Path, lock: FileLock, request: dict[str, str]
) -> tuple[GuardianLink, dict[str, Any]] | None:
    """One attempt; None when a guardian is about to end, or has the lock but does not listen yet."""
    connection, guardian = _start_guardian(folder, lock) if lock.acquire() else (_attach(lock), None)
    if connection is None:
        return None
    link = GuardianLink(connection)
    try:
        return link, await link.ask_for(request)
    except ConnectionError:
        link.close()
        if guardian is not None and await _has_crashed(guardian):
            raise _describe_crash(folder) from None
        return None
    except EmbeddedServerError:
        with suppress(EmbeddedServerError):
            await link.leave(STOP_SECONDS)
        link.close()
        raise
    except BaseException:
        link.close()
        raise


async def _has_crashed(guardian: subprocess.Popen[bytes]) -> bool:
    return await wait_until_gone(guardian.pid, STOP_SECONDS) and guardian.wait() != 0


def _attach(lock: FileLock) -> socket.socket | None:
    """A connection to the guardian that holds the lock; None while it is starting or ending."""
    path = lock.read_note().get("socket")
    if not isinstance(path, str):
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionError, BlockingIOError):
        connection.close()
        return None
    return connection


def _start_guardian(folder: Path, lock: FileLock) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a guardian that inherits the lock we hold, with a connection from us already waiting in its socket.

    So there is never a second one, and a guardian always has a first user: no time-outs between the two.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener, sockets = listen(folder)
        with listener:
            path = str(sockets / "guardian.sock")
            connection.connect(path)
            connection.setblocking(False)
            guardian = _spawn(folder, sockets, lock, listener)
            lock.write_note({"socket": path, "pid": guardian.pid})
    except BaseException:
        connection.close()
        raise
    finally:
        lock.leave()
    return connection, guardian


def _spawn(folder: Path, sockets: Path, lock: FileLock, listener: socket.socket) -> subprocess.Popen[bytes]:
    arguments = [str(folder), str(sockets), str(lock.fileno()), str(listener.fileno())]
    with (folder / "log" / "guardian.log").open("wb") as log:
        guardian = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-I", "-S", str(_START_GUARDIAN), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            pass_fds=(lock.fileno(), listener.fileno()),
            start_new_session=True,
        )
    # It may outlive its last user here by hours; somebody must collect it when it ends.
    threading.Thread(target=guardian.wait, name="embedded-guardian", daemon=True).start()
    return guardian


def _describe_crash(folder: Path) -> EmbeddedServerError:
    log = folder / "log" / "guardian.log"
    said = ""
    with suppress(OSError):
        said = log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()
    return EmbeddedServerError(f"the guardian of the embedded servers of {folder} ended at its start:\n{said}")
