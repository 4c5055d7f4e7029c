"""What an operator does at night: see more of a running service, and less again, without a restart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.embedded.support import wait_for

from .support import PATIENCE, Service, run_command

if TYPE_CHECKING:
    from pathlib import Path


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_levels_change_while_it_runs_and_the_log_file_has_everything(folder: Path) -> None:
    with Service(folder, LOG_FILE="logs/service.log", LOG_FILE_MAX_SIZE="0") as service:
        service.wait_until_ready()
        path = folder / "logs" / "service.log"

        def probes_are_logged() -> bool:
            service.get("/livez")
            return logged(path)[-1].get("path") == "/livez"

        assert not probes_are_logged()
        wrong = run_command(folder, "logs", "level", "debug", "--logger", "data_layer.apii")
        assert (wrong.returncode, "no logger" in wrong.stderr) == (1, True)
        done = run_command(folder, "logs", "level", "debug", "--logger", "data_layer.api", "--json")
        assert done.returncode == 0, done.stderr
        [change] = json.loads(done.stdout)["changes"]
        assert (change["logger"], change["level"], bool(change["until"])) == ("data_layer.api", "debug", True)
        assert wait_for(probes_are_logged, PATIENCE)
        assert "log_level_changed" in {event["event"] for event in logged(path)}
        assert "data_layer.api" in run_command(folder, "logs", "level").stdout
        assert "LOG_LEVEL=info" in run_command(folder, "logs", "reset").stdout
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
