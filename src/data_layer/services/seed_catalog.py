"""The example data, as ``seed_data/catalog.json`` describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from difflib import SequenceMatcher
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import groupby
from typing import Any

from data_layer.schemas.generations import VariantEvent

_WRITTEN_FROM, _WRITTEN_UNTIL = 0.1, 0.95
"""The part of its time in which a model writes; before that it thinks."""
_PART = "<!-- How it looks where the libraries cannot be loaded -->"
_PART_END = "<!-- / -->\n"
_BODY_END = "</body>"
_STATES = 60
_EDITS = 6
_MILLION = 1_000_000


@cache
def catalog() -> dict[str, Any]:
    """The whole story, as the file describes it."""
    catalog: dict[str, Any] = json.loads(file_of("catalog.json").read_text(encoding="utf-8"))
    return catalog


def file_of(path: str) -> Traversable:
    """A file of the example data, also from inside a zip."""
    return resources.files("data_layer").joinpath("seed_data", *path.split("/"))


def code_of(entry: dict[str, Any]) -> str:
    """The code of a variant; some have the page of another one in other colours, or only its beginning."""
    if not entry.get("file"):
        return ""
    code = file_of(entry["file"]).read_text(encoding="utf-8")
    for old, new in entry.get("replaced", {}).items():
        code = code.replace(old, new)
    return code[: entry.get("characters", len(code))]


def story_of(entry: dict[str, Any], base: str) -> Iterator[tuple[float, str | VariantEvent]]:
    """What a model sends while it makes a variant: its code so far, or an event, each after a share of its time.

    Args:
        entry: the variant.
        base: the code that it changes; nothing for a page that is new.
    """
    yield 0.0, VariantEvent("thinking", {"value": entry["thoughts"]})
    code = code_of(entry)
    if not code:
        return
    is_change = bool(base) and "characters" not in entry
    yield from _changing(base, code) if is_change else _writing(code)
    yield _WRITTEN_UNTIL, VariantEvent("assistant", {"value": f"{entry.get('name') or 'The page'}: here is the code."})


def _writing(code: str) -> Iterator[tuple[float, str | VariantEvent]]:
    yield _WRITTEN_FROM, _tool("toolStart", "create_file", input={"path": "index.html"})
    step = max(1, -(-len(code) // _STATES))
    for end in range(step, len(code) + step, step):
        yield _moment(min(end, len(code)) / len(code)), code[:end]
    yield _WRITTEN_UNTIL, _tool("toolResult", "create_file", output={"path": "index.html"}, ok=True)


def _changing(old: str, new: str) -> Iterator[tuple[float, str | VariantEvent]]:
    """A few edits, from the beginning of the page to its end."""
    old, _ = _split(old)
    new, part = _split(new)
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    changed = [each for each in SequenceMatcher(None, before, after).get_opcodes() if each[0] != "equal"]
    step = max(1, -(-len(changed) // _EDITS))
    changes = [changed[place : place + step] for place in range(0, len(changed), step)]
    for number, together in enumerate(changes, 1):
        (_, start, _, new_start, _), (_, _, end, _, new_end) = together[0], together[-1]
        edited = {"old_text": "".join(before[start:end]), "new_text": "".join(after[new_start:new_end])}
        yield _moment((number - 1) / len(changes)), _tool("toolStart", "edit_file", input=edited)
        yield _moment(number / len(changes)), _joined("".join(after[:new_end] + before[end:]), part)
        yield _moment(number / len(changes)), _tool("toolResult", "edit_file", output={"path": "index.html"}, ok=True)


def _split(page: str) -> tuple[str, str]:
    """A page, and the part that it ends with where its libraries cannot be loaded, which is the work of no model."""
    before, begin, rest = page.partition(_PART)
    part, end, after = rest.partition(_PART_END)
    return (before + after, begin + part + end) if end else (page, "")


def _joined(page: str, part: str) -> str:
    before, body, after = page.rpartition(_BODY_END)
    return before + part + body + after


def _moment(share: float) -> float:
    return _WRITTEN_FROM + (_WRITTEN_UNTIL - _WRITTEN_FROM) * share


def _tool(kind: str, name: str, **said: object) -> VariantEvent:
    return VariantEvent(kind, {"data": {"name": name, **said}})


def generations_of(project: dict[str, Any]) -> list[tuple[int, list[dict[str, Any]]]]:
    """The generations of a project by their number, each with its variants."""
    grouped = groupby(project["codes"], key=lambda code: code["generation"])
    return [(number, list(variants)) for number, variants in grouped]


def cost_of(entry: dict[str, Any]) -> Decimal:
    """What a variant has cost, by the price of a million tokens of its model."""
    prices = catalog()["prices"][entry["model"]]
    tokens = entry.get("prompt_tokens") or 0, entry.get("completion_tokens") or 0
    return sum((Decimal(price) * count for price, count in zip(prices, tokens, strict=True)), Decimal(0)) / _MILLION
