"""``data-layer db``: from nothing to a database with example data, and back."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from data_layer import DataLayer, Settings
from data_layer.database.migrations import VERSION_TABLE, known_revisions
from data_layer.database.migrations.execution import LOCK
from data_layer.services.seed_catalog import catalog
from tests.service.support import PATIENCE, PROGRAM, clean_environment
from tests.support import url_of_killed, wait_for_the_last_commit_of_killed

from .support import Commands

REVISIONS = [revision.identifier for revision in known_revisions()]
PRODUCTION: dict[str, Any] = {
    "ENVIRONMENT": "production",
    "SESSION_SECRET": "3eb1a0f5c2d94786ab51e07c9d3f6a28",
    "JWT_SECRET": "9c0d7e42f6b18a35d4c97f02e6518b3a",
    "DB_SSL": "disable",
    "BCRYPT_ROUNDS": "10",
}


def test_from_nothing_to_a_checked_database(command_on_nothing: Commands) -> None:
    command = command_on_nothing
    for refused in ("migrate", "current", "check", "seed", "rollback --yes"):
        assert "data-layer db create" in command.error("db", *refused.split())
    assert "The database was made.\n" in command("db", "create").output
    created = command("db", "create", "--json").json
    assert created["created"] is False
    assert "pg_stat_statements" in created["extensions"]
    assert command("db", "create").output.startswith("The database exists.\n")

    assert command("db", "current", "--json").json["state"] == "empty"
    assert "data-layer db migrate" in command.error("db", "seed")
    check = command("db", "check", code=1)
    assert "data-layer db migrate" in check.errors
    assert command("db", "check", "--json", code=1).json["agrees"] is False

    migrated = command("db", "migrate")
    assert migrated.output == f"Ran {len(REVISIONS)} migrations: {', '.join(REVISIONS)}.\n"
    assert f"1/{len(REVISIONS)} {REVISIONS[0]} six tables: finished" in migrated.errors
    again = command("db", "migrate")
    assert (again.output, again.errors) == ("Nothing to do.\n", "")
    assert command("db", "migrate", "--json").json == {"migrated": []}
    assert command("db", "check").output == f"Models, migrations and database agree (revision {REVISIONS[-1]}).\n"
    lines = command("db", "current").output.splitlines()
    assert lines[0] == "Schema"
    assert [line.split(maxsplit=1) for line in lines[1:]] == [
        ["State", "up to date"],
        ["Revision", REVISIONS[-1]],
        ["Needed", REVISIONS[-1]],
        ["Missing", "none"],
    ]


def test_rollback_and_reset_ask_first(command: Commands) -> None:
    command("users", "create", "ann@example.com", typed="correct horse battery staple\n")
    for words in (["rollback"], ["reset"]):
        refused = command("db", *words, typed="n\n", code=1)
        assert refused.output.strip() == "n", "a question is no output; the answer is typer's echo for tests"
        assert "? [y/N]" in refused.errors
        assert command("db", *words, typed="", code=1).errors.count("Aborted") == 1
    assert len(command("users", "list", "--json").json) == 1
    database = urlsplit(command.environment["DATABASE_URL"]).path[1:]
    asked = command("db", "reset", typed="y\n")
    assert database in asked.errors, "the question names the database"
    assert asked.output.endswith("The database is empty, with all its tables.\n")
    assert command("users", "list", "--json").json == []
    undone = command("db", "rollback", "--yes", "--json").json
    assert undone == {"undone": [REVISIONS[-1]]}
    assert command("db", "current", "--json").json["pending"] == [REVISIONS[-1]]
    assert command("db", "rollback", "99", "--yes", "--json").json == {"undone": list(REVISIONS[-2::-1])}
    assert command("db", "rollback", "--yes").output == "Nothing to do.\n"
    reset = command("db", "reset", "--yes", "--json").json
    assert reset == {"reset": True, "migrated": REVISIONS}


def test_production_is_protected(command: Commands) -> None:
    for words in (["rollback"], ["reset"], ["rollback", "--yes"], ["reset", "--yes"]):
        message = command.error("db", *words, **PRODUCTION)
        assert "ENVIRONMENT is production" in message
        assert "--force" in message
    assert "example data" in command.error("db", "seed", **PRODUCTION)
    assert command("db", "check", "--json").json["agrees"] is True, "nothing has happened"
    assert command("db", "reset", "--yes", "--force", **PRODUCTION).output.startswith("The database is empty")


def test_seed_says_what_it_added_and_how_to_log_in(command: Commands, settings: Settings) -> None:
    first = command("db", "seed")
    assert catalog()["projects"][0]["name"] in first.errors
    rows = {name: number for number, name in (line.split(maxsplit=1) for line in first.output.splitlines()[2:])}
    codes = sum(len(project["codes"]) for project in catalog()["projects"])
    assert rows["projects"] == str(len(catalog()["projects"]))
    assert rows["codes"] == str(codes)
    [login] = [line for line in first.errors.splitlines() if line.startswith("Log in as ")]
    email = catalog()["users"][0]["email"]
    assert login.startswith(f"Log in as {email} with the password ")

    async def log_in() -> None:
        async with DataLayer(settings) as data:
            await data.accounts.log_in(email=email, password=login.split()[7])

    asyncio.run(log_in())
    again = command("db", "seed", "--json")
    assert set(again.json.values()) == {0}
    assert again.errors == "", "the password is shown once"


def test_a_database_of_another_application(command_on_nothing: Commands) -> None:
    command_on_nothing("db", "create")
    with psycopg.connect(command_on_nothing.environment["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE somebody_elses (id int)")
    message = command_on_nothing.error("db", "migrate")
    assert "schema_foreign" in message
    assert "somebody_elses" in message
    assert "--shared" in message
    assert command_on_nothing("db", "migrate", "--shared", "--json").json == {"migrated": REVISIONS}


def test_a_newer_database(command_on_nothing: Commands) -> None:
    command_on_nothing("db", "create")
    command_on_nothing("db", "migrate")
    with psycopg.connect(command_on_nothing.environment["DATABASE_URL"]) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    assert "9999" in command_on_nothing.error("db", "migrate")
    ahead = command_on_nothing("db", "check", code=1)
    assert "update the service" in ahead.errors
    assert command_on_nothing("db", "check", "--json", code=1).json["schema"]["state"] == "ahead"


@pytest.mark.parametrize("words", [["db", "current"], ["db", "migrate"], ["projects", "list"]])
def test_a_server_that_is_not_there(command: Commands, words: list[str]) -> None:
    message = command.error(*words, DATABASE_URL="postgresql://user:hidden-password@127.0.0.1:1/name")
    assert "database_unavailable" in message
    assert "127.0.0.1" in message
    assert "hidden-password" not in message


def test_ctrl_c_ends_the_waiting_for_another_migration(command_on_nothing: Commands) -> None:
    command_on_nothing("db", "create")
    with psycopg.connect(command_on_nothing.environment["DATABASE_URL"], autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        with subprocess.Popen(
            [PROGRAM, "db", "migrate"],
            env=clean_environment() | command_on_nothing.environment | {"DB_SLOW_STATEMENT": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "Waiting for another process that is migrating …\n"
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert output == ""
    assert errors == "", "the waiting is reported once, and an interruption is not an error"


@pytest.mark.slow
def test_a_seed_that_was_killed_is_completed_by_the_next(command: Commands) -> None:
    url = command.environment["DATABASE_URL"]
    environment = clean_environment() | command.environment | {"DATABASE_URL": url_of_killed(url)}
    with subprocess.Popen([PROGRAM, "db", "seed"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if catalog()["projects"][4]["name"] in line:
                process.kill()
                break
    wait_for_the_last_commit_of_killed(url)
    there = {project["name"] for project in command("projects", "list", "--json").json}
    wanted = {project["name"] for project in catalog()["projects"]}
    assert there < wanted, "it was killed in the middle"
    added = command("db", "seed", "--json").json
    assert added["projects"] == len(wanted - there)
    assert {project["name"] for project in command("projects", "list", "--json").json} == wanted
