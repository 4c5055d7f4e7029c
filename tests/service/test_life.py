"""The service from its start to its end, and what it finds when it starts again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from data_layer import DataLayer, Settings, User
from data_layer.services.seed_catalog import catalog
from tests.embedded.support import assert_no_process, parent_of, processes_of, wait_for
from tests.support import make_project

from .support import READY, Service, run_command


def test_the_first_start_prints_where_everything_is(first_start: tuple[Path, str]) -> None:
    folder, output = first_start
    places = {line[:9].strip(): line[11:].strip() for line in output.splitlines() if line[9:11] == "  "}
    service = places["Service"]
    assert service.startswith("http://127.0.0.1:")
    assert places["API docs"] == f"{service}/docs"
    assert places["Database"].startswith("postgresql://postgres@/screenshot_to_code?host=")
    assert places["Cache"].startswith("unix:///")
    assert places["Uploads"] == str(folder / "uploads")
    assert output.index("Starting …") < output.index("example project: ") < output.index(READY)
    assert output.rstrip().endswith("Stopping …")
    assert "\x1b" not in output, "colours are for terminals"
    assert output.count("database_migrated") == 1
    assert "migration_progressed" not in output, "a hundred lines before the address of the page"
    assert "alembic" not in output
    assert "uvicorn" not in output


def test_it_answers(running: Service) -> None:
    health = running.get("/health")
    assert health.status_code == 200
    assert health.json()["overall"] is True
    assert running.get("/readyz").json() == {"ready": True, "reason": None}
    assert "server" not in health.headers


def test_other_commands_attach_while_it_runs(running: Service) -> None:
    before = programs_of(running.folder)
    shown = run_command(running.folder, "projects", "list", "--json")
    assert shown.returncode == 0, shown.stderr
    assert len(json.loads(shown.stdout)) == len(catalog()["projects"])
    assert run_command(running.folder, "health").returncode == 0
    assert wait_for(lambda: programs_of(running.folder) == before), "they used the servers that ran"
    assert running.get("/health").json()["overall"] is True


def programs_of(folder: Path) -> set[int]:
    """The programs that run in a folder, without the processes that PostgreSQL starts and ends for each connection.

    One that was just forked bears the name of its parent.
    """
    found = {
        number: command for number, command in processes_of(folder).items() if not command.startswith("postgres: ")
    }
    return {number for number, command in found.items() if found.get(parent_of(number)) != command}


@pytest.mark.slow
def test_a_second_service_on_the_same_folder_is_refused(running: Service) -> None:
    with Service(running.folder) as second:
        said = second.fail()
    assert "folder_in_use" in said
    assert str(running.folder / ".data-layer") in said
    assert f"process {running.process.pid}" in said
    assert running.get("/health").json()["overall"] is True


def test_a_taken_port_is_named(running: Service, new_folder: Path) -> None:
    with Service(new_folder, port=running.port) as second:
        said = second.fail()
    assert f"cannot listen on 127.0.0.1:{running.port} (Address already in use)" in said
    assert "PORT" in said
    assert not (new_folder / ".data-layer").exists(), "nothing was started for it"


def settings_of(folder: Path) -> Settings:
    return Settings(data_folder=folder / ".data-layer", local_storage_path=folder / "uploads")


async def change(folder: Path) -> None:
    """What a user does between two starts: delete an example, and make something."""
    async with DataLayer(settings_of(folder)) as data, data.transaction() as tx:
        example = await tx.projects.find_one(name=catalog()["projects"][0]["name"])
        assert example is not None
        await tx.projects.delete(example)
        user = User(email="new@example.com", first_name="New", last_name="User")
        tx.add(user)
        tx.add(make_project(user, name="Made in between"))


async def names(folder: Path) -> set[str]:
    """The projects that are there, by the servers that run."""
    async with DataLayer(settings_of(folder)) as data, data.transaction() as tx:
        return {project.name for project in await tx.projects.list()}


EXPECTED = {"Made in between"} | {project["name"] for project in catalog()["projects"][1:]}


@pytest.mark.slow
async def test_data_survives_a_stop_a_kill_and_a_double_ctrl_c(folder: Path) -> None:
    await change(folder)
    with Service(folder) as service:
        print(f"second start: {service.wait_until_ready():.1f} s")  # noqa: T201  (shown by pytest -s)
        assert await names(folder) == EXPECTED, "the deleted example does not come back"
        assert "example project" not in service.output
        os.kill(service.process.pid, signal.SIGKILL)
    assert_no_process(folder / ".data-layer")
    with Service(folder) as service:
        service.wait_until_ready()
        assert await names(folder) == EXPECTED
        assert service.end(signal.SIGINT, group=True, times=2) == 0, service.output
    assert_no_process(folder / ".data-layer")
    assert "Traceback" not in service.output


def server_is_set_up(folder: Path) -> bool:
    return any((folder / ".data-layer").glob("postgresql.new-*"))


def database_is_there(folder: Path) -> bool:
    return (folder / ".data-layer" / "postgresql" / "postmaster.pid").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "number"), [(server_is_set_up, signal.SIGTERM), (database_is_there, signal.SIGINT)])
def test_a_signal_during_the_first_start_ends_it(new_folder: Path, moment: Any, number: signal.Signals) -> None:
    with Service(new_folder) as service:
        assert wait_for(lambda: moment(new_folder), 60), service.output
        assert service.end(number, group=True, times=2) == 128 + number, service.output
        assert READY not in service.output, "it was still starting"
        assert service.output.rstrip().endswith("Stopped before it was ready.")
        assert "Traceback" not in service.output
    assert_no_process(new_folder)


@pytest.mark.slow
async def test_a_start_that_was_ended_while_it_planted_is_completed_by_the_next(new_folder: Path) -> None:
    with Service(new_folder) as service:
        service.wait_for_output(f"example project: {catalog()['projects'][2]['name']}")
        assert service.end() == 128 + signal.SIGTERM
        assert READY not in service.output, "it was still starting"
    assert_no_process(new_folder)
    with Service(new_folder) as service:
        service.wait_until_ready()
        assert f"example project: {catalog()['projects'][-1]['name']}" in service.output
        assert await names(new_folder) == {project["name"] for project in catalog()["projects"]}
        assert service.end() == 0
