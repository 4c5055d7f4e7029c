"""The supervisor with real processes below it: signals, workers that hang, die or are late, and its pauses."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from data_layer import Settings
from data_layer.server import StopRequest, Supervisor, supervisor, worker
from data_layer.server.supervisor_link import FORWARDED

pytestmark = pytest.mark.timeout(120)
PROGRAM = Path(__file__).with_name("worker_program.py")
PATIENCE = 60


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """The supervisor leaves signals ignored, because the end of its process is near."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *FORWARDED)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class PatientStop(StopRequest):
    """Writes down the pauses before restarts, and does not wait for them; it never ends the process of the tests."""

    def __init__(self) -> None:
        super().__init__(600)
        self.pauses: list[float] = []

    def watch(self) -> None:
        """Do not count: at the limit the process of the tests would end, minutes after the test and without a word."""

    async def comes_within(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return await super().comes_within(0)


class Running:
    def __init__(self, folder: Path, stop: PatientStop, task: asyncio.Task[bool], port: int) -> None:
        self.folder = folder
        self.port = port
        self.stop = stop
        self.task = task

    def of(self, number: int) -> list[tuple[int, list[str]]]:
        """The processes that have had this number, in the order of their starts, and what happened to each."""
        records = sorted(self.folder.glob(f"worker-{number}-*"), key=lambda path: path.stat().st_ctime_ns)
        return [(int(path.name.rpartition("-")[2]), path.read_text().split()) for path in records]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                assert not self.task.done(), "it ended by itself"
                await asyncio.sleep(0.02)

    async def until_ready(self) -> None:
        """The first has been ready, so that the others are started."""
        await self.until(lambda: self.of(1))

    async def end(self) -> bool:
        self.stop.ask()
        async with asyncio.timeout(PATIENCE):
            return await self.task


@asynccontextmanager
async def supervised(folder: Path, *behaviours: str, **settings: Any) -> AsyncIterator[Running]:
    """Workers that behave so, by their numbers."""
    values = {
        "database_url": "postgresql://localhost/none",
        "redis_url": "redis://localhost",
        "enable_metrics": False,
        "workers": len(behaviours),
        "worker_timeout": 0,
        "shutdown_timeout": 100,
    }
    made = Settings(_env_file=None, **values | settings)
    stop = PatientStop()
    command = [sys.executable, str(PROGRAM), str(folder), ",".join(behaviours)]
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    task = asyncio.create_task(Supervisor(made, listener, stop, command=command).run())
    running = Running(folder, stop, task, port)
    try:
        yield running
    finally:
        stop.force_stop()
        for number in range(len(behaviours)):
            for pid, _ in running.of(number):
                _kill(pid)
        await asyncio.wait([task], timeout=PATIENCE)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def _kill(pid: int) -> None:
    """Kill a worker, if it is one still: its number may belong to another process by now, or to a thread of ours."""
    with suppress(FileNotFoundError, ProcessLookupError):
        if os.fsencode(PROGRAM) in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


async def test_each_signal_reaches_each_worker_and_no_other_does(tmp_path: Path) -> None:
    async with supervised(tmp_path, "serves", "serves") as running:
        await running.until_ready()
        for count, number in enumerate(FORWARDED, start=1):
            await _send_until_both(running, number)
            for worker_number in (0, 1):
                ((_, happened),) = running.of(worker_number)
                assert len(set(happened) & {each.name for each in FORWARDED}) == count
        assert await running.end() is True
        # A signal may have been sent twice, and the second come after the word.
        assert [happened.count("stop") for number in (0, 1) for _, happened in running.of(number)] == [1, 1]


async def _send_until_both(running: Running, number: signal.Signals) -> None:
    def have_it() -> bool:
        return all(number.name in happened for n in (0, 1) for _, happened in running.of(n))

    async with asyncio.timeout(PATIENCE):
        while not have_it():  # A worker gets none until it is ready.
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.2)


async def test_a_worker_that_is_not_ready_gets_no_signal(tmp_path: Path) -> None:
    async with supervised(tmp_path, "serves", "never_ready") as running:
        await running.until_ready()
        for number in FORWARDED:
            os.kill(os.getpid(), number)
        await running.until(lambda: len(running.of(0)[0][1]) == 1 + len(FORWARDED))
        ((pid, _),) = running.of(1)
        # It would have died of each of them.
        assert _is_alive(pid)
        assert running.stop.pauses == []


async def test_a_worker_that_hangs_is_replaced_and_one_that_answers_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_QUESTION_SECONDS", 0.1)
    async with supervised(tmp_path, "serves", "hangs", worker_timeout=5) as running:
        await running.until(lambda: len(running.of(1)) == 2)
        (hanging, _), (other, _) = running.of(1)
        assert hanging != other
        assert not _is_alive(hanging)
        assert len(running.of(0)) == 1


