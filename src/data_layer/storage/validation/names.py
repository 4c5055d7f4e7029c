"""Names that users gave their files: kept to be shown, never used as keys or paths."""

from __future__ import annotations

import unicodedata
from typing import Literal
from urllib.parse import quote

from data_layer.errors import InvalidFileNameError, InvalidStorageKeyError
from data_layer.storage.keys import split_key


def check_file_name(name: str) -> str:
    """The name in Unicode's NFC form, when it is one: no path, no device, nothing invisible.

    Raises:
        InvalidFileNameError: it breaks a rule of `data_layer.storage.keys`, or has more than 255 bytes.
    """
    normal = unicodedata.normalize("NFC", name)
    try:
        segments = split_key(normal)
    except InvalidStorageKeyError as error:
        problem = str(error).removeprefix("The storage key ")
        raise InvalidFileNameError(f"The file name {problem}") from error
    if len(segments) != 1:
        raise InvalidFileNameError(f"The file name {normal[:100]!a} holds a path; give the name alone")
    return normal


def content_disposition(kind: Literal["inline", "attachment"], name: str | None) -> str:
    """The value of the header ``Content-Disposition`` (RFC 6266) that has browsers save a file under its name."""
    if name is None:
        return kind
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    if plain == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
