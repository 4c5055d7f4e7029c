"""Pages are shown with images that live, wherever they are shown, and codes stay as they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from data_layer import DataLayer
from data_layer.entities import GeneratedCode, Project
from data_layer.entities.enums import GenerationStatus, UserRole
from data_layer.errors import DataLayerError, FetchError, InvalidFileError, NotFoundError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import TreeCode
from data_layer.services.fetching import Fetcher
from data_layer.services.files.backends import PUBLIC_PATH
from tests.file_content import picture
from tests.support import make_code, make_project, make_user, stored_actor

PROVIDER = "https://replicate.delivery/xyz/out-0.png?token=1&size=2"
LOCAL = "/local-assets/logo-1a.png"
OTHER = "https://example.com/other.png"
CODE = f"""<p style="background: url(&quot;{PROVIDER.replace("&", "&amp;")}&quot;)">☃, see {PROVIDER}.</p>
<img src="http://localhost:7001{LOCAL}"><img src='{LOCAL}'><img src="{OTHER}">\n"""


class Kept:
    """A person with a project, and what providers answer."""

    def __init__(self, data: DataLayer) -> None:
        self.data = data
        self.user = make_user()
        self.owner = Actor.user(self.user.id)
        self.project = make_project(self.user)
        self.answers = {PROVIDER: picture("PNG"), "https://a.example/page": b"<!doctype html><p>"}
        self.fetched: list[str] = []

    async def store(self) -> Kept:
        async with self.data.transaction() as tx:
            tx.add(self.user)
            tx.add(self.project)
        return self

    async def add(self, code: str, project: Project | None = None) -> GeneratedCode:
        row = make_code(project or self.project, code=code, status=GenerationStatus.COMPLETED)
        async with self.data.transaction() as tx:
            tx.add(row)
        return row

    async def keep_all(self) -> None:
        assert await self.data.pages.keep(self.owner, self.project.id, PROVIDER)
        assert await self.data.pages.keep(self.owner, self.project.id, LOCAL, picture("JPEG"))

    async def names(self, project: Project | None = None) -> dict[str, str]:
        """The permanent names by those of the files."""
        files = await self.data.files.list(
            owner_id=self.user.id, attached_to=Attachment(project_id=(project or self.project).id)
        )
        return {str(each.file_name): str(each.public_name) for each in files}

    async def fetch(self, url: str) -> AsyncGenerator[bytes]:
        self.fetched.append(url)
        if url not in self.answers:
            raise FetchError("it has ended")
        yield self.answers[url]


@pytest.fixture
async def kept(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> Kept:
    world = await Kept(data).store()
    monkeypatch.setattr(Fetcher, "fetch", lambda _, url: world.fetch(url))
    return world


def shown_as(code: GeneratedCode, names: dict[str, str], base: str = "") -> str:
    provider, local = (f"{base}{PUBLIC_PATH}{names[name]}#{code.id}" for name in ("out-0.png", "logo-1a.png"))
    return f"""<p style="background: url(&quot;{provider}&quot;)">☃, see {provider}.</p>
