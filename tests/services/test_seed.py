"""The example data: complete, real, the same at every load, and there only once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from data_layer import CodeStack, DataLayer
from data_layer.services.seed_rows import catalog, file_of, fixed_id

PROJECTS = catalog()["projects"]
COUNTS = {
    "users": len(catalog()["users"]),
    "projects": len(PROJECTS),
    "codes": sum(len(project["codes"]) for project in PROJECTS),
    "images": sum(len(project.get("images", [])) for project in PROJECTS),
    "sessions": len(catalog()["sessions"]),
    "audit_entries": len(catalog()["audit"]),
}


async def counts(data: DataLayer) -> dict[str, int]:
    async with data.transaction() as tx:
        repositories: dict[str, Any] = {
            "users": tx.users,
            "projects": tx.projects,
            "codes": tx.codes,
            "images": tx.images,
            "sessions": tx.sessions,
            "audit_entries": tx.audit,
        }
        return {name: await repository.count() for name, repository in repositories.items()}


async def test_everything_in_the_catalog_is_planted_once(data: DataLayer) -> None:
    told: list[str] = []
    report = await data.seed.load(told.append)
    assert report.model_dump() == COUNTS == await counts(data)
    assert told == [project["name"] for project in PROJECTS]
    again = await data.seed.load()
    assert set(again.model_dump().values()) == {0}
    assert await counts(data) == COUNTS


def test_the_catalog_is_what_was_promised() -> None:
    assert COUNTS["users"] == 3
    assert COUNTS["projects"] == 12
    assert {project["code_stack"] for project in PROJECTS} == {stack.value for stack in CodeStack}
    assert len(CodeStack) == 7
    assert all(project["screenshot"].endswith(".png") for project in PROJECTS)
    assert all(len({code["generation"] for code in project["codes"]}) > 1 for project in PROJECTS), "several versions"
    assert any(code["variant_index"] > 0 for project in PROJECTS for code in project["codes"]), "with variants"
    for user in catalog()["users"]:
        assert user["email"].rpartition("@")[2] in {"example.com", "example.org", "example.net"}


async def test_codes_and_files_are_read_back_byte_for_byte(data: DataLayer) -> None:
    await data.seed.load()
    files = 0
    async with data.transaction() as tx:
        for entry in PROJECTS:
            project = await tx.projects.get(fixed_id("projects", entry["key"]))
            assert project.generation_count == len({code["generation"] for code in entry["codes"]})
            wanted = {str(project.original_image): file_of(entry["screenshot"]).read_bytes()}
            assert project.original_image_size == len(wanted[str(project.original_image)])
            for image in await tx.images.list(project_id=project.id):
                source = file_of(str(image.storage_key).removeprefix("seed/")).read_bytes()
                assert image.file_size == len(source)
                wanted[str(image.storage_key)] = source
            for key, content in wanted.items():
                assert await data.storage.download(key) == content
            files += len(wanted)
            for number, code in enumerate(entry["codes"]):
                stored = await tx.codes.get(fixed_id("codes", f"{entry['key']}/{number}"))
                source = file_of(code["file"]).read_bytes() if code.get("file") else b""
                assert stored.code.encode() == source
                assert stored.code_stack == entry["code_stack"]
                assert stored.version == code["generation"]
    assert files == COUNTS["projects"] + COUNTS["images"]
    assert (await data.storage.statistics()).file_count == files


async def test_sizes_are_those_of_the_real_content(data: DataLayer) -> None:
    await data.seed.load()
    details = await data.projects.details(PROJECTS[0]["name"])
    assert details.owner.id == fixed_id("users", PROJECTS[0]["owner"])
    assert [version.code_size for version in details.versions] == [
        len(file_of(code["file"]).read_bytes()) for code in PROJECTS[0]["codes"]
    ]
    # Versions refer to the one that they grew out of.
    places = {version.id: place for place, version in enumerate(details.versions)}
    assert [version.parent_id and places[version.parent_id] for version in details.versions] == [
        code["parent"] for code in PROJECTS[0]["codes"]
    ]


async def test_what_was_deleted_comes_back_only_when_asked_for(data: DataLayer) -> None:
    await data.seed.load_once()
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(fixed_id("projects", PROJECTS[3]["key"])))
    assert set((await data.seed.load_once()).model_dump().values()) == {0}
    assert (await counts(data))["projects"] == len(PROJECTS) - 1
    report = await data.seed.load()
    assert (report.projects, report.codes, report.users) == (1, len(PROJECTS[3]["codes"]), 0)
    assert await data.storage.exists(f"seed/{PROJECTS[3]['screenshot']}")


class StoppedError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("stopped_at", [0, 5, len(PROJECTS) - 1])
async def test_planting_that_was_interrupted_is_completed(data: DataLayer, stopped_at: int) -> None:
    def stop(name: str) -> None:
        if name == PROJECTS[stopped_at]["name"]:
            raise StoppedError

    with pytest.raises(StoppedError):
        await data.seed.load_once(stop)
    assert (await counts(data))["projects"] == stopped_at + 1
    await data.seed.load_once()
    assert await counts(data) == COUNTS


async def test_what_the_user_changed_stays(data: DataLayer) -> None:
    await data.seed.load()
    async with data.transaction() as tx:
        project = await tx.projects.get(fixed_id("projects", PROJECTS[0]["key"]))
        project.name = "Renamed"
    await data.seed.load()
    async with data.transaction() as tx:
        assert (await tx.projects.get(project.id)).name == "Renamed"


def test_ids_are_fixed_and_well_formed() -> None:
    first = fixed_id("users", "orla")
    assert first == fixed_id("users", "orla") != fixed_id("users", "mio") != fixed_id("projects", "orla")
    assert first.version == 7
    assert first.variant == UUID(int=0x8 << 60).variant
