"""Hateful requests to every route that the application has: never a failure of ours, always an error of our shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count, cycle, product
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.web.authentication import COOKIE
from tests.api.described_headers import undescribed
from tests.file_content import picture
from tests.services.accounts.support import PASSWORD, make_account
from tests.support import make_user

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
Headers = tuple[tuple[bytes, bytes], ...]
_numbers = count(1)
MAXIMUM_MESSAGE = 2500
PROBLEM_FIELDS = {"type", "title", "status", "detail", "code", "request_id", "fields"}


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


@dataclass(frozen=True)
class Call:
    """A request, byte for byte: no client library stands between it and the application."""

    method: str
    path: str
    query: bytes = b""
    headers: Headers = ()
    body: bytes = b""

    def shown(self) -> str:
        return f"{self.method} {self.path[:80]!r} {self.query[:80]!r} {str(self.headers)[:200]} {self.body[:200]!r}"

    def with_headers(self, *headers: tuple[bytes, bytes]) -> Call:
        return replace(self, headers=self.headers + headers)


class Operation(NamedTuple):
    """A method of a route, and the fields of its body."""

    method: str
    path: str
    fields: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def operations_of(app: FastAPI) -> list[Operation]:
    return [
        Operation(method, route.path, fields_of(route))
        for route in app.routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
    ]


def fields_of(route: Any) -> tuple[str, ...]:
    body = getattr(route, "body_field", None)
    return tuple(body.field_info.annotation.model_fields) if body is not None else ()


async def send(app: FastAPI, call: Call) -> Answer:
    """The answer of the application; an exception that it lets through is a failure of the test."""
    answer: dict[str, Any] = {"body": b"", "headers": []}
    messages = iter([{"type": "http.request", "body": call.body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def take(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.update(status=message["status"], headers=message["headers"])
        else:
            answer["body"] += message.get("body", b"")

    # A network of its own, so that no limit of attempts answers in place of what is asked.
    peer = f"2001:db8:{next(_numbers):x}::1"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "https",
        "path": call.path,
        "raw_path": quote(call.path, errors="surrogatepass").encode(),
        "query_string": call.query,
        "root_path": "",
        "headers": [(b"host", b"service"), *call.headers],
        "client": (peer, 4711),
        "server": ("service", 443),
    }
    await app(scope, receive, take)
    return Answer(answer["status"], dict(answer["headers"]), answer["body"])


def problem_of(call: Call, answer: Answer) -> str | None:
    """What is wrong with an answer: every refusal has the documented shape and says nothing of the inside."""
    if answer.status >= 500:
        return "a failure of ours"
    if answer.status < 400 or call.method == "HEAD" or answer.status == 416:
        return None
    try:
        error = json.loads(answer.body)
    except (ValueError, KeyError, TypeError):
        return "not the shape of an error"
    if set(error) - {"current"} != PROBLEM_FIELDS or answer.headers[b"content-type"] != b"application/problem+json":
        return "not the shape of an error"
    if error["status"] != answer.status or not re.fullmatch("[a-z][a-z0-9_]*", error["code"]):
        return "not the shape of an error"
    return None if 0 < len(error["detail"]) <= MAXIMUM_MESSAGE and "Traceback" not in error["detail"] else "its message"


VALID: dict[str, Any] = {
    "password": PASSWORD,
    "current": PASSWORD,
    "new": "another horse and battery",
    "first_name": "Ann",
    "last_name": "Other",
    "display_name": "Ann Other",
    "avatar": "avatars/a.png",
    "reactivate": False,
    "next": "/projects",
    "cookie": False,
    "device_id": "laptop",
    "proof": "x" * 43,
    "token": "x" * 43,
    "refresh_token": "x" * 43,
    "preferences": {"theme": "dark"},
    "name": "Shop",
    "description": "sells bread",
    "type": "website",
    "instructions": "use few colours",
    "settings": {"stack": "html"},
    "tags": ["shop"],
    "is_public": False,
    "is_favorite": True,
    "metadata": {"source": "tests"},
    "screenshot": None,
    "file_name": "shop.png",
    "history": True,
    "version": 1,
    "project_id": "00000000-0000-0000-0000-000000000000",
    "request": {"prompt": "a shop"},
    "models": [{"name": "model"}],
    "reserve": "1.5",
    "currency": "USD",
    "variant": 0,
    "sequence": 1,
    "pieces": [{"type": "text", "text": "<p>"}],
    "status": "completed",
    "code": "<p>",
    "result": {"prompt_tokens": 1},
    "error_message": "no answer",
    "error_details": {"status": 500},
    "content_type": "image/png",
    "size": 100,
    "sha256": None,
    "role": "user",
    "reason": "spam",
    "dry_run": True,
    "stars": 4,
    "is_good": True,
    "words": "good",
    "content": "blue",
    "variant_index": 0,
    "expires_in": 60,
    "monthly_limit": "25",
    "scopes": ["read"],
    "recovery_code": "aaaa-bbbb-cccc-dddd",
    "passkey": {},
    "answer": {},
    "challenge": "x.y",
    "deep": False,
    "repair": False,
    "apply": False,
    "older_than_hours": 24,
}
"""A value for each field that a body has; a new field needs one."""

VALID_IN_PATHS = {"{index}": "1", "{number}": "1", "{currency}": "USD", "{provider}": "github"}
NEEDED_QUERIES = {"PUT /v1/budgets/{currency}": f"user_id={UUID(int=0)}".encode()}

JSON = (b"content-type", b"application/json")
COMPLETE: Headers = (JSON, (b"if-match", b'"r1"'), (b"writer-token", b"0" * 32 + b"." + b"x" * 43))
"""What some routes need beside a body."""


def valid_body(operation: Operation) -> dict[str, Any]:
    fields = VALID | {"email": f"user{next(_numbers)}@example.com"}
    return {name: fields[name] for name in operation.fields}


SHARE = 6
"""How many combinations each operation gets at least."""
DEEP = 100_000
RAW_VALUES: list[str] = [
    *("null", "true", "0", "-1", "1.5", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1" + "0" * 400),
    *("1" * 5000, "-0.0", "9223372036854775808", "[]", "{}", '[""]', "[null]", '[{"a": 1}]', '{"a": {"b": 1}}'),
    *(
        '""',
        '" "',
        '"\\u0000"',
        '"a\\u0000b"',
        '"\\ud800"',
        '"a\\udfffb"',
        '"\\ud83d\\ude00"',
        '"\\u202e"',
        '"\\uffff"',
    ),
    *(
        '"0000-01-01T00:00:00Z"',
        '"10000-01-01T00:00:00Z"',
        '"2026-02-30"',
        '"x@y"',
        '"@"',
        '"a@[::1]"',
        '"a@b\\u3002c"',
    ),
    *('"' + "x" * 50_000 + '"', '"' + "ä" * 20_000 + '"', '"' + "\\u0000" * 5000 + '"', '"//evil"', '"https://[/x"'),
    *('"https://a:99999999/"', '"https://\\u2100.example/"', "[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500),
    *('{"\\u0000": 1}', '{"\\ud800": 1}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"a": NaN}', '{"a": 1e400}'),
    *('{"a": 1' + "0" * 400 + "}", '{"a": ' + "1" * 5000 + "}", '{"": null}', '{"a": 1, "a": 2}', '{"a": -0.0}'),
    '{"' + "x" * 50_000 + '": 1}',
]
"""Values of a field as they stand in JSON, or in what some libraries take for it."""

BODIES: list[bytes] = [
    *(b"", b" ", b"\0", b"{", b"}", b"[]", b"[{}]", b"null", b"true", b"0", b'"x"', b"NaN", b"{}", b"{'a': 1}"),
    *(
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a\xff": 1}',
        "{}".encode("utf-16"),
    ),
    *(b"[" * DEEP, b"[" * (DEEP // 4) + b"]" * (DEEP // 4), b'{"a":' * (DEEP // 10) + b"1" + b"}" * (DEEP // 10)),
    *(b"1" * 5000, b"1" * 60_000, b"1e999999999", b"-" * 1000, b'"' + b"x" * 60_000, b"x" * 70_000, b"{}" * 1000),
    *(b'{"__proto__": {}}', b'{"self": {}, "body": {}}', b'{"model_config": 1}', b'{"a": 1}//', b"a=1&b=2"),
]

TEXTS: list[str] = [
    *("", " ", "\0", "a\0b", "..", "../../etc/passwd", "a//b", "a/../b", "\t", "\r\n", "%", "%00", "{}", "'", '"'),
    *("NaN", "-1", "1" * 400, "1" * 5000, "x" * 50_000, "ä", "\U0001f600", "\u202e", "\udcff", "\ud800", "null"),
    *("00000000-0000-0000-0000-000000000000", "0000-01-01", "10000-01-01T00:00:00Z", "0" * 32, "{" + "0" * 32 + "}"),
]
HEADER_VALUES: list[bytes] = [
    *(b"", b" ", b"\0", b"\xff\xfe", b"\xa0", b"x" * 50_000, b"1" * 5000, b"-1", b"NaN", b"1" * 400, b"*", b",", b";"),
    *(b'"', b'W/"', b"bytes=", b"bytes=0-" + b"9" * 5000, b"bytes=-" + b"9" * 5000, b"bytes=" + b"9" * 5000 + b"-"),
    *(b"bytes=5-1", b"\xc2\xb2", b"bytes=\xb2-\xb3", b"gzip;q=" + b"9" * 5000, b"gzip;q=nan", b"gzip;q=x", b"http://["),
    *(b"Fri, 31 Dec 9999 23:59:59 -2359", b"Mon, 01 Jan 0000 00:00:00 GMT", b"Mon, 01 Jan 99999 00:00:00 GMT"),
    *(b"application/json; charset=nonsense", b"application/json;" * 500, b"multipart/form-data", b"text/plain"),
    *(
        b"multipart/form-data; boundary=" + b"x" * 300,
        b"application/x-www-form-urlencoded",
        b"Bearer ",
        b"Bearer a.b.c",
    ),
    *(b"Bearer " + b"." * 2000, b"Bearer e30.e30.e30", b"for=;by=", b'for="[::', COOKIE.encode() + b"=" + b"." * 3000),
]
HEADERS: list[bytes] = [
    *(b"accept-encoding", b"authorization", b"content-encoding", b"content-length", b"content-type", b"cookie"),
    *(b"expect", b"forwarded", b"host", b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"origin"),
    *(b"if-unmodified-since", b"range", b"sec-fetch-site", b"traceparent", b"tracestate", b"transfer-encoding"),
    *(b"user-agent", b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id", b"\xff"),
]


def dealt(operations: Sequence[Operation], *choices: Sequence[Any]) -> Iterator[tuple[Operation, *tuple[Any, ...]]]:
    """Every combination of the choices at least once, each with another operation, and a share for every operation.

    All of them with all operations would be a hundred thousand requests that tell no more.
    """
    combinations = list(product(*choices))
    for number in range(max(len(combinations), SHARE * len(operations))):
        yield operations[number % len(operations)], *combinations[number % len(combinations)]


class World:
    """The application, and somebody who has logged in."""

    def __init__(self, data: DataLayer) -> None:
        self.data = data
        self.app = create_app(data)
        self.operations = operations_of(self.app)
        self.faults: list[str] = []
        self._user_id: UUID | None = None
        self._token: str | None = None

    async def identity(self) -> tuple[bytes, bytes]:
        """A header that logs in."""
        if self._user_id is None:
            self._user_id = (await make_account(self.data)).id
        if self._token is None:
            self._token = (await self.data.sessions.create(self._user_id)).token.get_secret_value()
        return b"authorization", f"Bearer {self._token}".encode()

    async def both(self, call: Call) -> list[Answer]:
        """The answers for nobody, and for somebody who is logged in; each is checked."""
        return [await self.ask(call), await self.ask_logged_in(call)]

    async def ask_logged_in(self, call: Call) -> Answer:
        """The answer for somebody who is logged in; others are refused before the body is looked at."""
        answer = await self.ask(call.with_headers(await self.identity()))
        if call.method not in {"GET", "HEAD"} and answer.status < 300:
            self._token = None  # The call may have ended the session.
        return answer

    async def ask(self, call: Call) -> Answer:
        answer = await send(self.app, call)
        problem = problem_of(call, answer)
        path, names = call.path, [name.decode() for name in answer.headers]
        problem = problem or next(undescribed(call.method, path, answer.status, names), None)
        if problem is not None:
            self.faults.append(f"{problem}: {call.shown()} -> {answer.status} {answer.body[:200]!r}")
        return answer

    def finish(self) -> None:
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *self.faults[:20]])


@pytest.fixture
def settings_of_requests(settings: Settings) -> Settings:
    return settings.replaced(rate_limit_max=1_000_000, request_limit_person=0, session_limit=1000)


@pytest.fixture
async def world(settings_of_requests: Settings, data: DataLayer) -> World:
    object.__setattr__(data, "settings", settings_of_requests)
    return World(data)


def names(answer: Answer, field: str) -> bool:
    """Whether an answer names a field: in its list, or in its words as one of its own, not within another."""
    problem = json.loads(answer.body)
    if field == "content_type" and problem["code"] == "file_type_not_allowed":
        return True
    if any(each["field"].partition(".")[0] == field for each in problem["fields"]):
        return True
    return re.search(rf"(?<![A-Za-z0-9_]){field}(?![A-Za-z0-9_])", problem["detail"]) is not None


def path_of(operation: Operation, value: str | None = None) -> str:
    """The path with this value in the place of each parameter, or with one that is there for nothing."""

    def valid(found: re.Match[str]) -> str:
        return VALID_IN_PATHS.get(found[0], str(UUID(int=0)))

    return re.sub(r"\{[^}]*\}", valid if value is None else lambda _: value, operation.path)


def test_the_routes_are_found(world: World) -> None:
    names = {operation.name.replace(":path", "") for operation in world.operations}
    assert {"POST /v1/accounts", "PATCH /v1/accounts/me", "DELETE /v1/sessions/{session_id}", "GET /livez"} <= names
    assert sum(bool(operation.fields) for operation in world.operations) >= 10
    described = world.app.openapi()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in described.items() for method in methods} <= names


def is_of_somebody_else(operation: Operation, answer: Answer) -> bool:
    """Whether an account was not deleted because the address of the body is not that of the caller."""
    return operation.path == "/v1/accounts/me/delete" and names(answer, "email")


async def test_valid_bodies_are_not_refused_for_their_form(world: World) -> None:
    """Otherwise the tests below would try nothing but the form."""
    for operation in world.operations:
        if operation.fields:
            body = json.dumps(valid_body(operation)).encode()
            query = NEEDED_QUERIES.get(operation.name, b"")
            for answer in await world.both(Call(operation.method, path_of(operation), query, COMPLETE, body)):
                assert answer.status != 422 or is_of_somebody_else(operation, answer), (operation, answer)


async def test_every_value_in_every_field(world: World) -> None:
    for operation in world.operations:
        for name in operation.fields:
            for value in RAW_VALUES:
                fields = {key: json.dumps(given) for key, given in valid_body(operation).items()} | {name: value}
                body = "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}"
                query = NEEDED_QUERIES.get(operation.name, b"")
                call = Call(operation.method, path_of(operation), query, COMPLETE, body.encode())
                answer = await world.ask_logged_in(call)
                if answer.status == 422 and not (names(answer, name) or is_of_somebody_else(operation, answer)):
                    world.faults.append(f"{name} is not named: {call.shown()} -> {answer.body!r}")
    world.finish()


async def test_every_body(world: World) -> None:
    with_fields = [operation for operation in world.operations if operation.fields]
    for operation in with_fields:
        valid = valid_body(operation)
        twice = b'{"%s": 1, %s' % (next(iter(valid)).encode(), json.dumps(valid).encode()[1:])
        for body in (*BODIES, twice, json.dumps([valid]).encode(), json.dumps(valid | {"\ud800": 1}).encode()):
            await world.ask_logged_in(Call(operation.method, path_of(operation), headers=COMPLETE, body=body))
    for operation, body, headers in dealt(with_fields, BODIES, ((), ((b"content-type", b"text/plain"),))):
        await world.both(Call(operation.method, path_of(operation), headers=headers, body=body))
    for operation, body in dealt([each for each in world.operations if not each.fields], BODIES):
        await world.both(Call(operation.method, path_of(operation), body=body))
    world.finish()


async def test_every_path_and_query(world: World) -> None:
    for operation, text in dealt(world.operations, TEXTS):
        query = quote(text, errors="surrogatepass").encode()
        parameters = b"&".join(name + b"=" + query for name in (b"limit", b"expires", b"signature", query))
        await world.both(Call(operation.method, path_of(operation), query=parameters))
    for operation in world.operations:
        for text in TEXTS if "{" in operation.path else ():
            await world.ask_logged_in(Call(operation.method, path_of(operation, text)))
        for raw in (b"\xff", b"&" * 2000, b"=", b"%ff=%ff", b"%"):
            await world.both(Call(operation.method, path_of(operation), query=raw))
    for text in TEXTS:
        await world.both(Call("GET", "/" + text))
        await world.both(Call("BREW", "/v1/" + text))
    world.finish()


async def test_every_header(world: World) -> None:
    for operation, value in dealt(world.operations, HEADER_VALUES):
        headers = tuple((name, value) for name in HEADERS if name != b"authorization")
        await world.both(Call(operation.method, path_of(operation), headers=headers))
        await world.ask(Call(operation.method, path_of(operation), headers=((b"authorization", value),)))
    world.finish()


async def test_each_header_alone(world: World) -> None:
    for operation, name, value in dealt(world.operations, HEADERS, HEADER_VALUES):
        await world.both(Call(operation.method, path_of(operation), headers=((name, value),)))
    world.finish()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_each_header_with_a_url_that_is_valid(world: World, method: str) -> None:
    """Behind the signature is what no stranger's request gets to."""
    user = make_user()
    async with world.data.transaction() as tx:
        tx.add(user)
    file = await world.data.files.save(picture(), owner_id=user.id, file_name="a.png")
    public = await world.data.files.publish(file.id, owner_id=user.id)
    urls = [await world.data.files.signed_url(file.id, owner_id=user.id, expires_in=HOUR), public.url]
    if method == "PUT":
        waiting = await world.data.files.begin_upload(
            owner_id=user.id, content_type="image/png", size=10, expires_in=HOUR
        )
        urls = [waiting.url]
    for (name, value), url in zip(product(HEADERS, HEADER_VALUES), cycle(urls), strict=False):
        parts = urlsplit(str(url))
        headers: Headers = ((name, value),)
        if method == "PUT" and name != b"content-type":
            headers = (*headers, (b"content-type", b"image/png"))
        await world.ask(Call(method, unquote(parts.path), parts.query.encode(), headers, body=b"x"))
    world.finish()
