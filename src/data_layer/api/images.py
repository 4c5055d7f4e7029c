"""The images of projects over HTTP: recorded from a provider's URL or from bytes, read, rated, published."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from fastapi.responses import RedirectResponse
from pydantic import Field, StrictBool, StringConstraints

from data_layer.api.assets import REDIRECT, SHOWN_FOR
from data_layer.api.request_models import Body, Reason
from data_layer.api.routes import CONTENT, Call, Routes
from data_layer.api.uploads import body_with_file, room_for_file, sent_with_file
from data_layer.entities.enums import ImageKind
from data_layer.errors import InvalidValueError
from data_layer.schemas.files import PublicFile
from data_layer.schemas.images import GeneratedImageFull, ImageChanges, ImagePage, NewImage
from data_layer.web.conditions import moment_tag, require_moment

_EXAMPLE: dict[str, Any] = {
    "url": "https://provider.example/images/1.png",
    "prompt": "a red shop",
    "provider": "other",
    "model": "any",
}


class SentImage(NewImage):
    """An image to record. ``url`` is a base64 data URL or that of a provider, which is fetched at once and not kept.

    A form has the image in its part ``file`` instead of ``url``.
    """

    url: str | None = None
    file_name: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None

    @property
    def image(self) -> NewImage:
        """What is known of the image itself."""
        names = self.model_fields_set & NewImage.model_fields.keys()
        return NewImage(**{name: getattr(self, name) for name in names})


class ImageQuery(Body):
    """Which images a page holds; ``after`` is ``next`` of the page before."""

    kind: ImageKind | None = None
    is_favorite: bool | None = None
    after: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    reason: Reason | None = None


class Rating(Body):
    """What an image is worth; what is not given is taken back, as a rating is one whole."""

    stars: Annotated[int, Field(ge=1, le=5)] | None = None
    is_good: StrictBool | None = None
    words: Annotated[str, StringConstraints(max_length=2000)] | None = None


routes = Routes("", "images", keys=CONTENT)


@routes.get(
    "/v1/projects/{project_id}/images", summary="List the images of a project", errors=[404, 422], next_by="after"
)
async def list_images(call: Call, project_id: UUID, query: Annotated[ImageQuery, Query()]) -> ImagePage:
    """The latest come first."""
    return await call.data.images.list(call.actor, project_id, **query.model_dump())


@routes.post(
    "/v1/projects/{project_id}/images",
    summary="Record an image",
    status_code=201,
    max_body=room_for_file,
    errors=[400, 404, 409, 415, 507],
    openapi_extra=body_with_file(SentImage, _EXAMPLE),
    etag=moment_tag,
    location="/v1/images/{0.id}",
)
async def record(call: Call, project_id: UUID) -> GeneratedImageFull:
    """Its bytes are kept as a file with thumbnails."""
    async with sent_with_file(call, SentImage) as sent:
        source = sent.file if sent.values.url is None else sent.values.url
        if source is None or (sent.file is not None and sent.values.url is not None):
            raise InvalidValueError("send either a form with the image, or JSON with url", field="url")
        file_name = sent.values.file_name or sent.file_name
        return await call.data.images.record(call.actor, project_id, sent.values.image, source, file_name=file_name)


@routes.get("/v1/images/{image_id}", summary="Read what is known of an image", errors=[404, 422], etag=moment_tag)
async def show(call: Call, image_id: UUID, reason: Reason | None = None) -> GeneratedImageFull:
    """The view is counted. ``ETag`` is what a change needs."""
    return await call.data.images.open(call.actor, image_id, reason=reason)


@routes.patch("/v1/images/{image_id}", summary="Change an image", errors=[404, 412, 428], etag=moment_tag)
async def change(call: Call, image_id: UUID, body: ImageChanges) -> GeneratedImageFull:
    """What is not given stays; a ``name`` of null is taken away. ``If-Match`` must name what was read."""
    expected = require_moment(call.headers)
    return await call.data.images.update(call.actor, image_id, body, expected=expected)


@routes.put("/v1/images/{image_id}/rating", summary="Rate an image", errors=[404], etag=moment_tag)
async def rate(call: Call, image_id: UUID, body: Rating) -> GeneratedImageFull:
    """Stars, a thumb up or down, and why."""
    return await call.data.images.rate(call.actor, image_id, **body.model_dump())


@routes.delete("/v1/images/{image_id}", summary="Delete an image", status_code=204, errors=[404])
async def delete(call: Call, image_id: UUID) -> None:
    """Its file goes too, unless another row or a permanent address needs it."""
    await call.data.images.delete(call.actor, image_id)


@routes.get(
    "/v1/images/{image_id}/content",
    summary="Read the bytes of an image",
    status_code=307,
    response_class=Response,
    responses=REDIRECT,
    errors=[404, 422],
)
async def content(call: Call, image_id: UUID, reason: Reason | None = None) -> Response:
    """A redirect to a signed URL."""
    return await _redirect(call, image_id, None, reason)


@routes.get(
    "/v1/images/{image_id}/thumbnail",
    summary="Read a thumbnail of an image",
    status_code=307,
    response_class=Response,
    responses=REDIRECT,
    errors=[404, 422],
)
async def thumbnail(
    call: Call, image_id: UUID, size: Annotated[int, Query(ge=1, le=10_000)] = 400, reason: Reason | None = None
) -> Response:
    """The smallest with at least ``size`` pixels on a side; the image itself where there is none."""
    return await _redirect(call, image_id, size, reason)


@routes.post("/v1/images/{image_id}/publish", summary="Give an image a permanent address", errors=[404])
async def publish(call: Call, image_id: UUID) -> PublicFile:
    """It may stand inside pages, and outlives the image. Harmless to repeat."""
    return await call.data.images.publish(call.actor, image_id)


async def _redirect(call: Call, image_id: UUID, size: int | None, reason: str | None) -> Response:
    signed = await call.data.images.signed_url(
        call.actor, image_id, expires_in=SHOWN_FOR, thumbnail=size, reason=reason
    )
    return RedirectResponse(signed.url, 307)
