"""Whether the headers of an answer are those that docs/reference/openapi.json describes.

The clients of these tests look at each answer that they get (``CHECKS``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from clients.schemas import Schema, resolved

DESCRIPTION = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
_PARAMETER = re.compile(r"\{(\w+)\}")


class _Described(NamedTuple):
    """The operations of a path, by their methods."""

    path: re.Pattern[str]
    operations: dict[str, Any]


@cache
def _description() -> dict[str, Any]:
    return dict(json.loads(DESCRIPTION.read_text(encoding="utf-8")))


@cache
def _paths() -> tuple[_Described, ...]:
    """All paths, those that are spelled out first."""
    found = sorted(_description()["paths"].items(), key=lambda each: each[0].count("{"))
    # The key of a file has slashes in it.
    patterns = (_PARAMETER.sub(lambda name: ".+" if name[1] == "key" else "[^/]+", path) for path, _ in found)
    return tuple(_Described(re.compile(pattern), found[number][1]) for number, pattern in enumerate(patterns))


def _answer_of(method: str, path: str, status: int) -> Schema | None:
    """What is said of an answer; None where nothing is, such as of a wrong method."""
    operations = next((each.operations for each in _paths() if each.path.fullmatch(path)), {})
    operation = operations.get("get" if method == "HEAD" else method.lower(), {})
    answer = operation.get("responses", {}).get(str(status))
    return None if answer is None else resolved(_description(), answer)


def undescribed(method: str, path: str, status: int, headers: Collection[str]) -> Iterator[str]:
    """What the description does not say of the headers of an answer, or says wrongly."""
    answer = _answer_of(method, path, status)
    if answer is None:
        return
    described = {name.lower(): resolved(_description(), header) for name, header in answer.get("headers", {}).items()}
    known = {name.removeprefix("Required").lower() for name in _description()["components"]["headers"]}
    sent = {name.lower() for name in headers}
    yield from (f"{name} is sent and not described" for name in sent & known - described.keys())
    required = {name for name, header in described.items() if header.get("required")}
    yield from (f"{name} is required and not sent" for name in required - sent)


async def _check(answer: httpx.Response) -> None:
    request = answer.request
    found = list(undescribed(request.method, request.url.path, answer.status_code, answer.headers.keys()))
    assert not found, f"{request.method} {request.url.path} -> {answer.status_code}: {found}"


CHECKS = {"response": [_check]}
"""Hooks of a client."""
