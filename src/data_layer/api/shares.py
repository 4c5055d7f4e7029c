"""Shares over HTTP: links by which anybody looks at one page of a project, and what their owners do with them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from fastapi.responses import HTMLResponse
from pydantic import Field

from data_layer.api.request_models import Body, Token
from data_layer.api.response_headers import next_after
from data_layer.api.routes import CONTENT, Call, Routes
from data_layer.errors import NotFoundError
from data_layer.schemas.base import Value
from data_layer.schemas.projects import ProjectFull
from data_layer.schemas.shares import ShareView
from data_layer.services.rate_limits import RequestKind
from data_layer.services.shares import LONGEST_LIFETIME, SHARE_PATH
from data_layer.web.conditions import revision_tag
from data_layer.web.hostile_pages import hostile_page

_Version = Annotated[int, Field(ge=1, lt=2**31)]
_EXAMPLE: dict[str, Any] = {
    "requestBody": {"content": {"application/json": {"example": {"version": 3, "expires_in": 604800}}}}
}
_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}
}
_NOTHING = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Nothing here</title></head>'
    "<body><h1>This link shows nothing</h1><p>It may have ended. Ask the person who gave it to you.</p></body></html>"
)
_NOTHING_HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex, nofollow",
}


class WantedShare(Body):
    """What a link shows: only ``version`` (and of it one variant), or whichever is the latest.

    ``expires_in`` is in seconds, ten years at most; without it the link works until it is revoked.
    """

    version: _Version | None = None
    variant_index: Annotated[int, Field(ge=0, lt=2**15)] | None = None
    expires_in: Annotated[int, Field(ge=1, le=int(LONGEST_LIFETIME.total_seconds()))] | None = None


class CreatedShare(Value):
    """A new share. ``token`` and ``url`` are shown here once; ``url`` is absolute where PUBLIC_URL is set."""

    share: ShareView
    token: str
    url: str


class SharesQuery(Body):
    """A page of shares; ``after`` is ``next`` of the page before."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: UUID | None = None


class SharePage(Value):
    """A page of the shares of a project, also those that have ended, the newest first.

    ``next`` is null on the last one.
    """

    shares: tuple[ShareView, ...]
    next: UUID | None


class Fork(Body):
    """The token of a link, and what the project that is made of it will be called."""

    token: Token
    name: Annotated[str, Field(min_length=1)] = "Copy of a shared page"


routes = Routes("", "shares", keys=CONTENT)


@routes.get(
    "/v1/projects/{project_id}/shares", summary="List the shares of a project", errors=[404, 422], next_by="after"
)
async def list_shares(call: Call, project_id: UUID, query: Annotated[SharesQuery, Query()]) -> SharePage:
    """Owners and moderators see them; tokens are not among what they see."""
    found = await call.data.shares.list(call.actor, project_id, limit=query.limit, after=query.after)
    return SharePage(shares=found, next=next_after(found, query.limit))


@routes.post(
    "/v1/projects/{project_id}/shares",
    summary="Share a project",
    status_code=201,
    errors=[404, 409],
    openapi_extra=_EXAMPLE,
)
async def create(call: Call, project_id: UUID, body: WantedShare) -> CreatedShare:
    """Anybody with the link sees the page. 409 where the project has a hundred shares in force."""
    new = await call.data.shares.create(
        call.actor,
        project_id,
        version=body.version,
        variant_index=body.variant_index,
        expires_in=None if body.expires_in is None else timedelta(seconds=body.expires_in),
    )
    token = new.token.get_secret_value()
    base = call.data.settings.storage.public_url or ""
    return CreatedShare(share=new.share, token=token, url=f"{base}{SHARE_PATH}{token}")


@routes.delete("/v1/shares/{share_id}", summary="Revoke a share", status_code=204, errors=[404])
async def revoke(call: Call, share_id: UUID) -> None:
    """It ends at once and for good. Harmless to repeat."""
    await call.data.shares.revoke(call.actor, share_id)


@routes.post(
    "/v1/shares/fork",
    summary="Make a project of a shared page",
    status_code=201,
    errors=[404],
    etag=revision_tag,
    location="/v1/projects/{0.id}",
)
async def fork(call: Call, body: Fork) -> ProjectFull:
    """The page becomes version 1 of a project of your own; nothing else of the shared project comes along."""
    return await call.data.shares.fork(call.actor, body.token.get_secret_value(), name=body.name)


@routes.get(
    SHARE_PATH + "{token}",
    summary="Look at a shared page",
    needs_login=False,
    counted=RequestKind.OPEN_SHARE,
    errors=[404],
    response_class=Response,
    responses=_PAGE,
)
async def look(call: Call, token: str) -> Response:
    """The view is counted. A link that is unknown, revoked or expired makes no difference: all of them answer 404."""
    try:
        page = await call.data.shares.show(token)
    except NotFoundError:
        if "text/html" not in call.headers.get("accept", ""):
            raise
        return HTMLResponse(_NOTHING, 404, _NOTHING_HEADERS)
    return hostile_page(page)
