"""Everything about a person: what is in the archive, what is not, and whose it is."""

from __future__ import annotations

import gc
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import ApiScope, DataLayer
from data_layer.entities.enums import AuthProvider, UserRole
from data_layer.errors import NotFoundError, PermissionDeniedError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.generations import GenerationRequest, VariantModel
from data_layer.schemas.images import NewImage
from data_layer.schemas.projects import ProjectChanges, ProjectDraft
from data_layer.schemas.usage import NewUsage
from data_layer.schemas.users import ExternalIdentity, UserFull
from tests.file_content import noise, picture
from tests.services.accounts.support import PASSWORD, acting, make_account, trail

PAGE = "<!doctype html><title>Café</title>"


async def collected(pieces: AsyncIterator[bytes]) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(b"".join([piece async for piece in pieces])))
    assert archive.testzip() is None
    return archive


def names_in(content: bytes) -> list[str]:
    """What a program finds in it; in the beginning of an archive at most the last project, which is one itself."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def lines(archive: zipfile.ZipFile, name: str) -> list[Any]:
    return [json.loads(line) for line in archive.read(f"{name}.jsonl").splitlines()]


async def live(data: DataLayer, user: UserFull, number: int = 1) -> list[str]:
    """Do a bit of everything; what is secret of it."""
    actor = acting(user)
    session = await data.accounts.log_in(user.email, PASSWORD)
    key = await data.api_keys.create(actor, name="build", scopes=[ApiScope.READ])
    identity = ExternalIdentity(provider=AuthProvider.OIDC, issuer="https://id.example", subject=f"{user.id}")
    await data.accounts.link(actor, user.id, identity)
    project = await data.projects.create(actor, ProjectDraft(name="Shop"))
    started = await data.generations.start(
        actor, project.id, GenerationRequest(prompt="a shop"), [VariantModel()] * number
    )
    for variant in range(number):
        await data.generations.complete(actor, started.writer_token, variant, code=PAGE)
    await data.images.record(actor, project.id, NewImage(prompt="bread"), picture("PNG"))
    share = await data.shares.create(actor, project.id)
    await data.designs.create(actor, name="Round", content="Buttons are round")
    await data.files.save(picture("PNG"), owner_id=user.id, file_name="a.png")
    await data.usage.record(actor, NewUsage(key="k", provider="openai", model="m"))
    gone = await data.projects.create(actor, ProjectDraft(name="Gone"))
    await data.projects.delete(actor, gone.id)
    hidden = [session.token, key.secret, share.token]
    return [each.get_secret_value() for each in hidden] + [str(started.writer_token)]


async def test_everything_and_nothing_of_others(data: DataLayer) -> None:
    ann, bob = await make_account(data), await make_account(data, "bob@example.com")
    secrets = await live(data, ann, number=2) + await live(data, bob)
    archive = await collected(data.personal_data.export(acting(ann), ann.id))
    names = archive.namelist()
    assert json.loads(archive.read("account.json"))["email"] == "ann@example.com"
    assert json.loads(archive.read("identities.json")) == [
        {"provider": "oidc", "issuer": "https://id.example", "subject": str(ann.id)}
    ]
    assert len(json.loads(archive.read("sessions.json"))) == 1
    assert [key["name"] for key in json.loads(archive.read("api-keys.json"))] == ["build"]
    assert json.loads(archive.read("second-factors.json"))["factors"] == []
    assert [each["name"] for each in json.loads(archive.read("design-systems.json"))] == ["Round"]
    assert len(json.loads(archive.read("shares.json"))) == 1
    assert [each["name"] for each in json.loads(archive.read("trash.json"))] == ["Gone"]
    [project] = [name for name in names if name.startswith("projects/")]
    with zipfile.ZipFile(io.BytesIO(archive.read(project))) as inner:
        assert inner.read("codes/0001-1.html").decode() == PAGE
        assert json.loads(inner.read("project.json"))["generations"][0]["prompt"] == "a shop"
        assert any(name.startswith("images/") for name in inner.namelist())
    [file] = [name for name in names if name.startswith("files/")]
    assert archive.read(file) == picture("PNG")
    assert [each["file_name"] for each in lines(archive, "files")] == ["a.png"]
    assert [each["model"] for each in lines(archive, "usage")] == ["m"]
    assert "security_data_export" in {entry["action"] for entry in lines(archive, "audit")}
    summary = json.loads(archive.read("summary.json"))
    assert summary["missing"] == []
    assert (summary["counts"]["projects"], summary["counts"]["variants_of_projects"]) == (1, 2)
    whole = b"".join(archive.read(name) for name in names)
    async with data.transaction() as tx:
        hashes = (
            await tx.execute(
                text(
                    "SELECT key_hash FROM api_keys UNION SELECT session_id FROM sessions "
                    "UNION SELECT password_hash FROM users"
                )
            )
        ).scalars()
    assert not [each for each in [*secrets, *hashes, str(bob.id), "bob@example.com"] if each.encode() in whole]
    entries = [entry for entry in await trail(data) if entry.action == "security_data_export"]
    assert [(entry.user_id, entry.is_success) for entry in entries] == [(ann.id, True)]


async def test_what_the_storage_has_lost_is_named(data: DataLayer) -> None:
    ann = await make_account(data)
    file = await data.files.save(picture("PNG"), owner_id=ann.id)
    await data.storage.delete(file.key)
    archive = await collected(data.personal_data.export(acting(ann), ann.id))
    [missing] = json.loads(archive.read("summary.json"))["missing"]
    assert str(file.id) in missing


async def test_who_may_have_it(data: DataLayer) -> None:
    ann = await make_account(data)
    root = acting(await make_account(data, "root@example.com", role=UserRole.ADMIN))
    for actor in (root, Actor(), Actor.user(ann.id, UserRole.USER, frozenset(ApiScope))):
        with pytest.raises(PermissionDeniedError):
            await collected(data.personal_data.export(actor, ann.id))
    assert (await collected(data.personal_data.export(SYSTEM, ann.id))).namelist()
    await data.accounts.delete(acting(ann), ann.id, password=PASSWORD)
    with pytest.raises(NotFoundError):
        await collected(data.personal_data.export(SYSTEM, ann.id))


async def test_pieces_come_while_it_is_made(data: DataLayer) -> None:
    """The first ones are there before the last project is read, so the whole is never in memory."""
    ann = await make_account(data)
    for _ in range(3):
        await data.projects.create(acting(ann), ProjectDraft(name="Shop"))
    await data.files.save(picture("PNG"), owner_id=ann.id)
    pieces = data.personal_data.export(acting(ann), ann.id)
    whole = [await anext(pieces)]
    for project in (await data.projects.list(acting(ann))).projects:
        opened = await data.projects.open(acting(ann), project.id)
        await data.projects.update(acting(ann), project.id, ProjectChanges(name="Renamed"), expected=opened.revision)
    whole += [piece async for piece in pieces]
    assert len(whole) > 5
    assert max(map(len, whole)) < 64 * 1024
    with zipfile.ZipFile(io.BytesIO(b"".join(whole))) as archive:
        names = [name for name in archive.namelist() if name.startswith("projects/")]
        inner = [zipfile.ZipFile(io.BytesIO(archive.read(name))) for name in names]
    assert [json.loads(each.read("project.json"))["project"]["name"] for each in inner] == ["Renamed"] * 3


async def test_a_file_that_is_deleted_meanwhile_loses_no_project(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await make_account(data)
    await live(data, ann)

    async def deleted(*_: Any, **__: Any) -> bytes:
        raise NotFoundError("no image has this id")

    monkeypatch.setattr(data.images, "download", deleted)
    archive = await collected(data.personal_data.export(acting(ann), ann.id))
    summary = json.loads(archive.read("summary.json"))
    assert (summary["counts"]["projects"], summary["counts"]["images_of_projects"]) == (1, 0)
    [missing] = summary["missing"]
    assert missing.startswith("1 files of the project")


async def test_a_reader_may_leave_at_any_time(data: DataLayer) -> None:
    """In the middle of a part as well: nothing stays open, and no program takes what was read for the whole."""
    ann = await make_account(data)
    await live(data, ann)
    await data.files.save(noise(700, 700), owner_id=ann.id)
    lengths = [len(piece) async for piece in data.personal_data.export(acting(ann), ann.id)]
    assert max(lengths) > 2**20
    for number in range(len(lengths)):
        async with aclosing(data.personal_data.export(acting(ann), ann.id)) as pieces:
            read = b"".join([await anext(pieces) for _ in range(number)])
        assert "account.json" not in names_in(read), number
    gc.collect()  # What was left open would warn now, and a warning fails the test.
