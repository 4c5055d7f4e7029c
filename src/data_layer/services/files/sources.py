"""Files that come in a URL: their bytes (``data:``), or where to fetch them (``http:``, ``https:``)."""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from data_layer.errors import InvalidUrlError, InvalidValueError
from data_layer.schemas.files import FileView
from data_layer.services.fetching import Fetcher

if TYPE_CHECKING:
    from data_layer.services.files.service import FileService

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(?:;[a-z0-9-]+=[^;,]*)*;base64,", re.IGNORECASE)


async def save_from_url(
    files: FileService,
    fetcher: Fetcher,
    url: str,
    *,
    owner_id: UUID | None,
    field: str,
    file_name: str | None,
    expires_in: timedelta | None,
) -> FileView:
    """Store what a URL holds or names; see `FileService.save_from_url`. ``field`` names it in messages."""
    if url[:5].lower() == "data:":
        content, content_type = _decode(url, field)
        return await files.save(
            content, owner_id=owner_id, content_type=content_type, file_name=file_name, expires_in=expires_in
        )
    try:
        async with aclosing(fetcher.fetch(url)) as pieces:
            return await files.save(pieces, owner_id=owner_id, file_name=file_name, expires_in=expires_in)
    except InvalidUrlError as error:
        error.field = field
        raise


def _decode(url: str, field: str) -> tuple[bytes, str]:
    """The bytes in a base64 data URL (RFC 2397), and the type that it names."""
    start = _DATA_URL.match(url)
    if start is None:
        raise InvalidValueError(f"{field} is not a base64 data URL", field=field)
    try:
        return base64.b64decode(url[start.end() :].encode("ascii"), validate=True), start[1].lower()
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidValueError(f"{field} is a data URL that is not valid base64", field=field) from None
