"""Shared access signatures of Azure Blob Storage for one blob, made with the key of the account.

The order of the fields is that of "Create a service SAS", version 2020-12-06 and later.
"""

from __future__ import annotations

import base64
import hmac
from urllib.parse import urlencode

from data_layer.storage.port import SignedUrl
from data_layer.storage.signing.request import SigningRequest, quoted

VERSION = "2022-11-02"
_PERMISSIONS = {"GET": "r", "PUT": "cw"}


def sign(request: SigningRequest, *, base_url: str, account: str, account_key: str, container: str) -> SignedUrl:
    """A URL that Azure accepts. It has no time at which it begins, so a clock that is ahead does no harm.

    Args:
        request: What it allows.
        base_url: The address of the container, without a slash at its end.
        account: The name of the storage account.
        account_key: Its key, in Base64.
        container: The name of the container.
    """
    is_read = request.method == "GET"
    expiry = request.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    content_type = request.headers.content_type if is_read else None
    fields = {
        "sp": _PERMISSIONS[request.method],
        "st": "",
        "se": expiry,
        "resource": f"/blob/{account}/{container}/{request.key}",
        "si": "",
        "sip": "",
        "spr": "https" if base_url.startswith("https:") else "",
        "sv": VERSION,
        "sr": "b",
        "snapshot": "",
        "ses": "",
        "rscc": request.headers.cache_control or "",
        "rscd": request.headers.content_disposition or "",
        "rsce": request.headers.content_encoding or "",
        "rscl": "",
        "rsct": content_type or "",
    }
    signature = hmac.digest(base64.b64decode(account_key), "\n".join(fields.values()).encode(), "sha256")
    query = {name: value for name, value in fields.items() if value and name != "resource"}
    query["sig"] = base64.b64encode(signature).decode()
    return SignedUrl(
        f"{base_url}/{quoted(request.key)}?{urlencode(query)}",
        request.method,
        upload_headers(request),
        request.expires_at,
    )


def upload_headers(request: SigningRequest) -> dict[str, str]:
    """What a request to Azure has to carry. It verifies neither type nor size: look at what was stored."""
    if request.method == "GET":
        return {}
    headers = {"x-ms-blob-type": "BlockBlob"}
    if request.headers.content_type is not None:
        headers["content-type"] = request.headers.content_type
    return headers
