"""Files over HTTP, read with ranges and validators (RFC 9110): signed URLs of local ones, and permanent addresses.

What users upload is hostile. Nothing is served as another type than it was verified to be, only plain images are shown
by a browser, and whatever else gets through runs in a sandbox without an origin.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from data_layer.api.response_headers import described_headers
from data_layer.errors import FileNotFoundInStorageError
from data_layer.layer import DataLayer
from data_layer.services.files import SHOWN_INLINE
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.files.serving import FileServer, LocalFileServer, ServedFile
from data_layer.web.conditions import Conditions, UnsatisfiableRangeError, accepts_gzip, parse_range
from data_layer.web.downloads import GeneratedResponse

_LONGEST_CACHED = 3600
_SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    "referrer-policy": "no-referrer",
}
_OF_FILE = described_headers("ETag", "Last-Modified", "Content-Disposition")
_ENCODED = described_headers("Content-Encoding", is_required=False)
_IN_PARTS = described_headers("Accept-Ranges", "Content-Range")
_READ: dict[int | str, dict[str, Any]] = {
    200: {"headers": _OF_FILE | _ENCODED | described_headers("Accept-Ranges", is_required=False)},
    206: {"description": "The part that was asked for.", "headers": _OF_FILE | _ENCODED | _IN_PARTS},
    304: {"description": "The client has it already.", "headers": _OF_FILE | _ENCODED},
    416: {"description": "The file has no such part.", "headers": _OF_FILE | _ENCODED | _IN_PARTS},
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    403: {"description": "The URL is not valid (any more)."},
    404: {"description": "The file does not exist."},
}
_FOR_ALL_ORIGINS = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}

router = APIRouter(tags=["files"])
"""The routes of files. They need no login, because the URL is the permission.

Another application may serve them too, with its data layer in ``app.state.data``.
"""


@router.head("/v1/files/{key:path}", include_in_schema=False)
@router.get(
    "/v1/files/{key:path}",
    summary="Read a file with a signed URL",
    response_class=Response,
    responses=_REFUSED | _READ,
)
async def read(key: str, request: Request) -> Response:
    """The whole file, or a part of it (RFC 9110)."""
    server = _server(request)
    return _answer(server, await server.find(request.method, key, request.query_params), request)


@router.put(
    "/v1/files/{key:path}",
    summary="Send a file to the signed URL of a direct upload",
    status_code=201,
    response_class=Response,
    responses=_REFUSED | {413: {"description": "It is too large."}},
)
async def write(key: str, request: Request) -> Response:
    """Store the body, if it has the size and the type that were announced."""
    server = _server(request)
    upload = await server.allow_upload(key, request.query_params, request.headers.get("content-type"))
    length = _announced_length(request.headers.get("content-length", "0"))
    if length is not None:
        upload.require_length(length)
    try:
        await server.store(upload, request.stream())
    except ClientDisconnect:
        return Response(status_code=400)  # Nobody is there to read it.
    return Response(status_code=201)


@router.head(f"{PUBLIC_PATH}{{name}}", include_in_schema=False)
@router.get(
    f"{PUBLIC_PATH}{{name}}",
    summary="Read a public file",
    response_class=Response,
    responses=_READ | {404: {"description": "No file has this address."}},
)
async def read_public(name: str, request: Request) -> Response:
    """A file at its permanent address, which anybody may read, also a page of another origin."""
    server = _data_of(request).public_files
    answer = _answer(server, await server.find(name), request)
    answer.headers.update(_FOR_ALL_ORIGINS)
    return answer


def _announced_length(content_length: str) -> int | None:
    """The length that a request announces; of one with more digits than any file has bytes, the first."""
    if not (content_length.isascii() and content_length.isdigit()):
        return None
    # Python refuses to read numbers of thousands of digits.
    return int(content_length.lstrip("0")[:19] or "0")


def _data_of(request: Request) -> DataLayer:
    data: DataLayer = request.app.state.data
    return data


def _server(request: Request) -> LocalFileServer:
    server = _data_of(request).local_files
    if server is None:
        raise FileNotFoundInStorageError("No files are served here: they are in S3 or Azure")
    return server


def _answer(server: FileServer, file: ServedFile, request: Request) -> Response:
    decoded = file.content_encoding is not None and not accepts_gzip(request.headers.get("accept-encoding"))
    etag = f'"{file.etag}-decoded"' if decoded else f'"{file.etag}"'
    headers = _headers(file, etag, decoded=decoded)
    conditions = Conditions.of(request.headers)
    if conditions.is_unchanged(etag, file.created_at):
        return Response(status_code=304, headers=headers)
    headers["content-type"] = _content_type(file)
    if decoded:
        if request.method == "HEAD":
            return Response(headers=headers)
        return GeneratedResponse(server.read(file, start=0, end=file.size, decoded=True), headers=headers)
    headers["accept-ranges"] = "bytes"
    status, start, end = 200, 0, file.size
    if request.method == "GET" and conditions.allows_range(etag, file.created_at):
        try:
            part = parse_range(request.headers.get("range"), file.size)
        except UnsatisfiableRangeError:
            return Response(status_code=416, headers=headers | {"content-range": f"bytes */{file.size}"})
        if part is not None:
            status, (start, end) = 206, part
            headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return GeneratedResponse(
        server.read(file, start=start, end=end, decoded=False), status_code=status, headers=headers
    )


def _headers(file: ServedFile, etag: str, *, decoded: bool) -> dict[str, str]:
    headers = {
        "etag": etag,
        "last-modified": file.created_at.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "cache-control": _cache_control(file.expires_at),
        "content-disposition": _disposition(file),
        **_SECURITY_HEADERS,
    }
    if file.content_encoding is not None:
        headers["vary"] = "accept-encoding"
        if not decoded:
            headers["content-encoding"] = file.content_encoding
    return headers


def _cache_control(expires_at: datetime | None) -> str:
    if expires_at is None:
        return "public, max-age=31536000, immutable"
    remaining = int((expires_at - datetime.now(UTC)).total_seconds())
    return f"private, max-age={max(0, min(remaining, _LONGEST_CACHED))}"


def _content_type(file: ServedFile) -> str:
    is_bare_text = file.content_type.startswith("text/") and ";" not in file.content_type
    return f"{file.content_type}; charset=utf-8" if is_bare_text else file.content_type


def _disposition(file: ServedFile) -> str:
    """Inline for plain images only, whatever was signed."""
    wanted = file.content_disposition or "inline"
    kind, separator, rest = wanted.partition(";")
    content_type = _content_type(file)
    if kind.strip().lower() == "inline" and content_type not in SHOWN_INLINE:
        return f"attachment{separator}{rest}"
    return wanted
