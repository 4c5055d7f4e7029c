"""``/api/design-systems`` as the application and its page know them: the same calls for every face that answers them.

The ids are strings, the times have a time zone, and an error has a text in ``detail``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import orjson
from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, ValidationError

from data_layer.errors import InvalidValueError, NotFoundError
from data_layer.schemas.actors import Actor
from data_layer.schemas.designs import DesignSystemChanges, DesignSystemView
from data_layer.web.authentication import people_of
from data_layer.web.bodies import read_body

_PATH = "/api/design-systems"
_MOST_BYTES = 2**20
"""128 KiB of text, of which JSON may write each character as six bytes."""

Identify = Callable[[Request], Awaitable[Actor]]
"""Returns who asks, or refuses."""


Model = TypeVar("Model", bound=BaseModel)


class _New(BaseModel):
    name: str
    content: str


class _Changes(BaseModel):
    name: str | None = None
    content: str | None = None


def design_system_routes(identify: Identify) -> APIRouter:
    """Return the calls, answered for each person.

    Args:
        identify: returns who asks.
    """
    router = APIRouter(prefix=_PATH, include_in_schema=False)

    @router.get("")
    async def list_designs(request: Request) -> Response:
        actor = await identify(request)
        return _answer([_shown(design) for design in await people_of(request).data.designs.list(actor)])

    @router.post("")
    async def create(request: Request) -> Response:
        actor = await identify(request)
        new = await _read(request, _New)
        designs = people_of(request).data.designs
        try:
            design = await designs.create(actor, name=new.name, content=new.content)
        except InvalidValueError as error:
            raise HTTPException(400, str(error)) from None
        return _answer(_shown(design))

    @router.patch("/{design_id}")
    async def change(request: Request, design_id: str) -> Response:
        actor = await identify(request)
        wanted = await _read(request, _Changes)
        changes = DesignSystemChanges(name=wanted.name, content=wanted.content)
        designs = people_of(request).data.designs
        try:
            return _answer(_shown(await designs.update(actor, _id(design_id), changes)))
        except InvalidValueError as error:
            raise HTTPException(400, str(error)) from None

    @router.delete("/{design_id}")
    async def delete(request: Request, design_id: str) -> Response:
        actor = await identify(request)
        await people_of(request).data.designs.delete(actor, _id(design_id))
        return Response(status_code=204)

    return router


async def _read(request: Request, kind: type[Model]) -> Model:
    try:
        return kind.model_validate_json(await read_body(request, _MOST_BYTES))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the body"
        raise HTTPException(400, f"{place}: {problem['msg']}") from None


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFoundError("no design system has this id") from None


def _shown(design: DesignSystemView) -> dict[str, Any]:
    return {
        "id": str(design.id),
        "name": design.name,
        "content": design.content,
        "createdAt": _time(design.created_at),
        "updatedAt": _time(design.updated_at),
    }


def _time(at: datetime) -> str:
    return at.isoformat()


def _answer(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json", headers={"cache-control": "no-store"})
