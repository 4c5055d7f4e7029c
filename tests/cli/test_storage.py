"""``data-layer storage``: what operators see, for people and for programs."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import SYSTEM
from tests.file_content import picture
from tests.support import make_code, make_project, make_user

from .support import Commands


@pytest.fixture
def orphan(command: Commands, settings: Settings) -> str:  # noqa: ARG001  (it empties the tables first)
    """One file in order, and one that nobody knows."""

    async def fill() -> None:
        async with DataLayer(settings) as data:
            user = make_user()
            async with data.transaction() as tx:
                tx.add(user)
            await data.files.save(picture(size=(150, 100)), owner_id=user.id)
            await data.storage.upload(b"orphan", "files/lost", "text/plain")

    asyncio.run(fill())
    return "files/lost"


def test_checking(command: Commands) -> None:
    checked = command("storage", "check")
    assert checked.output == "Compared 0 objects, 0 B; 0 are recorded.\n"
    assert command("storage", "check", "--deep", "--json").json["findings"] == []


def test_what_is_wrong_is_told_and_the_exit_code_says_so(command: Commands, orphan: str, settings: Settings) -> None:
    assert command("storage", "check").output.splitlines()[1] == "1 object may be about to be recorded."
    [original] = settings.storage.local_storage_path.glob("files/*/*.png")
    original.unlink()
    checked = command("storage", "check", code=1)
    assert "1 problem" in checked.output
    assert "missing" in checked.output
    assert "cleanup" in checked.errors
    found = command("storage", "check", "--json", code=1).json
    assert [finding["problem"] for finding in found["findings"]] == ["missing"]
    assert found["young"] == 1
    assert orphan


def test_cleaning_up_asks_for_more_than_its_name(command: Commands, orphan: str, settings: Settings) -> None:
    file = settings.storage.local_storage_path / orphan
    planned = command("storage", "cleanup", "--older-than", "0")
    assert "Orphaned objects      1 (6 B)" in planned.output
    assert planned.output.startswith("Would be removed")
    assert "--apply" in planned.errors
    assert file.exists()
    (settings.storage.local_storage_path / "of-the-application").touch()
    assert command("storage", "cleanup", "--apply", "--json").json["orphans"] == 0, "a day must have passed"
    done = command("storage", "cleanup", "--yes", "--older-than", "0")
    assert done.output.startswith("Removed")
    assert not file.exists()
    assert command("storage", "cleanup", "--older-than", "0", "--everywhere", "--json").json["orphans"] == 1
    assert command("storage", "check").code == 0


def test_figures(command: Commands, orphan: str) -> None:
    shown = command("storage", "stats")
    assert "1 object" in shown.output
    assert "image/png" in shown.output
    usage = command("storage", "stats", "--json").json
    assert usage["total"]["count"] == 1
    assert [row["name"] for row in usage["by_backend"]] == ["local"]
    assert orphan


def test_migrating_needs_two_backends(command: Commands) -> None:
    assert "STORAGE_SECOND_BACKEND" in command.error("storage", "migrate", "--to", "s3")
    assert "local, azure, s3" in command.error("storage", "migrate", "--to", "tape")
    assert "AWS_S3_BUCKET" in command.error("storage", "migrate", "--to", "s3", STORAGE_SECOND_BACKEND="s3")


CODE = "".join(f"<p>{number}</p>" for number in range(1000))
DIGEST = hashlib.sha256(CODE.encode()).hexdigest()


async def fill(settings: Settings) -> None:
    """A code whose text is packed."""
    async with DataLayer(settings) as data:
        project = make_project(user := make_user())
        async with data.transaction() as tx:
            tx.add(user)
            tx.add(project)
            tx.add(make_code(project, code=CODE))
        await data.maintenance.run(SYSTEM)


async def change(settings: Settings, statement: str, *, past_triggers: bool = False) -> None:
    async with DataLayer(settings) as data, data.transaction() as tx:
        if past_triggers:
            await tx.execute(text("SET LOCAL session_replication_role = replica"))
        await tx.execute(text(statement))


def test_texts_of_codes_are_compared_with_their_hashes(command: Commands, settings: Settings) -> None:
    assert command("storage", "check").code == 0
    asyncio.run(fill(settings))
    assert command("storage", "check").output.splitlines()[1].startswith("Compared 1 text of codes with their hashes, ")
    asyncio.run(change(settings, "UPDATE code_bodies SET bytes = 'x'"))
    checked = command("storage", "check", code=1)
    assert "damaged" in checked.output
    assert "1.0" in checked.output
    assert "storage check --apply" in checked.errors
    [finding] = command("storage", "check", "--json", code=1).json["codes"]["findings"]
    assert finding["sha256"] == DIGEST
    asyncio.run(change(settings, "UPDATE generated_codes SET code = 'again'"))
    checked = command("storage", "check", code=1)
    assert "Needed no more: 1 text of codes" in checked.output
    assert DIGEST in checked.output


def test_db_check_knows_the_texts_of_codes(command: Commands, settings: Settings) -> None:
    asyncio.run(fill(settings))
    checked = command("db", "check")
    assert "agree" in checked.output
    assert "Compared 1 text of codes" in checked.output
    for statement, problem in (
        ("UPDATE generated_codes SET body_size = 1", "wrong size"),
        ("UPDATE code_bodies SET bytes = 'x'", "damaged"),
        ("DELETE FROM code_bodies", "missing"),
    ):
        asyncio.run(change(settings, statement, past_triggers=True))
        assert command("db", "check", "--schema-only", "--json").json["codes"] is None
        checked = command("db", "check", code=1)
        assert "agree" in checked.output
        assert problem in checked.output
        assert "1.0" in checked.output
        assert "storage check --apply" in checked.errors
        found = command("db", "check", "--json", code=1).json
        assert found["agrees"] is True
        assert problem.replace(" ", "_") in {finding["problem"] for finding in found["codes"]["findings"]}
        assert {finding["sha256"] for finding in found["codes"]["findings"]} == {DIGEST}
        assert command("storage", "check", "--json", code=1).json["codes"] == found["codes"]
