"""Failures in the description of the API (OpenAPI): each is described once, and operations refer to it.

A hundred operations fail in the same two dozen ways; described in each of them, that is more than half of the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_layer.web.errors import PROBLEM, title_of

_FIRST = "400"

Description = dict[str, Any]


def share_failures(description: Description) -> None:
    """Move what operations have in common into ``components``; call it when all answers are complete.

    A failure gets the name of its status, such as ``NotFound``, followed by the headers that only some answers with
    this status have: ``ConflictRetryAfter``. A route that describes a failure in words of its own keeps them.
    """
    common = _common_headers(description)
    shared: Description = {}
    for responses, status in _usual(description):
        name = _name(status, responses[status], common[status])
        shared[name] = responses[status]
        responses[status] = {"$ref": f"#/components/responses/{name}"}
    description["components"]["responses"] = dict(sorted(shared.items()))


def _usual(description: Description) -> Iterator[tuple[Description, str]]:
    """Each failure that says no more than its status does: the answers of an operation, and the status in them."""
    for operations in description["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            for status, answer in responses.items():
                if status >= _FIRST and answer["description"] == title_of(int(status)) and PROBLEM in answer["content"]:
                    yield responses, status


def _common_headers(description: Description) -> dict[str, set[str]]:
    """The headers that all usual answers with a status have."""
    common: dict[str, set[str]] = {}
    for responses, status in _usual(description):
        headers = set(responses[status].get("headers", ()))
        common[status] = common.get(status, headers) & headers
    return common


def _name(status: str, answer: Description, common: set[str]) -> str:
    words = [title_of(int(status)), *sorted(answer.get("headers", {}).keys() - common)]
    return "".join(words).replace(" ", "").replace("-", "")
