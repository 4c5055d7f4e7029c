"""Pages of variants, shown: they are hostile, and their host should be one of their own (PREVIEW_ORIGIN).

| | without PREVIEW_ORIGIN | with it |
| --- | --- | --- |
| ``GET /v1/variants/{id}/preview`` | the page | 307 to a signed address of that origin |
| ``GET /p/{id}?expires=&signature=&at=`` | 404 | the page on that host, else 404 |
| anything else on that host | | 404 |

A page runs in an opaque origin on either (``hostile_pages``). A host of its own is there for what browsers do wrong.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import HTTPException, Query, Response
from fastapi.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from data_layer.api.request_models import Reason
from data_layer.api.routes import CONTENT, Call, Routes
from data_layer.services.previews import PREVIEW_PATH
from data_layer.web.errors import refusal
from data_layer.web.hostile_pages import hostile_page

_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}
}
_REDIRECT: dict[int | str, dict[str, Any]] = {
    307: {"description": "The page is at a signed address of PREVIEW_ORIGIN, which works for five minutes."}
}
_Moment = Annotated[
    int | None,
    Query(
        ge=0,
        lt=2**53,
        description="As it was so many milliseconds after the variant began; by default as it is. "
        "404 with the code `growth_unknown` where that was not kept.",
    ),
]
_NEVER_KEPT = {"cache-control": "no-store", "referrer-policy": "no-referrer"}

routes = Routes("", "variants", keys=CONTENT)


@routes.get(
    "/v1/variants/{variant_id}/preview",
    summary="Look at the page of a variant",
    errors=[404, 422],
    response_class=Response,
    responses=_PAGE | _REDIRECT,
)
async def show(call: Call, variant_id: UUID, at: _Moment = None, reason: Reason | None = None) -> Response:
    """The page can do nothing to the person who looks. The view is counted, unless it is one of a state."""
    origin = call.data.settings.service.preview_origin
    if origin is None:
        if at is None:
            page = await call.data.pages.open(call.actor, variant_id, reason=reason)
        else:
            state = await call.data.generations.state_at(call.actor, variant_id, at, reason=reason)
            page = await call.data.pages.show(call.actor, variant_id, state, reason=reason)
        return hostile_page(page, framed_by="'self'")
    signed = await call.data.previews.sign(call.actor, variant_id, at=at, reason=reason)
    return RedirectResponse(f"{origin}{signed.path}", headers=_NEVER_KEPT)


@routes.get(
    PREVIEW_PATH + "{variant_id}",
    summary="Look at the page of a variant at its signed address",
    needs_login=False,
    errors=[403, 404, 422],
    response_class=Response,
    responses=_PAGE,
)
async def look(
    call: Call,
    variant_id: UUID,
    expires: Annotated[int, Query(ge=0, lt=2**40)],
    signature: Annotated[str, Query(max_length=64)],
    at: _Moment = None,
) -> Response:
    """It is there on the host of PREVIEW_ORIGIN only. Cookies are not looked at."""
    if call.data.settings.service.preview_origin is None:
        raise HTTPException(404)
    return hostile_page(await call.data.previews.open(variant_id, expires, signature, at=at), framed_by="*")


class PreviewHostMiddleware:
    """Keeps pages on the host of PREVIEW_ORIGIN and everything else away from it.

    Proxies in front have to hand on ``Host``.

    Args:
        app: what is called.
        origin: PREVIEW_ORIGIN.
    """

    def __init__(self, app: ASGIApp, *, origin: str) -> None:
        self._app = app
        parts = urlsplit(origin)
        default = ":443" if parts.scheme == "https" else ":80"
        self._hosts = {parts.netloc.encode()} | ({f"{parts.netloc}{default}".encode()} if parts.port is None else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] == "http":
            hosts = [value.lower() for name, value in scope["headers"] if name == b"host"]
            is_for_pages = any(host in self._hosts for host in hosts)
            if is_for_pages != scope["path"].startswith(PREVIEW_PATH):
                await refusal(scope, 404, "there is nothing at this address")(scope, receive, send)
                return
        await self._app(scope, receive, send)
