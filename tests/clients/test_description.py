"""docs/reference/openapi.json is what the service says of itself, and a change of it that breaks clients is seen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from clients.compatibility import breaks, may_break
from clients.description import TARGET, committed, described, last_release, render

from data_layer import DataLayer
from data_layer.server.faces import whole_application

Document = dict[str, Any]
Change = Callable[[Document], object]

SHOP: Document = {
    "info": {"version": "0.1.0"},
    "paths": {
        "/shops": {
            "get": {
                "operationId": "list_shops",
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
                    {"name": "kind", "in": "query", "schema": {"type": "string", "enum": ["old", "new"]}},
                ],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Shop"}}}},
                    "404": {},
                },
            },
            "post": {
                "operationId": "open_shop",
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/NewShop"}},
                        "text/csv": {},
                    }
                },
                "responses": {"201": {}},
            },
        },
        "/shops/{id}": {"delete": {"operationId": "close_shop", "responses": {"204": {}}}},
    },
    "components": {
        "schemas": {
            "Shop": {
                "type": "object",
                "required": ["id", "kind"],
                "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "kind": {"type": "string", "enum": ["old", "new"]},
                    "owner": {"anyOf": [{"$ref": "#/components/schemas/Owner"}, {"type": "null"}]},
                    "size": {"type": "number"},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Shop"}},
                },
            },
            "Owner": {"type": "object", "properties": {"name": {"type": "string"}}},
            "NewShop": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
            },
        }
    },
}


def listing(document: Document) -> Document:
    found: Document = document["paths"]["/shops"]["get"]
    return found


def opening(document: Document) -> Document:
    found: Document = document["paths"]["/shops"]["post"]
    return found


def answer(document: Document) -> Document:
    found: Document = document["components"]["schemas"]["Shop"]
    return found


def body(document: Document) -> Document:
    found: Document = document["components"]["schemas"]["NewShop"]
    return found


BREAKING: dict[str, tuple[Change, str]] = {
    "a path is removed": (lambda d: d["paths"].pop("/shops/{id}"), "DELETE /shops/{id}: removed"),
    "a method is removed": (lambda d: d["paths"]["/shops"].pop("post"), "POST /shops: removed"),
    "an operation is renamed": (lambda d: listing(d).update(operationId="shops"), "operationId"),
    "a login is needed": (lambda d: listing(d).update(security=[{"Bearer": []}]), "needs a login"),
    "a parameter is removed": (lambda d: listing(d)["parameters"].pop(), "parameter kind: removed"),
    "a parameter is required": (lambda d: listing(d)["parameters"][0].update(required=True), "limit: required now"),
    "a new parameter is required": (
        lambda d: listing(d)["parameters"].append({"name": "q", "in": "query", "required": True, "schema": {}}),
        "parameter q: new and required",
    ),
    "a limit of a parameter is lower": (
        lambda d: listing(d)["parameters"][0]["schema"].update(maximum=50),
        "parameter limit: maximum 50, was 100",
    ),
    "a value of a parameter is gone": (
        lambda d: listing(d)["parameters"][1]["schema"].update(enum=["new"]),
        "parameter kind: takes old no more",
    ),
    "a body is needed": (lambda d: opening(d)["requestBody"].update(required=True), "needs a body now"),
    "no body is taken": (lambda d: opening(d).pop("requestBody"), "takes no body"),
    "a media type of a body is gone": (lambda d: opening(d)["requestBody"]["content"].pop("text/csv"), "no text/csv"),
    "a field of a body is gone": (lambda d: body(d)["properties"].pop("size"), "body.size: removed"),
    "a field of a body is required": (lambda d: body(d)["required"].append("size"), "body.size: required now"),
    "a new field of a body is required": (
        lambda d: (body(d)["required"].append("place"), body(d)["properties"].update(place={"type": "string"})),
        "body.place: required now",
    ),
    "a field of a body has a pattern": (
        lambda d: body(d)["properties"]["name"].update(pattern="^[a-z]+$"),
        "body.name: must fit",
    ),
    "a field of a body has a format": (
        lambda d: body(d)["properties"]["name"].update(format="email"),
        "body.name: only email now",
    ),
    "a field of a body has a longer minimum": (
        lambda d: body(d)["properties"]["name"].update(minLength=3),
        "body.name: minLength 3, was 1",
    ),
    "a field of a body may not be null": (
        lambda d: body(d)["properties"].update(size={"type": "integer"}),
        "body.size: takes no null any more",
    ),
    "a field of a body has another type": (
        lambda d: body(d)["properties"].update(name={"type": "integer"}),
        "body.name: takes no string any more, but integer",
    ),
    "values of a map have another type": (
        lambda d: body(d)["properties"]["labels"].update(additionalProperties={"type": "integer"}),
        "body.labels.*: takes no string any more, but integer",
    ),
    "items of a body have another type": (
        lambda d: body(d)["properties"]["tags"].update(items={"type": "integer"}),
        "body.tags[]: takes no string any more, but integer",
    ),
    "an answer is gone": (lambda d: opening(d).update(responses={}), "answer 201: removed"),
    "there is another success": (lambda d: opening(d)["responses"].update({"202": {}}), "answer 202: new"),
    "a media type of an answer is gone": (
        lambda d: listing(d)["responses"]["200"].update(content={"text/csv": {}}),
        "answer 200: application/json removed",
    ),
    "a field of an answer is gone": (lambda d: answer(d)["properties"].pop("size"), "answer 200.size: removed"),
    "a nested field of an answer is gone": (
        lambda d: d["components"]["schemas"]["Owner"].update(properties={}),
        "answer 200.owner.name: removed",
    ),
    "a field of an answer may be missing": (
        lambda d: answer(d)["required"].remove("kind"),
        "answer 200.kind: may be missing now",
    ),
    "a field of an answer may be null": (
        lambda d: answer(d)["properties"].update(size={"anyOf": [{"type": "number"}, {"type": "null"}]}),
        "answer 200.size: can be null now",
    ),
    "a field of an answer has another type": (
        lambda d: answer(d)["properties"].update(size={"type": "string"}),
        "answer 200.size: can be string now, was number",
    ),
    "a field of an answer has no format": (
        lambda d: answer(d)["properties"].update(id={"type": "string"}),
        "answer 200.id: no uuid any more",
    ),
}

HARMLESS: dict[str, Change] = {
    "nothing": lambda d: d,
    "a new path": lambda d: d["paths"].update({"/streets": {"get": {"operationId": "s", "responses": {}}}}),
    "a new parameter": lambda d: listing(d)["parameters"].append({"name": "q", "in": "query", "schema": {}}),
    "a parameter takes more": lambda d: listing(d)["parameters"][0]["schema"].update(maximum=1000),
    "a parameter has no limit": lambda d: listing(d)["parameters"][0]["schema"].pop("maximum"),
    "a parameter takes one more value": lambda d: listing(d)["parameters"][1]["schema"]["enum"].append("odd"),
    "a new field of a body": lambda d: body(d)["properties"].update(place={"type": "string"}),
    "a field of a body is not required": lambda d: body(d).update(required=[]),
    "a field of a body takes numbers": lambda d: body(d)["properties"].update(
        size={"anyOf": [{"type": "null"}, {"type": "number"}]}
    ),
    "a new field of an answer": lambda d: answer(d)["properties"].update(place={"type": "string"}),
    "a field of an answer is always there": lambda d: answer(d)["required"].append("size"),
    "a field of an answer has one more value": lambda d: answer(d)["properties"]["kind"]["enum"].append("odd"),
    "a field of an answer has whole numbers": lambda d: answer(d)["properties"].update(size={"type": "integer"}),
    "a field of an answer is never null": lambda d: answer(d)["properties"].update(
        owner={"$ref": "#/components/schemas/Owner"}
    ),
    "one more media type": lambda d: listing(d)["responses"]["200"]["content"].update({"text/csv": {}}),
    "one more failure": lambda d: listing(d)["responses"].update({"410": {}}),
    "one failure less": lambda d: listing(d)["responses"].pop("404"),
    "other words": lambda d: listing(d).update(summary="Look at the shops"),
}


@pytest.mark.parametrize("change", BREAKING)
def test_what_breaks_clients_is_said(change: str) -> None:
    document = copy.deepcopy(SHOP)
    apply, expected = BREAKING[change]
    apply(document)
    found = breaks(SHOP, document)
    assert any(expected in each for each in found), found
    assert len(found) == 1, found


@pytest.mark.parametrize("change", HARMLESS)
def test_what_breaks_nobody_is_let_pass(change: str) -> None:
    document = copy.deepcopy(SHOP)
    HARMLESS[change](document)
    assert breaks(SHOP, document) == []


@pytest.mark.parametrize(
    ("version", "released", "expected"),
    [
        ("0.1.0", None, True),
        ("0.1.1", "0.1.0", False),
        ("0.2.0", "0.1.9", True),
        ("1.0.0", "0.9.0", True),
        ("1.3.0", "1.2.0", False),
        ("2.0.0", "1.2.0", True),
    ],
)
def test_only_a_new_version_may_break_clients(version: str, released: str | None, expected: bool) -> None:  # noqa: FBT001
    assert may_break(version, released) is expected


def test_the_committed_description_is_that_of_the_service(data: DataLayer) -> None:
    today = described(whole_application(data))
    before = committed()
    found = breaks(before, today)
    assert not found or may_break(today["info"]["version"], last_release()), "\n".join(found)
    said = "\n".join(f"breaks clients: {each}" for each in found)
    assert before == today, f"run `make clients` and commit what it writes\n{said}"
    assert TARGET.read_text(encoding="utf-8") == render(today)
