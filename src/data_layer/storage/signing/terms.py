"""What a signed URL allows, checked before it is signed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from data_layer.errors import InvalidValueError
from data_layer.storage.keys import split_key
from data_layer.storage.metadata import check_content_disposition, check_content_type

if TYPE_CHECKING:
    from data_layer.storage.port import SignedMethod

LONGEST = timedelta(days=7)
"""S3 verifies no longer ones."""


@dataclass(frozen=True, slots=True)
class Terms:
    """One thing that may be done with one file, from ``now`` for ``seconds``."""

    key: str
    method: SignedMethod
    now: datetime
    seconds: int
    content_type: str | None = None
    content_disposition: str | None = None

    @classmethod
    def checked(
        cls,
        key: str,
        method: SignedMethod,
        expires_in: timedelta,
        content_type: str | None,
        content_disposition: str | None,
    ) -> Terms:
        """The terms, from this moment on.

        Raises:
            InvalidStorageKeyError: the key breaks a rule.
            InvalidValueError: another value does.
        """
        split_key(key)
        if method not in {"GET", "PUT"}:
            raise InvalidValueError(f"A URL can be signed for GET or PUT, not for {method!r}", field="method")
        if not timedelta(seconds=1) <= expires_in <= LONGEST:
            raise InvalidValueError("A signed URL works for one second to seven days", field="expires_in")
        if content_type is not None:
            check_content_type(content_type)
        if method == "PUT" and content_disposition is not None:
            raise InvalidValueError("Only a URL for GET can have a content disposition", field="content_disposition")
        check_content_disposition(content_disposition)
        seconds = int(expires_in.total_seconds())
        return cls(key, method, datetime.now(UTC).replace(microsecond=0), seconds, content_type, content_disposition)

    @property
    def expires_at(self) -> datetime:
        """When it ends, in UTC."""
        return self.now + timedelta(seconds=self.seconds)


def quoted(key: str) -> str:
    """A key as the path of a URL: everything percent-encoded but letters, digits, ``-_.~`` and the separators."""
    return quote(key, safe="/-_.~")
