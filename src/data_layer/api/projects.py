"""Projects over HTTP: the list, the search, one project, what is done with it, and its versions.

To others a project is like a missing one. Moderators read it with ``reason``, which is recorded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import Field, StrictBool, StringConstraints

from data_layer.api.request_models import Body, Reason
from data_layer.api.response_headers import described_headers
from data_layer.api.routes import CONTENT, Call, Routes
from data_layer.api.uploads import body_with_file, room_for_file, sent_with_file
from data_layer.entities.enums import CodeStack, ProjectStatus, ProjectType
from data_layer.errors import InvalidValueError
from data_layer.schemas.base import Value
from data_layer.schemas.codes import GeneratedCodeFull
from data_layer.schemas.generations import GenerationView, OpenedTree, TreeCode, TreeGeneration
from data_layer.schemas.projects import (
    ProjectChanges,
    ProjectDraft,
    ProjectFilter,
    ProjectFull,
    ProjectOrder,
    ProjectPage,
)
from data_layer.schemas.search import SearchPage
from data_layer.web.conditions import Conditions, require_revision, revision_tag
from data_layer.web.downloads import GeneratedResponse

_PIECE = 64 * 1024
_Cursor = Annotated[str, StringConstraints(max_length=4096)]
_Limit = Annotated[int, Field(ge=1, le=1000)]
_Number = Annotated[int, Path(ge=1, lt=2**31)]
_EXAMPLE: dict[str, Any] = {"name": "Shop", "tags": ["landing"], "screenshot": "https://example.com/shop.png"}


class NewProject(ProjectDraft):
    """A project to create. ``screenshot`` is a base64 data URL, or an http(s) URL, which is fetched at once.

    A form has the screenshot in its part ``file`` instead.
    """

    screenshot: str | None = None
    file_name: Annotated[str, StringConstraints(max_length=255)] | None = None

    @property
    def draft(self) -> ProjectDraft:
        """What is in the project itself."""
        names = self.model_fields_set & ProjectDraft.model_fields.keys()
        return ProjectDraft(**{name: getattr(self, name) for name in names})


class _OwnersQuery(Body):
    """A page of somebody's projects."""

    after: _Cursor | None = None
    owner_id: UUID | None = None
    reason: Reason | None = None

    @property
    def page(self) -> dict[str, Any]:
        """The arguments that name it."""
        return self.model_dump(include={"after", "limit", "owner_id", "reason"})


class ProjectQuery(_OwnersQuery):
    """Which projects a list holds, and in which order. Deleted ones are left out unless ``status`` names them."""

    status: frozenset[ProjectStatus] = frozenset()
    type: ProjectType | None = None
    stack: CodeStack | None = None
    tag: str | None = None
    is_favorite: bool | None = None
    is_public: bool | None = None
    order: ProjectOrder = ProjectOrder.UPDATED
    descending: bool = True
    limit: _Limit = 50

    @property
    def filter(self) -> ProjectFilter:
        """The conditions."""
        names = ("type", "stack", "tag", "is_favorite", "is_public")
        return ProjectFilter(statuses=self.status, **{name: getattr(self, name) for name in names})


class SearchQuery(_OwnersQuery):
    """What to look for: all words, ``"quoted words"`` together; ``or`` and ``-not`` work."""

    q: Annotated[str, StringConstraints(max_length=500)]
    include_public: bool = False
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class VersionsQuery(Body):
    """A page of versions, the last one first; ``before`` is ``next`` of the page before."""

    before: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    limit: _Limit = 50
    reason: Reason | None = None


class Clone(Body):
    """How to copy a project; see the operation."""

    name: str | None = None
    history: StrictBool = True
    version: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class ProjectTree(Value):
    """A project with all its generations, last one first."""

    project: ProjectFull
    generations: tuple[TreeGeneration, ...]


class VersionPage(Value):
    """A page of versions with their variants, without code; ``next`` is null on the last one."""

    versions: tuple[GenerationView, ...]
    next: int | None


_LOCATION = "/v1/projects/{0.id}"

routes = Routes("/v1/projects", "projects", keys=CONTENT)


@routes.get("", summary="List the own projects", errors=[404, 422], next_by="after")
async def list_projects(call: Call, query: Annotated[ProjectQuery, Query()]) -> ProjectPage:
    """A project that nobody changes meanwhile is on exactly one page. Another person's list needs a reason."""
    return await call.data.projects.list(
        call.actor, query.filter, order=query.order, is_descending=query.descending, **query.page
    )


@routes.post(
    "",
    summary="Create a project",
    status_code=201,
    max_body=room_for_file,
    errors=[400, 415, 507],
    openapi_extra=body_with_file(NewProject, _EXAMPLE),
    etag=revision_tag,
    location=_LOCATION,
)
async def create(call: Call) -> ProjectFull:
    """The answer names the new project in ``Location``."""
    async with sent_with_file(call, NewProject) as sent:
        new, screenshot = sent.values, sent.file
        if screenshot is not None and new.screenshot is not None:
            raise InvalidValueError("the form has a screenshot already; leave this one out", field="screenshot")
        return await call.data.projects.create(
            call.actor,
            new.draft,
            screenshot=new.screenshot if screenshot is None else screenshot,
            file_name=new.file_name or sent.file_name,
        )


@routes.get("/search", summary="Search projects", errors=[404, 422], next_by="after")
async def search(call: Call, query: Annotated[SearchQuery, Query()]) -> SearchPage:
    """Names, tags, descriptions, instructions, prompts and the latest page are searched; the best hits come first."""
    return await call.data.projects.search(call.actor, query.q, include_public=query.include_public, **query.page)


