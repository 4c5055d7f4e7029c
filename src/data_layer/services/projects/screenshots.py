"""The one way to keep a screenshot: a validated file of the owner, with thumbnails."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from data_layer.entities import Project
from data_layer.errors import FileTypeNotAllowedError, InvalidValueError
from data_layer.schemas.files import FileView
from data_layer.services.files import FileService
from data_layer.storage import FileContent

Screenshot = FileContent | str
"""The bytes of an image, or where to read them; a text is a base64 data URL."""

# A file whose project was not created, because the process died, goes by itself.
_UNTIL_CREATED = timedelta(hours=1)
_THUMBNAIL = 400
_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(?:;[a-z0-9-]+=[^;,]*)*;base64,", re.IGNORECASE)


async def store_screenshot(
    files: FileService, screenshot: Screenshot, *, owner_id: UUID, file_name: str | None
) -> FileView:
    """Validate and store a screenshot, for an hour unless a project takes it.

    Raises:
        InvalidFileError: it is not an image, or not one of an allowed type.
        FileTooLargeError: it is larger than MAX_FILE_SIZE.
        InvalidValueError: a text is not a base64 data URL.
        StorageError: it could not be stored.
    """
    content_type = None
    if isinstance(screenshot, Path) and file_name is None:
        file_name = screenshot.name
    if isinstance(screenshot, str):
        screenshot, content_type = decode_data_url(screenshot)
    file = await files.save(
        screenshot, owner_id=owner_id, content_type=content_type, file_name=file_name, expires_in=_UNTIL_CREATED
    )
    if file.image_format is None:
        await files.delete(file.id, owner_id=owner_id)
        raise FileTypeNotAllowedError(f"a screenshot must be an image, not {file.content_type}")
    return file


def show_in(project: Project, file: FileView) -> None:
    """Have the columns of a project describe its screenshot."""
    fitting = [small for small in file.thumbnails if max(small.width, small.height) >= _THUMBNAIL] or file.thumbnails
    project.original_image = file.key
    project.original_image_filename = file.file_name
    project.original_image_size = file.size
    project.original_image_mime_type = file.content_type
    project.thumbnail_image = min(fitting, key=lambda small: small.width).key if fitting else file.key
    project.image_metadata = {"width": file.width, "height": file.height, "dominant_color": file.dominant_color}


def decode_data_url(url: str) -> tuple[bytes, str]:
    """The bytes in a base64 data URL (RFC 2397), and the type that it names.

    Raises:
        InvalidValueError: it is none.
    """
    start = _DATA_URL.match(url)
    if start is None:
        raise InvalidValueError("a screenshot that is text must be a base64 data URL", field="screenshot")
    try:
        return base64.b64decode(url[start.end() :].encode("ascii"), validate=True), start[1].lower()
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidValueError("the data URL of the screenshot is not valid base64", field="screenshot") from None