<img src="{local}"><img src='{local}'><img src="{OTHER}">\n"""


async def test_a_page_names_living_images_wherever_it_is_shown(kept: Kept) -> None:
    data, owner = kept.data, kept.owner
    code = await kept.add(CODE)
    assert await data.pages.open(owner, code.id) == CODE
    await kept.keep_all()
    names = await kept.names()
    here, absolute = shown_as(code, names), shown_as(code, names, data.settings.base_url)
    assert await data.pages.open(owner, code.id) == here
    full = await data.generations.open_variant(owner, code.id)
    assert full.code == CODE, "to the byte"
    assert await data.pages.show(owner, full.id, full.code, base="https://x.example") == shown_as(
        code, names, "https://x.example"
    )
    assert await data.previews.latest(owner, kept.project.id) == here
    token = (await data.shares.create(owner, kept.project.id)).token.get_secret_value()
    assert await data.shares.show(token) == here
    assert (await data.shares.open(token)).code == CODE
    signed = urlsplit((await data.previews.sign(owner, code.id)).path)
    query = {name: value for name, [value] in parse_qs(signed.query).items()}
    assert await data.previews.open(code.id, int(query["expires"]), query["signature"]) == absolute
    for keeps_local in (False, True):
        tree = await data.generations.tree(owner, kept.project.id, code=TreeCode.ALL)
        opened = await data.pages.show_tree(owner, tree, keeps_local=keeps_local)
        [generation] = [each async for each in opened.generations]
        local = f"{LOCAL}#{code.id}" if keeps_local else f"{PUBLIC_PATH}{names['logo-1a.png']}#{code.id}"
        assert generation.variants[0].code == here.replace(f"{PUBLIC_PATH}{names['logo-1a.png']}#{code.id}", local)
    for name in names.values():
        assert await _is_there(data, name)
    fork = await data.shares.fork(await stored_actor(data), token)
    [copied] = [each async for each in (await data.generations.tree(SYSTEM, fork.id, code=TreeCode.ALL)).generations]
    assert copied.variants[0].code == absolute
    assert kept.fetched == [PROVIDER]


async def test_what_was_shown_is_known_in_each_form(kept: Kept) -> None:
    data, owner = kept.data, kept.owner
    await kept.add(CODE)
    same = await kept.add(CODE)  # The same code: which one was shown decides.
    assert await data.pages.keep(owner, kept.project.id, PROVIDER)
    early = await data.pages.open(owner, same.id, base="http://127.0.0.1:3000")
    await data.pages.keep(owner, kept.project.id, LOCAL, picture("JPEG"))
    late = await data.pages.open(owner, same.id)
    for page in (early, late, f"\n {late.strip()}", late.replace(f"{PUBLIC_PATH}", f"https://x.example{PUBLIC_PATH}")):
        found = await data.pages.variant_shown(owner, page)
        assert found is not None
        assert found.id == same.id
    for unknown in (late.replace("☃", "changed"), CODE, "", late.replace(str(same.id), str(kept.user.id))):
        assert await data.pages.variant_shown(owner, unknown) is None
    assert await data.pages.variant_shown(await stored_actor(data), late) is None
    # An edit keeps the addresses that it was shown; they live on at another host, and name the new variant.
    edited = await kept.add(late.replace("☃", "edited").replace(PUBLIC_PATH, f"http://127.0.0.1:3000{PUBLIC_PATH}"))
    shown = await data.pages.open(owner, edited.id)
    assert shown == late.replace("☃", "edited").replace(str(same.id), str(edited.id))
    found = await data.pages.variant_shown(owner, shown)
    assert found is not None
    assert found.id == edited.id


async def test_an_address_is_kept_once_and_shared_with_the_other_projects_of_its_owner(kept: Kept) -> None:
    data, owner = kept.data, kept.owner
    kept_now = await asyncio.gather(*(data.pages.keep(owner, kept.project.id, PROVIDER) for _ in range(4)))
    assert sorted(kept_now) == [False, False, False, True]
    assert len(await kept.names()) == 1
    kept.answers.clear()  # The provider has forgotten it.
    other = make_project(kept.user)
    async with data.transaction() as tx:
        tx.add(other)
    assert await data.pages.keep(owner, other.id, PROVIDER)
    assert (await kept.names()).keys() == (await kept.names(other)).keys()
    copy = await data.projects.clone(owner, kept.project.id)
    [copied] = [each for each in await data.files.list(owner_id=kept.user.id) if each.project_id == copy.id]
    names = {*(await kept.names()).values(), *(await kept.names(other)).values(), copied.public_name}
    assert len(names) == 3
    for project_id in (kept.project.id, other.id, copy.id):
        assert await data.pages.read_local("logo-1a.png") is None
        live = [name for name in names if await _is_there(data, str(name))]
        assert len(live) == 3 - [kept.project.id, other.id, copy.id].index(project_id)
        assert await data.storage.exists(copied.key), "one project is enough"
        await _remove_for_good(data, owner, project_id)
    assert not await data.storage.exists(copied.key)
    assert await data.files.list(owner_id=kept.user.id) == []


async def _is_there(data: DataLayer, name: str) -> bool:
    try:
        await data.public_files.find(name)
    except NotFoundError:
        return False
    return True


async def _remove_for_good(data: DataLayer, owner: Actor, project_id: object) -> None:
    await data.projects.delete(owner, project_id)  # type: ignore[arg-type]
    async with data.transaction() as tx:
        await tx.projects.remove_deleted(datetime.now(UTC) + timedelta(minutes=1), limit=10)


async def test_local_assets_are_read_by_anybody_who_knows_their_name(kept: Kept) -> None:
    await kept.keep_all()
    assert await kept.data.pages.read_local("logo-1a.png") == (picture("JPEG"), "image/jpeg")
    for unknown in ("other.png", "../logo-1a.png", "", "a/b.png", "logo-1a.png#"):
        assert await kept.data.pages.read_local(unknown) is None


async def test_only_images_are_kept_and_nothing_is_left_of_the_rest(kept: Kept) -> None:
    pages, owner, project_id = kept.data.pages, kept.owner, kept.project.id
    with pytest.raises(InvalidFileError):
        await pages.keep(owner, project_id, "https://a.example/page")
    with pytest.raises(FetchError):
        await pages.keep(owner, project_id, "https://a.example/gone.png")
    for address in (LOCAL, "file:///etc/passwd", "x" * 4001):
        with pytest.raises(DataLayerError):
            await pages.keep(owner, project_id, address)
    assert await kept.names() == {}


@pytest.mark.parametrize("role", UserRole)
async def test_others_neither_keep_nor_look_without_a_reason(kept: Kept, role: UserRole) -> None:
    data, other = kept.data, await stored_actor(kept.data, role=role)
    code = await kept.add(CODE)
    tree = await data.generations.tree(kept.owner, kept.project.id)
    calls = (
        data.pages.keep(other, kept.project.id, PROVIDER),
        data.pages.open(other, code.id),
        data.pages.show(other, code.id, code.code),
        data.pages.show_tree(other, tree),
    )
    for call in calls:
        with pytest.raises(NotFoundError):
            await call
    assert kept.fetched == []
    if role in {UserRole.MODERATOR, UserRole.ADMIN}:
        assert await data.pages.open(other, code.id, reason="a complaint") == CODE
    else:
        with pytest.raises(DataLayerError):
            await data.pages.open(other, code.id, reason="a complaint")
