"""The same through HTTP: three replicas of the service, clients that repeat what they may, a checker of every answer.

``python -m tests.operations.chaos.over_http --seconds 60`` runs it for a minute and gives a verdict. What a client may
repeat never fails here, whatever server is away or dies, because it is repeated for longer than that; what it was
answered is there in the end, once, with its audit entry.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import logging
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID

import httpx
from typing_extensions import override

from data_layer import DataLayer, Settings
from data_layer.client import Client, CodePatch, CodeState, VariantEnded
from data_layer.client.values import VariantModel
from data_layer.errors import DataLayerError, LoginProblemError, ServiceProblemError, ServiceUnreachableError
from data_layer.services.files.owners import ANY_OWNER
from tests.file_content import picture
from tests.operations.chaos.faults import Fault, Faults
from tests.operations.chaos.plan import REDIS, Plan
from tests.operations.chaos.servers import Servers
from tests.operations.chaos.watch import Watch
from tests.service.support import NO_AUTHORITIES, Service
from tests.services.accounts.support import PASSWORD, make_account

_EMAILS = [f"person-{number}@example.com" for number in range(4)]
_PATIENCE = 150.0
"""Longer than a key of a process that has died is held (a minute), and than any server is away."""
_REVOKED_EVERYWHERE = 2.0
_SEEN_BY_OTHERS = 1.0
_SEEN_AFTER_OUTAGE = 4.0
_SETTINGS: dict[str, Any] = {"rate_limit_max": 100_000, "shutdown_timeout": 10}
SERVICE = "service"
_NAME = "data-layer.test"

_PROJECTS = "SELECT name, count(*) FROM projects WHERE name LIKE 'of %' GROUP BY 1"
_CODES = "SELECT id::text, project_id::text, version, encode(code_hash, 'hex'), status FROM generated_codes"
_AUDITS = "SELECT action, resource_id, count(*) FROM audit_logs GROUP BY 1, 2"


def page_of(name: str) -> str:
    """The page of a generation, which follows from its prompt."""
    return "".join(f"<p>{hashlib.sha256(f'{name} {part}'.encode()).hexdigest()}</p>\n" for part in range(20))


class Spread(httpx.AsyncBaseTransport):
    """Sends each request to the next replica, as several addresses of one name do."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._next = itertools.cycle([httpx.URL(url) for url in urls])
        self._http = httpx.AsyncHTTPTransport(verify=NO_AUTHORITIES)

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == _NAME:  # Not the storage, where files are.
            replica = next(self._next)
            request.url = request.url.copy_with(host=replica.host, port=replica.port)
        return await self._http.handle_async_request(request)

    @override
    async def aclose(self) -> None:
        await self._http.aclose()


