"""Levels that change while a process runs."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_layer.errors import InvalidValueError
from data_layer.observability.levels import LevelChange, LevelFile, LevelWatch, require_logger
from tests.observability.support import events, log_to_memory
from tests.support import until

ours, cache = logging.getLogger("data_layer.tests"), logging.getLogger("data_layer.cache")
driver = logging.getLogger("driver")
LATER = datetime.now(UTC) + timedelta(hours=1)


async def test_a_running_process_takes_changes_over_and_forgets_them(tmp_path: Path) -> None:
    stream, file = log_to_memory(log_level="warn"), LevelFile(tmp_path)
    with LevelWatch("warn", tmp_path):
        assert not ours.isEnabledFor(logging.INFO)
        file.write([LevelChange("data_layer", "debug", LATER)])
        await until(lambda: ours.isEnabledFor(logging.DEBUG))
        assert not driver.isEnabledFor(logging.DEBUG), "drivers are talkative, and hold what went over the wire"
        file.write([LevelChange("data_layer.cache", "debug", LATER), LevelChange("driver", "error")])
        await until(lambda: not ours.isEnabledFor(logging.INFO) and cache.isEnabledFor(logging.DEBUG))
        assert not driver.isEnabledFor(logging.WARNING)
        file.remove()
        await until(lambda: not cache.isEnabledFor(logging.DEBUG) and driver.isEnabledFor(logging.WARNING))
    logged = [(event["event"], event["name"], event.get("to")) for event in events(stream)]
    assert logged[0] == ("log_level_changed", "data_layer", "debug")
    assert ("log_level_restored", "data_layer.cache", None) in logged


async def test_a_process_that_starts_later_takes_them_over_and_they_end_by_themselves(tmp_path: Path) -> None:
    log_to_memory()
    LevelFile(tmp_path).write([LevelChange("data_layer", "debug", datetime.now(UTC) + timedelta(seconds=2))])
    with LevelWatch("info", tmp_path):
        await until(lambda: not ours.isEnabledFor(logging.DEBUG))
        assert ours.isEnabledFor(logging.INFO)
    assert LevelFile(tmp_path).read() == [], "what is over is not shown either"


def test_levels_are_as_before_at_the_end(tmp_path: Path) -> None:
    log_to_memory()
    LevelFile(tmp_path).write([LevelChange("data_layer", "error"), LevelChange("driver", "debug")])
    with LevelWatch("info", tmp_path):
        assert driver.isEnabledFor(logging.DEBUG)
        assert not ours.isEnabledFor(logging.WARNING)
    assert ours.isEnabledFor(logging.INFO)
    assert not driver.isEnabledFor(logging.DEBUG)


def path_of(folder: Path) -> Path:
    LevelFile(folder).write([LevelChange("data_layer", "debug")])
    (path,) = folder.iterdir()
    return path


def test_only_the_owner_may_write_it(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o644, "root may have written it for the account of the service"
    path.chmod(0o666)
    with pytest.raises(InvalidValueError, match="others could have written it"):
        LevelFile(tmp_path).read()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"[" * 60_000, b"\xff", b'[{"logger": "a", "level": "loud"}]'])
def test_what_means_nothing_changes_nothing(tmp_path: Path, content: bytes) -> None:
    stream = log_to_memory()
    path_of(tmp_path).write_bytes(content)
    with LevelWatch("info", tmp_path):
        assert not ours.isEnabledFor(logging.DEBUG)
    assert [event["event"] for event in events(stream)] in ([], ["log_levels_refused"])


def test_neither_links_nor_pipes_nor_large_files_are_read(tmp_path: Path) -> None:
    path, other = path_of(tmp_path), tmp_path / "other"
    path.rename(other)
    path.symlink_to(other)
    with pytest.raises(InvalidValueError):
        LevelFile(tmp_path).read()
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(InvalidValueError):
        LevelFile(tmp_path).read()
    path.unlink()
    path.write_bytes(b" " * 100_000)
    path.chmod(0o600)
    with pytest.raises(InvalidValueError):
        LevelFile(tmp_path).read()


def test_a_level_and_a_logger_must_exist() -> None:
    with pytest.raises(InvalidValueError, match="loud"):
        LevelChange("data_layer", "loud")
    for name in ("data_layer", "data_layer.cache", "data_layer.services.audit.buffer", "some.library"):
        require_logger(name)
    for name in ("data_layer.cahce", "data_layer.cache.near.copy", "", "a b", "data_layer/../x"):
        with pytest.raises(InvalidValueError, match="no logger"):
            require_logger(name)
