"""Work from elsewhere is brought once, however often that is repeated; a project goes out and comes back whole."""

from __future__ import annotations

import base64
import copy
import gc
import io
import json
import os
import random
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data_layer import DataLayer
from data_layer.entities.enums import CodeStack, GenerationProvider, RequestType
from data_layer.errors import DatabaseUnavailableError, InvalidFileError, NotFoundError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import (
    FinishedGeneration,
    FinishedVariant,
    GenerationRequest,
    TreeCode,
    VariantModel,
    VariantResult,
)
from data_layer.schemas.images import NewImage
from data_layer.schemas.projects import ProjectDraft
from data_layer.services.transfer.archives import ExportedProject, ProjectArchives, read_archive, read_part
from data_layer.services.transfer.importing import Importer, ImportReport, ImportTargets
from tests.file_content import picture
from tests.support import stored_actor

CODE = "<html><body><h1>{}</h1></body></html>\n"


async def bring(data: DataLayer, owner: Actor, *paths: Path, is_dry_run: bool = False) -> ImportReport:
    targets = ImportTargets(data.transaction, data.projects, data.generations, data.files, data.images, data.designs)
    assert owner.user_id is not None
    return await Importer(targets, owner.user_id, is_dry_run=is_dry_run).run(paths)


async def codes_of(data: DataLayer, owner: Actor) -> dict[str, list[str]]:
    """The codes of each project, oldest version first."""
    found = {}
    for project in (await data.projects.list(owner)).projects:
        opened = await data.generations.tree(owner, project.id, code=TreeCode.ALL)
        generations = [generation async for generation in opened.generations][::-1]
        found[project.name] = [str(variant.code) for each in generations for variant in each.variants]
    return found


@pytest.fixture
async def owner(data: DataLayer) -> Actor:
    return await stored_actor(data)


def write_report(
    folder: Path, session: str, turn: int, request: Any, *, usage: Any = None, model: str = "gpt-5.5"
) -> None:
    report = {
        "version": 1,
        "provider": "openai",
        "model": f"{model} (low thinking)",
        "api_model_name": model,
        "session_id": session,
        "turn": turn,
        "created_at": f"2026-07-01T10:0{turn}:00",
        "request": request,
        "usage": usage,
    }
    name = f"prompt_report_20260701_100{turn}00_{session}_t{turn:02}_openai_{model}.json"
    (folder / name).write_text(json.dumps(report))


def make_folder(folder: Path) -> None:
    """What the application leaves behind."""
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "a.png").write_bytes(picture("PNG", size=(30, 20)))
    (folder / "assets" / "same.png").write_bytes(picture("PNG", size=(30, 20)))
    (folder / "assets" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    designs = [
        {"id": "1", "name": "Blue", "content": "All blue", "createdAt": "x", "updatedAt": "x"},
        {"id": "2", "name": " ", "content": "", "createdAt": "x", "updatedAt": "x"},
    ]
    (folder / "design-systems.json").write_text(json.dumps(designs))
    (folder / "other.json").write_text('{"a": 1}')
    (folder / "page.html").write_text(CODE.format("page"))
    (folder / "notes.txt").write_text("?")
    (folder / ".hidden.html").write_text(CODE.format("hidden"))
    results = folder / "evals" / "outputs" / "Jul_01_2026_claude-opus-4_react_tailwind"
    results.mkdir(parents=True)
    (folder / "evals" / "inputs").mkdir()
    (folder / "evals" / "inputs" / "shop.png").write_bytes(picture("PNG", size=(50, 20)))
    for number in (0, 1):
        (results / f"shop_{number}.html").write_text(CODE.format(f"shop {number}"))
    reports = folder / "run_logs" / "prompt_reports"
    reports.mkdir(parents=True)
    image = "data:image/png;base64," + base64.b64encode(picture("PNG", size=(40, 20))).decode()
    first = [
        {"role": "system", "content": "You are …"},
        {
            "role": "user",
            "content": [{"type": "input_image", "image_url": image}, {"type": "input_text", "text": "A blog"}],
        },
    ]
    call = {
        "type": "function_call",
        "name": "create_file",
        "arguments": json.dumps({"path": "index.html", "content": CODE.format("blog")}),
    }
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_read": 1, "cache_write": 0, "cost_usd": 0.5}
    write_report(reports, "0123abcd", 1, {"input": first}, usage=usage)
    write_report(
        reports, "0123abcd", 2, {"input": [*first, call, {"type": "function_call_output", "output": "ok"}]}, usage=usage
    )
    # Of another provider, a change of the page before, in its words.
    messages = [
        {"role": "user", "content": "A blog"},
        {"role": "assistant", "content": f'<file path="index.html">\n{CODE.format("blog").strip()}\n</file>'},
        {"role": "user", "content": [{"type": "text", "text": "Red"}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "name": "create_file", "input": {"content": CODE.format("red blog")}}],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "name": "edit_file", "input": {"old": "a", "new": "b"}}],
        },
    ]
    write_report(reports, "4567cdef", 3, {"messages": messages}, model="claude-opus-4")
    write_report(reports, "89ab0123", 4, {"input": first})
    (reports / "prompt_report_20260701_100000_ffffffff_t01_openai_x.json").write_text("{")


