"""Examples for the description of the API (OpenAPI), made from its schemas and from values that look like ours.

Whatever a route does not show by itself gets one: each request body and each answer. They are valid by their schemas.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from data_layer.web.errors import PROBLEM, code_of, title_of

Schema = dict[str, Any]

_MANY = 8
"""How deep objects are shown in each other."""

_UUID = "019b1c2e-7f10-7cc3-98c4-dc0c0c07398f"
_TIME = "2026-01-31T09:30:00Z"
_PAGE = "<!doctype html>\n<title>Shop</title>\n<h1>Shop</h1>\n"
_OF_FORMAT = {
    "uuid": _UUID,
    "date-time": _TIME,
    "date": "2026-01-31",
    "password": "correct-horse-battery-staple",
    "uri": "https://example.com/",
    "ipvanyaddress": "203.0.113.9",
}
_NAMED: dict[str, Any] = {
    "access_token": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
    "amount": "0.0125",
    "code": _PAGE,
    "content": "Buttons are round. The colour of links is #0b5fff.",
    "content_type": "image/png",
    "currency": "USD",
    "email": "ada@example.com",
    "expires_in": 604800,
    "external_key": "request-42",
    "file_name": "shop.png",
    "first_name": "Ada",
    "key": "request-42",
    "kind": "thinking",
    "last_name": "Lovelace",
    "message": "Input should be greater than or equal to 1",
    "model": "claude-sonnet-4-5",
    "monthly_limit": "25.00",
    "name": "Shop",
    "prompt": "Make the buttons round",
    "sequence": 42,
    "stars": 4,
    "tags": ["landing"],
    "text": "<h1>Shop</h1>",
    "unified": "--- version 1.0\n+++ version 2.0\n@@ -1,1 +1,1 @@\n-<h1>Shop</h1>\n+<h1>Store</h1>\n",
    "url": "https://example.com/s/lcGgUt5BcQ3oXb1F9kq0Zt0vW0eZ4cYxj2nC8mA7sDE",
    "words": "Just as I wanted it.",
    "recovery_code": "mfrg-g2lt-nzsw-y3lp",
    "writer_token": f"{_UUID.replace('-', '')}.lcGgUt5BcQ3oXb1F9kq0Zt0vW0eZ4cYxj2nC8mA7sDE",
}
_OF_TYPE: dict[str, Any] = {
    "application/x-ndjson": '{"seen":1200}\n',
    "text/csv": "day,provider,input_tokens\r\n2026-01-31,anthropic,1200\r\n",
    "text/event-stream": "id: 7\nevent: patch\ndata: "
    '{"variant":0,"start":12,"end":0,"text":"<h1>Shop</h1>","position":"7"}\n\n',
    "text/html": _PAGE,
    "text/plain": _PAGE,
    "text/x-diff": _NAMED["unified"],
}
_PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("bad_request", "There was an error parsing the body"),
    401: ("session_invalid", "log in first: send the token as Authorization: Bearer …"),
    403: ("permission_denied", "the acting account is not active"),
    404: ("not_found", f"no project has the id {_UUID}"),
    409: ("conflict", "the project is archived: unarchive it first"),
    412: ("changed_meanwhile", "the project has revision 4 now; read it again, then decide which values to keep"),
    413: ("content_too_large", "the body may have 65536 bytes at most"),
    415: ("unsupported_media_type", "Content-Encoding may be gzip or zstd"),
    422: ("request_invalid", "limit: Input should be less than or equal to 1000"),
    428: ("precondition_required", "send If-Match with the ETag of what you have read"),
    429: ("too_many_requests", "too many requests; try again in 30 seconds"),
    504: ("deadline_exceeded", "the request was cancelled after 60 s; what it was to change may have happened: look"),
    503: ("database_unavailable", "this is not available at the moment; try again in a few seconds"),
}


def add_examples(description: Schema) -> None:
    """Give each body of the description an example, where it has none."""
    schemas = description.get("components", {}).get("schemas", {})
    for operations in description["paths"].values():
        for operation in operations.values():
            bodies = operation.get("requestBody", {}).get("content", {})
            for body in bodies.values():
                _add(body, _Examples(schemas, is_request=True).of(body.get("schema", {})))
            for status, answer in operation["responses"].items():
                for media_type, body in answer.get("content", {}).items():
                    _add(body, _answer(int(status), media_type, body.get("schema", {}), schemas))


def _add(body: Schema, example: Any) -> None:
    if not {"example", "examples"} & body.keys() and example is not None:
        body["example"] = example


def _answer(status: int, media_type: str, schema: Schema, schemas: Schema) -> Any:
    if media_type == PROBLEM:
        return _problem(status)
    if media_type in _OF_TYPE:
        return _OF_TYPE[media_type]
    return _Examples(schemas, is_request=False).of(schema)


def _problem(status: int) -> Schema:
    title = title_of(status)
    code, detail = _PROBLEMS.get(status, (code_of(status), title))
    problem: Schema = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": _UUID.replace("-", ""),
        "fields": [],
    }
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        field, _, message = detail.partition(": ")
        problem["fields"] = [{"field": field, "message": message}]
    if status == HTTPStatus.PRECONDITION_FAILED:
        problem["current"] = {"name": "Store", "revision": 4, "updated_at": _TIME}
    return problem


class _Examples:
    """Makes values that schemas describe; None where a schema allows that and nothing better is known.

    Args:
        schemas: those that others refer to.
        is_request: whether what may be left out is left out: in a request null often means to remove a value.
    """

    def __init__(self, schemas: Schema, *, is_request: bool) -> None:
        self._schemas = schemas
        self._is_request = is_request

    def of(self, schema: Schema, name: str = "", depth: int = 0) -> Any:
        """A value; ``name`` is that of the field, and ``depth`` how many objects are around it."""
        schema = self._resolved(schema)
        if (shown := _shown(schema)) is not None:
            return shown
        choices = [self._resolved(each) for each in schema.get("anyOf") or schema.get("oneOf") or [schema]]
        named = _NAMED.get(name)
        if named is not None and any(choice.get("type") == _kind_of(named) for choice in choices):
            return named
        if schema.get("default") is not None:
            return schema["default"]
        if len(choices) == 1:
            return self._plain(choices[0], name, depth)
        is_optional = any(choice.get("type") == "null" for choice in choices)
        return None if is_optional else self.of(choices[0], name, depth)

    def _plain(self, schema: Schema, name: str, depth: int) -> Any:
        match schema.get("type"):
            case "object":
                return dict(self._fields(schema, depth)) if depth < _MANY else {}
            case "array" if "prefixItems" in schema:
                return [self.of(each, name, depth + 1) for each in schema["prefixItems"]]
            case "array":
                item = self.of(schema.get("items", {}), name, depth + 1)
                return [] if item is None or depth >= _MANY else [item]
            case "string":
                return _OF_FORMAT.get(schema.get("format", ""), "0.0125" if "pattern" in schema else "text")
            case "integer" | "number":
                return schema.get("minimum", schema.get("exclusiveMinimum", 0)) or 1
            case "boolean":
                return False
            case _:
                return None

    def _fields(self, schema: Schema, depth: int) -> Iterator[tuple[str, Any]]:
        required = schema.get("required", ())
        for name, field in schema.get("properties", {}).items():
            value = self.of(field, name, depth + 1)
            if value is not None or name in required or not self._is_request:
                yield name, value

    def _resolved(self, schema: Schema) -> Schema:
        """The schema behind a reference; what stands beside the reference wins."""
        while "$ref" in schema:
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = self._schemas[schema["$ref"].rpartition("/")[2]] | beside
        return schema


def _shown(schema: Schema) -> Any:
    """What a schema shows by itself."""
    if "const" in schema:
        return schema["const"]
    return next((schema[key][0] for key in ("examples", "enum") if schema.get(key)), schema.get("example"))


def _kind_of(value: Any) -> str:
    return {str: "string", int: "integer", list: "array", dict: "object"}[type(value)]
