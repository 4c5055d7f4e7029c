"""Pages are shown with images that live, wherever they are shown, and codes stay as they came."""

from __future__ import annotations

import asyncio
import re
import zipfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.entities import GeneratedCode, Project
from data_layer.entities.enums import GenerationStatus, RequestType, UserRole
from data_layer.errors import DataLayerError, FetchError, InvalidFileError, NotFoundError
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import (
    FinishedGeneration,
    FinishedVariant,
    GenerationRequest,
    TreeCode,
    VariantModel,
    WholeCode,
)
from data_layer.schemas.lineage import ReceivedGeneration, ReceivedVariant
from data_layer.schemas.projects import ProjectDraft
from data_layer.services.fetching import Fetcher
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.transfer.archives import ProjectArchives
from data_layer.services.transfer.importing import Importer, ImportTargets
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

    async def add_edited(self) -> None:
        """A version, and an edit of what was shown of it, to which a published image came."""
        request, data = GenerationRequest(), self.data
        await data.generations.record(self.owner, self.project.id, request, [FinishedVariant(code=CODE)])
        await self.keep_all()
        saved = await data.files.save(picture("WEBP"), owner_id=self.user.id)
        published = await data.files.publish(saved.id, owner_id=self.user.id)
        code = await self.shown(base="http://127.0.0.1:3000")
        code = code.replace("☃", f"edited <img src=https://x.example{PUBLIC_PATH}{published.name}>")
        await data.generations.record(self.owner, self.project.id, request, [FinishedVariant(code=code)])

    async def shown(self, *, base: str = "") -> str:
        """The page of the latest version."""
        code = await self.data.generations.latest(self.owner, self.project.id)
        return await self.data.pages.show(self.owner, code.id, code.code, base=base)

    async def parent(self, page: str, actor: Actor | None = None) -> UUID | None:
        """The variant that an application changes which knows no ids."""
        changed = ReceivedGeneration(
            source="app",
            key="1",
            at=datetime.now(UTC) + timedelta(days=1),
            base_code=page,
            variants=(ReceivedVariant(index=0, code="changed"),),
        )
        found = await self.data.generations.find_parent(actor or self.owner, changed)
        return None if found is None else found.id

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
    assert kept.fetched == [PROVIDER]


async def test_what_was_shown_is_known_in_each_form(kept: Kept) -> None:
    data, owner = kept.data, kept.owner
    first = await kept.add(CODE)
    same = await kept.add(CODE)  # The same code: which one was shown decides.
    assert await data.pages.keep(owner, kept.project.id, PROVIDER)
    early = await data.pages.open(owner, same.id, base="http://127.0.0.1:3000")
    await data.pages.keep(owner, kept.project.id, LOCAL, picture("JPEG"))
    late = await data.pages.open(owner, same.id)
    for page in (early, late, f"\n {late.strip()}", late.replace(f"{PUBLIC_PATH}", f"https://x.example{PUBLIC_PATH}")):
        assert await kept.parent(page) == same.id
    assert await kept.parent(late.replace("☃", "changed")) is None
    assert await kept.parent(late, await stored_actor(data)) is None
    # An edit keeps the addresses that it was shown; they live on at another host, and name the new variant.
    edited = await kept.add(late.replace("☃", "edited").replace(PUBLIC_PATH, f"http://127.0.0.1:3000{PUBLIC_PATH}"))
    shown = await data.pages.open(owner, edited.id)
    assert shown == late.replace("☃", "edited").replace(str(same.id), str(edited.id))
    assert await kept.parent(shown) == edited.id
    # Without the marks one of the two is found that have the same code; with another one's it is the same.
    for page in (without_marks(late), late.replace(str(same.id), str(edited.id))):
        assert await kept.parent(page) in {first.id, same.id}
    assert await kept.parent(without_marks(shown)) == edited.id


@dataclass(frozen=True)
class Copy:
    """A project that was made of another one, and whose it is."""

    project_id: UUID
    owner: Actor


Way = Callable[[Kept, Path], Awaitable[Copy]]


async def clone(kept: Kept, _: Path) -> Copy:
    return Copy((await kept.data.projects.clone(kept.owner, kept.project.id)).id, kept.owner)


async def clone_twice(kept: Kept, folder: Path) -> Copy:
    first = await clone(kept, folder)
    second = await kept.data.projects.clone(kept.owner, first.project_id)
    await _remove_for_good(kept.data, kept.owner, first.project_id)
    return Copy(second.id, kept.owner)


