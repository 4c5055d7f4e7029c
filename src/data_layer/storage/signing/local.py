"""Signed URLs of the local storage, which the service itself serves and verifies."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from data_layer.errors import InvalidSignatureError
from data_layer.storage.port import SignedMethod, SignedUrl
from data_layer.storage.signing.request import HeaderOverrides, SigningRequest, quoted

PATH = "/v1/files"
"""Where the service serves files, below its own address."""

_TOLERATED_SECONDS = 60
"""Clocks of the machines that sign and verify may differ by as much."""

_EXPIRES, _CONTENT_TYPE, _DISPOSITION, _ENCODING = "expires", "type", "disposition", "encoding"
_CACHE_CONTROL, _SIZE, _KEY_ID, _SIGNATURE = "cache", "size", "key", "signature"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a verified URL allows.

    Attributes:
        method: GET (also as HEAD) or PUT.
        headers: GET: the headers to answer with, instead of those that are stored. PUT: what was sent, to be stored.
        expires_at: When it ends, in UTC.
        size: PUT: how many bytes may be sent; None: as many as a file may have.
    """

    method: SignedMethod
    headers: HeaderOverrides
    expires_at: datetime
    size: int | None = None


class LocalUrlSigner:
    """Signs and verifies with HMAC-SHA256 over everything that a URL allows.

    The first secret signs; each one verifies, so a new secret is put before the old one, and the old one removed a week
    later. A short identifier in the URL, made from the secret by a hash, says which one was used.
    """

    def __init__(self, secrets: Sequence[str], *, public_url: str = "") -> None:
        """Derive the keys.

        Args:
            secrets: The one to sign with, then older ones.
            public_url: The address of the service, without a slash at its end; empty for addresses relative to it.
        """
        # A key of its own is derived from each, so that a secret that serves other purposes too gives nothing away.
        keys = [hmac.digest(secret.encode(), b"data-layer signed file urls", "sha256") for secret in secrets]
        self._keys = {hashlib.sha256(key).hexdigest()[:8]: key for key in keys}
        self._current = next(iter(self._keys))
        self._base_url = f"{public_url}{PATH}"

    def url(self, key: str) -> str:
        """The address of a file, unsigned."""
        return f"{self._base_url}/{quoted(key)}"

    def sign(self, request: SigningRequest) -> SignedUrl:
        """A URL that ``verify`` accepts."""
        overrides = request.headers
        grant = Grant(request.method, overrides, request.expires_at, request.size)
        values = {
            _EXPIRES: str(int(request.expires_at.timestamp())),
            _CONTENT_TYPE: overrides.content_type,
            _DISPOSITION: overrides.content_disposition,
            _ENCODING: overrides.content_encoding,
            _CACHE_CONTROL: overrides.cache_control,
            _SIZE: None if request.size is None else str(request.size),
            _KEY_ID: self._current,
            _SIGNATURE: _signature(self._keys[self._current], request.key, grant),
        }
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items() if value is not None)
        headers = {}
        if request.method == "PUT" and overrides.content_type is not None:
            headers["content-type"] = overrides.content_type
        if request.size is not None:
            headers["content-length"] = str(request.size)
        return SignedUrl(f"{self.url(request.key)}?{query}", request.method, headers, request.expires_at)

    def verify(self, method: str, key: str, query: Mapping[str, str], *, content_type: str | None = None) -> Grant:
        """What a URL allows, when it is one of ours and still works.

        Args:
            method: The method of the request; HEAD counts as GET.
            key: The storage key, decoded from the path.
            query: The decoded query, each name once.
            content_type: The request's header, for PUT.

        Raises:
            InvalidSignatureError: it has expired, was altered, or was made for something else. The message does not
                say which, except for expiry.
        """
        signed_method: SignedMethod = "PUT" if method == "PUT" else "GET"
        secret = self._keys.get(query.get(_KEY_ID, ""))
        expires, size = query.get(_EXPIRES, ""), query.get(_SIZE)
        if method not in {"GET", "HEAD", "PUT"} or secret is None or not _is_number(expires):
            raise _invalid()
        if size is not None and not _is_number(size):
            raise _invalid()
        expires_at = datetime.fromtimestamp(int(expires), UTC)
        overrides = HeaderOverrides(*map(query.get, (_CONTENT_TYPE, _DISPOSITION, _ENCODING, _CACHE_CONTROL)))
        grant = Grant(signed_method, overrides, expires_at, None if size is None else int(size))
        given = query.get(_SIGNATURE, "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(given, _signature(secret, key, grant).encode()):
            raise _invalid()
        if datetime.now(UTC).timestamp() > int(expires) + _TOLERATED_SECONDS:
            raise InvalidSignatureError("the signed URL has expired; ask for a new one")
        if signed_method == "PUT" and overrides.content_type is not None and overrides.content_type != content_type:
            raise InvalidSignatureError(f"the signed URL is for the content type {overrides.content_type!r} only")
        return grant


def _signature(secret: bytes, key: str, grant: Grant) -> str:
    # As JSON, no two lists of values look the same, whatever characters are in them.
    values = ["v2", grant.method, key, int(grant.expires_at.timestamp()), *astuple(grant.headers), grant.size]
    return urlsafe_b64encode(hmac.digest(secret, json.dumps(values).encode(), "sha256")).decode().rstrip("=")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 11


def _invalid() -> InvalidSignatureError:
    return InvalidSignatureError("the signature of the URL is not valid for this request")
