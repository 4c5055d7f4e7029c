"""The description of the API: each route says what it takes and answers, with examples that are true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import jsonschema  # type: ignore[import-untyped]
from clients.schemas import Schema, resolved

from data_layer.web.errors import PROBLEM, title_of
from tests.api.test_projects import owner, people

__all__ = ["owner", "people"]

WITHOUT_BODY = {"201", "204", "206", "303", "304", "307", "416"}
OF_THE_FRAMEWORK = {"bad_request", "request_invalid"}


class Operation(NamedTuple):
    name: str
    description: dict[str, Any]
    answers: dict[str, Schema]

    @property
    def bodies(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Where a body stands, its media type, and what is said of it."""
        for media_type, body in self.description.get("requestBody", {}).get("content", {}).items():
            yield "request", media_type, body
        for status, answer in self.answers.items():
            for media_type, body in answer.get("content", {}).items():
                yield status, media_type, body


def shown(body: dict[str, Any]) -> Any:
    """The example of a body."""
    return body["example"] if "example" in body else next(iter(body["examples"].values()))["value"]


def operations(description: dict[str, Any]) -> list[Operation]:
    return [
        Operation(
            f"{method.upper()} {path}",
            operation,
            {status: resolved(description, answer) for status, answer in operation["responses"].items()},
        )
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


def test_each_route_is_described(description: dict[str, Any]) -> None:
    """With a summary, examples that are valid, and every failure in the shape in which it comes."""
    names = set()
    for operation in operations(description):
        route = operation.description
        assert route["summary"], operation.name
        names.add(route["summary"])
        for place, media_type, body in operation.bodies:
            where = f"{operation.name}, {place}, {media_type}"
            assert "example" in body or "examples" in body, where
            assert media_type != "application/json" or body["schema"], where
            schema = body.get("schema", {}) | {"components": description["components"]}
            example = shown(body)
            jsonschema.validate(example, schema, jsonschema.Draft202012Validator)
            if media_type == PROBLEM:
                assert example["status"] == int(place), where
        for status, answer in operation.answers.items():
            assert answer["description"], (operation.name, status)
            has_body = bool(answer.get("content"))
            is_file = " /v1/files/" in operation.name or " /a/" in operation.name
            assert has_body or status in WITHOUT_BODY or is_file, (operation.name, status)
            if int(status) >= 400 and has_body and not operation.name.endswith(("/readyz", "/health")):
                assert PROBLEM in answer["content"], (operation.name, status)
    assert len(names) == len(operations(description)), "two routes have one summary"


def test_each_failure_that_may_come_is_described(description: dict[str, Any]) -> None:
    for operation in operations(description):
        method, path = operation.name.split()
        if not path.startswith("/v1/") or path.startswith("/v1/files/"):
            continue
        expected = {"503"}
        if {"Bearer": []} in operation.description.get("security", ()):
            expected |= {"401", "403"}
        if operation.description.get("parameters"):
            expected |= {"422"}
        if re.search(r"\{\w+_id\}", path):
            expected |= {"404"}
        if method in {"POST", "PUT", "PATCH"}:
            expected |= {"400", "413", "422"}
        assert expected <= operation.description["responses"].keys(), operation.name


def test_failures_are_described_once(description: dict[str, Any]) -> None:
    """In the components; an operation describes only those about which it says more than the status does."""
    shared = description["components"]["responses"]
    for operation in operations(description):
        for status, answer in operation.description["responses"].items():
            is_shared = "$ref" in answer
            says_more = "description" in answer and answer["description"] != title_of(int(status))
            is_probe = operation.name.endswith(("/readyz", "/health"))
            assert is_shared or status < "400" or says_more or is_probe, (operation.name, status)
    assert len({json.dumps(answer, sort_keys=True) for answer in shared.values()}) == len(shared)
    assert {"NotFound", "Conflict", "ConflictRetryAfter"} <= shared.keys()


async def test_examples_of_bodies_are_taken(description: dict[str, Any], owner: httpx.AsyncClient) -> None:
    """None is refused for its form; what it names does not exist, and so on."""
    tried = 0
    for operation in operations(description):
        method, path = operation.name.split()
        body = operation.description.get("requestBody", {}).get("content", {}).get("application/json")
        if body is None or path.startswith("/v1/accounts/me"):
            continue
        headers = {"if-match": '"r1"', "writer-token": "x", "idempotency-key": str(uuid4())}
        answer = await owner.request(
            method,
            re.sub(r"\{(\w+)\}", lambda name: "1" if name[1] == "index" else str(uuid4()), path),
            json=shown(body),
            headers=headers,
        )
        tried += 1
        if not answer.is_success and answer.json()["code"] in OF_THE_FRAMEWORK:
            # Other parameters than those that are sent here may be needed.
            refused = {each["field"] for each in answer.json()["fields"]}
            assert refused, (operation.name, answer.text)
            assert refused <= {each["name"] for each in operation.description["parameters"]}, (operation.name, refused)
    assert tried >= 15


async def test_a_body_that_cannot_be_read_is_a_described_failure(owner: httpx.AsyncClient) -> None:
    for content in (b"\xff", b"{", b"", b"[1", b'"\\ud800', b"nul"):
        answer = await owner.post("/v1/projects", content=content, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 422}, content
        assert answer.headers["content-type"] == PROBLEM


def test_no_body_takes_what_the_route_does_not_know(description: dict[str, Any]) -> None:
    """Else a tool takes such a body for valid, and is refused."""
    schemas = description["components"]["schemas"]
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for body in operation.get("requestBody", {}).get("content", {}).values():
                schema = body.get("schema", {})
                schema = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
                assert schema.get("type") != "object" or schema.get("additionalProperties") is False, path


def test_a_form_needs_its_values_where_some_have_no_default(description: dict[str, Any]) -> None:
    needed = {}
    for path, operations in description["paths"].items():
        body = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("multipart/form-data")
        if body is not None:
            form = body["schema"]
            needed[path] = "data" in form["required"]
            assert needed[path] is bool(form["properties"]["data"].get("required")), path
    assert set(needed.values()) == {True, False}
