"""What a signed URL allows, checked before it is signed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from data_layer.errors import InvalidValueError
from data_layer.storage.arguments import (
    check_content_disposition,
    check_content_type,
    check_duration,
    check_header,
    check_integer,
)
from data_layer.storage.keys import split_key
from data_layer.storage.port import SignedMethod

LONGEST = timedelta(days=7)
"""S3 verifies no longer ones."""


@dataclass(frozen=True, slots=True)
class HeaderOverrides:
    """Headers of an answer, instead of those that are stored with the file. For PUT: what is sent and stored."""

    content_type: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    cache_control: str | None = None

    @property
    def response_parameters(self) -> dict[str, str]:
        """The parameters with which a URL of S3 chooses them."""
        values = {
            "response-cache-control": self.cache_control,
            "response-content-disposition": self.content_disposition,
            "response-content-encoding": self.content_encoding,
            "response-content-type": self.content_type,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """One thing that may be done with one file, from ``now`` for ``seconds``; ``size`` is that of what is sent."""

    key: str
    method: SignedMethod
    now: datetime
    seconds: int
    headers: HeaderOverrides = HeaderOverrides()
    size: int | None = None

    @classmethod
    def checked(
        cls,
        key: str,
        method: SignedMethod,
        expires_in: timedelta,
        headers: HeaderOverrides,
        size: int | None,
    ) -> SigningRequest:
        """The request, valid from this moment on.

        Raises:
            InvalidStorageKeyError: the key breaks a rule.
            InvalidValueError: another value does.
        """
        split_key(key)
        if method not in ("GET", "PUT"):
            raise InvalidValueError("a URL can be signed for GET or for PUT", field="method")
        check_duration(expires_in, timedelta(seconds=1), LONGEST, field="expires_in")
        _check_headers(headers, method)
        if size is not None:
            check_integer(size, field="size")
            if method == "GET":
                raise InvalidValueError("only a URL for PUT can have a size", field="size")
        seconds = int(expires_in.total_seconds())
        return cls(key, method, datetime.now(UTC).replace(microsecond=0), seconds, headers, size)

    @property
    def expires_at(self) -> datetime:
        """When it ends, in UTC."""
        return self.now + timedelta(seconds=self.seconds)


def _check_headers(headers: HeaderOverrides, method: SignedMethod) -> None:
    if headers.content_type is not None:
        check_content_type(headers.content_type)
    for name in ("content_disposition", "content_encoding", "cache_control"):
        if method == "PUT" and getattr(headers, name) is not None:
            raise InvalidValueError(f"only a URL for GET can have a {name}", field=name)
    check_content_disposition(headers.content_disposition)
    check_header(headers.content_encoding, field="content_encoding")
    check_header(headers.cache_control, field="cache_control")


def quoted(key: str) -> str:
    """A key as the path of a URL: everything percent-encoded but letters, digits, ``-_.~`` and the separators."""
    return quote(key, safe="/-_.~")
