"""Which content types and metadata may be stored beside a file: what the headers of every backend can carry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from data_layer.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_CONTENT_TYPE_SIZE = 255
MAX_METADATA_SIZE = 1024  # S3 allows 2048, and our own entries travel with it.

_TOKEN = r"[A-Za-z0-9!#$&^_.+-]+"  # noqa: S105  (a token is what RFC 9110 calls a word in a header)
_CONTENT_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?: ?; ?{_TOKEN}=(?:{_TOKEN}|"[ -!#-\[\]-~]*"))*')
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")  # Azure wants identifiers, S3 ignores letter case.
_UNFIT_FOR_HEADERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_content_type(content_type: str) -> str:
    """The content type itself, when it is one.

    Raises:
        InvalidValueError: it is not of the form ``type/subtype``, or longer than 255 characters.
    """
    if len(content_type) > MAX_CONTENT_TYPE_SIZE or not _CONTENT_TYPE.fullmatch(content_type):
        raise InvalidValueError(
            f"{content_type[:100]!a} is no content type; write it like 'image/png' or 'text/html; charset=utf-8', "
            f"in at most {MAX_CONTENT_TYPE_SIZE} characters",
            field="content_type",
        )
    return content_type


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of the metadata, when every backend can carry it.

    Raises:
        InvalidValueError: a name or a value breaks a rule, or all together are too long.
    """
    copy = dict(metadata or {})
    for name, value in copy.items():
        if not _NAME.fullmatch(name):
            raise _invalid(f"the name {name[:100]!a} must be of 1 to 64 lower-case letters, digits and '_'")
        if _UNFIT_FOR_HEADERS.search(value):
            raise _invalid(f"the value of {name!r} holds a control character or a lone surrogate")
    size = sum(len(name) + len(quote(value)) for name, value in copy.items())
    if size > MAX_METADATA_SIZE:
        raise _invalid(f"{size} bytes (percent-encoded) are more than {MAX_METADATA_SIZE}")
    return copy


def _invalid(problem: str) -> InvalidValueError:
    return InvalidValueError(f"The metadata cannot be stored: {problem}", field="metadata")
