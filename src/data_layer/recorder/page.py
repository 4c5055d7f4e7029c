"""The page of Screenshot to Code: everything that is known of it is here and in ``page.js``, and nowhere else.

State of July 2026. It is a Vite build whose ``index.html`` has one module script. Its state lies in two zustand stores,
which ``page.js`` reaches through React, as it reaches the settings.

A commit of the page is a generation here, and its variants are the variants:

| commit | generation |
| --- | --- |
| hash, parentHash | its id, and that of the generation of its parent |
| isCommitted | its last one is not: only there the page lets a person choose among the variants |
| selectedVariantIndex | the selected one; if that has nothing to show, one that has: the page edits no failed one |
| type | ai_create without a parent, ai_edit with one, code_create for imported code |
| inputs | text, images and videos of the prompt; None for imported code |
| variants[].history | user and assistant in turns, from the root to this variant; images by the ids of assets |

What the page repeats in each of them is sent once: ``page.js`` puts texts, codes and images where their ids stand.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any
from uuid import UUID

from data_layer.entities.enums import GenerationStatus, RequestType
from data_layer.schemas.generations import TreeGeneration, TreeVariant

SCRIPT_PATH = "/my-projects/page.js"

_STATUSES = {
    GenerationStatus.COMPLETED: "complete",
    GenerationStatus.FAILED: "error",
    GenerationStatus.CANCELLED: "cancelled",
}
_STILL_RUNNING = "cancelled"
"""The page cannot go on with what it did not begin."""

_TYPE = re.compile(r"(?:image|video)/[a-z0-9.+-]{1,100}")

Media = Mapping[str, tuple[str, str]]
"""By the SHA-256 of the content: type of content, and base64."""


def script() -> bytes:
    """What is added to their page."""
    return files("data_layer.recorder").joinpath("page.js").read_bytes()


def with_script(html: str) -> str:
    """Their page with our script, which runs before theirs and waits for it."""
    tag = f'<script src="{SCRIPT_PATH}"></script>'
    for place in ("<head>", "<body>"):
        before, found, after = html.partition(place)
        if found:
            return f"{before}{found}{tag}{after}"
    return tag + html


def wanted_media(generations: Sequence[TreeGeneration]) -> dict[str, str | None]:
    """The SHA-256 of all that the prompts of a tree have shown, and what the page called its type."""
    found = [each for generation in generations for each in _media_of(generation)]
    return {
        str(each["sha256"]): kind if _TYPE.fullmatch(kind := str(each.get("content_type"))) else None for each in found
    }


def tree_for_page(name: str, generations: Sequence[TreeGeneration], media: Media) -> dict[str, Any]:
    """A project as ``page.js`` hands it to the stores of the page.

    Args:
        name: of the project.
        generations: all of them with their codes, oldest first.
        media: what the prompts have shown, as far as it is there.
    """
    is_running = any(variant.status.is_running for generation in generations for variant in generation.variants)
    generations = [each for each in generations if not _is_being_made(each)]
    variants = {variant.id: (generation, variant) for generation in generations for variant in generation.variants}
    ordered = _parents_first(generations, variants)
    head = _head(ordered)
    commits = [_commit(each, variants, media, is_last=each is ordered[-1]) for each in ordered]
    root = first_request(generations)
    return {
        "name": name,
        "inputMode": "image" if root is None else root.input_mode.value,
        "stack": head.variants[0].code_stack.value if head is not None and head.variants else None,
        "initialPrompt": "" if root is None else root.prompt or "",
        "referenceImages": [] if root is None else _shown(root, media, "images") + _shown(root, media, "videos"),
        "assets": [
            {"id": key, "type": "video" if kind.startswith("video/") else "image", "dataUrl": _data_url(kind, content)}
            for key, (kind, content) in media.items()
        ],
        "asked": {str(each.id): _asked(each, media) for each in ordered},
        "commits": commits,
        "head": None if head is None else str(head.id),
        "code": _last_code(generations),
        "isRunning": is_running,
    }


def first_request(generations: Sequence[TreeGeneration]) -> TreeGeneration | None:
    """What the page repeats where a person asks for it, if the project did not begin by imported code."""
    return next((each for each in generations if each.generation_type is RequestType.CREATE), None)


def hashes_shown(generation: TreeGeneration, media: Media) -> tuple[str, ...]:
    """The SHA-256 of each image and video of a prompt as the page gets it: metadata may have been removed."""
    contents = [media[each["sha256"]][1] for each in _media_of(generation) if each["sha256"] in media]
    return tuple(hashlib.sha256(base64.b64decode(each)).hexdigest() for each in contents)


Variants = Mapping[UUID, tuple[TreeGeneration, TreeVariant]]


def _parents_first(generations: Sequence[TreeGeneration], variants: Variants) -> list[TreeGeneration]:
    """The same, oldest first except where a child looks older than its parent."""
    ordered: dict[UUID, TreeGeneration] = {}
    for generation in generations:
        chain: dict[UUID, TreeGeneration] = {}
        wanted: TreeGeneration | None = generation
        while wanted is not None and wanted.id not in ordered and wanted.id not in chain:
            chain[wanted.id] = wanted
            wanted = _parent(wanted, variants)
        ordered |= dict(reversed(chain.items()))
    return list(ordered.values())


def _head(ordered: Sequence[TreeGeneration]) -> TreeGeneration | None:
    """Where to go on: the last one with a page, as theirs goes back from one that was cancelled or has failed."""
    for is_wanted in (_is_complete, _is_usable):
        for generation in reversed(ordered):
            if any(is_wanted(each) for each in generation.variants):
                return generation
    return ordered[-1] if ordered else None


def _is_being_made(generation: TreeGeneration) -> bool:
    """Whether a person would see nothing of it yet."""
    is_running = any(each.status.is_running for each in generation.variants)
    return is_running and not any(_is_complete(each) for each in generation.variants)


def _is_usable(variant: TreeVariant) -> bool:
    return variant.status is not GenerationStatus.FAILED and bool((variant.code or "").strip())


def _is_complete(variant: TreeVariant) -> bool:
    return variant.status is GenerationStatus.COMPLETED and _is_usable(variant)


def _parent(generation: TreeGeneration, variants: Variants) -> TreeGeneration | None:
    parent_id = generation.variants[0].parent_id if generation.variants else None
    found = None if parent_id is None else variants.get(parent_id)
    return None if found is None else found[0]


def _commit(generation: TreeGeneration, variants: Variants, media: Media, *, is_last: bool) -> dict[str, Any]:
    parent = _parent(generation, variants)
    is_import = generation.generation_type is RequestType.IMPORT
    before = _history_before(generation, variants)
    return {
        "hash": str(generation.id),
        "parentHash": None if parent is None else str(parent.id),
        "dateCreated": generation.started_at.isoformat(),
        "isCommitted": not is_last,
        "type": "code_create" if is_import else "ai_create" if parent is None else "ai_edit",
        "inputs": None
        if is_import
        else {
            "text": generation.prompt or "",
            "images": _shown(generation, media, "images"),
            "videos": _shown(generation, media, "videos"),
            **_element_of(generation),
        },
        "selectedVariantIndex": _selected(generation),
        "variants": [
            _variant(generation, each, [] if is_import else [*before, str(generation.id)])
            for each in generation.variants
        ],
    }


def _selected(generation: TreeGeneration) -> int:
    """The place of the selected variant; of another one where that has nothing to show."""
    variants = generation.variants
    selected = min(generation.selected_variant, max(0, len(variants) - 1))
    others = [place for place, each in enumerate(variants) if _is_complete(each)]
    others = others or [place for place, each in enumerate(variants) if _is_usable(each)]
    return others[0] if others and not _is_usable(variants[selected]) else selected


def _variant(generation: TreeGeneration, variant: TreeVariant, before: list[str]) -> dict[str, Any]:
    code = variant.code or ""
    is_import = generation.generation_type is RequestType.IMPORT
    answered = [] if is_import or not code.strip() else [str(variant.id)]
    shown: dict[str, Any] = {
        "id": str(variant.id),
        "code": code,
        "history": [*before, *answered],
        "status": _STATUSES.get(variant.status, _STILL_RUNNING),
        "agentEvents": [],
        **_times(generation, variant),
    }
    if variant.status is GenerationStatus.FAILED:
        shown["errorMessage"] = variant.error_message or "It failed."
    if variant.model != "unknown":
        shown["model"] = variant.model
    return shown


def _times(generation: TreeGeneration, variant: TreeVariant) -> dict[str, int]:
    """When it began and ended, in milliseconds since 1970, as far as that is known."""
    began = round(generation.started_at.timestamp() * 1000)
    seconds = variant.generation_time_seconds
    ended = {} if seconds is None else {"completedAt": began + round(seconds * 1000)}
    return {"requestStartedAt": began, **ended}


def _history_before(generation: TreeGeneration, variants: Variants) -> list[str]:
    """The turns from the root to the variant that a generation was made from: generations ask, variants answer."""
    turns: list[str] = []
    seen: set[UUID] = set()
    parent_id = generation.variants[0].parent_id if generation.variants else None
    while parent_id is not None and parent_id in variants and parent_id not in seen:
        seen.add(parent_id)
        former, variant = variants[parent_id]
        if former.generation_type is not RequestType.IMPORT:
            turns += [str(variant.id), str(former.id)]
        parent_id = variant.parent_id
    return turns[::-1]


def _element_of(generation: TreeGeneration) -> dict[str, str]:
    element = generation.inputs.get("selected_element")
    return {"selectedElementHtml": element} if isinstance(element, str) else {}


def _asked(generation: TreeGeneration, media: Media) -> dict[str, Any]:
    text = generation.prompt or ""
    for element in _element_of(generation).values():
        text = f"{text} referring to this element specifically: {element}"
    images, videos = (_shown(generation, media, name) for name in ("images", "videos"))
    return {"role": "user", "text": text, "imageAssetIds": images, "videoAssetIds": videos}


def _media_of(generation: TreeGeneration, name: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for each in (name,) if name else ("images", "videos"):
        listed = generation.inputs.get(each)
        if isinstance(listed, list):
            found += [item for item in listed if isinstance(item, dict) and isinstance(item.get("sha256"), str)]
    return found


def _shown(generation: TreeGeneration, media: Media, name: str) -> list[str]:
    """The ids of the assets that a prompt has shown."""
    return [str(each["sha256"]) for each in _media_of(generation, name) if each["sha256"] in media]


def _data_url(content_type: str, content: str) -> str:
    return f"data:{content_type};base64,{content}"


def encoded_media(content: bytes) -> str:
    """Bytes as they stand in ``Media``."""
    return base64.b64encode(content).decode()


def _last_code(generations: Sequence[TreeGeneration]) -> str:
    """What is left where only their import works."""
    for generation in reversed(generations):
        for variant in sorted(generation.variants, key=lambda each: each.variant_index != generation.selected_variant):
            if variant.code and variant.status is GenerationStatus.COMPLETED:
                return variant.code
    return ""
