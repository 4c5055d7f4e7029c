"""One project: its versions as a picture, the page live, its code, requests, differences, and what people do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any
from uuid import UUID

from fastapi import HTTPException, Query, Response
from pydantic import BaseModel

from data_layer.console.differences import LONGEST_SHOWN, Block, blocks_of, code_lines
from data_layer.console.pages import PageCall, Pages
from data_layer.console.version_tree import picture_of
from data_layer.console.views.projects import PROJECTS
from data_layer.entities.enums import GenerationStatus
from data_layer.errors import ChangedMeanwhileError, InvalidValueError, NotFoundError
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.generations import GenerationView
from data_layer.schemas.projects import ProjectChanges, ProjectFull
from data_layer.services.shares import SHARE_PATH
from data_layer.services.transfer.archives import ProjectArchives
from data_layer.web.downloads import download as send_file

_MOST_VERSIONS = 300
_MOST_ENTRIES = 1000
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STRANGE = re.compile(r"[^A-Za-z0-9._-]+")
_PICTURES = ("image", "asset", "file")
_LIFETIMES = {"1": timedelta(days=1), "7": timedelta(days=7), "30": timedelta(days=30), "365": timedelta(days=365)}

_MOST_PARTS = 20
_DEEPEST_PART = 3
_LONGEST_PART = 4000
_LONGEST_NAME = 100
_PLAIN_PLACES = frozenset({"value", "data"})
"""Where applications put what they say; the text needs no name then."""

pages = Pages(PROJECTS)


class PlaceQuery(BaseModel):
    """A variant of a version; by default the selected one of the last version."""

    v: Annotated[int, Query(ge=1, lt=2**31)] | None = None
    i: Annotated[int, Query(ge=0, lt=2**15)] | None = None


_LAST = PlaceQuery()


@dataclass(frozen=True, slots=True)
class Place:
    """What the pages of a project are about: one of its variants, if it has any."""

    project: ProjectFull
    generations: Sequence[GenerationView]
    generation: GenerationView | None
    variant: GeneratedCodeSummary | None

    @property
    def is_complete(self) -> bool:
        """Whether its code can be restored, forked and shared."""
        return self.variant is not None and self.variant.status is GenerationStatus.COMPLETED

    def variants(self) -> Iterator[GeneratedCodeSummary]:
        """All variants, those of the last version first."""
        for generation in self.generations:
            yield from generation.variants


async def _find(
    call: PageCall,
    project_id: UUID,
    query: PlaceQuery = _LAST,
    *,
    most: int = _MOST_VERSIONS,
    is_counted: bool = False,
) -> Place:
    """Find a variant of a project.

    Args:
        call: who looks.
        project_id: which project.
        query: which variant.
        most: how many versions to read; a page that shows none of them needs one, for its header.
        is_counted: whether this is a view of the project.

    Raises:
        NotFoundError: the project, version or variant does not exist.
    """
    project = await call.data.projects.open(call.actor, project_id, is_counted=is_counted)
    generations = await call.data.generations.history(call.actor, project_id, limit=most)
    if query.v is not None and (not generations or query.v < generations[-1].number):
        # Of a very long history the page around it.
        generations = await call.data.generations.history(
            call.actor, project_id, limit=_MOST_VERSIONS, before=query.v + _MOST_VERSIONS // 2
        )
    number = query.v or (generations[0].number if generations else None)
    generation = next((each for each in generations if each.number == number), None)
    if generation is None:
        if query.v is not None:
            raise NotFoundError(f"the project has no version {query.v}")
        return Place(project, generations, None, None)
    index = generation.selected_variant if query.i is None else query.i
    variant = next((each for each in generation.variants if each.variant_index == index), None)
    if variant is None:
        if query.i is not None:
            raise NotFoundError(f"version {generation.number} has no variant {query.i}")
        variant = generation.variants[0] if generation.variants else None
    return Place(project, generations, generation, variant)


def _show(call: PageCall, template: str, place: Place, code: int = 200, /, **values: Any) -> Response:
    variant = place.variant
    return call.page(
        template,
        code,
        project=place.project,
        generations=place.generations,
        generation=place.generation,
        variant=variant,
        place=place,
        at="" if variant is None else f"v={variant.version}&i={variant.variant_index}",
        open_project=call.renderer.open_project,
        **values,
    )


@pages.get("/{project_id}")
async def show(call: PageCall, project_id: UUID, query: Annotated[PlaceQuery, Query()]) -> Response:
    """The versions as a picture, and the page of one of them."""
    place = await _find(call, project_id, query, is_counted=True)
    variant = place.variant
    costs = await _costs(call, project_id)
    sums = await call.data.usage.sums(call.actor, project_id=project_id)
    full = None if variant is None else await call.data.generations.open(call.actor, variant.generation_id)
    return _show(
        call,
        "project.html",
        place,
        picture=picture_of(place.generations, None if variant is None else variant.id),
        cost=None if variant is None else costs.get(variant.id),
        total={each.currency: each.cost for each in sums},
        request=full,
        pictures=[] if full is None else list(_pictures_in(full.inputs)),
        is_running=place.generation is not None and place.generation.status.is_running,
    )


@pages.get("/{project_id}/code")
async def show_code(call: PageCall, project_id: UUID, query: Annotated[PlaceQuery, Query()]) -> Response:
    """The code of a variant, as text."""
    place = await _find(call, project_id, query)
    lines: Sequence[Any] = ()
    size = 0
    if place.variant is not None:
        full = await call.data.generations.open_variant(call.actor, place.variant.id)
        size = len(full.code)
        lines = await code_lines(full.code)
    return _show(call, "code.html", place, lines=lines, is_whole=size <= LONGEST_SHOWN)


class CompareQuery(PlaceQuery):
    """With which other variant, and how."""

    against: UUID | None = None
    view: str = "split"


@pages.get("/{project_id}/compare")
async def compare(call: PageCall, project_id: UUID, query: Annotated[CompareQuery, Query()]) -> Response:
    """Two variants: their codes side by side or in one column, or their pages with a slider."""
    place = await _find(call, project_id, query)
    variant = place.variant
    others = [each for each in place.variants() if variant is None or each.id != variant.id]
    other = next((each for each in others if each.id == query.against), None)
    if other is None and variant is not None:
        parent = next((each for each in others if each.id == variant.parent_id), None)
        other = parent or next(iter(others), None)
    view = query.view if query.view in {"split", "inline", "pages"} else "split"
    blocks: Sequence[Block] = ()
    is_whole, diff = True, None
    if variant is not None and other is not None and view != "pages":
        diff = await call.data.generations.compare(call.actor, variant.id, other.id)
        blocks, is_whole = await asyncio.to_thread(blocks_of, diff)
    return _show(
        call, "compare.html", place, others=others, other=other, view=view, blocks=blocks, is_whole=is_whole, diff=diff
    )


@pages.get("/{project_id}/replay")
async def replay(call: PageCall, project_id: UUID, query: Annotated[PlaceQuery, Query()]) -> Response:
    """How a variant was made, by a time line; a generation that runs is followed live by a script."""
    place = await _find(call, project_id, query)
    is_running = place.generation is not None and place.generation.status.is_running
    made = None
    if place.variant is not None and not is_running:
        made = await call.data.generations.replay(call.actor, place.variant.id)
    return _show(call, "replay.html", place, made=made, is_running=is_running, parts_of=parts_of)


def parts_of(payload: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What an event says, in texts with the names of their places: the values of objects one by one, others as JSON."""
    said = {name: value for name, value in payload.items() if name != "eventId"}
    return list(islice(_parts(said, ()), _MOST_PARTS))


