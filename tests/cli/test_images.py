"""``data-layer images``: what was recorded, and the bytes as they are."""

from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path

from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import Actor
from data_layer.schemas.images import GeneratedImageFull, NewImage
from data_layer.schemas.projects import ProjectDraft
from tests.cli.support import Commands
from tests.support import stored_actor

PICTURE = resources.files("data_layer").joinpath("seed_data/screenshots/login-form.png").read_bytes()


def store(settings: Settings, *prompts: str) -> list[GeneratedImageFull]:
    async def add() -> list[GeneratedImageFull]:
        async with DataLayer(settings) as data:
            owner: Actor = await stored_actor(data)
            project = await data.projects.create(owner, ProjectDraft(name="Page"))
            new = [NewImage(prompt=prompt, model="gpt-image-9") for prompt in prompts]
            return [await data.images.record(owner, project.id, image, PICTURE) for image in new]

    return asyncio.run(add())


def test_list(command: Commands, settings: Settings) -> None:
    first, second = store(settings, "a \x1b[31m\nLöffel", "b" * 100)
    shown = command("images", "list", "Page", COLUMNS="200").output
    lines = shown.splitlines()
    assert lines[0] == "2 images"
    assert str(second.id) in lines[2]
    assert "b" * 39 + "…" in lines[2]
    assert "Löffel" in lines[3]
    page = command("images", "list", "Page", "--limit", "1", "--json").json
    assert [image["id"] for image in page["images"]] == [page["next"]] == [str(second.id)]
    rest = command("images", "list", "Page", "--after", page["next"], "--json").json
    assert [image["id"] for image in rest["images"]] == [str(first.id)]
    assert rest["next"] is None


def test_a_project_without_images(command: Commands, settings: Settings) -> None:
    store(settings)
    assert command("images", "list", "Page").output == "There are no images.\n"
    assert "no project has the name 'Other'" in command.error("images", "list", "Other")


def test_show(command: Commands, settings: Settings) -> None:
    [image] = store(settings, "a Löffel")
    shown = command("images", "show", str(image.id)).output
    assert shown.startswith(f"Image {image.id}\n")
    assert "gpt-image-9 (other)" in shown
    assert "a Löffel" in shown
    assert command("images", "show", str(image.id), "--json").json["prompt"] == "a Löffel"
    assert "no image has the id" in command.error("images", "show", str(uuid7()))
    command("images", "show", "1", code=2)


def test_save_is_exact_and_replaces_nothing(command: Commands, settings: Settings, tmp_path: Path) -> None:
    [image] = store(settings, "a")
    file = tmp_path / "a.png"
    assert command("images", "save", str(image.id), str(file)).output.startswith("Wrote ")
    assert file.read_bytes() == PICTURE
    file.write_bytes(b"mine")
    assert "exists; choose another" in command("images", "save", str(image.id), str(file), code=2, COLUMNS="500").errors
    assert file.read_bytes() == b"mine"
    saved = command("images", "save", str(image.id), str(file), "--force", "--json").json
    assert saved == {"file": str(file), "size": len(PICTURE)}


def test_delete_asks_first(command: Commands, settings: Settings) -> None:
    [image] = store(settings, "a")
    command("images", "delete", str(image.id), typed="n\n", code=1)
    command("images", "show", str(image.id))
    assert command("images", "delete", str(image.id), "--yes", "--json").json == {"deleted": str(image.id)}
    assert "no image has the id" in command.error("images", "delete", str(image.id), "--yes")