async def clone_at_a_version(kept: Kept, _: Path) -> Copy:
    return Copy((await kept.data.projects.clone(kept.owner, kept.project.id, version=2)).id, kept.owner)


async def clone_without_history(kept: Kept, _: Path) -> Copy:
    return Copy((await kept.data.projects.clone(kept.owner, kept.project.id, history=False)).id, kept.owner)


async def fork(kept: Kept, _: Path) -> Copy:
    return Copy((await kept.data.generations.fork(kept.owner, kept.project.id, 2)).id, kept.owner)


async def restore_in_a_clone(kept: Kept, folder: Path) -> Copy:
    copy = await clone(kept, folder)
    await kept.data.generations.restore(copy.owner, copy.project_id, 2)
    return copy


async def fork_a_share(kept: Kept, _: Path) -> Copy:
    token = (await kept.data.shares.create(kept.owner, kept.project.id)).token.get_secret_value()
    other = await stored_actor(kept.data)
    return Copy((await kept.data.shares.fork(other, token)).id, other)


async def export(kept: Kept, folder: Path) -> None:
    data = kept.data
    archives = ProjectArchives(data.projects, data.generations, data.files, data.images)
    with (folder / "project.zip").open("wb") as target:
        await archives.write(kept.owner, kept.project.id, target)


async def bring(kept: Kept, folder: Path) -> Copy:
    await export(kept, folder)
    return await bring_from(kept, folder)


async def bring_from(kept: Kept, folder: Path) -> Copy:
    data, other = kept.data, await stored_actor(kept.data)
    assert other.user_id is not None
    targets = ImportTargets(data.transaction, data.projects, data.generations, data.files, data.images, data.designs)
    assert (await Importer(targets, other.user_id).run([folder / "project.zip"])).problems == ()
    [project] = (await data.projects.list(other)).projects
    return Copy(project.id, other)


async def bring_later(kept: Kept, folder: Path) -> Copy:
    """The archive is all that is left."""
    data = kept.data
    await export(kept, folder)
    await _remove_for_good(data, kept.owner, kept.project.id)
    async with data.transaction() as tx:
        await tx.users.delete(await tx.users.get(kept.user.id))
    return await bring_from(kept, folder)


async def paste_shown(kept: Kept, _: Path) -> Copy:
    """Somebody hands a page that was shown to an application that knows no ids, such as in a tab for imports."""
    data, other = kept.data, await stored_actor(kept.data)
    received = ReceivedGeneration(
        source="app",
        key=str(uuid4()),
        at=datetime.now(UTC),
        generation_type=RequestType.IMPORT,
        variants=(ReceivedVariant(index=0, code=await kept.shown(base=data.settings.base_url)),),
    )
    return Copy((await data.generations.receive(other, received)).project_id, other)


async def paste_generated(kept: Kept, _: Path) -> Copy:
    """The owner begins another project with the code as it was generated."""
    code = (await kept.data.generations.latest(kept.owner, kept.project.id)).code
    project = await kept.data.projects.create(kept.owner, ProjectDraft(name="Pasted"))
    await kept.data.generations.record(kept.owner, project.id, GenerationRequest(), [FinishedVariant(code=code)])
    return Copy(project.id, kept.owner)


async def import_many(kept: Kept, _: Path) -> Copy:
    data, other = kept.data, await stored_actor(kept.data)
    project = await data.projects.create(other, ProjectDraft(name="Pasted"))
    variants = (FinishedVariant(code=await kept.shown()),)
    finished = FinishedGeneration(request=GenerationRequest(), variants=variants)
    await data.generations.import_many(other, project.id, [finished])
    return Copy(project.id, other)


async def stream(kept: Kept, _: Path) -> Copy:
    data, other = kept.data, await stored_actor(kept.data)
    project = await data.projects.create(other, ProjectDraft(name="Streamed"))
    started = await data.generations.start(other, project.id, GenerationRequest(), [VariantModel()])
    token = started.writer_token
    await data.generations.append(other, token, 0, 1, WholeCode(await kept.shown()))
    await data.generations.complete(other, token, 0)
    return Copy(project.id, other)


