"""The page of the saved projects, and a project in the form in which ``page.js`` gives it back to their page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from importlib.resources import files
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from data_layer.entities.enums import CodeStack
from data_layer.errors import DataLayerError, NotFoundError
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.recorder.delivery import Root, remember_root
from data_layer.recorder.page import (
    Media,
    encoded_media,
    first_request,
    hashes_shown,
    tree_for_page,
    wanted_media,
)
from data_layer.schemas.actors import Actor
from data_layer.schemas.files import Attachment, FileView
from data_layer.schemas.generations import TreeCode

log = get_log(__name__)

PROJECTS_PATH = "/my-projects"


def open_address(project_id: UUID) -> str:
    """Where a project is opened in the page of the application."""
    return f"/#open-project={project_id}"


_TREE = f"{PROJECTS_PATH}/tree/"
_SCRIPT = f"{PROJECTS_PATH}/projects.js"
_HEADERS = {
    # Pictures of projects may lie at the storage; pages of variants run in an opaque origin, below this one or not.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' http: https: data:; frame-src 'self' http: https:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


async def answer_projects(data: DataLayer, actor: Actor, request: Request) -> Response:
    """Answer what is below ``/my-projects``."""
    path = request.url.path
    if request.method not in {"GET", "HEAD"}:
        return JSONResponse({"detail": "Method Not Allowed"}, 405)
    if path == PROJECTS_PATH:
        return HTMLResponse(_file("projects.html"), headers=_HEADERS)
    if path == _SCRIPT:
        return Response(_file("projects.js"), media_type="text/javascript", headers={"cache-control": "no-cache"})
    if path == f"{PROJECTS_PATH}/":
        return RedirectResponse(PROJECTS_PATH, 307)
    if path.startswith(_TREE):
        base = str(request.base_url).rstrip("/")
        return await _answer_tree(data, actor, path.removeprefix(_TREE), base)
    return JSONResponse({"detail": "Not Found"}, 404)


async def _answer_tree(data: DataLayer, actor: Actor, name: str, base: str) -> Response:
    try:
        opened = await data.generations.tree(actor, UUID(name), code=TreeCode.ALL)
        opened = await data.pages.show_tree(actor, opened, base=base, keeps_local=True)
    except (NotFoundError, ValueError):
        return JSONResponse({"detail": "there is no such project"}, 404)
    generations = [each async for each in opened.generations][::-1]
    media = await _media(data, actor, opened.project.id, wanted_media(generations))
    tree = tree_for_page(opened.project.name, generations, media)
    first = first_request(generations)
    if first is not None and tree["stack"] is not None:
        hashes = await asyncio.to_thread(hashes_shown, first, media)
        root = Root(CodeStack(tree["stack"]), first.input_mode, first.prompt or "", hashes)
        await remember_root(data, actor, root, opened.project.id)
    content = await asyncio.to_thread(orjson.dumps, tree)
    return Response(content, media_type="application/json", headers={"cache-control": "no-store"})


async def _media(data: DataLayer, actor: Actor, project_id: UUID, wanted: Mapping[str, str | None]) -> Media:
    """The images and videos of a project's prompts; what cannot be read is left out."""
    media: dict[str, tuple[str, str]] = {}
    if not wanted:
        return media
    attached_to = Attachment(project_id=project_id)
    async with aclosing(data.files.list_all(owner_id=actor.user_id, attached_to=attached_to)) as found:
        async for file in found:
            name = (file.file_name or "").partition(".")[0]
            if name in wanted and name not in media:
                content = await _read(data, actor, file)
                if content is not None:
                    media[name] = wanted[name] or file.content_type, content
                if wanted.keys() <= media.keys():
                    break
    return media


async def _read(data: DataLayer, actor: Actor, file: FileView) -> str | None:
    try:
        content = await data.files.download(file.id, owner_id=actor.user_id)
    except DataLayerError as error:
        log.warning("media_not_read", code=error.code, file_id=str(file.id))
        return None
    return await asyncio.to_thread(encoded_media, content)


def _file(name: str) -> bytes:
    return files("data_layer.recorder").joinpath(name).read_bytes()
