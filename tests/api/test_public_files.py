"""Permanent addresses of files: for anybody, for good, and harmless whatever was uploaded."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from data_layer import DataLayer, Settings, User
from data_layer.errors import NotFoundError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import Attachment, PublicFile
from tests.file_content import PAGE, SVG, picture
from tests.support import make_project, make_user

PICTURE = picture(size=(150, 90))
ADDRESS = re.compile(r"http://service/a/[A-Za-z0-9_-]{22}\.(\w+)")


@pytest.fixture
def settings(migrated: Settings, tmp_path: Path) -> Settings:
    update = {
        "local_storage_path": tmp_path / "uploads",
        "allowed_file_types": ("image/png", "text/html", "image/svg+xml"),
        "public_url": "http://service",
    }
    return migrated.replaced(**update)


async def add_user(data: DataLayer) -> User:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    return user


async def publish(data: DataLayer, content: bytes, owner: User | None = None) -> PublicFile:
    user = owner or await add_user(data)
    file = await data.files.save(content, owner_id=user.id, file_name="ä.png")
    return await data.files.publish(file.id, owner_id=user.id)


async def test_anybody_reads_it_and_keeps_it_for_ever(data: DataLayer, client: httpx.AsyncClient) -> None:
    public = await publish(data, PICTURE)
    assert public.url.endswith(f"/a/{public.name}")
    match = ADDRESS.fullmatch(public.url)
    assert match is not None
    assert match[1] == "png"
    answer = await client.get(f"/a/{public.name}")
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "inline"
    again = await client.get(f"/a/{public.name}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = await client.get(f"/a/{public.name}", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, PICTURE[10:20])
    head = await client.head(f"/a/{public.name}")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(PICTURE)))


@pytest.mark.parametrize(("content", "extension"), [(PAGE, "html"), (SVG, "svg")])
async def test_what_a_browser_might_execute_is_saved_and_sandboxed(
    data: DataLayer, client: httpx.AsyncClient, content: bytes, extension: str
) -> None:
    public = await publish(data, content)
    assert public.name.endswith(f".{extension}")
    answer = await client.get(f"/a/{public.name}")
    assert answer.content == content
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]
    plain = await client.get(f"/a/{public.name}", headers={"accept-encoding": "identity"})
    assert plain.content == content


@pytest.mark.parametrize("name", ["", "x", f"{'a' * 22}.png", f"{'a' * 22}.PNG", "%00", f"{'é' * 22}.png", "a" * 5000])
async def test_no_other_address_is_answered(data: DataLayer, client: httpx.AsyncClient, name: str) -> None:
    await publish(data, PICTURE)
    assert (await client.get(f"/a/{name}")).status_code == 404


async def test_one_address_for_the_same_bytes_of_one_owner_at_once_and_later(data: DataLayer) -> None:
    owner = await add_user(data)
    at_once = await asyncio.gather(*(publish(data, PICTURE, owner) for _ in range(4)))
    assert {*at_once, await publish(data, PICTURE, owner)} == {at_once[0]}


async def test_the_same_bytes_of_two_people_have_two_addresses_and_live_apart(
    data: DataLayer, client: httpx.AsyncClient
) -> None:
    one, other = await add_user(data), await add_user(data)
    first, second = await publish(data, PICTURE, one), await publish(data, PICTURE, other)
    assert first.name != second.name
    assert await data.files.delete(first.id, owner_id=one.id)
    assert (await client.get(f"/a/{first.name}")).status_code == 404
    assert (await client.get(f"/a/{second.name}")).content == PICTURE


async def test_a_file_of_somebody_else_is_not_published(data: DataLayer) -> None:
    owner, stranger = await add_user(data), await add_user(data)
    file = await data.files.save(PICTURE, owner_id=owner.id)
    with pytest.raises(NotFoundError):
        await data.files.publish(file.id, owner_id=stranger.id)
    public = await publish(data, PICTURE, owner)
    assert not await data.files.delete(public.id, owner_id=stranger.id)


async def test_it_outlives_the_file_and_the_project_that_it_was_made_from(
    data: DataLayer, client: httpx.AsyncClient
) -> None:
    owner = await add_user(data)
    project = make_project(owner)
    async with data.transaction() as tx:
        tx.add(project)
    file = await data.files.save(PICTURE, owner_id=owner.id, attached_to=Attachment(project_id=project.id))
    public = await data.files.publish(file.id, owner_id=owner.id)
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(project.id))
    assert not await data.files.delete(file.id, owner_id=owner.id)
    await data.file_maintenance.cleanup(SYSTEM, apply=True)
    assert (await client.get(f"/a/{public.name}")).content == PICTURE


async def test_a_page_that_is_stored_compressed_is_handed_out_either_way(
    data: DataLayer, client: httpx.AsyncClient
) -> None:
    public = await publish(data, PAGE)
    packed = await client.get(f"/a/{public.name}", headers={"accept-encoding": "gzip"})
    plain = await client.get(f"/a/{public.name}", headers={"accept-encoding": "identity"})
    assert packed.content == plain.content == PAGE
    assert packed.headers.get("content-encoding") == "gzip"
    assert packed.headers["etag"] != plain.headers["etag"]
