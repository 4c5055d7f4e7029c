"""Signature version 4 of AWS, as the query of a URL (Amazon S3, "Authenticating requests: using query parameters")."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from data_layer.storage.port import SignedUrl
from data_layer.storage.signing.request import SigningRequest, quoted


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """A key pair of AWS, and the token that belongs to it when it is a temporary one."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"S3Credentials({self.access_key_id!r}, ...)"


def sign(
    request: SigningRequest,
    *,
    base_url: str,
    region: str,
    credentials: S3Credentials,
    headers: Mapping[str, str] | None = None,
) -> SignedUrl:
    """A URL that S3 accepts.

    Args:
        request: What it allows.
        base_url: The address of the bucket, without a slash at its end.
        region: The bucket's region.
        credentials: of the account that allows it.
        headers: What the request has to carry in addition to its content type; names in lower case.
    """
    place = urlsplit(base_url)
    path = f"{place.path}/{quoted(request.key)}"
    moment = request.now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    sent = dict(headers or {})
    if request.method == "PUT" and request.headers.content_type is not None:
        sent["content-type"] = request.headers.content_type
    if request.size is not None:
        sent["content-length"] = str(request.size)
    signed = {"host": place.netloc, **sent}
    query = _query(request, moment, scope, ";".join(sorted(signed)), credentials)
    canonical_headers = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
    canonical_request = "\n".join(
        [request.method, path, query, canonical_headers, ";".join(sorted(signed)), "UNSIGNED-PAYLOAD"]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical_request.encode()).hexdigest()])
    key = b"AWS4" + credentials.secret_access_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    url = f"{place.scheme}://{place.netloc}{path}?{query}&X-Amz-Signature={signature}"
    return SignedUrl(url, request.method, sent, request.expires_at)


def _query(request: SigningRequest, moment: str, scope: str, signed_headers: str, credentials: S3Credentials) -> str:
    values = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(request.seconds),
        "X-Amz-SignedHeaders": signed_headers,
    }
    if credentials.session_token is not None:
        values["X-Amz-Security-Token"] = credentials.session_token
    if request.method == "GET":
        values |= request.headers.response_parameters
    return "&".join(f"{name}={quote(values[name], safe='-_.~')}" for name in sorted(values))
