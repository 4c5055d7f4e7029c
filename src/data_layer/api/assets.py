"""Assets over HTTP: the files of a person, sent through the service or straight to the storage.

What pages show needs an address that lasts: publish an asset, and anybody with the address reads it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from fastapi.responses import RedirectResponse
from pydantic import Field, StringConstraints

from data_layer.api.request_models import Body
from data_layer.api.response_headers import next_after
from data_layer.api.routes import CONTENT, Call, Routes
from data_layer.api.uploads import body_with_file, room_for_file, sent_with_file
from data_layer.errors import InvalidValueError, NotFoundError
from data_layer.schemas.base import Value, View
from data_layer.schemas.files import DirectUpload, FileView, PublicFile

SHOWN_FOR = timedelta(minutes=15)
"""How long the signed URL works to which a redirect leads."""

_FileName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {"example": {"content_type": "image/png", "size": 184320, "file_name": "shop.png"}}
        }
    }
}
REDIRECT: dict[int | str, dict[str, Any]] = {307: {"description": "Where the bytes are, for fifteen minutes."}}


class NewAsset(Body):
    """A file to keep: ``url`` is a base64 data URL, or an http(s) URL, which is fetched at once.

    A form has the file in its part ``file`` instead of ``url``.
    """

    url: str | None = None
    file_name: _FileName | None = None


class NewUpload(Body):
    """A file that the client will send itself: exactly so many bytes; ``sha256`` in hexadecimal is compared."""

    content_type: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    size: Annotated[int, Field(ge=1, lt=2**53)]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    file_name: _FileName | None = None


class AssetView(View):
    """A file as its owner sees it. ``public_name`` is the end of its permanent address, if it has one."""

    id: UUID
    file_name: str | None
    content_type: str
    size: int
    sha256: str | None
    width: int | None
    height: int | None
    dominant_color: str | None
    project_id: UUID | None
    code_id: UUID | None
    image_id: UUID | None
    expires_at: datetime | None
    public_name: str | None
    created_at: datetime


class AssetQuery(Body):
    """A page of assets; ``after`` is ``next`` of the page before."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    after: UUID | None = None


class AssetPage(Value):
    """A page of assets, the oldest first; ``next`` is null on the last one."""

    assets: tuple[AssetView, ...]
    next: UUID | None


routes = Routes("/v1/assets", "assets", keys=CONTENT)


@routes.get("", summary="List the own assets", errors=[422], next_by="after")
async def list_assets(call: Call, query: Annotated[AssetQuery, Query()]) -> AssetPage:
    """Screenshots and generated images are among them."""
    found = await call.data.files.list(owner_id=call.user_id, limit=query.limit, after=query.after)
    return AssetPage(assets=[_shown(file) for file in found], next=next_after(found, query.limit))


@routes.post(
    "",
    summary="Keep a file",
    status_code=201,
    max_body=room_for_file,
    errors=[400, 415, 507],
    openapi_extra=body_with_file(NewAsset, {"url": "https://example.com/logo.png", "file_name": "logo.png"}),
    location="/v1/assets/{0.id}",
)
async def create(call: Call) -> AssetView:
    """The type is read from the content; a name, a type or a URL that says something else changes nothing about it."""
    files, owner_id = call.data.files, call.user_id
    async with sent_with_file(call, NewAsset) as sent:
        url, name = sent.values.url, sent.values.file_name or sent.file_name
        if sent.file is not None and url is None:
            file = await files.save(sent.file, owner_id=owner_id, content_type=sent.content_type, file_name=name)
        elif url is not None and sent.file is None:
            file = await files.save_from_url(url, owner_id=owner_id, file_name=name)
        else:
            raise InvalidValueError("send either a form with the file, or JSON with url", field="url")
    return _shown(file)


@routes.post("/uploads", summary="Begin a direct upload", status_code=201, openapi_extra=_UPLOAD)
async def begin_upload(call: Call, body: NewUpload) -> DirectUpload:
    """Send the file with ``method`` to ``url``, with exactly these ``headers``; then complete the upload."""
    return await call.data.files.begin_upload(owner_id=call.user_id, **body.model_dump())


@routes.post("/uploads/{upload_id}/complete", summary="Complete a direct upload", errors=[404, 409])
async def complete_upload(call: Call, upload_id: UUID) -> AssetView:
    """What has arrived is verified and becomes an asset with the same id. Harmless to repeat."""
    return _shown(await call.data.files.complete_upload(upload_id, owner_id=call.user_id))


@routes.get("/{asset_id}", summary="Read what is known of an asset", errors=[404, 422])
async def show(call: Call, asset_id: UUID) -> AssetView:
    """Its bytes are at ``/content``."""
    return _shown(await call.data.files.stat(asset_id, owner_id=call.user_id))


@routes.get(
    "/{asset_id}/content",
    summary="Read the bytes of an asset",
    status_code=307,
    response_class=Response,
    responses=REDIRECT,
    errors=[404, 422],
)
async def content(
    call: Call, asset_id: UUID, thumbnail: Annotated[int | None, Query(ge=1, le=10_000)] = None
) -> Response:
    """A redirect to a signed URL; ``thumbnail`` chooses the smallest one with at least so many pixels on a side."""
    signed = await call.data.files.signed_url(
        asset_id, owner_id=call.user_id, expires_in=SHOWN_FOR, thumbnail=thumbnail
    )
    return RedirectResponse(signed.url, 307)


@routes.post("/{asset_id}/publish", summary="Give an asset a permanent address", errors=[404])
async def publish(call: Call, asset_id: UUID) -> PublicFile:
    """It may stand inside pages. Harmless to repeat. Deleting the asset whose id is returned takes it back."""
    return await call.data.files.publish(asset_id, owner_id=call.user_id)


@routes.delete("/{asset_id}", summary="Delete an asset, or abandon an upload", status_code=204, errors=[404])
async def delete(call: Call, asset_id: UUID) -> None:
    """Bytes that something else needs stay."""
    if not await call.data.files.delete(asset_id, owner_id=call.user_id):
        raise NotFoundError(f"no asset has the id {asset_id}")


def _shown(file: FileView) -> AssetView:
    return AssetView.model_validate(file)
