"""What may be stored beside a file: only what the headers of every backend can carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from data_layer.errors import InvalidValueError
from data_layer.storage.arguments import check_text

MAX_CONTENT_TYPE_SIZE = 255
MAX_HEADER_SIZE = 255
MAX_DISPOSITION_SIZE = 4096
"""Enough for every name that `data_layer.storage.validation.names` lets through; URLs carry it percent-encoded."""
MAX_METADATA_SIZE = 1024  # S3 allows 2048, and our own entries travel with it.

_TOKEN = r"[A-Za-z0-9!#$&^_.+-]+"  # noqa: S105  (a token is what RFC 9110 calls a word in a header)
_CONTENT_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?: ?; ?{_TOKEN}=(?:{_TOKEN}|"[ -!#-\[\]-~]*"))*')
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")  # Azure wants identifiers, S3 ignores letter case.
_UNFIT_FOR_HEADERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HEADER = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_PARAMETER = re.compile(
    r" ?; ?(?:"
    r"(?P<name>[A-Za-z0-9_-]+)=(?:[A-Za-z0-9!#$&+.^_`|~-]+|\"[ !#-\[\]-~]*\")|"
    r"(?P<extended>[A-Za-z0-9_-]+\*)=(?i:utf-8)'[A-Za-z0-9-]*'(?:%[0-9A-Fa-f]{2}|[A-Za-z0-9!#$&+.^_`|~-])+)"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
RESERVED_PREFIX = "data_layer_"
"""Begins the names of metadata that are the backends' own."""


@dataclass(frozen=True, slots=True)
class Description:
    """What is stored beside a file, and is fit to be."""

    content_type: str
    metadata: Mapping[str, str]
    content_encoding: str | None = None
    cache_control: str | None = None

    @classmethod
    def checked(
        cls,
        content_type: str,
        metadata: Mapping[str, str] | None,
        content_encoding: str | None,
        cache_control: str | None,
    ) -> Description:
        """The description, when every backend can carry it.

        Raises:
            InvalidValueError: a part of it breaks a rule.
        """
        return cls(
            check_content_type(content_type),
            check_metadata(metadata),
            check_header(content_encoding, field="content_encoding"),
            check_header(cache_control, field="cache_control"),
        )


def check_content_type(content_type: str) -> str:
    """The content type itself, when it is one.

    Raises:
        InvalidValueError: it is not of the form ``type/subtype``, or longer than 255 characters.
    """
    if len(check_text(content_type, field="content_type")) > MAX_CONTENT_TYPE_SIZE or not _CONTENT_TYPE.fullmatch(
        content_type
    ):
        raise InvalidValueError(
            f"{content_type[:100]!a} is not a content type; write it like 'image/png' or 'text/html; charset=utf-8', "
            f"in at most {MAX_CONTENT_TYPE_SIZE} characters",
            field="content_type",
        )
    return content_type


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of the metadata, when every backend can carry it.

    Raises:
        InvalidValueError: a name or a value breaks a rule, or all together are too long.
    """
    if not isinstance(metadata, Mapping | None):
        raise _invalid(f"it must be a mapping of texts, not {type(metadata).__name__}")
    copy = {
        check_text(name, field="metadata"): check_text(value, field="metadata")
        for name, value in (metadata or {}).items()
    }
    for name, value in copy.items():
        if not _NAME.fullmatch(name):
            raise _invalid(f"the name {name[:100]!a} must be of 1 to 64 lower-case letters, digits and '_'")
        if name.startswith(RESERVED_PREFIX):
            raise _invalid(f"the name {name!r} begins with {RESERVED_PREFIX!r}, which is reserved")
        if _UNFIT_FOR_HEADERS.search(value):
            raise _invalid(f"the value of {name!r} holds a control character or a lone surrogate")
    size = sum(len(name) + len(quote(value)) for name, value in copy.items())
    if size > MAX_METADATA_SIZE:
        raise _invalid(f"{size} bytes (percent-encoded) are more than {MAX_METADATA_SIZE}")
    return copy


def check_header(value: str | None, *, field: str) -> str | None:
    """The value itself, when a header can carry it as it is.

    Raises:
        InvalidValueError: it is empty, longer than 255 characters, or not of printable ASCII.
    """
    if value is not None and (len(check_text(value, field=field)) > MAX_HEADER_SIZE or not _HEADER.fullmatch(value)):
        raise InvalidValueError(
            f"{value[:100]!a} cannot be a header: 1 to {MAX_HEADER_SIZE} printable ASCII characters can", field=field
        )
    return value


def check_content_disposition(value: str | None) -> str | None:
    """The value itself, when it is one of ``Content-Disposition`` (RFC 6266, with the names of RFC 8187).

    Raises:
        InvalidValueError: it is neither ``inline`` nor ``attachment``, has a malformed or repeated parameter, or is
            longer than 4096 characters.
    """
    if value is None:
        return None
    kind = re.match(r"inline|attachment", check_text(value, field="content_disposition"), re.IGNORECASE)
    position, names = kind.end() if kind else 0, []
    while kind and (parameter := _PARAMETER.match(value, position)):
        names.append((parameter["name"] or parameter["extended"]).lower())
        position = parameter.end()
    if not kind or position < len(value) or len(names) > len(set(names)) or len(value) > MAX_DISPOSITION_SIZE:
        raise InvalidValueError(
            f"{value[:100]!a} is not a content disposition: write 'inline' or 'attachment', and behind it at most one "
            "; filename=\"name.png\" and one ; filename*=UTF-8''name.png, percent-encoded, in at most "
            f"{MAX_DISPOSITION_SIZE} characters",
            field="content_disposition",
        )
    return value


def check_sha256(value: str | None) -> str | None:
    """The hash itself, when it is written as SHA-256 hashes are.

    Raises:
        InvalidValueError: it is not of 64 hexadecimal digits in lower case.
    """
    if value is not None and not _SHA256.fullmatch(check_text(value, field="sha256")):
        raise InvalidValueError("A SHA-256 is written in 64 hexadecimal digits, in lower case", field="sha256")
    return value


def _invalid(problem: str) -> InvalidValueError:
    return InvalidValueError(f"The metadata cannot be stored: {problem}", field="metadata")
