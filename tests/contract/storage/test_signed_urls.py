"""Signed URLs work at the server that they lead to, for exactly what they were made for."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import pytest

from data_layer.errors import InvalidSignatureError, InvalidStorageKeyError, InvalidValueError
from data_layer.storage import LocalStorage, SignedUrl, StorageBackend
from data_layer.storage.validation import clean_file_name, content_disposition

from .test_refusals import ACCEPTED_KEYS

MINUTE = timedelta(minutes=1)
VERIFY_SIGNATURES = ("local_with_attributes", "s3_rclone", "azurite")


class Client:
    """Sends requests to a server, or plays the service for local files."""

    def __init__(self, storage: StorageBackend, http: httpx.AsyncClient) -> None:
        self._storage = storage
        self._http = http

    async def get(self, signed: SignedUrl | str) -> tuple[int, bytes, dict[str, str]]:
        return await self._send("GET", signed, b"")

    async def put(self, signed: SignedUrl | str, content: bytes) -> tuple[int, bytes, dict[str, str]]:
        return await self._send("PUT", signed, content)

    async def _send(self, method: str, signed: SignedUrl | str, content: bytes) -> tuple[int, bytes, dict[str, str]]:
        headers = {} if isinstance(signed, str) else dict(signed.headers)
        if str(signed).startswith("/"):
            return await self._serve(method, str(signed), content, headers)
        answer = await self._http.request(method, str(signed), content=content or None, headers=headers)
        return answer.status_code, answer.content, dict(answer.headers)

    async def _serve(
        self, method: str, url: str, content: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, dict[str, str]]:
        storage: LocalStorage = self._storage  # type: ignore[assignment]  # only it has relative addresses
        parts = urlsplit(url)
        key = unquote(parts.path.removeprefix("/v1/files/"))
        content_type = headers.get("content-type")
        try:
            grant = storage._signer.verify(method, key, dict(parse_qsl(parts.query)), content_type=content_type)
        except InvalidSignatureError:
            return 403, b"", {}
        if method == "PUT":
            await storage.upload(content, key, content_type or "application/octet-stream")
            return 200, b"", {}
        chosen, stored = grant.headers, await storage.stat(key)
        answer = {
            "content-type": chosen.content_type or stored.content_type,
            "content-disposition": chosen.content_disposition or "",
            "content-encoding": chosen.content_encoding or stored.content_encoding or "",
            "cache-control": chosen.cache_control or stored.cache_control or "",
        }
        content = await storage.download(key)
        return 200, gzip.decompress(content) if answer["content-encoding"] == "gzip" else content, answer


@pytest.fixture(scope="module")
def trust() -> ssl.SSLContext:
    """Made once, because reading all authorities of the system takes longer than a test."""
    return httpx.create_ssl_context()


@pytest.fixture
async def client(storage: StorageBackend, trust: ssl.SSLContext) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(verify=trust) as http:
        yield Client(storage, http)


async def test_reading(storage: StorageBackend, client: Client) -> None:
    await storage.upload(b"page", "a/b", "text/html")
    before = datetime.now(UTC)
    signed = await storage.signed_url("a/b", expires_in=MINUTE)
    assert str(signed) == signed.url
    assert before <= signed.expires_at + timedelta(seconds=1) <= datetime.now(UTC) + MINUTE + timedelta(seconds=1)
    status, content, headers = await client.get(signed)
    assert (status, content, headers["content-type"]) == (200, b"page", "text/html")


@pytest.mark.parametrize("key", ACCEPTED_KEYS, ids=lambda key: ascii(key)[:40])
async def test_keys_with_every_strange_character(storage: StorageBackend, client: Client, key: str) -> None:
    assert (await client.put(await storage.signed_url(key, method="PUT", expires_in=MINUTE), b"x" * 9))[0] < 300
    assert await storage.download(key) == b"x" * 9
    assert (await client.get(await storage.signed_url(key, expires_in=MINUTE)))[:2] == (200, b"x" * 9)


async def test_what_the_answer_says_can_be_chosen(storage: StorageBackend, client: Client, backend: str) -> None:
    await storage.upload(b"page", "a", "text/html")
    disposition = "attachment; filename=\"a b.txt\"; filename*=UTF-8''%E2%82%AC.txt"
    signed = await storage.signed_url(
        "a", expires_in=MINUTE, content_type="text/plain; charset=utf-8", content_disposition=disposition
    )
    status, content, headers = await client.get(signed)
    assert (status, content) == (200, b"page")
    if backend != "s3_rclone":  # It verifies these, and does nothing.
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert headers["content-disposition"] == disposition


@pytest.mark.parametrize(
    "name",
    ["スクリーンショット 2026-01-01 午後3時04分05秒.png", "😀" * 127, "截" * 250 + ".png", 'a"; x=y%.png', "x" * 255],
)
async def test_every_accepted_name_reaches_the_browser(
    storage: StorageBackend, client: Client, backend: str, name: str
) -> None:
    await storage.upload(b"picture", "a", "image/png")
    assert clean_file_name(name) == name
    disposition = content_disposition("attachment", name)
    status, content, headers = await client.get(
        await storage.signed_url("a", expires_in=MINUTE, content_disposition=disposition)
    )
    assert (status, content) == (200, b"picture")
    if backend != "s3_rclone":  # It verifies the parameter, and does nothing.
        assert headers["content-disposition"] == disposition


async def test_an_encoding_that_the_storage_has_lost_can_be_said(
    storage: StorageBackend, client: Client, backend: str
) -> None:
    await storage.upload(gzip.compress(b"page"), "a", "application/octet-stream")
    signed = await storage.signed_url(
        "a", expires_in=MINUTE, content_type="text/html", content_encoding="gzip", cache_control="private, max-age=60"
    )
    status, content, headers = await client.get(signed)
    assert status == 200
    if backend != "s3_rclone":  # It verifies these, and does nothing.
        assert content == b"page"
        assert (headers["content-type"], headers["cache-control"]) == ("text/html", "private, max-age=60")


async def test_an_upload_is_bound_to_its_size(storage: StorageBackend, client: Client, backend: str) -> None:
    signed = await storage.signed_url("a", method="PUT", expires_in=MINUTE, size=79)
    assert (await client.put(signed, b"x" * 79))[0] < 300
    if backend in {"s3_rclone", "s3_moto", "azurite"}:
        assert (signed.headers.get("content-length") == "79") is (backend != "azurite")
    if backend == "s3_rclone":  # The one that verifies signatures.
        other = replace(signed, headers={**signed.headers, "content-length": "80"})
        assert (await client.put(other, b"x" * 80))[0] == 403
        assert (await storage.stat("a")).size == 79


async def test_storing(storage: StorageBackend, client: Client) -> None:
    signed = await storage.signed_url("a/b", method="PUT", expires_in=MINUTE, content_type="image/png")
    assert (await client.put(signed, b"picture"))[0] < 300
    found = await storage.stat("a/b")
    assert (found.size, found.content_type, found.sha256 is None) == (7, "image/png", not isinstance_local(storage))


def isinstance_local(storage: StorageBackend) -> bool:
    return type(storage).__name__ == "LocalStorage"


async def test_an_altered_url_does_nothing(storage: StorageBackend, client: Client, backend: str) -> None:
    if backend not in VERIFY_SIGNATURES:
        pytest.skip("the server verifies no signatures")
    await storage.upload(b"secret", "a/b", "text/plain")
    await storage.upload(b"other", "a/c", "text/plain")
    for_reading = (await storage.signed_url("a/b", expires_in=MINUTE, content_type="text/html")).url
    for_storing = (await storage.signed_url("a/b", method="PUT", expires_in=MINUTE)).url
    assert (await client.get(for_reading))[0] == 200
    refused: list[Any] = [
        client.get(for_reading.replace("a/b", "a/c")),
        client.get(for_reading.replace("a/b", "a")),
        client.get(for_reading.replace("text%2Fhtml", "text%2Fcss")),
        client.get(for_reading[:-3] + "abc"),
        client.get(for_reading.partition("?")[0]),
        client.put(for_reading, b"overwritten"),
        client.get(for_storing),
        client.put(for_storing.replace("a/b", "a/c"), b"overwritten"),
    ]
    for attempt in refused:
        status, content, _ = await attempt
        assert status in {400, 401, 403, 404}, status
        assert b"secret" not in content
    assert await storage.download("a/b") == b"secret"
    assert await storage.download("a/c") == b"other"


@pytest.mark.parametrize(
    "values",
    [
        {"expires_in": timedelta()},
        {"expires_in": timedelta(days=8)},
        {"expires_in": MINUTE, "method": "DELETE"},
        {"expires_in": MINUTE, "content_type": "nonsense"},
        {"expires_in": MINUTE, "content_disposition": "a\r\nb"},
        {"expires_in": MINUTE, "content_disposition": "nonsense"},
        {"expires_in": MINUTE, "content_disposition": 'attachment; filename="a"; filename="b"'},
        {"expires_in": MINUTE, "method": "PUT", "content_disposition": "inline"},
        {"expires_in": MINUTE, "method": "PUT", "content_encoding": "gzip"},
        {"expires_in": MINUTE, "method": "PUT", "cache_control": "no-store"},
        {"expires_in": MINUTE, "method": "PUT", "size": -1},
        {"expires_in": MINUTE, "size": 1},
        {"expires_in": MINUTE, "content_encoding": "a\nb"},
    ],
)
async def test_terms_that_make_no_sense(storage: StorageBackend, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        await storage.signed_url("a", **values)
    with pytest.raises(InvalidStorageKeyError):
        await storage.signed_url("../a", expires_in=MINUTE)
