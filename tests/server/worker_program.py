"""A worker for tests of the supervisor: a real process with the real link, which behaves as it is told.

Arguments: a folder in which it writes down what happens to it, how it behaves, and its assignment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data_layer.server.stopping import StopRequest
from data_layer.server.supervisor_link import FORWARDED, Assignment, SupervisorLink


def main(folder: Path, behaviours: list[str], given: Assignment) -> int:
    behaviour = behaviours[given.number]
    record = folder / f"worker-{given.number}-{os.getpid()}"
    record.write_text("started\n")

    def note(what: str) -> None:
        with record.open("a") as file:
            file.write(f"{what}\n")

    if behaviour == "never_ready":
        # As a worker that still imports: a signal would end it.
        time.sleep(600)
    link = given.open_link()
    listener = given.open_listener()
    if behaviour == "hangs":
        link.report_ready()
        time.sleep(600)
    if behaviour == "dies":
        link.report_ready()
        return 3
    return asyncio.run(serve(behaviour, link, note, listener))


async def serve(behaviour: str, link: SupervisorLink, note: Callable[[str], None], listener: socket.socket) -> int:
    stop = Noted(note)
    loop = asyncio.get_running_loop()
    for number in FORWARDED:
        loop.add_signal_handler(number, note, number.name)
    link.obey(stop, loop)
    await link.may_serve()
    server = await asyncio.start_server(greet, sock=listener)
    link.report_ready()
    await (stop.forced if behaviour == "waits_for_force" else stop.asked).wait()
    if behaviour == "late":
        await asyncio.sleep(600)
    server.close()
    return 5 if behaviour == "ends_badly" else 0


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


class Noted(StopRequest):
    """Its own watchdog would end a worker that is late before the supervisor does."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(600)
        self._note = note

    def ask(self, *, at_once: bool = False) -> None:
        self._note("force" if at_once else "stop")
        super().ask(at_once=at_once)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2].split(","), Assignment.from_text(sys.argv[3])))