@dataclass
class Seen:
    """What clients were answered.

    Attributes:
        projects: acknowledged ones by their names.
        versions: of each acknowledged generation its project, its number and the name that its page follows from.
        files: the hashes of acknowledged files.
        counts: for each project when which number of versions was acknowledged.
        refused: failures, which must not be.
        wrong: answers that must not be.
    """

    projects: dict[str, str] = field(default_factory=dict)
    versions: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    counts: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    done: Counter[str] = field(default_factory=Counter)
    last_done: dict[str, float] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class People:
    """Clients at work, each as one of a few people."""

    def __init__(
        self,
        clients: Sequence[Client],
        new_client: Callable[..., Client],
        seen: Seen,
        faults: Callable[[], Sequence[Fault]],
    ) -> None:
        self._clients = clients
        self._new_client = new_client
        self._seen = seen
        self._faults = faults
        self._chance = random.Random()
        self._names = (f"of {number}" for number in itertools.count())
        self._own: dict[int, list[str]] = defaultdict(list)

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Work until it is over, and let everything end that was begun."""
        async with asyncio.TaskGroup() as group:
            for work, pause, workers in (
                (self.create, 0.4, 2),
                (self.generate, 0.2, 3),
                (self.read, 0.05, 3),
                (self.send_file, 0.5, 1),
                (self.log_in_and_out, 1.0, 1),
            ):
                for _ in range(workers):
                    group.create_task(self._repeat(work, pause, is_over))

    async def _repeat(
        self, work: Callable[[Client, int], Awaitable[None]], pause: float, is_over: Callable[[], bool]
    ) -> None:
        while not is_over():
            person, began = self._chance.randrange(len(self._clients)), monotonic()
            kind = work.__name__
            try:
                await work(self._clients[person], person)
            except DataLayerError as error:
                self._seen.refused.append(
                    f"{kind} after {monotonic() - began:.1f} s: {type(error).__name__}: {error.code}: {error}"
                )
            else:
                self._seen.done[kind] += 1
                self._seen.last_done[kind] = began
                self._seen.slowest[kind] = max(self._seen.slowest.get(kind, 0.0), monotonic() - began)
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * pause)

    async def create(self, client: Client, person: int) -> None:
        """A project, once, however often it was sent."""
        name = next(self._names)
        project = await client.projects.create(name=name)
        self._seen.projects[name] = str(project.id)
        self._own[person].append(str(project.id))

    async def generate(self, client: Client, person: int) -> None:
        """A version, written in pieces and followed by somebody else meanwhile."""
        if not self._own[person]:
            return
        project, name = self._chance.choice(self._own[person]), next(self._names)
        started = await client.generations.start(project_id=project, models=[VariantModel(name=name)])
        following = asyncio.create_task(self._follow(client, str(started.id)))
        try:
            page = page_of(name)
            async with client.generations.write(started) as writer:
                for start in range(0, len(page), 300):
                    await writer.text(0, page[start : start + 300])
                    await asyncio.sleep(0.02)
                await writer.complete(0)
            shown = await following
        finally:
            following.cancel()
        if shown != page:
            self._seen.wrong.append(f"a follower of {started.id} has seen {len(shown)} characters, not {len(page)}")
        self._seen.versions[str(started.variant_ids[0])] = (project, started.number, name)
        self._seen.counts[project].append((monotonic(), started.number))

    async def _follow(self, client: Client, generation: str) -> str:
        code = ""
        async for event in client.generations.follow(generation):
            match event:
                case CodeState():
                    code = event.code
                case CodePatch():
                    code = event.apply(code)
                case VariantEnded() if event.status != "completed":
                    self._seen.wrong.append(f"{generation} has ended as {event.status}: {event.error_message}")
        return code

    async def read(self, client: Client, person: int) -> None:
        """A project is never older than the cache promises, whichever replica answers."""
        if not self._own[person]:
            return
        project, began = self._chance.choice(self._own[person]), monotonic()
        found = await client.projects.get(project)
        allowed = _SEEN_BY_OTHERS
        for fault in self._faults():
            if fault.server == REDIS and fault.began <= monotonic() and began <= fault.returned + _SEEN_AFTER_OUTAGE:
                allowed = fault.returned - fault.began + 2 * _SEEN_AFTER_OUTAGE
        known = max((number for at, number in self._seen.counts[project] if at < began - allowed), default=0)
        if found.generation_count < known:
            self._seen.wrong.append(
                f"{project} was shown with {found.generation_count} versions after {known} were acknowledged"
            )

    async def send_file(self, client: Client, person: int) -> None:
        """A picture of a new colour, read back byte for byte."""
        del person
        content = picture("png", (96, 64), color=tuple(self._chance.randrange(256) for _ in range(3)))
        asset = await client.assets.create(file=content, file_name="a.png")
        self._seen.files[str(asset.id)] = hashlib.sha256(content).hexdigest()
        if await self._download(client, str(asset.id)) != content:
            self._seen.wrong.append(f"asset {asset.id} was read as something else")

    async def _download(self, client: Client, asset: str) -> bytes:
        """What breaks off in the middle is downloaded again, as people do."""
        for _ in range(3):
            with suppress(ServiceUnreachableError, ServiceProblemError):
                return await client.assets.content(asset).read()
            await asyncio.sleep(3)
        return await client.assets.content(asset).read()

    async def log_in_and_out(self, client: Client, person: int) -> None:
        """A session that has ended is accepted nowhere two seconds later. Logging in has no key, so it is sent once."""
        del client
        async with self._new_client() as other:
            try:
                await other.log_in(_EMAILS[person], PASSWORD)
            except (ServiceUnreachableError, ServiceProblemError):
                return
            tokens = other.tokens
            assert (await other.accounts.get()).email == _EMAILS[person]
            await other.log_out()
        assert tokens is not None
        await asyncio.sleep(_REVOKED_EVERYWHERE)
        async with self._new_client(token=tokens.access_token) as late:
            for _ in range(3):  # Each replica, as a rule.
                try:
                    await late.accounts.get()
                except LoginProblemError:
                    continue
                self._seen.wrong.append(f"the token of a session was accepted {_REVOKED_EVERYWHERE:g} s after its end")


class HttpFaults(Faults):
    """What happens to the servers, and a replica that is killed."""

    def __init__(self, replicas: list[Service], start: Callable[[int], Service], *given: Any) -> None:
        super().__init__(*given)
        self._replicas = replicas
        self._start = start

    @override
    def faults(self) -> list[tuple[str, str, Callable[[float], Awaitable[None]]]]:
        return [*super().faults(), ("a replica of the service killed", SERVICE, self._kill_replica)]

    async def _kill_replica(self, seconds: float) -> None:
        replica = self._replicas[-1]
        replica.process.kill()
        await asyncio.to_thread(replica.process.wait)
        await asyncio.sleep(seconds)
        self._replicas[-1] = await asyncio.to_thread(self._start, replica.port)


@dataclass
class Outcome:
    """The verdict: nothing is wrong when there are no ``violations``."""

    violations: list[str]
    seen: Seen
    faults: list[Fault]


async def run(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run it and judge it."""
    async with Servers(plan) as servers, AsyncExitStack() as stack:
        async with DataLayer(Settings(**servers.settings("prepare")), prepare=True) as data:
            for email in _EMAILS:
                await make_account(data, email)

        def start(port: int = 0) -> Service:
            number = next(numbers)
            folder = servers.folder / f"service-{number}"
            folder.mkdir()
            given = servers.settings(f"replica-{number}") | _SETTINGS
            environment = {name.upper(): str(value) for name, value in given.items()}
            service = stack.enter_context(Service(folder, "start", port=port, **environment))
            service.wait_until_ready()
            return service

        numbers = itertools.count(1)
        replicas = list(await asyncio.gather(*(asyncio.to_thread(start) for _ in range(plan.replicas))))
        urls = [replica.url for replica in replicas]
        say(f"{len(replicas)} replicas answer.")

        def new_client(**options: Any) -> Client:
            return Client(f"http://{_NAME}", transport=Spread(urls), patience=_PATIENCE, timeout=30.0, **options)

        seen = Seen()
        clients = [await stack.enter_async_context(new_client()) for _ in _EMAILS]
        for client, email in zip(clients, _EMAILS, strict=True):
            await client.log_in(email, PASSWORD)
        is_over = asyncio.Event()

        def has_recovered(fault: Fault) -> bool:
            return all(
                seen.last_done.get(kind, 0) > fault.returned for kind in ("create", "generate", "read", "send_file")
            )

        async with Watch(urls[0]) as watch:
            faults = HttpFaults(replicas, start, plan, servers, watch, has_recovered, say)
            people = People(clients, new_client, seen, lambda: faults.done)
            working = asyncio.create_task(people.run(is_over.is_set))
            await faults.run()
            is_over.set()
            await working
        say("The clients have gone; looking at what is there …")
        violations = [*seen.refused, *seen.wrong, *await _check(servers, seen)]
        violations += _internal_errors(replicas)
        noticed = await _check(servers, _with_lies(seen))
        violations += [f"the checker does not notice a wrong {lie}" for lie in _LIES if not _is_noticed(lie, noticed)]
        return Outcome(violations, seen, faults.done)


