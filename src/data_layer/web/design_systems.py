"""``/api/design-systems`` as the application answers it, with a list for each person in place of one file for all.

Every face that stands in for the application answers with it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data_layer.errors import ConflictError, InvalidValueError, NotFoundError
from data_layer.layer import DataLayer
from data_layer.schemas.actors import Actor
from data_layer.schemas.designs import DesignSystemChanges, DesignSystemView
from data_layer.web.bodies import read_body

DESIGNS_PATH = "/api/design-systems"
_LARGEST_BODY = 2**20
_MISSING = "Design system not found"


async def answer_designs(data: DataLayer, actor: Actor, request: Request) -> Response:
    """Answer a request for design systems.

    Returns:
        What the application would answer: 200 and 201 with the design system, 204 for one that was deleted, 404, 400
        and 413 with ``detail``.
    """
    design_id = request.url.path.removeprefix(DESIGNS_PATH).strip("/")
    try:
        if not design_id:
            return await _answer_list(data, actor, request)
        return await _answer_one(data, actor, request, design_id)
    except NotFoundError:
        return JSONResponse({"detail": _MISSING}, 404)
    except HTTPException as error:
        return JSONResponse({"detail": error.detail}, error.status_code)
    except (InvalidValueError, ConflictError) as error:  # Also of a name that is empty.
        return JSONResponse({"detail": str(error)}, 400)


async def _answer_list(data: DataLayer, actor: Actor, request: Request) -> Response:
    if request.method in {"GET", "HEAD"}:
        return JSONResponse([_shown(design) for design in await data.designs.list(actor)])
    if request.method != "POST":
        return JSONResponse({"detail": "Method Not Allowed"}, 405)
    sent = await _body(request)
    created = await data.designs.create(actor, name=_text(sent, "name"), content=_text(sent, "content"))
    return JSONResponse(_shown(created), 201)


async def _answer_one(data: DataLayer, actor: Actor, request: Request, design_id: str) -> Response:
    try:
        found = UUID(design_id)
    except ValueError:
        raise NotFoundError(_MISSING) from None
    match request.method:
        case "GET" | "HEAD":
            return JSONResponse(_shown(await data.designs.get(actor, found)))
        case "PATCH" | "PUT":
            sent = await _body(request)
            given = {name: _text(sent, name) for name in ("name", "content") if sent.get(name) is not None}
            return JSONResponse(_shown(await data.designs.update(actor, found, DesignSystemChanges(**given))))
        case "DELETE":
            await data.designs.delete(actor, found)
            return Response(status_code=204)
    return JSONResponse({"detail": "Method Not Allowed"}, 405)


async def _body(request: Request) -> dict[str, Any]:
    content = await read_body(request, _LARGEST_BODY)
    try:
        sent = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise InvalidValueError("the body is not JSON", field="body") from None
    if not isinstance(sent, dict):
        raise InvalidValueError("the body is not a JSON object", field="body")
    return sent


def _text(sent: dict[str, Any], name: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str):
        raise InvalidValueError(f"{name} must be text", field=name)
    return value


def _shown(design: DesignSystemView) -> dict[str, str]:
    return {
        "id": str(design.id),
        "name": design.name,
        "content": design.content,
        "createdAt": _time(design.created_at.isoformat()),
        "updatedAt": _time(design.updated_at.isoformat()),
    }


def _time(text: str) -> str:
    return text.replace("+00:00", "Z")
