"""The own projects: cards, search, filters, and what is done with a whole project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, StringConstraints

from data_layer.console.pages import PageCall, Pages, choice
from data_layer.entities.enums import CodeStack, ProjectStatus
from data_layer.errors import InvalidValueError, NotFoundError
from data_layer.schemas.projects import ProjectChanges, ProjectDraft, ProjectFilter, ProjectOrder
from data_layer.schemas.search import Highlight, ProjectHit
from data_layer.web.hostile_pages import hostile_page

_PAGE_SIZE = 24
_CURRENT = frozenset({ProjectStatus.DRAFT, ProjectStatus.ACTIVE, ProjectStatus.COMPLETED})
_VIEWS: dict[str, ProjectFilter] = {
    "all": ProjectFilter(statuses=_CURRENT),
    "favorites": ProjectFilter(statuses=_CURRENT, is_favorite=True),
    "archive": ProjectFilter(statuses=frozenset({ProjectStatus.ARCHIVED})),
    "trash": ProjectFilter(statuses=frozenset({ProjectStatus.DELETED})),
}

PROJECTS = "/console/projects"

pages = Pages(PROJECTS)


class ListQuery(BaseModel):
    """Which projects to show; what means nothing is passed over."""

    view: str = "all"
    q: Annotated[str, StringConstraints(max_length=500)] = ""
    stack: str = ""
    order: str = ""
    after: Annotated[str, StringConstraints(max_length=4096)] = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, and whether it is what was looked for."""

    text: str
    is_found: bool


@pages.get("")
async def list_projects(call: PageCall, query: Annotated[ListQuery, Query()]) -> Response:
    """A page of cards; with ``q`` what a search finds."""
    view = query.view if query.view in _VIEWS else "all"
    chosen = {"view": view if view != "all" else "", "q": query.q.strip(), "stack": query.stack, "order": query.order}
    after = query.after
    hits: list[tuple[ProjectHit, list[tuple[str, list[Piece]]]]] = []
    projects: tuple[Any, ...] = ()
    problem, following = None, None
    try:
        if chosen["q"]:
            found = await call.data.projects.search(call.actor, chosen["q"], after=after or None, limit=_PAGE_SIZE)
            hits = [(hit, [(each.field, pieces_of(each)) for each in hit.highlights]) for hit in found.hits]
            following = found.next
        else:
            wanted = _VIEWS[view].model_copy(update={"stack": choice(CodeStack, query.stack)})
            by = choice(ProjectOrder, query.order) or ProjectOrder.UPDATED
            page = await call.data.projects.list(
                call.actor,
                wanted,
                order=by,
                is_descending=by is not ProjectOrder.NAME,
                after=after or None,
                limit=_PAGE_SIZE,
            )
            projects, following = page.projects, page.next
    except InvalidValueError as error:
        problem = call.reason_of(error)
    return call.page(
        "projects.html",
        422 if problem else 200,
        view=view,
        chosen=chosen,
        stacks=list(CodeStack),
        orders=list(ProjectOrder),
        projects=projects,
        hits=hits,
        next=following,
        after=after,
        problem=problem,
    )


@pages.post("")
async def create(call: PageCall) -> Response:
    """Begin an empty project."""
    fields = await call.fields()
    try:
        project = await call.data.projects.create(call.actor, ProjectDraft(name=fields.get("name", "")))
    except InvalidValueError as error:
        return call.page("new_project.html", 422, problem=call.reason_of(error), name=fields.get("name", ""))
    return call.go(f"{PROJECTS}/{project.id}", "project_created")


@pages.get("/new")
async def ask_for_name(call: PageCall) -> Response:
    """Ask what a new project is called."""
    return call.page("new_project.html", problem=None, name="")


@pages.get("/{project_id}/page")
async def show_page(call: PageCall, project_id: UUID) -> Response:
    """The page of the latest version for the frame of a card; it is hostile, and shown as ``api/previews`` does."""
    origin = call.data.settings.service.preview_origin
    try:
        if origin is None:
            return hostile_page(await call.data.previews.latest(call.actor, project_id), framed_by="'self'")
        signed = await call.data.previews.sign_latest(call.actor, project_id)
    except NotFoundError:
        return hostile_page("", framed_by="'self'")
    return RedirectResponse(f"{origin}{signed.path}", 307)


@pages.post("/{project_id}/favorite")
async def mark(call: PageCall, project_id: UUID) -> Response:
    """Mark a project as a favourite, or take the mark away."""
    fields = await call.fields()
    changes = ProjectChanges(is_favorite=fields.get("is_favorite") == "yes")
    await call.data.projects.update(call.actor, project_id, changes, expected=None)
    return call.back(fields, PROJECTS)


@pages.post("/{project_id}/archive")
async def archive(call: PageCall, project_id: UUID) -> Response:
    """Put a project aside."""
    await call.data.projects.archive(call.actor, project_id)
    return call.back(await call.fields(), PROJECTS, "project_archived", project_id)


@pages.post("/{project_id}/unarchive")
async def unarchive(call: PageCall, project_id: UUID) -> Response:
    """Return a project from the archive."""
    await call.data.projects.unarchive(call.actor, project_id)
    return call.back(await call.fields(), PROJECTS, "project_unarchived")


@pages.post("/{project_id}/delete")
async def delete(call: PageCall, project_id: UUID) -> Response:
    """Move a project to the trash; the page that follows can undo it."""
    await call.data.projects.delete(call.actor, project_id)
    return call.back(await call.fields(), PROJECTS, "project_deleted", project_id)


@pages.post("/{project_id}/undelete")
async def undelete(call: PageCall, project_id: UUID) -> Response:
    """Take a project out of the trash."""
    await call.data.projects.restore(call.actor, project_id)
    return call.back(await call.fields(), PROJECTS, "project_restored")


@pages.post("/{project_id}/clone")
async def clone(call: PageCall, project_id: UUID) -> Response:
    """Copy a project with its history."""
    copy = await call.data.projects.clone(call.actor, project_id)
    return call.go(f"{PROJECTS}/{copy.id}", "project_copied")


def pieces_of(highlight: Highlight) -> list[Piece]:
    """The text of a highlight, cut where what was looked for begins and ends."""
    pieces, position = [], 0
    for start, end in highlight.ranges:
        pieces += [
            Piece(highlight.text[position:start], is_found=False),
            Piece(highlight.text[start:end], is_found=True),
        ]
        position = end
    pieces.append(Piece(highlight.text[position:], is_found=False))
    return [piece for piece in pieces if piece.text]