def _internal_errors(replicas: Sequence[Service]) -> list[str]:
    """What nobody has expected: each line is one."""
    return [
        f"a replica has logged {event['event']}: {event}"
        for replica in replicas
        for event in replica.events
        if event.get("event") == "request_crashed"
    ]


_LIES = ("project", "version", "asset", "hash")


def _with_lies(seen: Seen) -> Seen:
    """The same with acknowledgements that never came, to see whether the checker notices."""
    lying = Seen(dict(seen.projects), dict(seen.versions), dict(seen.files))
    lying.projects["a project"] = str(UUID(int=1))
    lying.versions[str(UUID(int=2))] = (str(UUID(int=1)), 1, "a version")
    lying.files[next(iter(seen.files), "")] = "a hash"
    lying.files[str(UUID(int=3))] = "an asset"
    return lying


def _is_noticed(lie: str, noticed: Sequence[str]) -> bool:
    words = {
        "project": "project a project",
        "version": f"version 1 of {UUID(int=1)}",
        "asset": f"asset {UUID(int=3)} was acknowledged",
        "hash": "is stored as something else",
    }
    return any(words[lie] in each for each in noticed)


async def _check(servers: Servers, seen: Seen) -> list[str]:
    """What was acknowledged is there, once, with one audit entry; and there is nothing else."""
    found = []
    counts = dict(servers.execute(_PROJECTS))
    for name, project in seen.projects.items():
        if counts.get(name) != 1:
            found.append(f"project {name} ({project}) was acknowledged and is there {counts.get(name, 0)} times")
    found += [f"project {name} is there {count} times" for name, count in counts.items() if count != 1]
    audits = {(action, resource): count for action, resource, count in servers.execute(_AUDITS)}
    found += [
        f"project {project} has {audits.get(('project_create', project), 0)} audit entries of its beginning"
        for project in seen.projects.values()
        if audits.get(("project_create", project), 0) != 1
    ]
    stored = {code: (project, number, page, status) for code, project, number, page, status in servers.execute(_CODES)}
    numbers: dict[str, list[int]] = defaultdict(list)
    for project, number, _, _ in stored.values():
        numbers[project].append(number)
    found += [
        f"project {project} has the versions {sorted(each)}"
        for project, each in numbers.items()
        if sorted(each) != list(range(1, len(each) + 1))
    ]
    for code, (project, number, name) in seen.versions.items():
        if stored.get(code) != (project, number, hashlib.sha256(page_of(name).encode()).hexdigest(), "completed"):
            found.append(f"version {number} of {project} was acknowledged and is {stored.get(code)}")
    async with DataLayer(Settings(**servers.settings("truth"))) as data:
        for asset, sha256 in seen.files.items():
            try:
                content = await data.files.download(UUID(asset), owner_id=ANY_OWNER)
            except DataLayerError as error:
                found.append(f"asset {asset} was acknowledged: {error}")
                continue
            if hashlib.sha256(content).hexdigest() != sha256:
                found.append(f"asset {asset} is stored as something else")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.operations.chaos.over_http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--storage", choices=["s3", "local"], default="s3")
    given = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())
    began = monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{monotonic() - began:6.1f} s  {line}\n")
        sys.stdout.flush()

    outcome = asyncio.run(run(Plan(given.seconds, given.replicas, given.storage), say))
    for kind, count in outcome.seen.done.items():
        say(f"{kind:<15} done {count:5} times, the slowest in {outcome.seen.slowest[kind]:.2f} s")
    for violation in outcome.violations[:20]:
        say(f"WRONG: {violation[:600]}")
    say(f"{len(outcome.violations)} things are wrong." if outcome.violations else "Nothing wrong was found.")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
