"""The console as one router."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from data_layer.console.pages import PageCall, Pages, error_page, others
from data_layer.console.rendering import Renderer
from data_layer.console.views import account, administration, entrance, factors, project, projects
from data_layer.layer import DataLayer

_YEAR = "public, max-age=31536000, immutable"

_start = Pages("", needs_login=False)


@_start.get("/")
async def begin(_call: PageCall) -> Response:
    """Lead to the console."""
    return RedirectResponse("/console")


@_start.get("/console/static/{name}")
async def serve_asset(call: PageCall, name: str) -> Response:
    """A style sheet, a script or an icon; its name changes with its content."""
    asset = call.renderer.assets.find(name)
    if asset is None:
        return error_page(call, 404)
    headers = {"cache-control": _YEAR, "cross-origin-resource-policy": "same-origin"}
    return Response(asset.content, headers=headers, media_type=asset.media_type)


router = APIRouter()
"""All pages; ``/`` leads to them. ``app.state.console`` makes them."""
for _part in (
    _start,
    entrance.pages,
    projects.pages,
    project.pages,
    account.pages,
    factors.pages,
    administration.pages,
    others,
):
    router.routes.extend(_part.routes)


def make_renderer(data: DataLayer, open_project: Callable[[UUID], str] | None = None) -> Renderer:
    """What makes the pages.

    Args:
        data: whose settings say where pages and pictures come from.
        open_project: the address at which the application that makes the pages opens a project, for a button.
    """
    settings = data.settings
    return Renderer(
        preview_origin=settings.service.preview_origin,
        has_remote_images=settings.storage.storage_backend != "local",
        open_project=open_project,
    )
