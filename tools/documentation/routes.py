"""The reference of routes, from the committed description of the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from clients.schemas import Schema, resolved

_DESCRIPTION = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
_FIRST_FAILURE = "400"


def render() -> str:
    """A part for each section of the API, and in it each route: what it takes, what it answers, how it fails."""
    description = json.loads(_DESCRIPTION.read_text(encoding="utf-8"))
    sections: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            lines = sections.setdefault(operation.get("tags", ["other"])[0], [])
            lines += _route(description, f"{method.upper()} {path}", operation)
    return "\n".join(line for name, lines in sections.items() for line in (f"## {_capitalised(name)}", "", *lines))


def _capitalised(name: str) -> str:
    return name[:1].upper() + name[1:]


def _route(description: Schema, name: str, operation: Schema) -> Iterator[str]:
    yield from (f"### `{name}`", "", f"{operation['summary']}. {_text(operation.get('description', ''))}", "")
    rows = [*_parameters(description, operation), *_body(description, operation)]
    if rows:
        yield from ("| takes | type | |", "| --- | --- | --- |", *rows, "")
    answers = [
        f"{status} {_answer(description, answer)}".strip()
        for status, answer in operation["responses"].items()
        if status < _FIRST_FAILURE
    ]
    failures = [status for status in operation["responses"] if status >= _FIRST_FAILURE]
    yield from (f"Answers {', '.join(answers)}; fails with {', '.join(failures)}.", "")


def _parameters(description: Schema, operation: Schema) -> Iterator[str]:
    for each in operation.get("parameters", ()):
        place = {"path": "in the path", "query": "in the query", "header": "a header"}[each["in"]]
        notes = [place, "" if each.get("required") or each["in"] == "path" else "may be left out"]
        yield _row(each["name"], _type(description, each["schema"]), notes, each.get("description", ""))


def _body(description: Schema, operation: Schema) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    schema = resolved(description, content.get("application/json", {}).get("schema", {}))
    required = schema.get("required", ())
    if "multipart/form-data" in content:
        yield _row("file", "file", ["in a form", "may be left out"], "")
    for field, described in schema.get("properties", {}).items():
        notes = ["in the body", "" if field in required else "may be left out"]
        yield _row(field, _type(description, described), notes, described.get("description", ""))


def _row(name: str, kind: str, notes: list[str], text: str) -> str:
    words = ", ".join(note for note in notes if note)
    return f"| `{name}` | {kind} | {words}{'. ' + _text(text) if text else ''} |"


def _answer(description: Schema, answer: Schema) -> str:
    kinds = []
    for media_type, content in answer.get("content", {}).items():
        schema = content.get("schema", {})
        name = schema.get("$ref", "").rpartition("/")[2]
        fields = resolved(description, schema).get("properties", {})
        shown = ", ".join(f"`{field}`" for field in fields)
        kinds.append(f"`{name}` ({shown})" if name else f"`{media_type}`")
    return " or ".join(kinds)


def _type(description: Schema, schema: Schema) -> str:
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(description, each) for each in choices))
    meant = resolved(description, schema)
    if "enum" in meant:
        return ", ".join(f"`{value}`" for value in meant["enum"])
    if "const" in meant:
        return f"`{meant['const']}`"
    if meant.get("type") == "array":
        return f"list of {_type(description, meant.get('items', {}))}"
    name = schema.get("$ref", "").rpartition("/")[2]
    if name:
        return f"`{name}`"
    return str(meant.get("format") or meant.get("type", "anything"))


def _text(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|").replace("<", "&lt;")