async def test_without_a_limit_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[str] = []
    send = worker.Worker.send

    def listen_in(self: worker.Worker, word: str) -> None:
        words.append(word)
        send(self, word)

    monkeypatch.setattr(worker.Worker, "send", listen_in)
    async with supervised(tmp_path, "serves", "hangs", worker_timeout=0) as running:
        await running.until_ready()
        await _send_until(running, 0, signal.SIGUSR1)
        assert words == ["serve"]


async def test_once_a_worker_has_answered_the_supervisor_never_does(tmp_path: Path) -> None:
    async with supervised(tmp_path, "serves", "never_ready") as running:
        while await _status(running) != 200:
            pass
        assert {*await asyncio.gather(*(_status(running) for _ in range(200)))} == {200}
        await running.until_ready()  # So that the other one is there to be ended.


async def test_the_supervisor_answers_again_when_no_worker_is_left(tmp_path: Path) -> None:
    async with supervised(tmp_path, "serves", "never_ready") as running:
        await running.until_ready()
        for status in (200, 503, 200):
            async with asyncio.timeout(PATIENCE):
                while await _status(running) != status:
                    pass
            if status == 200:
                _kill(running.of(0)[-1][0])


async def _status(running: Running) -> int:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    except ConnectionError:
        return 0
    with closing(writer):
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: service\r\n\r\n")
        try:
            return int((await reader.readline()).split()[1])
        except (ConnectionError, IndexError):  # It was killed with the connection in its hands.
            return 0


async def _send_until(running: Running, number: int, sent: signal.Signals) -> None:
    os.kill(os.getpid(), sent)
    await running.until(lambda: sent.name in running.of(number)[0][1])


async def test_a_late_worker_is_killed_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_SPARE_SECONDS", 0.2)
    async with supervised(tmp_path, "serves", "late", shutdown_timeout=3) as running:
        await running.until_ready()
        await _send_until(running, 0, signal.SIGUSR1)
        assert await running.end() is False
        ((pid, _),) = running.of(1)
        assert not _is_alive(pid)
        assert running.of(0)[0][1][-1] == "stop"


async def test_a_worker_that_ends_badly_spoils_the_end(tmp_path: Path) -> None:
    async with supervised(tmp_path, "serves", "ends_badly") as running:
        await running.until_ready()
        assert await running.end() is False


async def test_one_that_died_before_does_not(tmp_path: Path) -> None:
    async with supervised(tmp_path, "serves", "serves") as running:
        await running.until_ready()
        os.kill(running.of(1)[0][0], signal.SIGKILL)
        await running.until(lambda: len(running.of(1)) == 2)
        assert await running.end() is True


async def test_a_forced_stop_is_passed_on(tmp_path: Path) -> None:
    async with supervised(tmp_path, "waits_for_force", "serves") as running:
        await running.until_ready()
        running.stop.ask()
        await running.until(lambda: "stop" in running.of(0)[0][1])
        running.stop.force_stop()
        assert await running.end() is True
        assert "force" in running.of(0)[0][1]


async def test_pauses_before_restarts_double_up_to_a_minute(tmp_path: Path) -> None:
    async with supervised(tmp_path, "serves", "dies") as running:
        await running.until(lambda: len(running.stop.pauses) >= 9)
        assert running.stop.pauses[:9] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
        assert len({pid for pid, _ in running.of(1)}) >= 9
        assert len(running.of(0)) == 1


async def test_who_has_served_well_is_replaced_quickly_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 59.0, 61.0, 0.0])
    monkeypatch.setattr(worker.Worker, "ready_seconds", property(lambda _: next(seconds, 0.0)))
    async with supervised(tmp_path, "serves", "dies") as running:
        await running.until(lambda: len(running.stop.pauses) >= 4)
        assert running.stop.pauses[:4] == [0.5, 1, 0.5, 1]


async def test_a_worker_that_starts_too_late_is_asked_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = worker.Worker.start
    running_now: list[Running] = []

    async def start_and_ask(*arguments: Any, **more: Any) -> worker.Worker:
        started = await start(*arguments, **more)
        if arguments[1] == 1:
            running_now[0].stop.ask()
            await asyncio.sleep(0.3)  # Within which everybody who is known has got it.
        return started

    monkeypatch.setattr(worker.Worker, "start", start_and_ask)
    async with supervised(tmp_path, "serves", "serves") as running:
        running_now.append(running)
        async with asyncio.timeout(PATIENCE):
            assert await running.task is True
        assert running.of(1)[0][1][-1] == "stop"


def test_a_process_whose_event_loop_hangs_at_the_end_ends_anyway() -> None:
    program = """
import asyncio, time
from data_layer.server import StopRequest

async def main():
    StopRequest(0.2).ask()
    time.sleep(600)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert "shutdown_timed_out" in done.stdout + done.stderr