@routes.get("/{project_id}", summary="Read a project", errors=[404, 422], etag=revision_tag)
async def show(call: Call, project_id: UUID, reason: Reason | None = None) -> ProjectFull:
    """The view is counted. ``ETag`` is the revision, which a change needs."""
    return await call.data.projects.open(call.actor, project_id, reason=reason)


@routes.patch("/{project_id}", summary="Change a project", errors=[404, 409, 412, 428], etag=revision_tag)
async def change(call: Call, project_id: UUID, body: ProjectChanges) -> ProjectFull:
    """What is not given stays. ``If-Match`` must name the revision that was read; 412 shows what is stored now."""
    expected = require_revision(call.headers)
    return await call.data.projects.update(call.actor, project_id, body, expected=expected)


@routes.delete("/{project_id}", summary="Move a project to the trash", status_code=204, errors=[404])
async def delete(call: Call, project_id: UUID) -> None:
    """Undelete undoes it, for as long as the trash is kept."""
    await call.data.projects.delete(call.actor, project_id)


@routes.post("/{project_id}/undelete", summary="Take a project out of the trash", errors=[404], etag=revision_tag)
async def undelete(call: Call, project_id: UUID) -> ProjectFull:
    """Harmless to repeat."""
    return await call.data.projects.restore(call.actor, project_id)


@routes.post("/{project_id}/archive", summary="Put a project aside", errors=[404], etag=revision_tag)
async def archive(call: Call, project_id: UUID) -> ProjectFull:
    """Harmless to repeat."""
    return await call.data.projects.archive(call.actor, project_id)


@routes.post("/{project_id}/unarchive", summary="Return a project from the archive", errors=[404], etag=revision_tag)
async def unarchive(call: Call, project_id: UUID) -> ProjectFull:
    """It has the status again that it had. Harmless to repeat."""
    return await call.data.projects.unarchive(call.actor, project_id)


@routes.post(
    "/{project_id}/clone",
    summary="Copy a project",
    status_code=201,
    errors=[404],
    etag=revision_tag,
    location=_LOCATION,
)
async def clone(call: Call, project_id: UUID, body: Clone) -> ProjectFull:
    """With its history up to ``version``, or without it as version 1. The copy is private and holds its own files."""
    return await call.data.projects.clone(
        call.actor, project_id, name=body.name, history=body.history, version=body.version
    )


@routes.get("/{project_id}/versions", summary="List the versions of a project", errors=[404, 422], next_by="before")
async def versions(call: Call, project_id: UUID, query: Annotated[VersionsQuery, Query()]) -> VersionPage:
    """Variants form a tree by ``parent_id``."""
    found = await call.data.generations.history(
        call.actor, project_id, limit=query.limit, before=query.before, reason=query.reason
    )
    last = found[-1].number if len(found) == query.limit else 1
    following = last if last > 1 else None
    # Not validated again, which would put the same views into another tuple.
    return VersionPage.model_construct(versions=tuple(found), next=following)


@routes.get("/{project_id}/versions/{number}", summary="Read a version with its code", errors=[404, 422])
async def version(
    call: Call,
    project_id: UUID,
    number: _Number,
    variant: Annotated[int | None, Query(ge=0, lt=2**31, description="By default the selected one.")] = None,
    reason: Reason | None = None,
) -> GeneratedCodeFull:
    """The view is counted."""
    return await call.data.generations.version(call.actor, project_id, number, variant, reason=reason)


@routes.get(
    "/{project_id}/tree",
    summary="Read a project with all its versions",
    errors=[404, 422],
    response_model=ProjectTree,
    responses={
        200: {"headers": described_headers("ETag")},
        304: {"description": "The client has it already.", "headers": described_headers("ETag")},
    },
)
async def tree(
    call: Call,
    project_id: UUID,
    code: Annotated[TreeCode, Query(description="Which variants come with their code.")] = TreeCode.SELECTED,
    reason: Reason | None = None,
) -> Response:
    """All that an application needs to show a project again; variants form a tree by ``parent_id``.

    The answer is sent while it is read, so its length is not known before. ``ETag`` changes with whatever is in it,
    counters aside.
    """
    opened = await call.data.generations.tree(call.actor, project_id, code=code, reason=reason)
    etag = f'"{opened.fingerprint}-{code}"'
    headers = {"etag": f"W/{etag}", "cache-control": "private, no-cache"}
    if Conditions.of(call.headers).names(etag):
        return Response(status_code=304, headers=headers)
    if call.method == "HEAD":
        answer = Response(headers=headers, media_type="application/json")
        del answer.headers["content-length"]  # Nobody knows it.
        return answer
    return GeneratedResponse(_encoded(opened), headers=headers, media_type="application/json")


async def _encoded(opened: OpenedTree) -> AsyncGenerator[bytes]:
    """The tree as JSON, in pieces that are worth being sent."""
    parts = [b'{"project":', opened.project.model_dump_json().encode(), b',"generations":[']
    size, separator = 0, b""
    async for generation in opened.generations:
        encoded = generation.model_dump_json().encode()
        parts += separator, encoded
        size, separator = size + len(encoded), b","
        if size >= _PIECE:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join([*parts, b"]}"])


@routes.get(
    "/{project_id}/thumbnail",
    summary="Look at the picture of a project",
    errors=[404, 422],
    status_code=307,
    response_class=Response,
    responses={307: {"description": "The picture is at this address for a quarter of an hour."}},
)
async def thumbnail(call: Call, project_id: UUID, reason: Reason | None = None) -> Response:
    """The screenshot in small. 404 with the code `picture_missing` where there is none."""
    signed = await call.data.images.project_thumbnail(call.actor, project_id, reason=reason)
    return RedirectResponse(signed.url, headers={"cache-control": "private, max-age=300"})
