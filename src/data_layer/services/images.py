"""``data.images``: the images of projects, of any owner."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from data_layer.entities import AuditLog, GeneratedImage, Project
from data_layer.entities.enums import AuditAction, GenerationStatus, ImageKind
from data_layer.errors import ChangedMeanwhileError, InvalidValueError, NotFoundError, PictureMissingError
from data_layer.repositories.repository import check_limit
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import Attachment, FileView, PublicFile
from data_layer.schemas.images import GeneratedImageFull, GeneratedImageSummary, ImageChanges, ImagePage, NewImage
from data_layer.schemas.usage import NewUsage
from data_layer.services.arguments import checks_arguments
from data_layer.services.files import FileService
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.generations.access import open_code, open_project
from data_layer.services.image_files import ImageFiles, ImageSource, describe_file, new_image_entry, new_image_row
from data_layer.services.permissions import Permission
from data_layer.services.ratings import rating_values
from data_layer.services.usage import record_usage
from data_layer.services.view_counts import ViewCounts
from data_layer.storage import SignedUrl

_THUMBNAIL = 400
_THUMBNAIL_EXPIRES = timedelta(minutes=15)


@checks_arguments
class ImageService:
    """Images of projects: generated, edited, cut out, extracted or uploaded.

    They belong to the owner of the project. To others they are like missing ones; moderators and administrators may
    look at them when they give a reason, which is recorded. The bytes are a file of the owner, which other rows may
    share: it goes with the last of them.
    """

    def __init__(
        self, transactions: Transactions, image_files: ImageFiles, files: FileService, views: ViewCounts
    ) -> None:
        self._transactions = transactions
        self._image_files = image_files
        self._files = files
        self._views = views

    async def record(
        self,
        actor: Actor,
        project_id: UUID,
        image: NewImage,
        source: ImageSource,
        *,
        file_name: str | None = None,
        usage: NewUsage | None = None,
    ) -> GeneratedImageFull:
        """Keep an image: its bytes as a file with thumbnails, what it was made from, and what it cost.

        Args:
            actor: the owner of the project.
            project_id: which one.
            image: what is known of it.
            source: the bytes, a path, a stream, a base64 data URL, or the http(s) URL of a provider. It is fetched at
                once, because such URLs expire, and not kept itself, because it may grant access.
            file_name: what those who download it are offered as its name.
            usage: what was paid for it, for the ledger; the project is filled in.

        Raises:
            NotFoundError: the actor has no such project.
            InvalidFileError, FileTooLargeError: the image may not be stored.
            InvalidUrlError, FetchError: its URL may not be fetched, or could not be.
            InvalidValueError: a value cannot be stored, or the provider makes no such size; ``field`` says which.
            DuplicateError: the key of the usage belongs to an entry with other figures.
        """
        row = new_image_row(project_id, image, GenerationStatus.COMPLETED)
        async with self._transactions() as tx:
            owner_id = (await open_project(tx, actor, project_id, Permission.CHANGE_IMAGES)).user_id
        stored = self._image_files.stored(source, owner_id=owner_id, field="source", file_name=file_name)
        async with stored as file:
            describe_file(row, file)
            async with self._transactions() as tx:
                project = await open_project(tx, actor, project_id, Permission.CHANGE_IMAGES)
                await _add(tx, actor, project, row, usage)
                if not await tx.files.keep(file.id, Attachment(image_id=row.id)):
                    raise NotFoundError("the file was removed before the image was recorded; try again")
                return GeneratedImageFull.model_validate(row)

    async def record_failure(
        self, actor: Actor, project_id: UUID, image: NewImage, reason: str, *, usage: NewUsage | None = None
    ) -> GeneratedImageFull:
        """Keep that an image could not be made, and what the attempt cost.

        Args:
            actor: the owner of the project.
            project_id: which one.
            image: what was asked for.
            reason: what the provider said.
            usage: see ``record``.

        Raises:
            NotFoundError, InvalidValueError, DuplicateError: see ``record``.
        """
        row = new_image_row(project_id, image, GenerationStatus.FAILED)
        row.error_message = reason
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.CHANGE_IMAGES)
            await _add(tx, actor, project, row, usage)
            return GeneratedImageFull.model_validate(row)

    async def open(self, actor: Actor, image_id: UUID, *, reason: str | None = None) -> GeneratedImageFull:
        """Return an image, and count the view; the counter shows it some seconds later.

        Args:
            actor: the owner, or a moderator.
            image_id: which one.
            reason: why somebody else's image is looked at; recorded in the audit trail.

        Raises:
            NotFoundError: the actor may see none with this id.
        """
        async with self._transactions() as tx:
            _, image = await _load_authorized(tx, actor, image_id, Permission.READ_IMAGES, reason=reason)
            view = GeneratedImageFull.model_validate(image)
        self._views.count(GeneratedImage, image_id)
        return view

    async def list(
        self,
        actor: Actor,
        project_id: UUID,
        *,
        kind: ImageKind | None = None,
        is_favorite: bool | None = None,
        after: UUID | None = None,
        limit: int = 50,
        reason: str | None = None,
    ) -> ImagePage:
        """Return a page of a project's images, the latest first; each is on one page, whatever happens to others.

        Args:
            actor: the owner, or a moderator.
            project_id: which project.
            kind: only images of this kind.
            is_favorite: only those that are marked as favorite, or only those that are not.
            after: ``next`` of the page before.
            limit: the length of the page, 1000 at most.
            reason: see ``open``.

        Raises:
            NotFoundError: the actor may see no such project.
            InvalidValueError: the limit is out of range.
        """
        check_limit(limit)
        wanted = {"kind": kind, "is_favorite": is_favorite}
        async with self._transactions() as tx:
            await open_project(tx, actor, project_id, Permission.READ_IMAGES, reason=reason)
            found = await tx.images.page(
                project_id, {name: value for name, value in wanted.items() if value is not None}, after, limit
            )
            shown = tuple(GeneratedImageSummary.model_validate(image) for image in found[:limit])
        return ImagePage(images=shown, next=shown[-1].id if len(found) > limit else None)

    async def update(
        self, actor: Actor, image_id: UUID, changes: ImageChanges, *, expected: datetime | None = None
    ) -> GeneratedImageFull:
        """Give an image another name, mark it as a favorite, or both.

        Args:
            actor: the owner.
            image_id: which one.
            changes: what is not given stays.
            expected: the ``updated_at`` that the caller has seen; without it the last change wins.

        Raises:
            NotFoundError: the actor has none with this id.
            ChangedMeanwhileError: it was changed after the caller read it.
            InvalidValueError: the name cannot be stored.
        """
        values = changes.model_dump(exclude_unset=True)
        if values.get("name") is not None:
            values["name"] = values["name"].strip() or None
        if values.get("is_favorite") is None:
            values.pop("is_favorite", None)
        return await self._change(actor, image_id, AuditAction.IMAGE_UPDATE, values, expected=expected)

    async def rate(
        self,
        actor: Actor,
        image_id: UUID,
        *,
        stars: int | None = None,
        is_good: bool | None = None,
        words: str | None = None,
    ) -> GeneratedImageFull:
        """Say what an image is worth: 1 to 5 stars or thumb up or down, and why.

        What is not given is taken back, as a rating is one whole.

        Raises:
            NotFoundError: the actor has none with this id.
            InvalidValueError: stars out of range, or words too long.
        """
        values = rating_values(stars=stars, is_good=is_good, words=words)
        return await self._change(actor, image_id, AuditAction.IMAGE_RATE, values)

    async def download(self, actor: Actor, image_id: UUID, *, reason: str | None = None) -> bytes:
        """Return the bytes of an image, in memory, and count and record the download.

        Raises:
            NotFoundError: the actor may see none with this id, or it has no bytes.
            FileNotFoundInStorageError, DamagedFileError: its bytes are missing, or not those that were stored.
        """
        async with self._transactions() as tx:
            project, image = await _load_authorized(tx, actor, image_id, Permission.READ_IMAGES, reason=reason)
            file = await _file_of(tx, project, image)
        content = await self._files.download(file.id, owner_id=project.user_id)
        async with self._transactions() as tx:
            await tx.images.increment(image_id, "download_count")
            tx.add(_entry(AuditAction.IMAGE_DOWNLOAD, actor, project, image_id, "Downloaded an image"))
        return content

    async def signed_url(
        self,
        actor: Actor,
        image_id: UUID,
        *,
        expires_in: timedelta = timedelta(minutes=15),
        thumbnail: int | None = None,
        reason: str | None = None,
    ) -> SignedUrl:
        """Return a URL that shows the image, or a thumbnail of it, for a while. Never store it: it expires.

        Args:
            actor: the owner, or a moderator.
            image_id: which one.
            expires_in: from one second to seven days.
            thumbnail: show the smallest thumbnail that is at least so many pixels wide or high.
            reason: see ``open``.

        Raises:
            NotFoundError: the actor may see none with this id, or it has no bytes.
            NotSupportedByStorageError: this storage cannot sign URLs.
        """
        async with self._transactions() as tx:
            project, image = await _load_authorized(tx, actor, image_id, Permission.READ_IMAGES, reason=reason)
            file = await _file_of(tx, project, image)
        return await self._files.signed_url(
            file.id, owner_id=project.user_id, expires_in=expires_in, thumbnail=thumbnail
        )

    async def project_thumbnail(self, actor: Actor, project_id: UUID, *, reason: str | None = None) -> SignedUrl:
        """Return a URL that shows the screenshot of a project in small for a while. Never store it: it expires.

        Args:
            actor: the owner, or a moderator.
            project_id: which project.
            reason: see ``open``.

        Raises:
            NotFoundError: the actor may see no such project.
            PictureMissingError: it has no screenshot.
        """
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.READ_IMAGES, reason=reason)
            file = None
            if project.original_image is not None:
                file = await tx.files.find_by_key(project.original_image, owner_id=project.user_id)
        return await self._small(file, project.user_id, "the project")

    async def variant_thumbnail(self, actor: Actor, code_id: UUID, *, reason: str | None = None) -> SignedUrl:
        """Return a URL that shows the last image that was attached to a variant; see ``project_thumbnail``.

        Raises:
            NotFoundError: the actor may see no such variant.
            PictureMissingError: no image is attached to it.
        """
        async with self._transactions() as tx:
            project, _ = await open_code(tx, actor, code_id, Permission.READ_IMAGES, reason=reason)
            files = await tx.files.views(owner_id=project.user_id, attached_to=Attachment(code_id=code_id), limit=1000)
        images = [file for file in files if file.image_format is not None]
        return await self._small(images[-1] if images else None, project.user_id, "the variant")

    async def _small(self, file: FileView | None, owner_id: UUID, what: str) -> SignedUrl:
        if file is None:
            raise PictureMissingError(f"{what} has no picture")
        return await self._files.signed_url(
            file.id, owner_id=owner_id, expires_in=_THUMBNAIL_EXPIRES, thumbnail=_THUMBNAIL
        )

    async def publish(self, actor: Actor, image_id: UUID) -> PublicFile:
        """Give an image a permanent address that may stand inside pages. Harmless to repeat.

        Anybody who knows the address can see the image, also after the image, its project, or the version whose page
        shows it was deleted: other pages, forks and shares may show it too. ``data.files.delete`` with the id that is
        returned takes the address back.

        Raises:
            NotFoundError: the actor has none with this id, or it has no bytes.
        """
        async with self._transactions() as tx:
            project, image = await _load_authorized(tx, actor, image_id, Permission.CHANGE_IMAGES)
            file = await _file_of(tx, project, image)
        public = await self._files.publish(file.id, owner_id=project.user_id)
        await self._change(actor, image_id, AuditAction.IMAGE_UPDATE, {"image_url": f"{PUBLIC_PATH}{public.name}"})
        return public

    async def delete(self, actor: Actor, image_id: UUID) -> None:
        """Remove an image. Its file goes too, unless another row or a permanent address needs it.

        Raises:
            NotFoundError: the actor has none with this id.
        """
        async with self._transactions() as tx:
            project, image = await _load_authorized(tx, actor, image_id, Permission.CHANGE_IMAGES, lock=True)
            old = {"project_id": str(project.id), "name": image.name, "file_size": image.file_size}
            tx.add(_entry(AuditAction.IMAGE_DELETE, actor, project, image_id, "Deleted an image", old_values=old))
            await tx.images.delete(image)

    async def _change(
        self,
        actor: Actor,
        image_id: UUID,
        action: AuditAction,
        values: dict[str, Any],
        *,
        expected: datetime | None = None,
    ) -> GeneratedImageFull:
        async with self._transactions() as tx:
            project, image = await _load_authorized(tx, actor, image_id, Permission.CHANGE_IMAGES, lock=True)
            if expected is not None and image.updated_at != expected:
                raise ChangedMeanwhileError(
                    f"the image was changed at {image.updated_at:%Y-%m-%d %H:%M:%S}; read it again",
                    current=GeneratedImageFull.model_validate(image).model_dump(),
                )
            before = {name: getattr(image, name) for name in values}
            changed = {name: value for name, value in values.items() if before[name] != value}
            for name, value in changed.items():
                setattr(image, name, value)
            if changed:
                # What people wrote stays out of the audit trail, which outlives their account.
                shown = {name for name in changed if name != "feedback"}
                entry = _entry(action, actor, project, image_id, "Changed an image")
                entry.old_values = {name: before[name] for name in shown}
                entry.new_values = {name: changed[name] for name in shown}
                tx.add(entry)
            await tx.flush()
            return GeneratedImageFull.model_validate(image)


async def _load_authorized(
    tx: UnitOfWork,
    actor: Actor,
    image_id: UUID,
    permission: Permission,
    *,
    reason: str | None = None,
    lock: bool = False,
) -> tuple[Project, GeneratedImage]:
    """An image with its project, for an actor who may do this; to others it is like a missing one."""
    try:
        image = await tx.images.get(image_id, lock=lock)
        return await open_project(tx, actor, image.project_id, permission, reason=reason), image
    except NotFoundError:
        raise NotFoundError(f"no image has the id {image_id}") from None


async def _file_of(tx: UnitOfWork, project: Project, image: GeneratedImage) -> FileView:
    file = None
    if image.storage_key is not None:
        file = await tx.files.find_by_key(image.storage_key, owner_id=project.user_id)
    if file is None:
        raise NotFoundError(f"the image {image.id} has no file")
    return file


async def _add(tx: UnitOfWork, actor: Actor, project: Project, row: GeneratedImage, usage: NewUsage | None) -> None:
    """Insert an image with its audit entry, and its cost into the ledger."""
    tx.add(row)
    tx.add(new_image_entry(row, actor.user_id or project.user_id))
    if usage is not None:
        if usage.project_id not in {None, project.id}:
            raise InvalidValueError("the usage belongs to another project; leave its project_id out", field="usage")
        await record_usage(tx, project.user_id, usage.model_copy(update={"project_id": project.id}))
    await tx.flush()


def _entry(
    action: AuditAction, actor: Actor, project: Project, image_id: UUID, description: str, **fields: Any
) -> AuditLog:
    return AuditLog.data_action(action, actor.user_id or project.user_id, "image", image_id, description, **fields)
