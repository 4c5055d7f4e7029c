"""What is in a URL: bytes (``data:``), or where to fetch them (``http:``, ``https:``)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from data_layer.errors import InvalidUrlError, InvalidValueError
from data_layer.services.fetching import Fetcher
from data_layer.storage import FileContent

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(?:;[a-z0-9-]+=[^;,]*)*;base64,", re.IGNORECASE)


@asynccontextmanager
async def content_of(url: str, fetcher: Fetcher, *, field: str) -> AsyncIterator[tuple[FileContent, str | None]]:
    """Open a URL, for a block that reads the content; with the type that a data URL names.

    Args:
        url: a base64 data URL, or an http(s) URL, which is fetched while the block reads.
        fetcher: fetches it.
        field: what the caller calls it, for messages.

    Raises:
        InvalidUrlError, FetchError: it may not be fetched, or could not be.
        InvalidValueError: it begins with ``data:`` and is not a base64 data URL.
    """
    if url[:5].lower() == "data:":
        yield decode_data_url(url, field)
        return
    try:
        async with aclosing(fetcher.fetch(url)) as pieces:
            yield pieces, None
    except InvalidUrlError as error:
        error.field = field
        raise


def decode_data_url(url: str, field: str) -> tuple[bytes, str]:
    """The bytes in a base64 data URL (RFC 2397), and the type that it names.

    Raises:
        InvalidValueError: it is something else; ``field`` is what the caller calls it.
    """
    start = _DATA_URL.match(url)
    if start is None:
        raise InvalidValueError(f"{field} is not a base64 data URL", field=field)
    try:
        return base64.b64decode(url[start.end() :].encode("ascii"), validate=True), start[1].lower()
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidValueError(f"{field} is a data URL that is not valid base64", field=field) from None
