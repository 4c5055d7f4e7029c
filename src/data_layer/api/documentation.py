"""The description of the API (OpenAPI), and the page at /docs: every call with its summary.

Operations refer to shared descriptions of failures: a hundred of them fail in the same two dozen ways. Links say what
can be done with what was created; tools that test an API follow them.

The page has no scripts and nothing from elsewhere. It stands on the origin of the session cookie, where whatever a
script of somebody else's does, the person does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from html import escape
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, RedirectResponse

from data_layer.api.examples import add_examples
from data_layer.api.response_headers import add_headers
from data_layer.concurrency import SingleFlight
from data_layer.web.authentication import COOKIE
from data_layer.web.errors import PROBLEM, Problem, described, title_of

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_FIRST_FAILURE = "400"
Description = dict[str, Any]
router = APIRouter(include_in_schema=False)
_STYLE = "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}td{padding:.3em 1em .3em 0}"


_SECURITY_SCHEMES = {
    "Bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of a session, an access token, or a token of OIDC_ISSUER.",
    },
    "ApiKey": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "dl_…",
        "description": "A key of POST /v1/accounts/me/api-keys, with the scope that the operation names.",
    },
    "SessionCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "For browsers; see POST /v1/sessions.",
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The description of the application (OpenAPI), with what all routes share; made once."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    description = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = description.setdefault("components", {})
    components.setdefault("securitySchemes", {}).update(_SECURITY_SCHEMES)
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = components.setdefault("schemas", {})
    schemas.update(schema.pop("$defs", {}) | {"Problem": schema})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in description["paths"].values():
        for operation in operations.values():
            _add_limits_of_heads(operation)
            _complete_failures(operation["responses"])
    _describe_amounts(schemas)
    add_headers(description)
    add_examples(description)
    add_links(description)
    share_failures(description)
    app.openapi_schema = description
    return description


def _describe_amounts(schemas: dict[str, Any]) -> None:
    """Say which texts and numbers are amounts: the framework says of a decimal that any text is one."""
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            choices = {choice.get("type"): choice for choice in field.get("anyOf", ())}
            if {"number", "string"} <= choices.keys():
                choices["string"].setdefault("pattern", _AMOUNT)
                choices["number"].setdefault("maximum", _LARGEST_AMOUNT)


_AMOUNT = r"^[0-9]{1,12}(\.[0-9]{1,8})?$"
_LARGEST_AMOUNT = 10**12 - 1
_LIMITS = {"query": 414, "header": 431}


def _add_limits_of_heads(operation: dict[str, Any]) -> None:
    """Describe what the server answers to a request whose URL or headers are too long, before any route sees it."""
    for parameter in operation.get("parameters", ()):
        if (status := _LIMITS.get(parameter["in"])) is not None:
            operation["responses"].setdefault(str(status), described(status)[status])


def _complete_failures(responses: dict[str, Any]) -> None:
    """Describe failures as they are answered; of refused values the framework assumes its own shape."""
    for status, answer in responses.items():
        is_assumed = "HTTPValidationError" in str(answer.get("content"))
        if is_assumed:
            responses[status] = described(int(status))[int(status)]
        elif int(status) >= 400 and int(status) != 416 and not answer.get("content"):
            answer["content"] = described(int(status))[int(status)]["content"]


@router.get("/")
async def go_to_documentation() -> RedirectResponse:
    """Lead to the documentation, where no console takes this path."""
    return RedirectResponse("/docs")


async def _description(request: Request) -> dict[str, Any]:
    """The description, made in a thread: that takes most of a second, in which other requests go on."""
    app: FastAPI = request.app
    if app.openapi_schema is not None:
        return app.openapi_schema
    making: SingleFlight[str, dict[str, Any]] = app.state.description
    return await making.run("", partial(asyncio.to_thread, app.openapi))


@router.get("/openapi.json")
async def show_description(request: Request) -> Response:
    """The description of the application (OpenAPI), for tools."""
    return Response(orjson.dumps(await _description(request)), media_type="application/json")


@router.get("/docs")
async def show_documentation(request: Request) -> HTMLResponse:
    """The calls of the application as a table; the whole description is at /openapi.json, for tools."""
    app: FastAPI = request.app
    description = await _description(request)
    rows = "".join(
        f"<tr><td><code>{escape(method.upper())}</code></td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(operation.get('summary', ''))}</td></tr>"
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    )
    title = escape(app.title)
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{title}</h1><p>{escape(app.description)} Its description for tools is at "
        f'<a href="/openapi.json">/openapi.json</a> (OpenAPI).</p><table>{rows}</table></body></html>',
        headers=_HEADERS,
    )


def share_failures(description: Description) -> None:
    """Move what operations have in common into ``components``; call it when all answers are complete.

    A failure gets the name of its status, such as ``NotFound``, followed by the headers that only some answers with
    this status have: ``ConflictRetryAfter``. A route that describes a failure in words of its own keeps them.
    """
    common = _common_headers(description)
    shared: Description = {}
    for responses, status in _usual(description):
        name = _name(status, responses[status], common[status])
        shared[name] = responses[status]
        responses[status] = {"$ref": f"#/components/responses/{name}"}
    description["components"]["responses"] = dict(sorted(shared.items()))


def _usual(description: Description) -> Iterator[tuple[Description, str]]:
    """Each failure that says no more than its status does: the answers of an operation, and the status in them."""
    for operations in description["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            for status, answer in responses.items():
                if (
                    status >= _FIRST_FAILURE
                    and answer["description"] == title_of(int(status))
                    and PROBLEM in answer["content"]
                ):
                    yield responses, status


def _common_headers(description: Description) -> dict[str, set[str]]:
    """The headers that all usual answers with a status have."""
    common: dict[str, set[str]] = {}
    for responses, status in _usual(description):
        headers = set(responses[status].get("headers", ()))
        common[status] = common.get(status, headers) & headers
    return common


def _name(status: str, answer: Description, common: set[str]) -> str:
    words = [title_of(int(status)), *sorted(answer.get("headers", {}).keys() - common)]
    return "".join(words).replace(" ", "").replace("-", "")


_CREATED: dict[str, dict[str, str]] = {
    "AddedApp": {"factor_id": "/id"},
    "AddedFactor": {"factor_id": "/factor/id"},
    "AssetView": {"asset_id": "/id"},
    "CreatedKey": {"key_id": "/api_key/id"},
    "CreatedShare": {"share_id": "/share/id"},
    "DesignSystemView": {"design_id": "/id"},
    "DirectUpload": {"upload_id": "/id"},
    "ExportView": {"export_id": "/id"},
    "GeneratedImageFull": {"image_id": "/id"},
    "ProjectFull": {"project_id": "/id"},
    "StartedGeneration": {
        "generation_id": "/id",
        "variant_id": "/variant_ids/0",
        "Writer-Token": "/writer_token",
    },
}
"""Which parameters take what from the body of an answer, by its schema."""


def add_links(description: dict[str, Any]) -> None:
    """Add to each answer for something that was created where it leads."""
    operations = [each for methods in description["paths"].values() for each in methods.values()]
    for operation in operations:
        created = operation["responses"].get("201", {})
        values = _CREATED.get(_schema_of(created), {})
        links = {each["operationId"]: _link(each, values) for each in operations if _takes(each, values)}
        if links:
            created["links"] = links


def _schema_of(answer: dict[str, Any]) -> str:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _takes(operation: dict[str, Any], values: dict[str, str]) -> bool:
    """Whether an operation is about what was created."""
    return any(each["in"] == "path" and each["name"] in values for each in operation.get("parameters", ()))


def _link(operation: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    names = [each["name"] for each in operation["parameters"] if each["name"] in values]
    return {
        "operationId": operation["operationId"],
        "description": operation["summary"],
        "parameters": {name: f"$response.body#{values[name]}" for name in names},
    }
