"""The log file: whole lines from several processes, put aside in time, and never a reason to fail."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_layer.errors import ConfigurationError
from data_layer.observability.log_file import LogFile
from tests.observability.support import events, log_as, log_to_memory, settings

log = logging.getLogger("data_layer.tests")


def log_to(path: Path, **values: Any) -> Any:
    stream = log_to_memory()
    log_as(settings(log_file=path, **values), stream=stream, to_file=True)
    return stream


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_service_logs_to_both_and_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "service.log"
    stream = log_to(path, redis_password="correct horse", redis_host="localhost")
    log.warning("begun with 'correct horse' and password=hunter2")
    assert lines(path) == events(stream)
    assert "hunter2" not in path.read_text()
    assert "correct horse" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_commands_leave_the_file_alone(tmp_path: Path) -> None:
    log_as(settings(log_file=tmp_path / "service.log"), stream=log_to_memory())
    log.warning("begun")
    assert list(tmp_path.iterdir()) == []


def test_older_files_are_kept_as_far_as_wished(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    log_to(path, log_file_max_size=1000, log_file_count=2)
    for number in range(60):
        log.info("counted", extra={"number": number})
    assert {file.name for file in tmp_path.iterdir()} == {"service.log", "service.log.1", "service.log.2"}
    kept = [
        line["number"] for name in ("service.log.2", "service.log.1", "service.log") for line in lines(tmp_path / name)
    ]
    assert kept == list(range(kept[0], 60))
    assert all(file.stat().st_size <= 1000 and file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.iterdir())


def test_it_follows_when_others_put_it_aside_or_remove_it(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    log_to(path, log_file_max_size=0)
    log.info("first")
    path.rename(tmp_path / "aside")
    log.info("second")
    assert [line["event"] for line in lines(path)] == ["second"]
    path.unlink()
    log.info("third")
    assert [line["event"] for line in lines(path)] == ["third"]


WRITER = """
import sys
from pathlib import Path
from data_layer.observability.log_file import LogFile

file = LogFile(Path(sys.argv[1]), maximum_size=20_000, count=1000)
file.open()
print("ready", flush=True)
sys.stdin.readline()
for number in range(2000):
    file.append(f"{sys.argv[2]} {number} {'x' * (number % 100)} end\\n".encode())
"""


def test_several_processes_tear_and_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "abcd"
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=120)
        assert writer.returncode == 0
    files = list(tmp_path.iterdir())
    assert len(files) > 10, "it was put aside all the time"
    written = [line.split() for file in files for line in file.read_text().splitlines()]
    assert all(line[-1] == "end" and len(line) in {3, 4} for line in written)
    assert {(line[0], int(line[1])) for line in written} == {
        (name, number) for name in "abcd" for number in range(2000)
    }
    assert len(written) == 8000


class Disk:
    """Takes everything until it is full; then five bytes more, as a disk does that has so much room, and nothing."""

    def __init__(self) -> None:
        self.is_full = False
        self._room = 5
        self._write = os.write

    def write(self, descriptor: int, content: bytes) -> int:
        if not self.is_full:
            return self._write(descriptor, content)
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room, self._room = self._room, 0
        return self._write(descriptor, content[:room])


def test_a_full_disk_is_told_and_disturbs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, disk = tmp_path / "service.log", Disk()
    stream = log_to(path)
    monkeypatch.setattr("data_layer.observability.log_file.os.write", disk.write)
    log.info("before")
    disk.is_full = True
    for _ in range(3):
        log.info("during")
    disk.is_full = False
    log.info("after")
    logged = events(stream)
    assert [event["event"] for event in logged] == [
        *("before", "during", "log_file_write_failed", "during", "during", "after", "log_file_lines_lost")
    ]
    assert logged[-1]["lines"] == 4, "the three, and the event that tells of the first"
    first, torn, *rest = path.read_text().splitlines()
    assert json.loads(first)["event"] == "before"
    assert len(torn) == 5
    assert [json.loads(line)["event"] for line in rest] == ["after", "log_file_lines_lost"]


def test_a_folder_that_is_gone_disturbs_nobody(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "service.log"
    stream = log_to(path)
    path.unlink()
    path.parent.rmdir()
    log.info("during")
    path.parent.mkdir()
    log.info("after")
    assert {event["event"] for event in lines(path)} == {"after", "log_file_lines_lost"}
    assert "log_file_write_failed" in {event["event"] for event in events(stream)}


@pytest.mark.parametrize("place", ["/dev/null", "/proc/none/service.log"])
def test_a_place_that_takes_no_log_is_an_error_at_start(place: str) -> None:
    with pytest.raises(ConfigurationError, match="LOG_FILE"):
        LogFile(Path(place), maximum_size=0, count=1).open()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"LOG_FILE.*is a folder"):
        settings(log_file=tmp_path)
