"""The load of ``soak.py``: people who work, and whatever the internet sends to a service besides.

Each client takes one of the sessions, connects from an address and with a user agent that nobody had before, sends some
requests and leaves. What could feed something without a bound is different each time: ids, paths, tokens, names,
addresses, ids of requests, keys of repeated requests.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from itertools import cycle
from typing import Any, Self
from uuid import UUID, uuid4

from PIL import Image

from data_layer import DataLayer, GeneratedCode, Project, User
from data_layer.entities.enums import GenerationProvider, GenerationStatus, ProjectStatus
from data_layer.services.accounts.passwords import PasswordHasher
from data_layer.web.authentication import COOKIE

PASSWORD = "correct horse battery staple"  # noqa: S105  (of nobody)
CODE_BYTES = 12_000
OPENING = 8
"""So many clients of each process open everything before the load begins."""
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
ETAG = re.compile(rb"\r\netag: ([^\r]+)", re.IGNORECASE)
WORDS = [secrets.token_hex(3) for _ in range(2000)]
chance = random.Random(14)  # noqa: S311  (no secret)


@dataclass
class Person:
    """Somebody with a session, and the projects that they open again and again."""

    id: UUID
    email: str
    projects: list[UUID]
    token: str


@dataclass
class Answer:
    """What a request was answered."""

    status: int
    head: bytes
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def page() -> str:
    """A page of HTML of about 12 KB, unlike any other."""
    return f"<!-- {uuid4()} -->{chance.choice(_pages())}"


@cache
def _pages() -> list[str]:
    return [_new_page() for _ in range(500)]


def _new_page() -> str:
    parts = ["<!doctype html><title>", " ".join(chance.choices(WORDS, k=3)), "</title><body>"]
    size = 0
    while size < CODE_BYTES:
        parts.append(
            f'<div class="card p-4 text-{chance.choice(WORDS)}">{" ".join(chance.choices(WORDS, k=12))}</div>\n'
        )
        size += len(parts[-1])
    return "".join(parts)


def picture() -> bytes:
    """A PNG, mostly small."""
    width, height = chance.choice([(64, 64), (320, 200), (640, 400), (1280, 800)])
    image = Image.effect_noise((width // 8, height // 8), 80).resize((width, height))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def address() -> str:
    """Of a client, anywhere."""
    if chance.random() < 0.5:
        return str(IPv4Address(chance.randrange(0x0B000000, 0x7E000000)))
    return str(IPv6Address((0x2A << 120) | chance.getrandbits(120)))


async def fill(data: DataLayer, people: int, projects: int) -> list[Person]:
    """Store people with their projects, each with a page, and begin a session of each."""
    found: list[Person] = []
    limit = asyncio.Semaphore(8)
    with PasswordHasher(data.settings.security.bcrypt_rounds) as hasher:
        password = await hasher.hash(PASSWORD)

    async def store(share: int) -> None:
        user = User(email=f"{uuid4()}@example.com", first_name="Soak", last_name="Test", password_hash=password)
        user.email_verified = True
        own = [
            Project(
                user_id=user.id,
                name=f"Landing page {number}",
                description="The page that everybody sees first, with prices and the names of our customers",
                status=ProjectStatus.ACTIVE,
                tags=["landing", "pricing"],
                settings={"stack": "html_tailwind", "theme": {"dark": True, "accent": "#0af"}},
            )
            for number in range(share)
        ]
        async with limit, data.transaction() as tx:
            for row in (user, *own):
                tx.add(row)
            for project in own:
                tx.add(
                    GeneratedCode(
                        project_id=project.id,
                        code=page(),
                        provider=GenerationProvider.CLAUDE,
                        model="model",
                        status=GenerationStatus.COMPLETED,
                    )
                )
        token = (await data.sessions.create(user.id)).token.get_secret_value()
        found.append(Person(user.id, user.email, [project.id for project in own], token))

    await asyncio.gather(*(store(projects // people) for _ in range(people)))
    return found


class Connection:
    """One connection of a client, over HTTP/1.1."""

    def __init__(self, port: int, asked: Counter[int]) -> None:
        self.port = port
        self._asked = asked
        self._common = (
            f"host: service\r\nx-forwarded-for: {address()}\r\nuser-agent: Soak/{secrets.token_hex(8)}\r\n"
            f"accept-language: {chance.choice(['de', 'en', 'fr', secrets.token_hex(2)])}\r\n"
        )

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(
        self, method: str, path: str, token: str | None = None, body: bytes | dict[str, Any] = b"", **headers: str
    ) -> Answer:
        """Send a request and read the whole answer."""
        self._asked[self.port] += 1
        self._send(method, path, token, body, headers)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = LENGTH.search(head)
        if method == "HEAD" or status in {204, 304}:
            return Answer(status, head, b"")
        if length:
            return Answer(status, head, await self._reader.readexactly(int(length[1])))
        return Answer(status, head, await self._read_chunks())

    async def follow(self, path: str, token: str) -> int:
        """Read the first event of a stream; the connection is of no use afterwards."""
        self._asked[self.port] += 1
        self._send("GET", path, token, b"", {})
        head = await self._reader.readuntil(b"\r\n\r\n")
        if head[9:12] == b"200":
            await self._reader.readline()
            await asyncio.sleep(chance.uniform(0, 3))
        return int(head[9:12])

    def _send(
        self, method: str, path: str, token: str | None, body: bytes | dict[str, Any], headers: dict[str, str]
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1\r\n{self._common}"]
        if token is not None:
            lines.append(f"authorization: Bearer {token}\r\n")
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            lines.append("content-type: application/json\r\n")
        if body:
            lines.append(f"content-length: {len(body)}\r\n")
        lines += [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        self._writer.write("".join(lines).encode() + b"\r\n" + body)

    async def _read_chunks(self) -> bytes:
        pieces = []
        while size := int(await self._reader.readline(), 16):
            pieces.append(await self._reader.readexactly(size))
            await self._reader.readline()
        await self._reader.readline()
        return b"".join(pieces)


Request = Callable[["Load", Connection, Person], Awaitable[int]]


async def open_project(_: Load, connection: Connection, person: Person) -> int:
    return await open_one(connection, chance.choice(person.projects), person)


async def open_all_projects(load: Load, connection: Connection, _: Person) -> int:
    """Those of the next person."""
    return await open_all_of(load, connection, next(load.turns[connection.port]))


async def open_all_of(load: Load, connection: Connection, person: Person) -> int:
    """Three times: they are loaded, then the cache has them, then the process itself."""
    for project in person.projects * 3:
        status = await open_one(connection, project, person)
        if status != 200:
            return status
        load.opened[connection.port].add(project)
    return 200


async def open_one(connection: Connection, project: UUID, person: Person) -> int:
    return (await connection.ask("GET", f"/v1/projects/{project}", person.token)).status


async def read_code(_: Load, connection: Connection, person: Person) -> int:
    path = f"/v1/projects/{chance.choice(person.projects)}/versions/1"
    encoding = chance.choice(["identity", "gzip", "zstd", "gzip, deflate, br, zstd"])
    return (await connection.ask("GET", path, person.token, accept_encoding=encoding)).status


async def read_history(_: Load, connection: Connection, person: Person) -> int:
    path = f"/v1/projects/{chance.choice(person.projects)}/versions?limit={chance.randint(1, 100)}"
    return (await connection.ask("GET", path, person.token)).status


async def read_tree(_: Load, connection: Connection, person: Person) -> int:
    return (await connection.ask("GET", f"/v1/projects/{chance.choice(person.projects)}/tree", person.token)).status


async def list_projects(_: Load, connection: Connection, person: Person) -> int:
    order = chance.choice(["updated", "created", "name", "views"])
    path = f"/v1/projects?limit={chance.randint(1, 200)}&order={order}"
    return (await connection.ask("GET", path, person.token)).status


async def search(_: Load, connection: Connection, person: Person) -> int:
    return (await connection.ask("GET", f"/v1/projects/search?q={chance.choice(WORDS)}", person.token)).status


async def read_account(_: Load, connection: Connection, person: Person) -> int:
    return (await connection.ask("GET", "/v1/accounts/me", person.token)).status


async def save(load: Load, connection: Connection, person: Person) -> int:
    """Start a generation, stream a part of it, follow it, and end it."""
    wanted = {"project_id": str(chance.choice(person.projects)), "request": {"prompt": " ".join(WORDS[:5])}}
    key = {"idempotency_key": str(uuid4())} if chance.random() < 0.5 else {}
    started = await connection.ask("POST", "/v1/generations", person.token, wanted, **key)
    if started.status != 201:
        return started.status
    new, code = started.json(), page()
    path, writer = f"/v1/generations/{new['id']}", {"writer_token": new["writer_token"]}
    if chance.random() < 0.3:
        pieces = [{"type": "text", "text": code[first : first + 2000]} for first in range(0, len(code), 2000)]
        batch = {"variant": 0, "sequence": 1, "pieces": pieces}
        written = await connection.ask("POST", f"{path}/events", person.token, batch, **writer)
        if written.status != 200:
            return written.status
        async with load.connect(connection.port) as follower:
            await follower.follow(f"{path}/events", person.token)
    ending = {"status": "completed", "code": code, "result": {"prompt_tokens": 900, "cost": "0.06"}}
    return (await connection.ask("PUT", f"{path}/variants/0", person.token, ending, **writer)).status


async def change(_: Load, connection: Connection, person: Person) -> int:
    path = f"/v1/projects/{chance.choice(person.projects)}"
    found = await connection.ask("GET", path, person.token)
    tag = ETAG.search(found.head)
    if tag is None:
        return found.status
    changes = {"description": secrets.token_hex(20), "tags": [secrets.token_hex(4)]}
    return (await connection.ask("PATCH", path, person.token, changes, if_match=tag[1].decode())).status


async def keep_file(_: Load, connection: Connection, person: Person) -> int:
    boundary = secrets.token_hex(8)
    form = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{secrets.token_hex(4)}.png"\r\n\r\n'
    body = form.encode() + picture() + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    kept = await connection.ask("POST", "/v1/assets", person.token, body, content_type=kind)
    if kept.status != 201:
        return kept.status
    found = await connection.ask("GET", f"/v1/assets/{kept.json()['id']}/content", person.token)
    where = re.search(rb"\r\nlocation: (?:https?://[^/]+)?([^\r]+)", found.head, re.IGNORECASE)
    return found.status if where is None else (await connection.ask("GET", where[1].decode())).status


async def share(_: Load, connection: Connection, person: Person) -> int:
    path = f"/v1/projects/{chance.choice(person.projects)}/shares"
    new = await connection.ask("POST", path, person.token, {"expires_in": 60})
    if new.status != 201:
        return new.status
    return (await connection.ask("GET", new.json()["url"])).status


async def look_at_console(_: Load, connection: Connection, person: Person) -> int:
    project = chance.choice(person.projects)
    path = chance.choice(["/console/projects", f"/console/projects/{project}", "/console/account", "/console/login"])
    return (await connection.ask("GET", path, cookie=f"{COOKIE}={person.token}")).status


async def change_session(load: Load, connection: Connection, person: Person) -> int:
    """Log out of a session that another one has replaced, so their number stays."""
    former, person.token = person.token, (await load.data.sessions.create(person.id)).token.get_secret_value()
    ended = await connection.ask("DELETE", "/v1/sessions/current", former)
    await connection.ask("GET", "/v1/accounts/me", former)
    return ended.status


async def log_in(_: Load, connection: Connection, person: Person) -> int:
    credentials = {"email": person.email, "password": PASSWORD, "device_id": secrets.token_hex(8)}
    return (await connection.ask("POST", "/v1/sessions", None, credentials)).status


async def fail_to_log_in(_: Load, connection: Connection, _person: Person) -> int:
    credentials = {"email": f"{uuid4()}@example.org", "password": secrets.token_hex(8)}
    return (await connection.ask("POST", "/v1/sessions", None, credentials)).status


async def guess_token(_: Load, connection: Connection, _person: Person) -> int:
    return (await connection.ask("GET", "/v1/accounts/me", secrets.token_urlsafe(32))).status


async def ask_for_unknown_path(_: Load, connection: Connection, person: Person) -> int:
    path = f"/{secrets.token_hex(6)}/{secrets.token_hex(6)}.php?{secrets.token_hex(3)}={secrets.token_hex(6)}"
    return (await connection.ask("GET", path, person.token, x_request_id=secrets.token_hex(12))).status


async def ask_for_unknown_id(_: Load, connection: Connection, person: Person) -> int:
    kind = chance.choice(["projects", "generations", "assets", "images"])
    return (await connection.ask("GET", f"/v1/{kind}/{uuid4()}", person.token)).status


async def use_unknown_method(_: Load, connection: Connection, person: Person) -> int:
    method = chance.choice(["PROPFIND", "MKCOL", "REPORT"])
    return (
        await connection.ask(method, "/v1/projects", person.token, b"", **{f"x-{secrets.token_hex(4)}": "1"})
    ).status


async def send_nonsense(_: Load, connection: Connection, person: Person) -> int:
    body = {secrets.token_hex(5): secrets.token_hex(50)}
    return (await connection.ask("POST", "/v1/projects", person.token, body)).status


REQUESTS: dict[Request, tuple[int, set[int]]] = {
    open_project: (430, {200}),
    open_all_projects: (60, {200, 401}),
    read_code: (120, {200}),
    read_history: (40, {200}),
    read_tree: (10, {200}),
    list_projects: (80, {200}),
    search: (10, {200}),
    read_account: (30, {200}),
    save: (30, {200}),
    change: (15, {200, 412}),
    keep_file: (6, {200}),
    share: (5, {200, 409}),
    look_at_console: (15, {200, 303}),
    change_session: (5, {204, 401}),
    log_in: (1, {201}),
    fail_to_log_in: (1, {401, 429}),
    guess_token: (15, {401}),
    ask_for_unknown_path: (20, {404}),
    ask_for_unknown_id: (20, {404}),
    use_unknown_method: (5, {400, 405}),
    send_nonsense: (10, {422}),
}
"""How many of about a thousand turns are of each kind, and which answers are right."""


@dataclass
class Load:
    """Clients of several processes, which send requests at a rate together."""

    data: DataLayer
    people: Sequence[Person]
    ports: Sequence[int]
    rate: float
    sent: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    asked: Counter[int] = field(default_factory=Counter)
    opened: dict[int, set[UUID]] = field(init=False)
    turns: dict[int, Iterator[Person]] = field(init=False)

    def __post_init__(self) -> None:
        self._next = time.monotonic()
        self.opened = {port: set() for port in self.ports}
        self.turns = {port: cycle(self.people) for port in self.ports}
        self._kinds = list(REQUESTS)
        self._weights = [weight for weight, _ in REQUESTS.values()]

    def connect(self, port: int) -> Connection:
        """A new client of a process."""
        return Connection(port, self.asked)

    async def open_everything(self) -> None:
        """Open all projects in each process, so that its copies are as full as they will be."""

        async def open_next(port: int, people: Iterator[Person]) -> None:
            async with self.connect(port) as connection:
                for person in people:
                    await open_all_of(self, connection, person)

        async with asyncio.TaskGroup() as tasks:
            for port in self.ports:
                people = iter(self.people)
                for _ in range(OPENING):
                    tasks.create_task(open_next(port, people))

    async def run(self, clients: int) -> None:
        """Send until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(self._client(self.ports[number % len(self.ports)]))

    async def _client(self, port: int) -> None:
        while True:
            person = chance.choice(self.people)
            try:
                async with self.connect(port) as connection:
                    for _ in range(chance.randint(5, 60)):
                        await self._wait_for_turn()
                        [kind] = chance.choices(self._kinds, self._weights)
                        token = person.token
                        status = await kind(self, connection, person)
                        self.sent[kind.__name__] += 1
                        # Another client may have ended the session meanwhile.
                        if status not in REQUESTS[kind][1] and not (status == 401 and token != person.token):
                            self.wrong[f"{kind.__name__} {status}"] += 1
            except (OSError, EOFError) as error:
                self.wrong[type(error).__name__] += 1
                await asyncio.sleep(0.1)

    async def _wait_for_turn(self) -> None:
        now = time.monotonic()
        self._next = max(self._next + 1 / self.rate, now - 1)  # No more than a second is made up for.
        await asyncio.sleep(self._next - now)
