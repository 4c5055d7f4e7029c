"""The example data: complete, real, made by the services, and there only once."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import CodeStack, DataLayer, Project, UserRole
from data_layer.entities.enums import GenerationStatus, ProjectStatus
from data_layer.errors import ConfigurationError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.usage import UsageGroup
from data_layer.services.seed import EXAMPLE, SeedReport
from data_layer.services.seed_catalog import catalog, code_of, cost_of, file_of

PROJECTS = catalog()["projects"]
COUNTS = {
    "users": len(catalog()["users"]),
    "projects": len(PROJECTS),
    "codes": sum(len(project["codes"]) for project in PROJECTS),
    "images": sum(len(project.get("images", [])) for project in PROJECTS),
    "designs": sum(len(user.get("designs", [])) for user in catalog()["users"]),
    "shares": sum(len(project.get("shares", [])) for project in PROJECTS),
    "sessions": len(catalog()["sessions"]),
}
NOTHING = SeedReport()


async def counts(data: DataLayer) -> dict[str, int]:
    async with data.transaction() as tx:
        repositories: dict[str, Any] = {
            "users": tx.users,
            "projects": tx.projects,
            "codes": tx.codes,
            "images": tx.images,
            "designs": tx.designs,
            "shares": tx.shares,
            "sessions": tx.sessions,
        }
        return {name: await repository.count() for name, repository in repositories.items()}


async def example(data: DataLayer, entry: dict[str, Any]) -> Project:
    async with data.transaction() as tx:
        found = await tx.projects.find_one(metadata_={EXAMPLE: entry["key"]})
    assert found is not None
    return found


def test_the_catalog_is_what_was_promised() -> None:
    assert COUNTS["users"] == 3
    assert COUNTS["projects"] == 12
    assert {project["code_stack"] for project in PROJECTS} == {stack.value for stack in CodeStack}
    assert len(CodeStack) == 7
    assert all(project["screenshot"].endswith(".png") for project in PROJECTS)
    assert all(len({code["generation"] for code in project["codes"]}) > 1 for project in PROJECTS), "several versions"
    sizes = Counter((project["key"], code["generation"]) for project in PROJECTS for code in project["codes"])
    assert list(sizes.values()).count(4) == 2, "some with four variants"
    statuses = {code["status"] for project in PROJECTS for code in project["codes"]}
    assert statuses == {"completed", "failed", "cancelled"}
    for user in catalog()["users"]:
        assert user["email"].rpartition("@")[2] in {"example.com", "example.org", "example.net"}


async def test_everything_in_the_catalog_is_loaded_once(data: DataLayer) -> None:
    """One load, looked at from all sides."""
    reported: list[str] = []
    logins: list[tuple[str, str]] = []
    report = await data.seed.load(reported.append, lambda email, password: logins.append((email, password)))
    assert report.model_dump() == COUNTS == await counts(data)
    assert sorted(reported) == sorted(project["name"] for project in PROJECTS)
    await codes_and_files_are_read_back_byte_for_byte(data)
    check = await data.file_maintenance.check(SYSTEM)
    assert (check.unrecorded, check.findings) == (0, ()), "every file belongs to somebody"
    await costs_are_those_of_the_catalog_cancelled_and_failed_work_included(data)
    await what_happened_is_recorded(data)
    await the_newest_page_of_each_project_can_be_replayed(data)
    await somebody_can_log_in_and_nobody_else(data, logins)
    again = await data.seed.load(on_login=lambda *_: pytest.fail("it is shown once"))
    assert again == await data.seed.load_once() == NOTHING
    # Somebody has logged in since.
    assert await counts(data) == COUNTS | {"sessions": COUNTS["sessions"] + 1}


async def the_newest_page_of_each_project_can_be_replayed(data: DataLayer) -> None:
    for entry in PROJECTS:
        project, reported = await example(data, entry), entry["codes"][-1]
        owner = Actor.user(project.user_id, UserRole.USER)
        async with data.transaction() as tx:
            newest = await tx.codes.find_one(
                project_id=project.id, version=reported["generation"], variant_index=reported["variant_index"]
            )
        assert newest is not None
        replay = await data.generations.replay(owner, newest.id)
        first, *_, last = replay.events
        assert (first.kind, first.payload["value"], first.at) == ("thinking", reported["thoughts"], 0)
        assert (last.kind, last.at) == ("assistant", replay.steps[-1].at)
        assert len(replay.steps) > 1
        assert replay.steps[-1].length == len(code_of(reported))
        seconds = reported["generation_time_seconds"]
        assert 0.9 * seconds <= replay.steps[-1].at / 1000 <= seconds


async def codes_and_files_are_read_back_byte_for_byte(data: DataLayer) -> None:
    for entry in PROJECTS:
        project = await example(data, entry)
        assert project.generation_count == len({code["generation"] for code in entry["codes"]})
        assert project.status == entry["status"]
        screenshot = file_of(entry["screenshot"]).read_bytes()
        assert await data.storage.download(str(project.original_image)) == screenshot
        assert project.thumbnail_image not in {None, project.original_image}
        async with data.transaction() as tx:
            codes = await tx.codes.list(project_id=project.id, order_by="id", limit=100)
            images = await tx.images.list(project_id=project.id)
        stored = {(code.version, code.variant_index): code for code in codes}
        places = [(code["generation"], code["variant_index"]) for code in entry["codes"]]
        assert sorted(stored) == sorted(places)
        for place, code in zip(places, entry["codes"], strict=True):
            assert stored[place].code == code_of(code)
            assert stored[place].status == code["status"]
            assert (stored[place].model, stored[place].code_stack) == (code["model"], entry["code_stack"])
            parent = None if code["parent"] is None else stored[places[code["parent"]]].id
            assert stored[place].parent_id == parent
        for image in images:
            source = file_of(image.metadata_[EXAMPLE]).read_bytes()
            assert await data.storage.download(str(image.storage_key)) == source


async def somebody_can_log_in_and_nobody_else(data: DataLayer, logins: list[tuple[str, str]]) -> None:
    [(email, password)] = logins
    session = await data.accounts.log_in(email, password)
    person = await data.accounts.find(SYSTEM, email)
    assert session.session.user_id == person.id
    assert person.role is UserRole.ADMIN
    async with data.transaction() as tx:
        can_log_in = text("SELECT email FROM users WHERE password_hash IS NOT NULL")
        assert (await tx.execute(can_log_in)).scalars().all() == [email]
        assert not [entry for entry in await tx.audit.list(limit=1000) if password in str(vars(entry))]


async def costs_are_those_of_the_catalog_cancelled_and_failed_work_included(data: DataLayer) -> None:
    codes = [code for project in PROJECTS for code in project["codes"]]
    total = sum((cost_of(code) for code in codes), Decimal(0))
    sums = await data.usage.sums(SYSTEM, [UsageGroup.OUTCOME], everyone=True)
    assert sum(each.cost for each in sums) == total
    assert {str(each.outcome) for each in sums} == {"completed", "failed", "cancelled"}


async def what_happened_is_recorded(data: DataLayer) -> None:
    async with data.transaction() as tx:
        actions = Counter([entry.action for entry in await tx.audit.list(limit=1000)])
    assert actions["project_create"] == COUNTS["projects"]  # type: ignore[index]
    assert actions["project_share"] == COUNTS["shares"]  # type: ignore[index]


async def test_what_was_changed_stays_and_what_was_removed_comes_back_only_when_asked_for(data: DataLayer) -> None:
    await data.seed.load_once()
    renamed, deleted, removed = [await example(data, PROJECTS[number]) for number in (0, 3, 5)]
    async with data.transaction() as tx:
        (await tx.projects.get(renamed.id)).name = "Renamed"
    await data.projects.delete(Actor.user(deleted.user_id), deleted.id)
    assert await data.seed.load() == NOTHING
    assert (await example(data, PROJECTS[0])).name == "Renamed"
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(removed.id))
    assert await data.seed.load_once() == NOTHING
    assert (await counts(data))["projects"] == len(PROJECTS) - 2, "one is deleted, one is gone"
    report = await data.seed.load()
    assert (report.projects, report.codes, report.users) == (1, len(PROJECTS[5]["codes"]), 0)


class StoppedError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("stopped_at", [0, 5])
async def test_loading_that_was_interrupted_is_completed(data: DataLayer, stopped_at: int) -> None:
    def stop(name: str) -> None:
        if name == PROJECTS[stopped_at]["name"]:
            raise StoppedError

    with pytest.raises(StoppedError):
        await data.seed.load_once(stop)
    await data.seed.load_once()
    assert await counts(data) | {"shares": 0} == COUNTS | {"shares": 0}
    async with data.transaction() as tx:
        codes = await tx.codes.list(limit=1000)
    expected = Counter(code["status"] for project in PROJECTS for code in project["codes"])
    assert Counter(str(code.status) for code in codes) == expected
    assert not {code.status for code in codes} & {GenerationStatus.PENDING, GenerationStatus.PROCESSING}
    assert {(await example(data, entry)).status for entry in PROJECTS} == {
        ProjectStatus(entry["status"]) for entry in PROJECTS
    }


async def test_production_is_refused(data: DataLayer) -> None:
    seed = data.seed
    seed._is_production = True
    with pytest.raises(ConfigurationError, match="production"):
        await seed.load_once()
    assert set((await counts(data)).values()) == {0}
