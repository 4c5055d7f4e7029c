"""The one way to keep an image of a person, however it comes: a checked file of the owner, thumbnails, and a row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from data_layer.concurrency import uninterrupted
from data_layer.entities import AuditLog, GeneratedImage, Project
from data_layer.entities.enums import AuditAction, GenerationStatus
from data_layer.errors import CommitUnknownError, FileTypeNotAllowedError, InvalidValueError
from data_layer.schemas.files import FileView
from data_layer.schemas.images import NewImage
from data_layer.services.fetching import Fetcher
from data_layer.services.files import FileService
from data_layer.services.files.sources import content_of
from data_layer.storage import FileContent

ImageSource = FileContent | str
"""The bytes of an image, or where to read them. A text is a base64 data URL, or an http(s) URL that is fetched."""

# A file whose row was not stored, because the process died, is removed automatically.
_UNTIL_TAKEN = timedelta(hours=1)
_THUMBNAIL = 400


class ImageFiles:
    """Stores images before the rows that they belong to.

    Args:
        files: where they are stored.
        fetcher: fetches those that are named by an http(s) URL.
    """

    def __init__(self, files: FileService, fetcher: Fetcher) -> None:
        self._files = files
        self._fetcher = fetcher

    @asynccontextmanager
    async def stored(
        self, source: ImageSource, *, owner_id: UUID, field: str, file_name: str | None = None
    ) -> AsyncIterator[FileView]:
        """Validate and store an image, for a block that records what it belongs to, in a transaction of its own.

        The file goes after an hour unless the block keeps it (``FileRepository.keep``), and at once if the block fails.

        Args:
            source: the image.
            owner_id: whose file it will be.
            field: what the caller calls it, for messages.
            file_name: what the owner calls it; by default the name of the file that it is read from.

        Raises:
            InvalidFileError: it is not an image, or not one of an allowed type.
            FileTooLargeError: it is larger than MAX_FILE_SIZE.
            FetchError, InvalidUrlError: it could not be fetched, or its URL may not be.
            InvalidValueError: a text begins with ``data:`` and is not a base64 data URL.
            StorageError: it could not be stored.
        """
        file = await self._store(source, owner_id, field, file_name)
        try:
            _require_image(file, field)
            # The row will name a thumbnail, so it has to be there.
            yield file.model_copy(update={"thumbnails": await self._files.thumbnails(file.id, owner_id=owner_id)})
        except CommitUnknownError:
            raise  # The row may be there, and then it needs the file; else the file expires.
        except BaseException:
            await uninterrupted(self._files.delete(file.id, owner_id=owner_id))
            raise

    async def _store(self, source: ImageSource, owner_id: UUID, field: str, file_name: str | None) -> FileView:
        if isinstance(source, str):
            async with content_of(source, self._fetcher, field=field) as (content, content_type):
                return await self._files.save(
                    content,
                    owner_id=owner_id,
                    content_type=content_type,
                    file_name=file_name,
                    expires_in=_UNTIL_TAKEN,
                )
        if isinstance(source, Path):
            file_name = file_name or source.name
        return await self._files.save(source, owner_id=owner_id, file_name=file_name, expires_in=_UNTIL_TAKEN)


def thumbnail_key(file: FileView) -> str:
    """The key of the smallest thumbnail with at least 400 pixels, of the largest one, or of the image itself."""
    fitting = [small for small in file.thumbnails if max(small.width, small.height) >= _THUMBNAIL]
    if fitting:
        return min(fitting, key=lambda small: small.width).key
    return max(file.thumbnails, key=lambda small: small.width).key if file.thumbnails else file.key


def show_screenshot(project: Project, file: FileView) -> None:
    """Have a project show a file as its screenshot."""
    project.original_image = file.key
    project.original_image_filename = file.file_name
    project.original_image_size = file.size
    project.original_image_mime_type = file.content_type
    project.thumbnail_image = thumbnail_key(file)
    project.image_metadata = {"width": file.width, "height": file.height, "dominant_color": file.dominant_color}


def _require_image(file: FileView, field: str) -> None:
    if file.image_format is None:
        raise FileTypeNotAllowedError(f"{field} must be an image, not {file.content_type}")


def new_image_row(project_id: UUID, image: NewImage, status: GenerationStatus) -> GeneratedImage:
    """A row, before its file is known.

    Raises:
        InvalidValueError: the provider makes no such size, or one is missing.
    """
    values = image.model_dump(exclude={"metadata", "size"})
    size = image.size
    if size is None:
        if image.provider.sizes:
            sizes = ", ".join(image.provider.sizes)
            raise InvalidValueError(f"size is missing; {image.provider} makes: {sizes}", field="size")
        size = ""
    return GeneratedImage(project_id=project_id, status=status, size=size, metadata_=image.metadata, **values)


def describe_file(row: GeneratedImage, file: FileView) -> None:
    """Say which file an image is."""
    row.storage_key = file.key
    row.thumbnail_url = thumbnail_key(file)
    row.mime_type = file.content_type
    row.file_size = file.size
    row.width, row.height = file.width, file.height
    row.size = row.size or f"{file.width}x{file.height}"
    row.image_metadata = {"format": file.image_format, "dominant_color": file.dominant_color}


def new_image_entry(row: GeneratedImage, user_id: UUID) -> AuditLog:
    """The entry of the audit trail for a new row."""
    new = {
        "project_id": str(row.project_id),
        "kind": row.kind.value,
        "provider": row.provider.value,
        "model": row.model,
    }
    description = "Recorded an image" if row.status is GenerationStatus.COMPLETED else "Recorded a failed image"
    return AuditLog.data_action(AuditAction.IMAGE_GENERATE, user_id, "image", row.id, description, new_values=new)
