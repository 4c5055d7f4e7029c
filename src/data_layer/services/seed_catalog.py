"""The example data, as ``seed_data/catalog.json`` describes it."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import groupby
from typing import Any

_PIECES = 4
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


def pieces_of(code: str) -> list[str]:
    """The code in pieces, as it would be streamed."""
    step = max(1, -(-len(code) // _PIECES))
    return [code[start : start + step] for start in range(0, len(code), step)]


def generations_of(project: dict[str, Any]) -> list[tuple[int, list[dict[str, Any]]]]:
    """The generations of a project by their number, each with its variants."""
    grouped = groupby(project["codes"], key=lambda code: code["generation"])
    return [(number, list(variants)) for number, variants in grouped]


def cost_of(entry: dict[str, Any]) -> Decimal:
    """What a variant has cost, by the price of a million tokens of its model."""
    prices = catalog()["prices"][entry["model"]]
    tokens = entry.get("prompt_tokens") or 0, entry.get("completion_tokens") or 0
    return sum((Decimal(price) * count for price, count in zip(prices, tokens, strict=True)), Decimal(0)) / _MILLION