async def test_what_the_application_leaves_behind(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    folder = tmp_path / "left"
    make_folder(folder)
    looked = await bring(data, owner, folder, is_dry_run=True)
    assert looked.is_dry_run
    assert await codes_of(data, owner) == {}
    assert await data.files.list(owner_id=owner.user_id) == []
    report = await bring(data, owner, folder, tmp_path / "missing")
    assert report.added == {
        "asset": 1,
        "design system": 1,
        "page": 1,
        "evaluation result": 2,
        "prompt report": 2,
    }
    assert report.known == {"asset": 1}, "the same bytes are one asset"
    reasons = {Path(problem.path).name: problem.reason for problem in report.problems}
    assert set(reasons) == {
        *("broken.png", "design-systems.json ()", "other.json", "notes.txt", "missing"),
        *("prompt reports of session 89ab0123", "prompt reports of session 4567cdef"),
        "prompt_report_20260701_100000_ffffffff_t01_openai_x.json",
    }
    assert await codes_of(data, owner) == {
        "page": [CODE.format("page")],
        "shop (Jul_01_2026_claude-opus-4_react_tailwind)": [CODE.format("shop 0"), CODE.format("shop 1")],
        "A blog": [CODE.format("blog"), CODE.format("red blog")],
    }
    urls = set(report.addresses.values())
    assert len(urls) == 1
    assert len(report.addresses) == 2
    [design] = await data.designs.list(owner)
    assert (design.name, design.content) == ("Blue", "All blue")
    again = await bring(data, owner, folder)
    assert again.added == {}
    assert again.known == {"asset": 2, "design system": 1, "page": 1, "evaluation result": 2, "prompt report": 2}
    assert again.addresses == report.addresses
    assert len(await codes_of(data, owner)) == 3


async def test_reports_and_evaluations_say_what_belongs_together(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    make_folder(tmp_path / "left")
    await bring(data, owner, tmp_path / "left")
    projects = {project.name: project for project in (await data.projects.list(owner)).projects}
    opened = await data.generations.tree(owner, projects["A blog"].id)
    red, blog = [generation async for generation in opened.generations]
    assert (red.prompt, red.variants[0].parent_id) == ("Red", blog.variants[0].id)
    assert (red.variants[0].provider, blog.variants[0].provider) == (
        GenerationProvider.CLAUDE,
        GenerationProvider.OPENAI,
    )
    variant = await data.generations.open_variant(owner, blog.variants[0].id)
    assert (variant.prompt_tokens, variant.completion_tokens) == (20, 10)
    kept = await data.files.list(owner_id=owner.user_id, attached_to=Attachment(project_id=projects["A blog"].id))
    assert [str(file.id) for file in kept] == blog.inputs["files"]
    shop = next(project for name, project in projects.items() if name.startswith("shop"))
    [run] = [generation async for generation in (await data.generations.tree(owner, shop.id)).generations]
    assert {variant.code_stack for variant in run.variants} == {CodeStack.REACT_TAILWIND}
    assert {variant.model for variant in run.variants} == {"claude-opus-4"}
    assert len(await data.files.list(owner_id=owner.user_id, attached_to=Attachment(project_id=shop.id))) == 1


async def make_whole_project(data: DataLayer, owner: Actor) -> UUID:
    draft = ProjectDraft(name="Shop", description="All of it", tags=["a", "b"], metadata={"key": 1})
    project = await data.projects.create(owner, draft, screenshot=picture("PNG", size=(40, 30)), file_name="shop.png")
    file = await data.files.save(
        picture("JPEG", size=(9, 9)), owner_id=owner.user_id, attached_to=Attachment(project_id=project.id)
    )
    result = VariantResult(model=VariantModel(provider=GenerationProvider.CLAUDE, name="m"), cost=Decimal(1))
    first = FinishedGeneration(
        request=GenerationRequest(prompt="Make it", inputs={"files": [str(file.id)]}),
        variants=tuple(
            FinishedVariant(code=CODE.format(f"1.{index}"), result=result, name=f"n{index}") for index in range(3)
        ),
        selected=1,
    )
    second = FinishedGeneration(
        request=GenerationRequest(generation_type=RequestType.UPDATE, prompt="Red"),
        variants=(FinishedVariant(code=CODE.format("2.0")),),
        parent=(0, 1),
    )
    await data.generations.import_many(owner, project.id, [first, second])
    await data.images.record(owner, project.id, NewImage(prompt="a cat", model="flux"), picture("WEBP", size=(20, 20)))
    return project.id


async def export(data: DataLayer, actor: Actor, project_id: UUID, archive: Path) -> ExportedProject:
    archives = ProjectArchives(data.projects, data.generations, data.files, data.images)
    with archive.open("wb") as target:
        return await archives.write(actor, project_id, target)


async def test_images_of_pages_go_with_their_project(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    local = "/local-assets/logo.png"
    project = await data.projects.create(owner, ProjectDraft(name="Logo"))
    page = FinishedGeneration(request=GenerationRequest(), variants=(FinishedVariant(code=f'<img src="{local}">'),))
    await data.generations.import_many(owner, project.id, [page])
    await data.pages.keep(owner, project.id, local, picture("PNG"))
    await export(data, owner, project.id, tmp_path / "logo.zip")
    bob = await stored_actor(data, email="bob@example.com")
    await bring(data, bob, tmp_path / "logo.zip")
    [copy] = (await data.projects.list(bob)).projects
    code = await data.generations.latest(bob, copy.id)
    assert code.code == f'<img src="{local}">'
    [file] = await data.files.list(owner_id=bob.user_id, attached_to=Attachment(project_id=copy.id))
    assert await data.pages.open(bob, code.id) == f'<img src="/a/{file.public_name}#{code.id}">'


async def test_a_project_goes_out_and_comes_back(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    project_id = await make_whole_project(data, owner)
    archive = tmp_path / "shop.zip"
    opened = await data.generations.tree(owner, project_id)
    _, first = [generation async for generation in opened.generations]
    await data.generations.mark_favorite(owner, first.variants[2].id)
    await data.generations.rate(owner, first.variants[0].id, stars=4, is_good=False, words="too blue")
    written = await export(data, owner, project_id, archive)
    assert (written.generations, written.variants, written.files, written.images, written.missing) == (2, 4, 2, 1, 0)
    bob = await stored_actor(data, email="bob@example.com")
    with pytest.raises(NotFoundError):
        await export(data, bob, project_id, tmp_path / "stolen.zip")
    assert (await bring(data, bob, archive, is_dry_run=True)).added == {"project": 1}
    assert (await bring(data, bob, archive)).added == {"project": 1}
    assert (await bring(data, bob, archive)).known == {"project": 1}
    [copy] = (await data.projects.list(bob)).projects
    assert copy.name == "Shop"
    full = await data.projects.open(bob, copy.id)
    assert (full.description, list(full.tags), full.metadata["key"]) == ("All of it", ["a", "b"], 1)
    assert full.original_image is not None
    opened = await data.generations.tree(bob, copy.id, code=TreeCode.ALL)
    second, first = [generation async for generation in opened.generations]
    assert [variant.code for variant in first.variants] == [CODE.format(f"1.{index}") for index in range(3)]
    assert (first.selected_variant, [variant.name for variant in first.variants]) == (1, ["n0", "n1", "n2"])
    assert second.variants[0].parent_id == first.variants[1].id
    assert first.variants[0].provider is GenerationProvider.CLAUDE
    assert [variant.is_favorite for variant in first.variants] == [False, False, True]
    rated = await data.generations.open_variant(bob, first.variants[0].id)
    assert (rated.rating, rated.feedback) == (4, {"thumb": "down", "words": "too blue"})
    kept = await data.files.list(owner_id=bob.user_id, attached_to=Attachment(project_id=copy.id))
    assert set(first.inputs["files"]) <= {str(file.id) for file in kept}, "by the ids that its files have here"
    [image] = (await data.images.list(bob, copy.id)).images
    assert (image.prompt, image.model) == ("a cat", "flux")
    assert await data.usage.sums(SYSTEM, user_id=bob.user_id) == [], "it cost him nothing"


async def test_archives_that_are_none(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no")
    contents: list[Any] = [None, [], {"format": "x"}, {"format": "data-layer project", "version": 2}]
    missing = {"variants": [{"id": "1", "code": "codes/none.html"}]}
    contents.append({"format": "data-layer project", "version": 1, "project": {"id": "1"}, "generations": [missing]})
    contents.append({"format": "data-layer project", "version": 1, "project": {"id": "2"}, "generations": [{}]})
    for number, content in enumerate(contents):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr("project.json" if content is not None else "x", json.dumps(content))
    report = await bring(data, owner, tmp_path)
    assert (report.added, len(report.problems)) == ({}, 1 + len(contents)), report
    assert (await data.projects.list(owner)).projects == (), "half of one is not left"


async def test_what_is_deleted_while_it_is_exported_is_left_out(
    data: DataLayer, owner: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = await make_whole_project(data, owner)
    list_files, list_images = data.files.list, data.images.list

    async def list_and_delete_files(**given: Any) -> Any:
        page = await list_files(**given)
        [file] = [each for each in page if each.file_name != "shop.png"]
        await data.files.delete(file.id, owner_id=owner.user_id)
        return page

    async def list_and_delete_images(*given: Any, **named: Any) -> Any:
        page = await list_images(*given, **named)
        await data.images.delete(owner, page.images[0].id)
        return page

    monkeypatch.setattr(data.files, "list", list_and_delete_files)
    monkeypatch.setattr(data.images, "list", list_and_delete_images)
    written = await export(data, owner, project_id, tmp_path / "shop.zip")
    assert (written.variants, written.files, written.images, written.missing) == (4, 1, 0, 2)


@pytest.mark.parametrize("service", ["files", "images"])
async def test_a_database_that_is_away_is_not_a_lost_file(
    data: DataLayer, owner: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    project_id = await make_whole_project(data, owner)

    async def fail(*_: Any, **__: Any) -> bytes:
        raise DatabaseUnavailableError("the database is away")

    monkeypatch.setattr(getattr(data, service), "download", fail)
    with pytest.raises(DatabaseUnavailableError):
        await export(data, owner, project_id, tmp_path / "shop.zip")


async def test_an_export_reads_each_code_once_and_compresses_off_the_event_loop(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = await make_whole_project(data, owner)
    large = FinishedVariant(code=random.Random(1).randbytes(200_000).hex())
    await data.generations.import_many(
        owner, project_id, [FinishedGeneration(request=GenerationRequest(), variants=(large,))]
    )
    read_tree, codes = data.generations.tree, list[str | None]()

    async def watched_tree(*given: Any, **named: Any) -> Any:
        opened = await read_tree(*given, **named)

        async def generations() -> AsyncIterator[Any]:
            async for generation in opened.generations:
                codes.extend(variant.code for variant in generation.variants)
                yield generation

        return type(opened)(opened.project, opened.fingerprint, generations())

    monkeypatch.setattr(data.generations, "tree", watched_tree)
    writers = set()

    class Target(io.BytesIO):
        def write(self, content: Any, /) -> int:
            if len(content) > 2000:
                writers.add(threading.get_ident())
            return super().write(content)

    target = Target()
    archives = ProjectArchives(data.projects, data.generations, data.files, data.images)
    await archives.write(owner, project_id, target)
    assert codes == [None] * 5
    assert writers
    assert threading.get_ident() not in writers
    with zipfile.ZipFile(target) as archive:
        kinds = {part.filename.partition("/")[0]: part.compress_type for part in archive.infolist()}
    assert kinds == {
        **dict.fromkeys(("files", "images"), zipfile.ZIP_STORED),
        **dict.fromkeys(("codes", "pages", "project.json"), zipfile.ZIP_DEFLATED),
    }


def whole_archive(kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        archive.writestr("project.json", json.dumps({"format": "data-layer project", "version": 1}))
        archive.writestr("codes/0001-1.html", random.Random(1).randbytes(300).hex())
    return content.getvalue()


ARCHIVES = [whole_archive(kind) for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)]


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_refused_in_one_way(tmp_path: Path, drawn: st.DataObject) -> None:
    damaged = bytearray(drawn.draw(st.sampled_from(ARCHIVES)))
    for _ in range(drawn.draw(st.integers(1, 3))):
        damaged[drawn.draw(st.integers(0, len(damaged) - 1))] = drawn.draw(st.integers(0, 255))
    path = tmp_path / "damaged.zip"
    path.write_bytes(damaged)
    try:
        archive, _ = read_archive(path)
    except InvalidFileError:
        return
    with archive:
        for part in archive.namelist():
            try:
                read_part(archive, part)
            except InvalidFileError:
                continue


def test_a_part_that_is_no_deflated_data_or_ends_too_early(tmp_path: Path) -> None:
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_STORED):
        whole = whole_archive(kind)
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            part = archive.getinfo("codes/0001-1.html")
        start = part.header_offset + 30 + len(part.filename)
        path = tmp_path / f"{kind}.zip"
        path.write_bytes(whole[:start] + b"\xff" * part.compress_size + whole[start + part.compress_size :])
        archive, _ = read_archive(path)
        with archive, pytest.raises(InvalidFileError):
            read_part(archive, "codes/0001-1.html")


def places_in(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value of JSON has other values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        yield (*place, name)
        yield from places_in(each, (*place, name))


DESCRIBED = {
    "format": "data-layer project",
    "version": 1,
    "project": {"id": "", "name": "Shop", "type": "website", "tags": ["a"], "settings": {}, "metadata": {"a": 1}},
    "generations": [
        {
            "id": "g1",
            "prompt": "Make it",
            "inputs": {"files": ["f1"], "urls": ["x"]},
            "selected_variant": 0,
            "started_at": "2026-07-01T10:00:00Z",
            "ended_at": "2026-07-01T10:00:00Z",
            "variants": [
                {
                    "id": "v1",
                    "parent_id": None,
                    "variant_index": 0,
                    "status": "completed",
                    "provider": "openai",
                    "model": "m",
                    "code": "codes/1.html",
                    "code_stack": "html_tailwind",
                    "rating": 3,
                    "feedback": {"thumb": "up", "words": "fine"},
                    "generation_time_seconds": 1.5,
                }
            ],
        },
    ],
    "files": [
        {"id": "f1", "path": "files/1.png", "file_name": "a.png", "content_type": "image/png", "is_screenshot": True}
    ],
    "images": [{"prompt": "a cat", "path": "images/1", "kind": "generated", "size": None, "seed": 1}],
}
ODD = [None, "", "x", "\0", -1, 1.5, 10**30, True, [], [None], {}, {"x": 1}, "2026-07-01T10:00:00"]


def write_described(path: Path, content: Any) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("project.json", json.dumps(content))
        archive.writestr("codes/1.html", CODE.format(1))
        archive.writestr("files/1.png", picture("PNG", size=(9, 9)))
        archive.writestr("images/1", picture("WEBP", size=(9, 9)))


@given(place=st.sampled_from(list(places_in(DESCRIBED))), odd=st.sampled_from(ODD))
@example(place=("generations", 0, "variants", 0, "status"), odd="odd")
@example(place=("generations", 0, "variants", 0, "rating"), odd=9)
@example(place=("generations", 0, "ended_at"), odd="x")
@example(place=("files", 0, "id"), odd="")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_description_that_makes_no_sense_ends_no_import(
    data: DataLayer, owner: Actor, tmp_path: Path, place: tuple[Any, ...], odd: Any
) -> None:
    content = copy.deepcopy(DESCRIBED)
    content["project"]["id"] = str(uuid4())  # type: ignore[index]
    inner: Any = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = odd
    folder = tmp_path / str(uuid4())
    folder.mkdir()
    write_described(folder / "a.zip", content)
    (folder / "z.html").write_text(CODE.format(uuid4()))
    report = await bring(data, owner, folder)
    assert report.added["page"] == 1, "what comes after it"
    assert report.added.get("project", 0) + len(report.problems) == 1


async def test_files_have_new_ids_and_other_texts_stay(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    content: Any = copy.deepcopy(DESCRIBED)
    content["project"]["id"] = "p"
    content["generations"][0]["inputs"] = {"files": ["f1"], "nested": [{"file": "f1"}], "note": "f1 and more"}
    write_described(tmp_path / "a.zip", content)
    assert (await bring(data, owner, tmp_path / "a.zip")).problems == ()
    [project] = (await data.projects.list(owner)).projects
    [generation] = [each async for each in (await data.generations.tree(owner, project.id)).generations]
    [new] = generation.inputs["files"]
    assert UUID(new)
    assert generation.inputs == {"files": [new], "nested": [{"file": new}], "note": "f1 and more"}


async def test_codes_of_a_project_that_is_known_are_not_read(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    content: Any = copy.deepcopy(DESCRIBED)
    content["project"]["id"] = "p"
    write_described(tmp_path / "a.zip", content)
    assert (await bring(data, owner, tmp_path / "a.zip")).added == {"project": 1}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("project.json", json.dumps(content))
    assert (await bring(data, owner, tmp_path / "a.zip")).known == {"project": 1}


async def test_a_damaged_image_loses_no_page(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    make_folder(tmp_path / "left")
    (tmp_path / "left" / "evals" / "inputs" / "shop.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    reports = tmp_path / "left" / "run_logs" / "prompt_reports"
    parts = [{"type": "input_image", "image_url": url} for url in ("data:image/png;base64,AAAA", "data:x", "data:")]
    parts.append({"type": "input_text", "text": "A wiki"})
    call = {"name": "create_file", "arguments": {"content": CODE.format("wiki")}}
    write_report(reports, "fedcba98", 5, {"input": [{"role": "user", "content": parts}, call]})
    report = await bring(data, owner, tmp_path / "left")
    assert (report.added["evaluation result"], report.added["prompt report"]) == (2, 3)
    assert [problem.path for problem in report.problems if "fedcba98" in problem.path] == [
        "an image of prompt reports of session fedcba98"
    ] * 3
    assert any(problem.path.endswith("shop.png") for problem in report.problems)
    assert (await codes_of(data, owner))["A wiki"] == [CODE.format("wiki")]


async def test_sessions_of_one_request_are_versions_of_one_project(
    data: DataLayer, owner: Actor, tmp_path: Path
) -> None:
    """The application makes several variants of each request, and a session for each of them."""
    for number in range(3):
        call = {"name": "create_file", "arguments": {"content": CODE.format(number)}}
        asked = {"role": "user", "content": "A wiki"}
        write_report(tmp_path, f"0000000{number}", 1, {"input": [asked, call]})
    await bring(data, owner, tmp_path)
    assert {name: sorted(codes) for name, codes in (await codes_of(data, owner)).items()} == {
        "A wiki": [CODE.format(number) for number in range(3)]
    }


HOSTILE: list[Any] = [None, True, -1, 10**30, 1.5, "", "\0", "x" * 300, [], [None], {}, {"a": None}, "\u202e"]
WORDS = [
    *("name", "content", "role", "input", "messages", "request", "usage", "input_tokens", "cost_usd", "image_url"),
    *("created_at", "model", "parts", "inline_data", "data", "source", "arguments", "function_call", "text"),
]
words = st.sampled_from(WORDS)
odd_values = st.recursive(
    st.sampled_from(HOSTILE), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4)
)


@given(st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_hostile_files_end_no_import(data: DataLayer, owner: Actor, tmp_path: Path, drawn: st.DataObject) -> None:
    """Each kind with odd values in it; what comes after them is brought."""
    value = odd_values
    folder = tmp_path / str(uuid4())
    results = folder / "outputs" / "Jul_01_2026_m_html_css"
    results.mkdir(parents=True)
    (folder / "inputs").mkdir()
    name = "prompt_report_20260701_100000_{}_t01_openai_x.json"
    designs = [{"name": drawn.draw(value), "content": drawn.draw(value)}, drawn.draw(value)]
    (folder / "design-systems.json").write_text(json.dumps(designs))
    (folder / "also.json").write_text(json.dumps([{"name": drawn.draw(value)}]))
    (folder / name.format("00000000")).write_text(json.dumps(drawn.draw(value)))
    messages = drawn.draw(st.lists(st.dictionaries(words, value, max_size=4), max_size=4))
    call = {"name": "create_file", "arguments": {"content": CODE.format(uuid4())}}
    hostile = {"input": [*messages, call], "messages": drawn.draw(value), "contents": drawn.draw(value)}
    others = drawn.draw(st.dictionaries(words, value, max_size=6))
    (folder / name.format("00000001")).write_text(json.dumps(others | {"request": hostile}))
    (folder / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    (folder / name.format("00000002")).write_text('{"request": ' + "[" * 100_000 + "]" * 100_000 + "}")
    (results / "a_0.html").write_bytes(drawn.draw(st.binary(max_size=50)))
    (folder / "inputs" / "a.png").write_bytes(drawn.draw(st.binary(max_size=50)))
    (folder / "image.webp").write_bytes(b"RIFF\x10\0\0\0WEBPVP8 " + drawn.draw(st.binary(max_size=50)))
    (folder / "z.html").write_text(CODE.format(uuid4()))
    for is_dry_run in (True, False):
        report = await bring(data, owner, folder, is_dry_run=is_dry_run)
        assert report.added["page"] == 1
        assert len(report.problems) > 1
    assert (await bring(data, owner, folder)).added == {}, "nothing twice"


async def test_names_and_times_of_any_kind(data: DataLayer, owner: Actor, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    (tmp_path / f"{odd}.html").write_text(CODE.format("odd"))
    (tmp_path / f"{odd}.png").write_bytes(picture("PNG", size=(5, 5)))
    (tmp_path / f"{odd}.txt").write_text("?")
    (tmp_path / "future.html").write_text(CODE.format("future"))
    os.utime(tmp_path / "future.html", (0, 2**36))
    (tmp_path / "link.html").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.html")
    report = await bring(data, owner, tmp_path, tmp_path / "pipe.html", tmp_path / f"{odd}.none")
    assert report.added == {"page": 2, "asset": 1}
    assert [problem.reason for problem in report.problems] == [
        "is nothing that is known here",
        "is neither a file nor a folder",
        "does not exist",
    ]
    assert report.model_dump_json()
    [asset] = report.addresses
    assert asset.endswith("caf?.png")


async def test_what_is_too_large_is_said(
    data: DataLayer, owner: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_layer.services.transfer.importing.LARGEST_FILE", 100)
    monkeypatch.setattr("data_layer.services.transfer.reports.LARGEST_REPORT", 100)
    monkeypatch.setattr("data_layer.services.transfer.importing.MOST_CODE", 100)
    (tmp_path / "large.html").write_text("x" * 101)
    (tmp_path / "large.json").write_text(json.dumps([{"name": "x" * 101, "content": ""}]))
    write_report(tmp_path, "00000000", 1, {"input": "x" * 101})
    # A small file whose codes are one part, again and again.
    content: Any = copy.deepcopy(DESCRIBED)
    content["generations"][0]["variants"] *= 4
    write_described(tmp_path / "bomb.zip", content)
    report = await bring(data, owner, tmp_path)
    assert report.added == {}
    assert {Path(problem.path).name.partition("_")[0]: problem.reason for problem in report.problems} == {
        "large.html": "has more than 100 bytes",
        "large.json": "has more than 100 bytes",
        "prompt": "has more than 100 bytes",
        "bomb.zip": "its codes have more than 100 characters",
    }


async def test_an_archive_that_breaks_off_has_no_end(
    data: DataLayer, owner: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no program takes it for a whole one."""
    project_id = await make_whole_project(data, owner)
    archives = ProjectArchives(data.projects, data.generations, data.files, data.images)
    whole = [piece async for piece in archives.pieces(owner, project_id)]
    assert len(whole) > 3
    for number in range(len(whole)):
        async with aclosing(archives.pieces(owner, project_id)) as pieces:
            read = b"".join([await anext(pieces) for _ in range(number)])
        assert not zipfile.is_zipfile(io.BytesIO(read)), number

    async def unavailable(*_: Any) -> bytes:
        raise DatabaseUnavailableError("the database is away")

    monkeypatch.setattr(data.images, "download", unavailable)
    with pytest.raises(DatabaseUnavailableError):
        await export(data, owner, project_id, tmp_path / "project.zip")
    gc.collect()  # What was left open would warn now, and a warning fails the test.
    content = (tmp_path / "project.zip").read_bytes()
    assert content.startswith(b"PK")
    assert not zipfile.is_zipfile(io.BytesIO(content))