@pytest.mark.parametrize(
    "way",
    [
        *(clone, clone_twice, clone_at_a_version, clone_without_history, fork, restore_in_a_clone),
        *(fork_a_share, bring, bring_later, paste_shown, paste_generated, import_many, stream),
    ],
)
async def test_a_copy_shows_its_images_however_the_original_ends(kept: Kept, tmp_path: Path, way: Way) -> None:
    data = kept.data
    await kept.add_edited()
    copy = await way(kept, tmp_path)
    if way is not bring_later:
        await _remove_for_good(data, kept.owner, kept.project.id)
    if copy.owner != kept.owner and way is not bring_later:
        async with data.transaction() as tx:
            await tx.users.delete(await tx.users.get(kept.user.id))
    token = (await data.shares.create(copy.owner, copy.project_id)).token.get_secret_value()
    shown = [await data.previews.latest(copy.owner, copy.project_id), await data.shares.show(token)]
    tree = await data.generations.tree(copy.owner, copy.project_id, code=TreeCode.ALL)
    async for generation in (await data.pages.show_tree(copy.owner, tree)).generations:
        shown += [str(variant.code) for variant in generation.variants]
    # A code of the copy may be changed and shown again.
    edited = FinishedVariant(code=shown[0].replace("edited", "edited again"))
    await data.generations.record(copy.owner, copy.project_id, GenerationRequest(), [edited])
    shown.append(await data.previews.latest(copy.owner, copy.project_id))
    expected = {"out-0.png": picture("PNG"), "logo-1a.png": picture("JPEG"), "published": picture("WEBP")}
    for page in shown:
        found = [await _content(data, name) for name in re.findall(rf"{PUBLIC_PATH}([\w-]+\.\w+)", page)]
        assert PROVIDER not in page
        assert LOCAL not in page
        wanted = expected.values() if "edited" in page else [expected["out-0.png"], expected["logo-1a.png"]]
        assert {*found} == {*wanted}, page
    if copy.owner != kept.owner:
        files = await data.files.list(owner_id=copy.owner.user_id)
        await _remove_for_good(data, copy.owner, copy.project_id)
        assert await data.files.list(owner_id=copy.owner.user_id) == []
        assert not any([await data.storage.exists(file.key) for file in files]), "nothing is left of both"


@pytest.mark.parametrize("is_copy", [False, True])
async def test_an_archive_opens_without_the_service(kept: Kept, tmp_path: Path, *, is_copy: bool) -> None:
    data = kept.data
    await kept.add_edited()
    if is_copy:
        copy = await clone(kept, tmp_path)
        await _remove_for_good(data, kept.owner, kept.project.id)
        kept.project = await data.projects.open(kept.owner, copy.project_id)  # type: ignore[assignment]
    await export(kept, tmp_path)
    with zipfile.ZipFile(tmp_path / "project.zip") as archive:
        codes = {name for name in archive.namelist() if name.startswith("codes/")}
        assert codes == {"codes/0001-0.html", "codes/0002-0.html"}
        assert archive.read("codes/0001-0.html").decode() == CODE
        for name, wanted in (("0001-0.html", {"PNG", "JPEG"}), ("0002-0.html", {"PNG", "JPEG", "WEBP"})):
            page = archive.read(f"pages/{name}").decode()
            found = {archive.read(path) for path in re.findall(r"\.\./(files/\d+\.\w+)", page)}
            assert found == {picture(kind) for kind in wanted}
            assert not re.search(f"{PROVIDER[:20]}|{LOCAL}|{PUBLIC_PATH}", page)
            assert OTHER in page


async def test_an_application_that_shows_requests_gets_pages(kept: Kept) -> None:
    data, owner = kept.data, kept.owner
    await kept.add_edited()
    copy = await data.projects.clone(owner, kept.project.id)
    await _remove_for_good(data, owner, kept.project.id)
    found = await data.generations.shown(owner, base="https://x.example")
    pages = [variant.code for generation in found.generations for variant in generation.variants]
    latest = await data.generations.latest(owner, copy.id)
    assert await data.pages.open(owner, latest.id, base="https://x.example") in pages
    assert len(pages) == 2
    as_stored = await data.generations.shown(owner)
    assert CODE in [variant.code for generation in as_stored.generations for variant in generation.variants]


