"""Processes that save and delete files, killed at random moments, and a look at what they left.

``test_crashes`` runs it. By hand, a few hundred times and with servers of its own:
``python -m tests.services.files.crashing_saver 300``. Prints one JSON object; ends with exit code 1 and a message when
anything is torn or half recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from data_layer import DataLayer, FileState, Settings
from data_layer.errors import NotFoundError
from data_layer.schemas.actors import SYSTEM
from data_layer.services.files import ANY_OWNER
from data_layer.services.files.check import Problem
from tests.file_content import PAGE, picture
from tests.support import forked, make_user, url_of_killed, wait_for_the_last_commit_of_killed

CHANCE = random.Random(1)
USEFUL = timedelta(seconds=-1)  # So that nothing is too young to be cleaned up.


async def save_for_ever(settings: Settings, owner_id: UUID, seed: int, acknowledgements: int) -> None:
    """Save, save again, send directly and delete, in several tasks; report each call that has returned."""
    async with DataLayer(settings) as data:

        async def work(number: int) -> None:
            chance = random.Random(seed * 100 + number)
            while True:
                color = (chance.randrange(8), number, 9)
                page = PAGE * chance.randrange(1, 4)
                content = page if chance.random() < 0.3 else picture(size=(240, 160), color=color)
                file = await (direct if chance.random() < 0.3 else save)(content)
                report("saved", file)
                if chance.random() < 0.5:
                    report("deleting", file)
                    await data.files.delete(file, owner_id=owner_id)
                    report("deleted", file)

        async def save(content: bytes) -> UUID:
            return (await data.files.save(content, owner_id=owner_id)).id

        async def direct(content: bytes) -> UUID:
            content_type = "text/html" if content.startswith(b"<") else "image/png"
            upload = await data.files.begin_upload(owner_id=owner_id, content_type=content_type, size=len(content))
            key = upload.url.partition("?")[0].partition("/v1/files/")[2]
            await data.storage.upload(content, key, content_type)
            return (await data.files.complete_upload(upload.id, owner_id=owner_id)).id

        def report(what: str, file: UUID) -> None:
            os.write(acknowledgements, f"{what} {file}\n".encode())

        os.write(acknowledgements, b"ready -\n")
        await asyncio.gather(*(work(number) for number in range(4)))


async def look(settings: Settings, reported: dict[str, str], results: int) -> None:
    """What was saved is there, whole; what was deleted is not; and what is over can be cleaned up."""
    async with DataLayer(settings) as data:
        for file, last in reported.items():
            try:
                view = await data.files.stat(UUID(file), owner_id=ANY_OWNER)
            except NotFoundError:
                assert last in {"deleting", "deleted"}, f"{file} was lost after it was {last}"
                continue
            assert last != "deleted", f"{file} came back after it was deleted"
            content = await data.files.download(view.id, owner_id=view.owner_id)
            assert len(content) == view.size
        torn = await data.file_maintenance.check(SYSTEM, deep=True, young_for=USEFUL)
        bad = [finding for finding in torn.findings if finding.problem is not Problem.ORPHAN]
        assert not bad, f"torn or half recorded: {bad}"
        async with data.transaction() as tx:
            pending = await tx.stored_files.count(state=FileState.PENDING)
        cleaned = await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=timedelta(hours=-3))
        after = await data.file_maintenance.check(SYSTEM, deep=True, young_for=USEFUL)
        assert not after.findings, f"left after cleaning up: {after.findings}"
        async with data.transaction() as tx:
            assert await tx.stored_files.count(state=[FileState.PENDING, FileState.DELETED]) == 0
        report = {
            "orphans": len(torn.findings),
            "pending": pending,
            "half_deleted": cleaned.half_deleted,
            "unreferenced": cleaned.unreferenced,
            "objects": after.objects,
        }
    os.write(results, json.dumps(report).encode())


def kill_one(settings: Settings, owner_id: UUID, seed: int) -> list[list[str]]:
    """Start a process, kill it at a random moment; what it reported until then."""
    reading, writing = os.pipe()
    # Embedded servers end with the process, and with them what it has sent.
    given = settings.database.database_url
    url = given and given.get_secret_value()
    doomed = settings.replaced(database_url=url_of_killed(url)) if url else settings
    process = forked(lambda: save_for_ever(doomed, owner_id, seed, writing))
    os.close(writing)
    with os.fdopen(reading) as lines:
        # A busy machine may need a second for the first file, so some are waited for; then chance decides.
        seen = [lines.readline() for _ in range(1 + CHANCE.randrange(8))]
        if not seen[0]:
            sys.exit("the process did not start")
        time.sleep(CHANCE.uniform(0, 0.15))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        if url:
            wait_for_the_last_commit_of_killed(url)
        return [line.split() for line in [*seen[1:], *lines] if line]


def examine(settings: Settings, reported: dict[str, str]) -> dict[str, int]:
    reading, writing = os.pipe()
    process = forked(lambda: look(settings, reported, writing))
    os.close(writing)
    with os.fdopen(reading) as results:
        found = results.read()
    if os.waitpid(process, 0)[1]:
        sys.exit(1)
    report: dict[str, int] = json.loads(found)
    return report


async def prepare(settings: Settings) -> UUID:
    user = make_user(email=f"{os.getpid()}-{time.time_ns()}@example.com")
    async with DataLayer(settings) as data, data.transaction() as tx:
        tx.add(user)
    return user.id


def run(settings: Settings, rounds: int, each: int) -> dict[str, int]:
    settings = settings.replaced(allowed_file_types=("image/png", "text/html"), image_thumbnail_sizes=(64,))
    with asyncio.Runner() as runner:
        owner_id = runner.run(prepare(settings))
    reported: dict[str, str] = {}
    sums = {"rounds": rounds, "saved": 0, "deleted": 0, "rounds_with_leftovers": 0}
    for number in range(rounds):
        for what, file in kill_one(settings, owner_id, number):
            reported[file] = what
            sums["saved"] += what == "saved"
            sums["deleted"] += what == "deleted"
        if number % each == each - 1 or number == rounds - 1:
            found = examine(settings, reported)
            left = {name: found[name] for name in ("orphans", "pending", "half_deleted", "unreferenced")}
            sums["rounds_with_leftovers"] += any(left.values())
            for name, value in left.items():
                sums[name] = sums.get(name, 0) + value
            reported = {file: last for file, last in reported.items() if last == "saved"}
    return sums


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int)
    parser.add_argument("--examine-each", type=int, default=5)
    options = parser.parse_args()
    if "DATABASE_URL" in os.environ:
        sums = run(Settings(), options.rounds, options.examine_each)
    else:
        with tempfile.TemporaryDirectory(prefix="crash-") as folder:
            settings = Settings(data_folder=Path(folder) / "servers", local_storage_path=Path(folder) / "uploads")
            sums = run(settings, options.rounds, options.examine_each)
    sys.stdout.write(json.dumps(sums) + "\n")


if __name__ == "__main__":
    main()
