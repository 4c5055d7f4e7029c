"""What an operator does at night: see more of a running service, and less again, without a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Commands
from tests.embedded.support import wait_for
from tests.observability.conftest import logging_as_before

from .support import PATIENCE, Service

__all__ = ["logging_as_before"]


def logged(path: Path) -> list[dict[str, Any]]:
    """The lines that are complete: the last one may be under way."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.mark.slow
def test_levels_change_while_it_runs_and_the_log_file_has_everything(folder: Path) -> None:
    with Service(folder, LOG_FILE="logs/service.log", LOG_FILE_MAX_SIZE="0") as service:
        service.wait_until_ready()
        path = folder / "logs" / "service.log"

        def probes_are_logged() -> bool:
            service.get("/livez")
            return logged(path)[-1].get("path") == "/livez"

        assert not probes_are_logged()
        command = Commands(DATA_FOLDER=str(folder / ".data-layer"))
        assert "no logger" in command("logs", "level", "debug", "--logger", "data_layer.webb", code=1).errors
        [change] = command("logs", "level", "debug", "--logger", "data_layer.web", "--json").json["changes"]
        assert (change["logger"], change["level"], bool(change["until"])) == ("data_layer.web", "debug", True)
        assert wait_for(probes_are_logged, PATIENCE)
        assert "log_level_changed" in {event["event"] for event in logged(path)}
        assert "data_layer.web" in command("logs", "level").output
        assert "LOG_LEVEL=info" in command("logs", "reset").output
        assert wait_for(lambda: not probes_are_logged(), PATIENCE)
        assert service.end() == 0, service.output
    assert path.stat().st_mode & 0o777 == 0o600
    assert "log_level_restored" in service.output, "standard error has it too"


def test_a_log_file_that_cannot_be_written_is_one_clear_message(new_folder: Path) -> None:
    (new_folder / "file").touch()
    with Service(new_folder, LOG_FILE="file/service.log") as service:
        said = service.fail()
    assert "configuration_invalid" in said
    assert "LOG_FILE" in said
