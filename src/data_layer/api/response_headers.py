"""The headers of answers: a route that declares them sends them, and so they are described (OpenAPI).

| declared | sent with a success |
| --- | --- |
| ``etag=moment_of`` | ``ETag``, made from the value that the handler returns |
| ``location="/v1/images/{0.id}"`` | ``Location``, with the value in place of ``0`` |
| ``next_by="after"`` | ``Link`` to the next page, where ``next`` of the value is not None |

What all routes send, such as the fields of the limits, follows from the status and the operation. Answers that a
handler makes itself describe their headers beside their status: ``{304: {"headers": described_headers("ETag")}}``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from fastapi import Request, Response

from data_layer.api.idempotency import HEADER as IDEMPOTENCY_KEY
from data_layer.web.errors import PROBLEM
from data_layer.web.rate_limits import is_counted


class Identified(Protocol):
    """A row of a list."""

    @property
    def id(self) -> UUID:
        """Its id."""


def next_after(rows: Sequence[Identified], limit: int) -> UUID | None:
    """Where the next page begins; None where this one is not full, and so the last."""
    return rows[-1].id if len(rows) == limit else None


def link_to_next(request: Request, response: Response, **cursor: object) -> None:
    """Name the next page in ``Link`` (RFC 8288), relative to this service; not where this page is the last one.

    Args:
        request: the one for this page.
        response: gets the header.
        cursor: the parameter for the position, with the position of the next page; None on the last page.
    """
    if None in cursor.values():
        return
    url = request.url.include_query_params(**cursor)
    response.headers["link"] = f'<{url.path}?{url.query}>; rel="next"'


_HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Accept-Encoding": ("What a body may be encoded in.", {}),
    "Accept-Ranges": ("That parts can be asked for with Range.", {"enum": ["bytes"]}),
    "Content-Disposition": ("Whether a browser shows it or saves it, and as what.", {}),
    "Content-Encoding": ("How the body is encoded, as Accept-Encoding allows.", {"enum": ["gzip", "zstd"]}),
    "Content-Range": ("Which part of the file this is, or how long the file is.", {}),
    "Deprecation": ("From when on the operation should not be used (RFC 9745).", {"pattern": "^@[0-9]+$"}),
    "ETag": ("Names what was answered, for If-None-Match and, of what can be edited, If-Match.", {}),
    "Idempotent-Replayed": (
        "That the answer is the one which the same Idempotency-Key got before.",
        {"enum": ["true"]},
    ),
    "Last-Modified": ("When the file was stored.", {}),
    "Link": ('Where the next page is, with rel="next"; what stands in place of a deprecated operation.', {}),
    "Location": ("Where it is; relative to this service, or an address of the storage.", {}),
    "RateLimit": ("Of the limit of which least is left, how many requests (r) for how many seconds (t).", {}),
    "RateLimit-Policy": ("That limit: how many requests (q) in how many seconds (w).", {}),
    "Retry-After": ("After how many seconds to try again.", {"pattern": "^[0-9]+$"}),
    "Sunset": ("When the operation will be taken away (RFC 8594).", {}),
    "WWW-Authenticate": ("How to log in.", {}),
}
_REQUIRED = "Required"
_BEFORE_ROUTES = frozenset({"414", "431"})
"""Answered by the server, before anything is counted."""

Headers = dict[str, dict[str, Any]]


class ResponseHeaders(NamedTuple):
    """Which headers a route adds to the value that its handler returns.

    Attributes:
        etag: makes the ``ETag``.
        location: the template of ``Location``.
        next_by: the parameter that gets ``next`` of the value in the ``Link`` to the next page.
    """

    etag: Callable[[Any], str] | None = None
    location: str | None = None
    next_by: str | None = None

    def described(self) -> Headers:
        """Return them for the description of the API."""
        always = [name for name, value in (("ETag", self.etag), ("Location", self.location)) if value is not None]
        return described_headers(*always) | described_headers(*["Link"] * (self.next_by is not None), is_required=False)

    def sent_by(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Return a handler that adds them; it takes what the other one takes, and the response."""
        if self == ResponseHeaders():
            return handler

        @wraps(handler)
        async def handle(*, response: Response, **arguments: Any) -> Any:
            value = await handler(**arguments)
            self._add(value, arguments["call"], response)
            return value

        signature = inspect.signature(handler, eval_str=True)
        response = inspect.Parameter("response", inspect.Parameter.KEYWORD_ONLY, annotation=Response)
        parameters = [*signature.parameters.values(), response]
        handle.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return handle

    def _add(self, value: Any, call: Any, response: Response) -> None:
        if self.etag is not None:
            response.headers["etag"] = self.etag(value)
        if self.location is not None:
            response.headers["location"] = self.location.format(value)
        if self.next_by is not None:
            link_to_next(call, response, **{self.next_by: value.next})


def described_headers(*names: str, is_required: bool = True) -> Headers:
    """Headers of one answer, for the description of the API.

    Args:
        names: as ``components`` has them.
        is_required: whether each such answer has them.
    """
    return {name: {"$ref": f"#/components/headers/{_REQUIRED * is_required}{name}"} for name in names}


def add_headers(description: dict[str, Any]) -> None:
    """Describe the headers, and of each answer those which follow from its status and its operation."""
    description["components"]["headers"] = {
        f"{_REQUIRED * is_required}{name}": _header(name, is_required=is_required)
        for name in _HEADERS
        for is_required in (False, True)
    }
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status not in _BEFORE_ROUTES:
                    answer["headers"] = _implied(path, operation, status, answer) | answer.get("headers", {})


def _header(name: str, *, is_required: bool) -> dict[str, Any]:
    text, schema = _HEADERS[name]
    return {"description": text, "schema": {"type": "string", **schema}} | ({"required": True} if is_required else {})


def _implied(path: str, operation: dict[str, Any], status: str, answer: dict[str, Any]) -> Headers:
    always, sometimes = set(_always(status)), set(_sometimes(operation, status, answer))
    if is_counted(path):
        sometimes |= {"RateLimit", "RateLimit-Policy"}
    found = described_headers(*always) | described_headers(*(sometimes - always), is_required=False)
    return dict(sorted(found.items()))


def _always(status: str) -> Iterable[str]:
    match status:
        case "303" | "307":
            yield "Location"
        case "401":
            yield "WWW-Authenticate"
        case "429":
            yield "Retry-After"


def _sometimes(operation: dict[str, Any], status: str, answer: dict[str, Any]) -> Iterable[str]:
    content = answer.get("content", {})
    takes_key = any(each["name"].lower() == IDEMPOTENCY_KEY for each in operation.get("parameters", ()))
    if content:
        yield "Content-Encoding"
    if takes_key and status < "300":
        yield "Idempotent-Replayed"
    if (takes_key and status == "409") or (status == "503" and PROBLEM in content):
        yield "Retry-After"
    if status == "415":
        yield "Accept-Encoding"
    if operation.get("deprecated"):
        yield from ("Deprecation", "Sunset", "Link")
