"""The design systems of a person over HTTP: texts that become part of every prompt."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import StringConstraints

from data_layer.api.request_models import Body
from data_layer.api.routes import CONTENT, Call, Routes
from data_layer.schemas.base import Value
from data_layer.schemas.designs import DesignSystemChanges, DesignSystemView
from data_layer.web.conditions import moment_if_sent, moment_tag, require_moment

_TEXT_BODY = 2**20
"""Bytes: 128 KiB of text, of which JSON may write each character as six."""
_EXAMPLE: dict[str, Any] = {
    "requestBody": {
        "content": {"application/json": {"example": {"name": "Corporate", "content": "Buttons are round and blue."}}}
    }
}


class NewDesignSystem(Body):
    """A design system to add; ``content`` may have 128 KiB."""

    name: Annotated[str, StringConstraints(min_length=1)]
    content: str


class DesignSystems(Value):
    """All of them, in the order of their creation."""

    design_systems: tuple[DesignSystemView, ...]


routes = Routes("/v1/design-systems", "design systems", keys=CONTENT)


@routes.get("", summary="List the own design systems")
async def list_designs(call: Call) -> DesignSystems:
    """There are a hundred at most, so they are on one page."""
    return DesignSystems(design_systems=await call.data.designs.list(call.actor))


@routes.post(
    "",
    summary="Add a design system",
    status_code=201,
    max_body=_TEXT_BODY,
    errors=[409],
    openapi_extra=_EXAMPLE,
    etag=moment_tag,
    location="/v1/design-systems/{0.id}",
)
async def create(call: Call, body: NewDesignSystem) -> DesignSystemView:
    """Two may have the same name. 409 where a person has a hundred already."""
    return await call.data.designs.create(call.actor, name=body.name, content=body.content)


@routes.get("/{design_id}", summary="Read a design system", errors=[404, 422], etag=moment_tag)
async def show(call: Call, design_id: UUID) -> DesignSystemView:
    """``ETag`` is what a change needs."""
    return await call.data.designs.get(call.actor, design_id)


@routes.patch(
    "/{design_id}", summary="Change a design system", max_body=_TEXT_BODY, errors=[404, 412, 428], etag=moment_tag
)
async def change(call: Call, design_id: UUID, body: DesignSystemChanges) -> DesignSystemView:
    """What is not given stays. ``If-Match`` must name what was read; 412 shows what is stored now."""
    expected = require_moment(call.headers)
    return await call.data.designs.update(call.actor, design_id, body, expected=expected)


@routes.delete("/{design_id}", summary="Delete a design system", status_code=204, errors=[404, 412])
async def delete(call: Call, design_id: UUID) -> None:
    """Generations that used it keep their own copy of its text. ``If-Match`` is heeded where it is sent."""
    await call.data.designs.delete(call.actor, design_id, expected=moment_if_sent(call.headers))
