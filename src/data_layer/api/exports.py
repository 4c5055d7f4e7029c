"""Exports of everything about a person over HTTP: made in the background, fetched from where archives are stored.

People ask for them in a session, never a program with an API key.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from data_layer.api.assets import REDIRECT, SHOWN_FOR
from data_layer.api.request_models import Body
from data_layer.api.response_headers import next_after
from data_layer.api.routes import Call, Routes
from data_layer.schemas.exports import ExportPage, ExportView


class ExportQuery(Body):
    """A page of exports; ``after`` is ``next`` of the page before."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    after: UUID | None = None


routes = Routes("/v1/accounts/me/exports", "exports")


@routes.get("", summary="List the own exports", errors=[422], next_by="after")
async def list_exports(call: Call, query: Annotated[ExportQuery, Query()]) -> ExportPage:
    """Those of the last thirty days, the newest first. One of them at most has an archive."""
    found = await call.data.exports.list(call.actor, call.user_id, limit=query.limit, after=query.after)
    return ExportPage(exports=tuple(found), next=next_after(found, query.limit))


@routes.post(
    "", summary="Export everything about the own account", status_code=201, location="/v1/accounts/me/exports/{0.id}"
)
async def start(call: Call) -> ExportView:
    """A ZIP is made in the background; a mail says when it is ready. While one is made, the answer is that one.

    It holds the account, identities, sessions, keys, projects with all versions, files, shares, usage, and what the
    audit trail says of the person. It can be had for seven days, or until a later one is complete.
    """
    return await call.data.exports.start(call.actor, call.user_id)


@routes.get("/{export_id}", summary="Read how far an export is", errors=[404, 422])
async def show(call: Call, export_id: UUID) -> ExportView:
    """``queued``, ``running``, ``done``, ``failed`` or ``expired``; ask again every few seconds."""
    return await call.data.exports.get(call.actor, export_id)


@routes.get(
    "/{export_id}/content",
    summary="Download the archive of an export",
    status_code=307,
    response_class=Response,
    responses=REDIRECT,
    errors=[404, 422],
)
async def content(call: Call, export_id: UUID) -> Response:
    """A redirect to a signed URL, which takes Range, so that a download that broke off goes on."""
    signed = await call.data.exports.signed_url(call.actor, export_id, expires_in=SHOWN_FOR)
    return RedirectResponse(signed.url, 307)


@routes.delete("/{export_id}", summary="Delete an export", status_code=204, errors=[404])
async def delete(call: Call, export_id: UUID) -> None:
    """Its archive goes too; one that is being made is given up."""
    await call.data.exports.delete(call.actor, export_id)
