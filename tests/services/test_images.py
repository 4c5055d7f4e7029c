"""Images of projects: kept whatever made them, paid for once, seen by their owner alone."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import GeneratedCode, User
from data_layer.entities.enums import (
    AuditAction,
    GenerationProvider,
    GenerationStatus,
    ImageKind,
    ImageProvider,
    UsageOutcome,
    UserRole,
    UserStatus,
)
from data_layer.errors import (
    DataLayerError,
    DuplicateError,
    FetchAddressError,
    FileNotFoundInStorageError,
    InvalidFileError,
    InvalidUrlError,
    InvalidValueError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.images import GeneratedImageFull, ImageChanges, NewImage
from data_layer.schemas.projects import ProjectDraft, ProjectFull
from data_layer.schemas.usage import NewUsage
from data_layer.services.image_files import ImageFiles
from data_layer.services.images import ImageService
from data_layer.services.view_counts import ViewCounts
from tests.services.fetching.site import Site, answer, make_fetcher
from tests.support import stored_actor

SEEDS = resources.files("data_layer").joinpath("seed_data/screenshots")
PICTURE = SEEDS.joinpath("login-form.png").read_bytes()
DATA_URL = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
FREE = NewImage(prompt="a Löffel", model="gpt-image-9", metadata={"a": 1})
FLUX = NewImage(prompt="p", provider=ImageProvider.FLUX_SCHNELL, model="schnell", size="512x512")


@pytest.fixture
async def owner(data: DataLayer) -> Actor:
    return await stored_actor(data)


@pytest.fixture
async def project(data: DataLayer, owner: Actor) -> ProjectFull:
    return await data.projects.create(owner, ProjectDraft(name="A"))


def usage(**values: Any) -> NewUsage:
    return NewUsage(**{"key": "k", "provider": "openai", "model": "gpt-image-9", "cost": Decimal("0.04")} | values)


async def entries(data: DataLayer, image_id: object) -> list[tuple[AuditAction, dict[str, Any], dict[str, Any]]]:
    async with data.transaction() as tx:
        found = await tx.audit.list(resource_type="image", resource_id=str(image_id))
    return [(entry.action, entry.old_values, entry.new_values) for entry in found]


async def keys(data: DataLayer) -> set[str]:
    return {file.key async for file in data.storage.list()}


async def nothing_was_stored(data: DataLayer, owner: Actor, project: ProjectFull) -> bool:
    images = (await data.images.list(owner, project.id)).images
    return (images, await data.files.list(owner_id=owner.user_id), await keys(data)) == ((), [], set())


@pytest.mark.parametrize("source", [PICTURE, DATA_URL])
async def test_an_image_is_kept_with_thumbnails(
    data: DataLayer, owner: Actor, project: ProjectFull, source: bytes | str
) -> None:
    image = await data.images.record(owner, project.id, FREE, source, file_name="a.png")

    [file] = await data.files.list(owner_id=owner.user_id)
    assert (file.image_id, file.expires_at, file.file_name) == (image.id, None, "a.png")
    assert (image.storage_key, image.mime_type, image.file_size) == (file.key, "image/png", len(PICTURE))
    assert (image.width, image.height, image.size) == (file.width, file.height, f"{file.width}x{file.height}")
    assert image.thumbnail_url in [small.key for small in file.thumbnails]
    assert (image.provider, image.model, image.kind) == (ImageProvider.OTHER, "gpt-image-9", ImageKind.GENERATED)
    assert (image.status, image.prompt, image.metadata) == (GenerationStatus.COMPLETED, "a Löffel", {"a": 1})
    assert image.image_url is None
    assert await data.images.open(owner, image.id) == image
    assert await data.images.download(owner, image.id) == PICTURE
    expected = {"project_id": str(project.id), "kind": "generated", "provider": "other", "model": "gpt-image-9"}
    recorded = await entries(data, image.id)
    assert recorded == [(AuditAction.IMAGE_GENERATE, {}, expected), (AuditAction.IMAGE_DOWNLOAD, {}, {})]


@pytest.mark.parametrize("provider", ImageProvider)
@pytest.mark.parametrize("kind", ImageKind)
async def test_every_provider_and_kind_is_kept(
    data: DataLayer, owner: Actor, project: ProjectFull, provider: ImageProvider, kind: ImageKind
) -> None:
    size = (*provider.sizes, "auto")[0]
    new = NewImage(prompt="p", provider=provider, kind=kind, model="any/model:1", size=size)
    image = await data.images.record(owner, project.id, new, PICTURE)
    assert (image.provider, image.kind, image.model, image.size) == (provider, kind, "any/model:1", size)


async def test_the_url_of_a_provider_is_fetched_at_once_and_not_kept(
    data: DataLayer, owner: Actor, project: ProjectFull
) -> None:
    site = Site()
    async with site.serving():
        site.answers["/x.png?sig=secret"] = answer(PICTURE)
        files = ImageFiles(data.files, make_fetcher(site))
        service = ImageService(data.transaction, files, data.files, ViewCounts(data.transaction))
        url = f"http://images.test:{site.port}/x.png?sig=secret"
        image = await service.record(owner, project.id, FREE, url)
    assert await data.images.download(owner, image.id) == PICTURE
    assert "secret" not in image.model_dump_json()


@pytest.mark.parametrize(
    "case",
    [
        *((b"no image", FREE, InvalidFileError), (b"", FREE, InvalidFileError), (PICTURE[:99], FREE, InvalidFileError)),
        *(("data:image/png;base64,!", FREE, InvalidValueError), ("nothing", FREE, InvalidUrlError)),
        *(("http://127.0.0.1/x.png", FREE, FetchAddressError), ("http://2130706433/", FREE, InvalidUrlError)),
        (PICTURE, FLUX.model_copy(update={"size": None}), InvalidValueError),
        (PICTURE, FLUX.model_copy(update={"size": "513x512"}), InvalidValueError),
        (PICTURE, FREE.model_copy(update={"model": "m" * 101}), InvalidValueError),
        (PICTURE, FREE.model_copy(update={"size": "s" * 101}), InvalidValueError),
        (PICTURE, FREE.model_copy(update={"prompt": "a\0b"}), InvalidValueError),
        (PICTURE, FREE.model_copy(update={"metadata": {"a": "\ud800"}}), InvalidValueError),
    ],
)
async def test_what_cannot_be_kept_leaves_nothing(
    data: DataLayer, owner: Actor, project: ProjectFull, case: tuple[Any, NewImage, type[DataLayerError]]
) -> None:
    source, new, kind = case
    with pytest.raises(kind):
        await data.images.record(owner, project.id, new, source, usage=usage())
    assert await nothing_was_stored(data, owner, project)
    assert await data.usage.entries(owner) == []


async def test_the_cost_is_in_the_ledger_once(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    for _ in range(2):
        await data.images.record(owner, project.id, FREE, PICTURE, usage=usage())
    [entry] = await data.usage.entries(owner)
    assert (entry.project_id, entry.cost, entry.model) == (project.id, Decimal("0.04"), "gpt-image-9")


async def test_an_image_whose_cost_is_refused_is_not_kept(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    await data.usage.record(owner, usage(cost=Decimal(1)))
    other = await data.projects.create(owner, ProjectDraft(name="B"))
    for refused, kind in ((usage(), DuplicateError), (usage(key="n", project_id=other.id), InvalidValueError)):
        with pytest.raises(kind):
            await data.images.record(owner, project.id, FREE, PICTURE, usage=refused)
    assert await nothing_was_stored(data, owner, project)
    assert len(await data.usage.entries(owner)) == 1


async def test_a_failure_is_kept_with_its_cost(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    paid = usage(outcome=UsageOutcome.FAILED)
    image = await data.images.record_failure(owner, project.id, FLUX, "the prompt was refused", usage=paid)
    assert (image.status, image.error_message, image.storage_key) == (
        GenerationStatus.FAILED,
        "the prompt was refused",
        None,
    )
    assert [entry.outcome for entry in await data.usage.entries(owner)] == [UsageOutcome.FAILED]
    for attempt in (data.images.download(owner, image.id), data.images.publish(owner, image.id)):
        with pytest.raises(NotFoundError, match="has no file"):
            await attempt
    await data.images.delete(owner, image.id)


async def test_pages_hold_each_image_once_while_others_come_and_go(
    data: DataLayer, owner: Actor, project: ProjectFull
) -> None:
    images = [await data.images.record(owner, project.id, FREE, PICTURE) for _ in range(7)]
    kept = [image.id for number, image in enumerate(images) if number not in {4, 1}]
    seen, after = [], None
    for step in range(10):
        page = await data.images.list(owner, project.id, after=after, limit=2)
        seen += [image.id for image in page.images]
        if step == 0:
            await data.images.delete(owner, images[4].id)
            await data.images.delete(owner, images[1].id)
            await data.images.record(owner, project.id, FREE, PICTURE)
        after = page.next
        if after is None:
            break
    assert seen == list(reversed(kept))
    for limit in (0, 1001, True, "x"):
        with pytest.raises(InvalidValueError, match="limit"):
            await data.images.list(owner, project.id, limit=limit)  # type: ignore[arg-type]
    assert len((await data.images.list(owner, project.id, limit=1000)).images) == 6


async def test_lists_are_filtered(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    plain = await data.images.record(owner, project.id, FREE, PICTURE)
    cut = NewImage(kind=ImageKind.EXTRACTED)
    favorite = await data.images.record(owner, project.id, cut, PICTURE)
    await data.images.update(owner, favorite.id, ImageChanges(is_favorite=True))

    async def ids(**options: Any) -> list[Any]:
        return [image.id for image in (await data.images.list(owner, project.id, **options)).images]

    assert await ids(kind=ImageKind.EXTRACTED) == await ids(is_favorite=True) == [favorite.id]
    assert await ids(is_favorite=False) == await ids(kind=ImageKind.GENERATED) == [plain.id]
    assert await ids(kind=ImageKind.UPLOADED) == []


async def test_changes_are_recorded_without_what_people_wrote(
    data: DataLayer, owner: Actor, project: ProjectFull
) -> None:
    image = await data.images.record(owner, project.id, FREE, PICTURE)
    for _ in range(2):
        assert (await data.images.update(owner, image.id, ImageChanges(name=" Löffel "))).name == "Löffel"
        assert (await data.images.update(owner, image.id, ImageChanges(is_favorite=True))).is_favorite
        rated = await data.images.rate(owner, image.id, stars=4, is_good=True, words="private words")
        assert (rated.rating, rated.feedback) == (4, {"thumb": "up", "words": "private words"})
    assert (await data.images.update(owner, image.id, ImageChanges(name="  "))).name is None
    assert await entries(data, image.id) == [
        (AuditAction.IMAGE_GENERATE, {}, (await entries(data, image.id))[0][2]),
        (AuditAction.IMAGE_UPDATE, {"name": None}, {"name": "Löffel"}),
        (AuditAction.IMAGE_UPDATE, {"is_favorite": False}, {"is_favorite": True}),
        (AuditAction.IMAGE_RATE, {"rating": None}, {"rating": 4}),
        (AuditAction.IMAGE_UPDATE, {"name": "Löffel"}, {"name": None}),
    ]
    for values in ({"stars": 6}, {"stars": 0}, {"words": "x" * 2001}):
        with pytest.raises(InvalidValueError):
            await data.images.rate(owner, image.id, **values)
    with pytest.raises(InvalidValueError):
        await data.images.update(owner, image.id, ImageChanges(name="n" * 256))


async def test_views_and_downloads_are_counted(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    image = await data.images.record(owner, project.id, FREE, PICTURE)
    for _ in range(3):
        await data.images.open(owner, image.id)
        await data.images.download(owner, image.id)
    await data._opened.view_counts.flush()
    counted = await data.images.open(owner, image.id)
    assert (counted.view_count, counted.download_count) == (3, 3)
    assert counted.updated_at == image.updated_at


async def test_a_signed_url_shows_an_image_or_a_thumbnail(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    image = await data.images.record(owner, project.id, FREE, PICTURE)
    whole = await data.images.signed_url(owner, image.id, expires_in=timedelta(minutes=1))
    small = await data.images.signed_url(owner, image.id, thumbnail=100)
    assert str(image.storage_key) in str(whole.url)
    assert str(image.storage_key) not in str(small.url)


# ---- who needs the bytes


async def test_the_file_goes_with_the_last_that_needs_it(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    first = await data.images.record(owner, project.id, FREE, PICTURE)
    second = await data.images.record(owner, project.id, FREE, PICTURE)
    shot = await data.projects.create(owner, ProjectDraft(name="B"), screenshot=PICTURE)
    assert first.storage_key == second.storage_key == shot.original_image
    await data.images.delete(owner, first.id)
    assert await data.images.download(owner, second.id) == PICTURE
    await data.images.delete(owner, second.id)
    with pytest.raises(NotFoundError):
        await data.images.delete(owner, second.id)
    assert shot.original_image in await keys(data)
    await remove_for_good(data, owner, shot)
    assert await keys(data) == set()
    deleted = (await entries(data, second.id))[-1]
    assert (deleted[0], deleted[1]["file_size"]) == (AuditAction.IMAGE_DELETE, len(PICTURE))


async def remove_for_good(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    await data.projects.delete(owner, project.id)
    async with data.transaction() as tx:
        assert len(await tx.projects.remove_deleted(datetime.now(UTC) + timedelta(hours=1), limit=9)) == 1


async def shown(data: DataLayer, address: str) -> bytes:
    file = await data.public_files.find(address.rpartition("/")[2])
    chunks = data.public_files.read(file, start=0, end=file.size, decoded=False)
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("how", ["image", "version", "project", "project for good"])
async def test_a_page_goes_on_showing_an_image_whatever_is_deleted(
    data: DataLayer, owner: Actor, project: ProjectFull, how: str
) -> None:
    """The page of a version, that of a fork in another project, and a share of it show the same image."""
    image = await data.images.record(owner, project.id, FREE, PICTURE)
    public = await data.images.publish(owner, image.id)
    assert await data.images.publish(owner, image.id) == public
    assert (await data.images.open(owner, image.id)).image_url == f"/a/{public.name}"
    page = f'<img src="/a/{public.name}">'
    code = GeneratedCode(project_id=project.id, code=page, provider=GenerationProvider.CLAUDE, model="m")
    code.status = GenerationStatus.PROCESSING
    code.status = GenerationStatus.COMPLETED
    async with data.transaction() as tx:
        tx.add(code)
    clone = await data.projects.clone(owner, project.id)
    fork = await data.generations.fork(owner, project.id, 1)
    links = [await data.shares.create(owner, each.id) for each in (clone, fork)]

    match how:
        case "image":
            await data.images.delete(owner, image.id)
        case "version":
            async with data.transaction() as tx:
                await tx.codes.delete(await tx.codes.get(code.id))
        case "project":
            await data.projects.delete(owner, project.id)
        case _:
            await remove_for_good(data, owner, project)
    await data.maintenance.run(SYSTEM)

    assert await shown(data, public.url) == PICTURE
    for link, copy in zip(links, (clone, fork), strict=True):
        assert (await data.shares.open(link.token.get_secret_value())).code == page
        [copied] = (await data.images.list(owner, copy.id)).images
        assert await data.images.download(owner, copied.id) == PICTURE


async def test_equal_bytes_of_two_people_do_not_betray_each_other(
    data: DataLayer, owner: Actor, project: ProjectFull
) -> None:
    other = await stored_actor(data)
    theirs = await data.projects.create(other, ProjectDraft(name="B"))
    first = await data.images.record(owner, project.id, FREE, PICTURE)
    public = await data.images.publish(owner, first.id)
    second = await data.images.record(other, theirs.id, FREE, PICTURE)

    assert first.storage_key != second.storage_key
    assert first.thumbnail_url != second.thumbnail_url
    [file] = await data.files.list(owner_id=other.user_id)
    assert (file.reference_count, file.public_name) == (1, None)
    assert second.image_url is None
    published = await data.images.publish(other, second.id)
    assert published.name != public.name

    # Whatever one of them does to the bytes, the other notices nothing.
    await data.images.delete(owner, first.id)
    await data.files.delete(public.id, owner_id=owner.user_id)
    with pytest.raises(NotFoundError):
        await shown(data, public.url)
    assert await data.images.download(other, second.id) == PICTURE
    assert await shown(data, published.url) == PICTURE


async def test_missing_bytes_are_reported(data: DataLayer, owner: Actor, project: ProjectFull) -> None:
    image = await data.images.record(owner, project.id, FREE, PICTURE)
    await data.storage.delete(str(image.storage_key))
    with pytest.raises(FileNotFoundInStorageError):
        await data.images.download(owner, image.id)
    async with data.transaction() as tx:
        assert (await tx.images.get(image.id)).download_count == 0


# ---- who may do what

METHODS = (
    *("record", "record_failure", "open", "list", "update", "rate", "download", "signed_url"),
    *("publish", "delete"),
)
READING = ("open", "list", "download", "signed_url")
WHO = ("owner", "stranger", "nobody", "moderator", "administrator", "system")


def call(data: DataLayer, actor: Actor, project: ProjectFull, image: GeneratedImageFull, method: str) -> Any:
    service, image_id = data.images, image.id
    work: dict[str, Any] = {
        "record": lambda: service.record(actor, project.id, FREE, PICTURE),
        "record_failure": lambda: service.record_failure(actor, project.id, FREE, "x"),
        "open": lambda: service.open(actor, image_id),
        "list": lambda: service.list(actor, project.id),
        "update": lambda: service.update(actor, image_id, ImageChanges(name="x")),
        "rate": lambda: service.rate(actor, image_id, stars=1),
        "download": lambda: service.download(actor, image_id),
        "signed_url": lambda: service.signed_url(actor, image_id),
        "publish": lambda: service.publish(actor, image_id),
        "delete": lambda: service.delete(actor, image_id),
    }
    return work[method]()


async def everything(data: DataLayer) -> tuple[Any, ...]:
    await data._opened.view_counts.flush()  # Else views of others are counted meanwhile.
    async with data.transaction() as tx:
        images = [GeneratedImageFull.model_validate(image) for image in await tx.images.list()]
        return images, await tx.files.count(), await tx.audit.count(), await keys(data)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(who=st.sampled_from(WHO), method=st.sampled_from(METHODS), is_deleted=st.booleans())
async def test_only_the_owner_reaches_them(data: DataLayer, who: str, method: str, *, is_deleted: bool) -> None:
    owner = await stored_actor(data)
    actor = {
        "owner": owner,
        "stranger": await stored_actor(data),
        "nobody": ANONYMOUS,
        "moderator": await stored_actor(data, role=UserRole.MODERATOR),
        "administrator": await stored_actor(data, role=UserRole.ADMIN),
        "system": SYSTEM,
    }[who]
    project = await data.projects.create(owner, ProjectDraft(name="A"))
    image = await data.images.record(owner, project.id, FREE, PICTURE)
    if is_deleted:
        await data.projects.delete(owner, project.id)
    before = await everything(data)
    if who in {"owner", "system"} and not is_deleted:
        await call(data, actor, project, image, method)
        return
    with pytest.raises(NotFoundError) as caught:
        await call(data, actor, project, image, method)
    assert str(image.id) in str(caught.value) or str(project.id) in str(caught.value)
    assert await everything(data) == before


@pytest.mark.parametrize("role", [UserRole.MODERATOR, UserRole.ADMIN])
@pytest.mark.parametrize("method", READING)
async def test_moderators_look_for_a_reason_which_is_recorded(
    data: DataLayer, owner: Actor, project: ProjectFull, role: UserRole, method: str
) -> None:
    image = await data.images.record(owner, project.id, FREE, PICTURE)
    moderator = await stored_actor(data, role=role)
    work: Any = {
        "open": lambda **reason: data.images.open(moderator, image.id, **reason),
        "list": lambda **reason: data.images.list(moderator, project.id, **reason),
        "download": lambda **reason: data.images.download(moderator, image.id, **reason),
        "signed_url": lambda **reason: data.images.signed_url(moderator, image.id, **reason),
    }[method]
    with pytest.raises(NotFoundError):
        await work()
    for reason in ("", " ", "x" * 1001):
        with pytest.raises(InvalidValueError, match="reason"):
            await work(reason=reason)

    await work(reason="report 7")

    async with data.transaction() as tx:
        [entry] = await tx.audit.list(action=AuditAction.ADMIN_DATA_EXPORT)
    assert (entry.user_id, entry.details, entry.resource_id) == (moderator.user_id, "report 7", str(project.id))
    stranger = await stored_actor(data)
    with pytest.raises(NotFoundError):
        await data.images.open(stranger, image.id, reason="report 7")


@pytest.mark.parametrize("method", METHODS)
async def test_an_account_that_is_not_active_does_nothing(
    data: DataLayer, owner: Actor, project: ProjectFull, method: str
) -> None:
    image = await data.images.record(owner, project.id, FREE, PICTURE)
    async with data.transaction() as tx:
        user: User = await tx.users.get(owner.user_id or uuid7())
        user.status = UserStatus.SUSPENDED
    before = await everything(data)
    with pytest.raises((PermissionDeniedError, NotFoundError)):
        await call(data, owner, project, image, method)
    assert await everything(data) == before


async def test_nothing_is_fetched_for_a_stranger(data: DataLayer, project: ProjectFull) -> None:
    site = Site()
    async with site.serving():
        files = ImageFiles(data.files, make_fetcher(site))
        service = ImageService(data.transaction, files, data.files, ViewCounts(data.transaction))
        with pytest.raises(NotFoundError):
            url = f"http://images.test:{site.port}/"
            await service.record(await stored_actor(data), project.id, FREE, url)
    assert site.requests == []