def _parts(value: object, place: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and len(place) < _DEEPEST_PART:
        for name, each in value.items():
            yield from _parts(each, (*place, str(name)[:_LONGEST_NAME]))
    else:
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if said:
            yield " ".join(name for name in place if name not in _PLAIN_PLACES), said[:_LONGEST_PART]


@pages.get("/{project_id}/images")
async def show_images(call: PageCall, project_id: UUID, after: UUID | None = None) -> Response:
    """The images of a project."""
    place = await _find(call, project_id, most=1)
    found = await call.data.images.list(call.actor, project_id, after=after)
    return _show(call, "images.html", place, images=found.images, next=found.next)


@pages.get("/{project_id}/download", takes_long=True)
async def download(call: PageCall, project_id: UUID) -> Response:
    """All of it as a zip file, which ``data-layer import`` reads."""
    data = call.data
    project = await data.projects.open(call.actor, project_id, is_counted=False)
    archives = ProjectArchives(data.projects, data.generations, data.files, data.images)
    name = f"{_STRANGE.sub('-', project.name).strip('-.')[:80] or 'project'}.zip"
    return await send_file(archives.pieces(call.actor, project_id), name=name, media_type="application/zip")


@pages.get("/{project_id}/settings")
async def ask_for_changes(call: PageCall, project_id: UUID) -> Response:
    """What can be changed of a project."""
    place = await _find(call, project_id, most=1)
    project = place.project
    values = {
        "name": project.name,
        "description": project.description or "",
        "instructions": project.instructions or "",
        "tags": ", ".join(project.tags),
        "is_public": "yes" if project.is_public else "",
        "revision": str(project.revision),
    }
    return _show(call, "project_settings.html", place, values=values, problem=None, is_outdated=False)


@pages.post("/{project_id}/settings")
async def change(call: PageCall, project_id: UUID) -> Response:
    """Change a project, unless somebody else has meanwhile."""
    fields = await call.fields()
    values = {name: fields.get(name, "") for name in ("name", "description", "instructions", "tags", "is_public")}
    revision = fields.get("revision", "")
    changes = {
        "name": values["name"],
        "description": values["description"].strip() or None,
        "instructions": values["instructions"].strip() or None,
        "tags": [tag.strip() for tag in values["tags"].split(",") if tag.strip()],
        "is_public": values["is_public"] == "yes",
    }
    try:
        expected = int(revision) if revision.isdecimal() and len(revision) < 10 else 0
        await call.data.projects.update(call.actor, project_id, ProjectChanges(**changes), expected=expected)
    except (ChangedMeanwhileError, InvalidValueError) as error:
        place = await _find(call, project_id, most=1)
        is_outdated = isinstance(error, ChangedMeanwhileError)
        values["revision"] = str(place.project.revision) if is_outdated else revision
        status = 412 if is_outdated else 422
        problem = None if is_outdated else call.reason_of(error)
        return _show(
            call, "project_settings.html", place, status, values=values, problem=problem, is_outdated=is_outdated
        )
    return call.go(f"{PROJECTS}/{project_id}", "saved")


@pages.get("/{project_id}/shares")
async def show_shares(call: PageCall, project_id: UUID) -> Response:
    """The links by which others look at the project."""
    return await _shares(call, project_id)


@pages.post("/{project_id}/shares")
async def share(call: PageCall, project_id: UUID) -> Response:
    """Make a link, which is shown here once."""
    fields = await call.fields()
    number = fields.get("version", "")
    new = await call.data.shares.create(
        call.actor,
        project_id,
        version=int(number) if number.isdecimal() and len(number) < 10 else None,
        expires_in=_LIFETIMES.get(fields.get("expires", "")),
    )
    link = f"{call.data.settings.base_url}{SHARE_PATH}{new.token.get_secret_value()}"
    return await _shares(call, project_id, 201, link=link)


@pages.post("/{project_id}/shares/{share_id}/revoke")
async def revoke(call: PageCall, project_id: UUID, share_id: UUID) -> Response:
    """End a link at once and for good."""
    shares = f"{PROJECTS}/{project_id}/shares"
    if asking := await call.ask(call.text("End this link for good?"), call.text("Revoke"), shares):
        return asking
    await call.data.shares.revoke(call.actor, share_id)
    return call.go(shares, "share_revoked")


async def _shares(call: PageCall, project_id: UUID, code: int = 200, link: str | None = None) -> Response:
    place = await _find(call, project_id)
    shares = await call.data.shares.list(call.actor, project_id)
    return _show(call, "shares.html", place, code, shares=shares, link=link, lifetimes=list(_LIFETIMES))


@pages.post("/{project_id}/variants/{variant_id}/restore")
async def restore(call: PageCall, project_id: UUID, variant_id: UUID) -> Response:
    """Make a variant the last version again."""
    await call.data.generations.restore_variant(call.actor, variant_id)
    return call.go(f"{PROJECTS}/{project_id}", "variant_restored")


@pages.post("/{project_id}/variants/{variant_id}/fork")
async def fork(call: PageCall, project_id: UUID, variant_id: UUID) -> Response:
    """Begin a project with a variant."""
    del project_id
    project = await call.data.generations.fork_variant(call.actor, variant_id)
    return call.go(f"{PROJECTS}/{project.id}", "project_copied")


@pages.post("/{project_id}/generations/{generation_id}/select")
async def select(call: PageCall, project_id: UUID, generation_id: UUID) -> Response:
    """Choose the variant that goes on."""
    fields = await call.fields()
    variant = fields.get("variant", "")
    if not variant.isdecimal() or len(variant) > 4:
        raise HTTPException(422)
    await call.data.generations.select(call.actor, generation_id, int(variant))
    return call.back(fields, f"{PROJECTS}/{project_id}", "saved")


@pages.post("/{project_id}/variants/{variant_id}/rename")
async def rename(call: PageCall, project_id: UUID, variant_id: UUID) -> Response:
    """Give a variant a name, or none."""
    fields = await call.fields()
    await call.data.generations.rename(call.actor, variant_id, fields.get("name", "").strip() or None)
    return call.back(fields, f"{PROJECTS}/{project_id}", "saved")


@pages.post("/{project_id}/variants/{variant_id}/rate")
async def rate(call: PageCall, project_id: UUID, variant_id: UUID) -> Response:
    """Give a variant stars, or take them back."""
    fields = await call.fields()
    stars = fields.get("stars", "")
    await call.data.generations.rate(call.actor, variant_id, stars=int(stars) if stars in set("12345") else None)
    return call.back(fields, f"{PROJECTS}/{project_id}", "saved")


@pages.post("/{project_id}/generations/{generation_id}/cancel")
async def cancel(call: PageCall, project_id: UUID, generation_id: UUID) -> Response:
    """End what still runs of a generation."""
    project = f"{PROJECTS}/{project_id}"
    question = call.text("End what is still being made? What there is of it is kept.")
    if asking := await call.ask(question, call.text("End it"), project):
        return asking
    await call.data.generations.cancel(call.actor, generation_id)
    return call.go(project, "generation_cancelled")


async def _costs(call: PageCall, project_id: UUID) -> Mapping[UUID | None, Mapping[str, Decimal]]:
    """What each variant has cost, by currency, as far as the last entries say."""
    entries = await call.data.usage.entries(call.actor, project_id=project_id, limit=_MOST_ENTRIES)
    costs: dict[UUID | None, dict[str, Decimal]] = {}
    for entry in entries:
        of_code = costs.setdefault(entry.code_id, {})
        of_code[entry.currency] = of_code.get(entry.currency, Decimal(0)) + entry.cost
    return costs


def _pictures_in(inputs: Any, name: str = "") -> Iterator[str]:
    """The ids of files that a request came with, wherever an application has put them."""
    if isinstance(inputs, Mapping):
        for key, value in inputs.items():
            yield from _pictures_in(value, str(key).lower())
    elif isinstance(inputs, list | tuple):
        for value in inputs[:20]:
            yield from _pictures_in(value, name)
    elif isinstance(inputs, str) and any(word in name for word in _PICTURES) and _UUID.fullmatch(inputs):
        yield inputs
