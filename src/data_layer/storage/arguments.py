"""What callers pass to the storage, checked before anything happens; an error names the argument.

Type checkers see most of it, but not a value that came from outside. What is stored beside a file must fit the headers
of every backend.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote

from data_layer.errors import (
    FileChangedInStorageError,
    FileExistsInStorageError,
    InvalidStorageKeyError,
    InvalidValueError,
    StorageError,
)

_LARGEST = 2**63 - 1
_LONGEST = timedelta(days=365_000)
_ETAG = re.compile(r"[!#-+\--~]{1,255}")  # A comma begins another one; see RFC 9110.
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


def check_text(value: object, *, field: str) -> str:
    """The value itself, when it is a text; of a subclass, such as a marked-up text, its characters.

    Raises:
        InvalidValueError: it is something else.
    """
    if not isinstance(value, str):
        raise InvalidValueError(f"{field} must be text, not {type(value).__name__}", field=field)
    return str.__str__(value)


def check_integer(value: object, *, field: str) -> int:
    """The value itself, when it is a number of bytes.

    Raises:
        InvalidValueError: it is negative, has more than 63 bits, or is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise InvalidValueError(f"{field} must be a number of bytes, 0 or more", field=field)
    return value


def check_flag(value: object, *, field: str) -> bool:
    """The value itself, when it is True or False.

    Raises:
        InvalidValueError: it is something else, of which nobody knows what it means.
    """
    if not isinstance(value, bool):
        raise InvalidValueError(f"{field} must be True or False, not {type(value).__name__}", field=field)
    return value


def check_duration(value: object, shortest: timedelta, longest: timedelta, *, field: str) -> timedelta:
    """The value itself, when it is a duration within limits.

    Raises:
        InvalidValueError: it is shorter, longer, or something else.
    """
    if not isinstance(value, timedelta) or not shortest <= value <= longest:
        raise InvalidValueError(f"{field} must be a timedelta from {shortest} to {longest}", field=field)
    return value


def check_age(value: object, *, field: str) -> timedelta:
    """The value itself, when it is a duration of a thousand years at most; a negative one reaches into the future.

    Raises:
        InvalidValueError: it is longer, or something else.
    """
    return check_duration(value, -_LONGEST, _LONGEST, field=field)


def check_handler(value: object, *, field: str) -> None:
    """See that it can be called.

    Raises:
        InvalidValueError: it cannot.
    """
    if not callable(value):
        raise InvalidValueError(f"{field} must be a function, not {type(value).__name__}", field=field)


def check_range(start: object, end: object) -> None:
    """See that both are limits of a range of bytes; that it has an end is not needed.

    Raises:
        InvalidValueError: one is negative or no integer.
    """
    check_integer(start, field="start")
    if end is not None:
        check_integer(end, field="end")


def check_keys(keys: Iterable[str]) -> list[str]:
    """The keys as a list; what each must be is another question.

    Raises:
        InvalidStorageKeyError: they are none, such as a single text, which would be taken for its characters.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidStorageKeyError(f"the keys must be several texts, not {type(keys).__name__}")
    return list(keys)


@dataclass(frozen=True, slots=True)
class Condition:
    """Overwrite whatever is there, only create, or replace one version.

    Raises:
        InvalidValueError: two conditions that exclude each other, or what is none.
    """

    overwrite: bool = True
    if_match: str | None = None

    def __post_init__(self) -> None:
        check_flag(self.overwrite, field="overwrite")
        if self.if_match is None:
            return
        text = check_text(self.if_match, field="if_match")
        if not self.overwrite:
            raise InvalidValueError("if_match replaces a file, which overwrite=False forbids", field="if_match")
        if not _ETAG.fullmatch(text):
            raise InvalidValueError(f"{text[:100]!a} is not an ETag; use the one of stat()", field="if_match")

    @property
    def is_none(self) -> bool:
        """Whether everything may be overwritten."""
        return self.overwrite and self.if_match is None

    def failure(self, key: str) -> StorageError:
        """What to raise when it does not hold."""
        if self.if_match is None:
            return FileExistsInStorageError(f"there is a file under {key!r} already, which was not to be overwritten")
        return FileChangedInStorageError(
            f"the file {key!r} is not the version that was to be replaced: read it and decide again"
        )


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
        raise InvalidValueError("a SHA-256 is written in 64 hexadecimal digits, in lower case", field="sha256")
    return value


def _invalid(problem: str) -> InvalidValueError:
    return InvalidValueError(f"the metadata cannot be stored: {problem}", field="metadata")
