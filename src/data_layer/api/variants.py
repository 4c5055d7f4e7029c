"""Variants over HTTP, by their ids: the answers of models, what they changed, and what people say about them.

The code of a variant is hostile: here it is text, and never a page. Pages are shown by ``previews``.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from fastapi.responses import RedirectResponse
from pydantic import Field, StrictBool, StringConstraints

from data_layer.api.request_models import Body, Reason
from data_layer.api.response_headers import described_headers
from data_layer.api.routes import CONTENT, Call, Routes
from data_layer.entities.enums import CodeStack
from data_layer.errors import InvalidValueError
from data_layer.schemas.codes import GeneratedCodeFull, VariantChanges
from data_layer.schemas.generations import CodeDiff, GenerationView, VariantReplay
from data_layer.schemas.projects import ProjectFull
from data_layer.web.conditions import Conditions, prefers, require_edition, revision_tag

_DIFF = "text/x-diff"
_JSON = "application/json"
_NO_PAGE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Feedback(Body):
    """What a variant is worth: stars or a thumb, and why. It takes the place of what was said before."""

    stars: Annotated[int, Field(ge=1, le=5)] | None = None
    is_good: Annotated[StrictBool, Field(description="Thumb up, or down.")] | None = None
    words: Annotated[str, StringConstraints(max_length=2000)] | None = None


class VariantFork(Body):
    """What the new project is called, by default like the old one and "(copy)"."""

    name: Annotated[str, StringConstraints(max_length=255)] | None = None


routes = Routes("/v1/variants", "variants", keys=CONTENT)


@routes.get("/{variant_id}", summary="Read a variant", errors=[404, 422], etag=revision_tag)
async def show(call: Call, variant_id: UUID, reason: Reason | None = None) -> GeneratedCodeFull:
    """The view is counted. ``ETag`` names what people edit, which a change needs."""
    return await call.data.generations.open_variant(call.actor, variant_id, reason=reason)


@routes.patch("/{variant_id}", summary="Change a variant", errors=[404, 412, 428], etag=revision_tag)
async def change(call: Call, variant_id: UUID, body: VariantChanges) -> GeneratedCodeFull:
    """What is not given stays. ``If-Match`` must name the ETag that was read; 412 shows what is stored now."""
    expected = require_edition(call.headers)
    return await call.data.generations.edit(call.actor, variant_id, body, expected=expected)


@routes.get(
    "/{variant_id}/code",
    summary="Read the code of a variant",
    errors=[404, 422],
    response_class=Response,
    responses={
        200: {
            "description": "The code.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "headers": described_headers("ETag") | described_headers("Content-Disposition", is_required=False),
        },
        304: {"description": "The client has it already.", "headers": described_headers("ETag")},
    },
)
async def code(
    call: Call,
    variant_id: UUID,
    download: Annotated[  # noqa: FBT002  (a query)
        bool, Query(description="The page as a file, with permanent addresses of its images; the download is counted.")
    ] = False,
    reason: Reason | None = None,
) -> Response:
    """Always text, whatever is in it. ``ETag`` is the SHA-256 of the answer."""
    variant = await call.data.generations.open_variant(call.actor, variant_id, reason=reason)
    text = variant.code
    if download:
        text = await call.data.pages.show(call.actor, variant_id, text, base=call.data.settings.base_url, reason=reason)
    body = text.encode()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = _NO_PAGE | {"etag": etag, "cache-control": "private, no-cache"}
    if Conditions.of(call.headers).names(etag):
        return Response(status_code=304, headers=headers)
    if download:
        headers["content-disposition"] = f'attachment; filename="{_file_name(variant)}"'
        if call.method == "GET" and reason is None:  # Reading for a reason is recorded instead.
            await call.data.generations.count_download(call.actor, variant_id)
    return Response(body, headers=headers, media_type="text/plain")


@routes.get(
    "/{variant_id}/diff",
    summary="Compare a variant with another one",
    errors=[404, 422],
    response_model=CodeDiff,
    responses={200: {"content": {_DIFF: {"schema": {"type": "string"}}}}},
)
async def diff(
    call: Call,
    variant_id: UUID,
    against: Annotated[UUID | None, Query(description="By default what it was made from.")] = None,
    reason: Reason | None = None,
) -> Response:
    """What the variant changes of the other one: as JSON, or as a unified diff for ``Accept: text/x-diff``."""
    found = await call.data.generations.compare(call.actor, variant_id, against, reason=reason)
    headers = _NO_PAGE | {"vary": "accept"}
    if prefers(call.headers.get("accept"), _DIFF):
        return Response(found.unified, headers=headers, media_type=f"{_DIFF}; charset=utf-8")
    return Response(found.model_dump_json(), headers=headers, media_type=_JSON)


@routes.get("/{variant_id}/replay", summary="Read how a variant was made", errors=[404, 422])
async def replay(call: Call, variant_id: UUID, reason: Reason | None = None) -> VariantReplay:
    """How its code grew, step by step, and its events, each so many milliseconds after the beginning.

    A step says how many characters of the code before it stay at the beginning and at the end, and what stands between
    them. `is_known` is false where the code was stored as a whole.
    """
    return await call.data.generations.replay(call.actor, variant_id, reason=reason)


@routes.get(
    "/{variant_id}/thumbnail",
    summary="Look at the picture of a variant",
    errors=[404, 422],
    status_code=307,
    response_class=Response,
    responses={307: {"description": "The picture is at this address for a quarter of an hour."}},
)
async def thumbnail(call: Call, variant_id: UUID, reason: Reason | None = None) -> Response:
    """The last image that was attached to it, in small. 404 with the code `picture_missing` where there is none."""
    signed = await call.data.images.variant_thumbnail(call.actor, variant_id, reason=reason)
    return RedirectResponse(signed.url, headers={"cache-control": "private, max-age=300"})


@routes.post(
    "/{variant_id}/restore",
    summary="Restore a variant",
    status_code=201,
    errors=[404],
    location="/v1/generations/{0.id}",
)
async def restore(call: Call, variant_id: UUID) -> GenerationView:
    """It becomes the last version of its project again, as a generation of its own."""
    return await call.data.generations.restore_variant(call.actor, variant_id)


@routes.post(
    "/{variant_id}/fork",
    summary="Begin a project with a variant",
    status_code=201,
    errors=[404],
    etag=revision_tag,
    location="/v1/projects/{0.id}",
)
async def fork(call: Call, variant_id: UUID, body: VariantFork) -> ProjectFull:
    """The new project is private, and holds its own files."""
    return await call.data.generations.fork_variant(call.actor, variant_id, name=body.name)


@routes.put("/{variant_id}/feedback", summary="Rate a variant", errors=[404], etag=revision_tag)
async def rate(call: Call, variant_id: UUID, body: Feedback) -> GeneratedCodeFull:
    """Harmless to repeat."""
    values: dict[str, Any] = body.model_dump()
    if set(values.values()) == {None}:
        raise InvalidValueError("say something, or take it back with DELETE", field="body")
    return await call.data.generations.rate(call.actor, variant_id, **values)


@routes.delete("/{variant_id}/feedback", summary="Take back the rating of a variant", status_code=204, errors=[404])
async def take_back_rating(call: Call, variant_id: UUID) -> None:
    """Harmless to repeat."""
    await call.data.generations.rate(call.actor, variant_id)


@routes.post("/{variant_id}/copies", summary="Count that the code was copied", status_code=204, errors=[404])
async def count_copy(call: Call, variant_id: UUID) -> None:
    """For a button that copies to the clipboard, which the service would not notice."""
    await call.data.generations.count_copy(call.actor, variant_id)


def _file_name(variant: GeneratedCodeFull) -> str:
    suffix = "svg" if variant.code_stack is CodeStack.SVG else "html"
    return f"version-{variant.version}.{variant.variant_index}.{suffix}"
