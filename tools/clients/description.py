"""docs/reference/openapi.json: what the service says of itself, without examples."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from clients.compatibility import breaks, may_break
from data_layer import DataLayer, Settings
from data_layer.server.faces import whole_application

PROJECT = Path(__file__).parents[2]
TARGET = PROJECT / "docs" / "reference" / "openapi.json"
_EXAMPLES = ("example", "examples")


def described(app: FastAPI) -> dict[str, Any]:
    """The description that is committed. Examples are for people: without them each change of it is one of the API."""
    description = json.loads(json.dumps(app.openapi()))
    for each in _requests_and_answers(description):
        for body in each.get("content", {}).values():
            for name in _EXAMPLES:
                body.pop(name, None)
    return dict(description)


def _requests_and_answers(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in description["paths"].values():
        for operation in operations.values():
            yield operation.get("requestBody", {})
            yield from operation["responses"].values()
    yield from description["components"]["responses"].values()


def render(description: dict[str, Any]) -> str:
    """As it is written."""
    return json.dumps(description, indent=1, ensure_ascii=False) + "\n"


def committed() -> dict[str, Any]:
    """What was written last."""
    return dict(json.loads(TARGET.read_text(encoding="utf-8")))


def last_release() -> str | None:
    """The version that the changelog names last, if any was released."""
    found = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    return None if found is None else found[1]


async def describe_service() -> dict[str, Any]:
    """Describe the service with its defaults, with servers of its own that nothing else uses."""
    for name in (*Settings.fields(), "node_env"):
        os.environ.pop(name.upper(), None)
    with tempfile.TemporaryDirectory(prefix="dl-") as folder:
        with contextlib.chdir(folder):  # Away from the .env of the developer.
            settings = Settings(data_folder=Path(folder) / "data", log_level="error")
        async with DataLayer(settings) as data:
            return described(whole_application(data))


def write(description: dict[str, Any]) -> None:
    """Write it, and print which changes break clients.

    Raises:
        SystemExit: a change breaks clients, and the version does not allow that.
    """
    if TARGET.exists():
        found = breaks(committed(), description)
        for change in found:
            print(f"breaks clients: {change}")
        if found and not may_break(description["info"]["version"], last_release()):
            sys.exit("that needs a higher version in src/data_layer/__init__.py; nothing was written")
    TARGET.write_text(render(description), encoding="utf-8")
    print(f"Wrote {TARGET}")