async def test_a_page_that_names_what_is_being_removed_is_stored(kept: Kept) -> None:
    data, owner = kept.data, kept.owner
    await kept.add_edited()
    page, other = await kept.shown(), make_project(kept.user)
    async with data.transaction() as tx:
        tx.add(other)
        await tx.execute(text("UPDATE stored_files SET state = 'deleted'"))
    await data.generations.record(owner, other.id, GenerationRequest(), [FinishedVariant(code=page)])
    assert (await data.generations.latest(owner, other.id)).code == page
    assert await kept.names(other) == {}


async def test_nobody_has_a_project_of_others_hold_images(kept: Kept) -> None:
    data, other = kept.data, await stored_actor(kept.data)
    await kept.add_edited()
    project = await data.projects.create(other, ProjectDraft(name="Theirs"))
    with pytest.raises(NotFoundError):
        await data.generations.record(
            kept.owner, project.id, GenerationRequest(), [FinishedVariant(code=await kept.shown())]
        )
    assert await data.files.list(owner_id=other.user_id) == []


def without_marks(page: str) -> str:
    return re.sub("#[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", page)


IMAGES = (PROVIDER, LOCAL, f"http://localhost:7001{LOCAL}", "/local-assets/b-2.png", OTHER)
HOSTS = ("", "http://127.0.0.1:3000", "https://x.example")
READERS = ("page", "tree", "local tree", "latest", "share")


async def handed_out(kept: Kept, project_id: UUID, reader: str, base: str) -> dict[UUID, str]:
    """What a reader gets, by the variants."""
    data, owner = kept.data, kept.owner
    latest = await data.generations.latest(owner, project_id)
    match reader:
        case "latest":
            return {latest.id: await data.previews.latest(owner, project_id)}
        case "share":
            token = (await data.shares.create(owner, project_id)).token.get_secret_value()
            return {latest.id: await data.shares.show(token)}
        case "page":
            return {latest.id: await data.pages.open(owner, latest.id, base=base)}
    tree = await data.generations.tree(owner, project_id, code=TreeCode.ALL)
    shown = await data.pages.show_tree(owner, tree, base=base, keeps_local=reader == "local tree")
    return {each.id: str(each.code) async for generation in shown.generations for each in generation.variants}


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(random=st.randoms(use_true_random=False))
async def test_whatever_form_comes_back_is_below_what_was_shown(kept: Kept, random: Random) -> None:
    data, owner = kept.data, kept.owner
    project = await data.projects.create(owner, ProjectDraft(name="Story"))
    projects = [project.id]
    forms: list[tuple[str, UUID]] = []
    codes: dict[UUID, str] = {}
    for number in range(random.randint(4, 9)):
        project_id = random.choice(projects)
        match random.choice(["new", "edit", "keep", "clone"]) if codes else "new":
            case "keep":
                address = random.choice(IMAGES[:4])
                content = None if address == PROVIDER else picture("PNG")
                await data.pages.keep(owner, project_id, address.removeprefix("http://localhost:7001"), content)
            case "clone" if len(projects) < 3:
                projects.append((await data.projects.clone(owner, project_id)).id)
                tree = await data.generations.tree(owner, projects[-1], code=TreeCode.ALL)
                codes |= {each.id: str(each.code) async for row in tree.generations for each in row.variants}
            case kind:
                edited = random.choice(forms)[0] if kind == "edit" and forms else "\n"
                added = [f"<img src='{random.choice(IMAGES)}'>" for _ in range(random.randint(0, 3))]
                code = f"{edited}<p>{project.id} {number}</p>{''.join(added)}{random.choice([' ', ''])}"
                made = await data.generations.record(
                    owner, project_id, GenerationRequest(), [FinishedVariant(code=code)]
                )
                codes[made.variant_ids[0]] = code
        for each in projects:
            if await data.generations.history(owner, each):
                shown = await handed_out(kept, each, random.choice(READERS), random.choice(HOSTS))
                forms += [(page, code_id) for code_id, page in shown.items()]
    random.shuffle(forms)
    for page, code_id in forms:
        base = random.choice([page, page.strip(), without_marks(page), without_marks(page).strip()])
        found = await kept.parent(base)
        assert found is not None, (base, codes[code_id])
        if PUBLIC_PATH in base and base.strip() not in {code.strip() for code in codes.values()}:
            assert found == code_id, (base, codes[code_id])
        else:  # A copy has the same code, and nothing says which one it was.
            assert codes[found] == codes[code_id]


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


async def _content(data: DataLayer, name: str) -> bytes:
    return await data.storage.download((await data.public_files.find(name)).key)


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
