"""The load of one replica: what users of the product do, all at the same time, and everything written down."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import AuditLog, GeneratedCode
from data_layer.entities.enums import AuditAction, GenerationProvider
from data_layer.errors import FileNotFoundInStorageError, InvalidSessionError, NotFoundError
from data_layer.schemas.actors import SYSTEM
from tests.file_content import picture
from tests.operations.chaos.journal import DONE, Event, Journal, Reader

_TIME_TO_LIVE = 60
_MOST_KNOWN = 200


def key_of(project: UUID) -> str:
    return f"project:{project}"


def page_of(code_id: str) -> str:
    """The code of a version, which follows from its id."""
    return f"<html><body>{hashlib.sha256(code_id.encode()).hexdigest() * 20}</body></html>"


@dataclass(frozen=True)
class Rows:
    """What the load works on: users, and projects with the numbers of their owners.

    The first half of the projects is read through the cache; versions of the others are saved in one round trip.
    """

    users: list[UUID]
    projects: list[tuple[UUID, int]]

    @property
    def cached(self) -> range:
        return range(len(self.projects) // 2)


@dataclass
class Known:
    """What some replica has confirmed, to be used by all of them: the newest only."""

    sessions: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def learn(self, events: list[Event]) -> None:
        for event in events:
            if event.outcome == DONE and event.kind == "begin":
                self.sessions[event.facts["session"]] = event.facts["token"]
            elif event.outcome == DONE and event.kind == "upload":
                self.files[event.facts["file"]] = event.facts
            elif event.kind == "delete":
                self.files.pop(event.facts["file"], None)
        for known in (self.sessions, self.files):
            for name in list(known)[:-_MOST_KNOWN]:
                del known[name]


class Load:
    """Workers that go on until they have to stop, whatever fails."""

    def __init__(self, data: DataLayer, rows: Rows, journals: Path, journal: Journal) -> None:
        self._data = data
        self._rows = rows
        self._journal = journal
        self._reader = Reader(journals)
        self._known = Known()
        self._chance = random.Random()

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Work until it is over, and let everything end that was begun."""
        async with asyncio.TaskGroup() as group:
            for work, pause, workers in (
                (self.learn, 0.1, 1),
                (self.save, 0.1, 2),
                (self.read, 0.03, 3),
                (self.begin_session, 0.3, 1),
                (self.validate, 0.03, 2),
                (self.revoke, 0.5, 1),
                (self.upload, 0.6, 2),
                (self.download, 0.4, 1),
                (self.delete, 1.5, 1),
                (self.record, 0.1, 1),
            ):
                for _ in range(workers):
                    group.create_task(self._repeat(work, pause, is_over))

    async def once(self) -> None:
        """Do everything once, so that whatever is made at its first use is there."""
        for work in (self.save, self.read, self.begin_session, self.upload, self.record, self.learn):
            await work()
        for work in (self.validate, self.download, self.revoke, self.delete):
            await work()

    async def _repeat(self, work: Callable[[], Awaitable[None]], pause: float, is_over: Callable[[], bool]) -> None:
        while not is_over():
            await work()
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * pause)

    async def learn(self) -> None:
        self._known.learn(self._reader.more())

    async def save(self) -> None:
        """A version of the code with its audit entry. Half invalidate the cache, which needs a separate COMMIT."""
        number = self._chance.randrange(len(self._rows.projects))
        project, owner = self._rows.projects[number]
        is_cached = number in self._rows.cached
        code = GeneratedCode(
            project_id=project, code="", provider=GenerationProvider.OPENAI, model="model", name=f"of {number}"
        )
        code.code = page_of(str(code.id))
        entry = AuditLog.data_action(
            AuditAction.CODE_GENERATE, self._rows.users[owner], "generated_code", code.id, "Generated"
        )
        facts = {"row": number, "code": str(code.id)}
        with self._journal.operation("save" if is_cached else "save at once", **facts) as event:
            async with self._data.transaction() as tx:
                tx.add(code)
                tx.add(entry)
                if is_cached:
                    tx.invalidate(key_of(project))
            event.facts["version"] = code.version

    async def read(self) -> None:
        """The number of versions of a project, mostly through the cache."""
        number = self._chance.choice(self._rows.cached)
        key, dice = key_of(self._rows.projects[number][0]), self._chance.random()
        kind = "get" if dice < 0.3 else "database" if dice < 0.4 else "fresh" if dice < 0.42 else "read"
        with self._journal.operation(kind, row=number) as event:
            if kind == "get":
                event.facts["version"] = await self._data.cache.get(key)
            elif kind == "database":
                event.facts["version"] = await self._load(number)
            else:
                event.facts["version"] = await self._data.cache.get_or_load(
                    key, lambda: self._load(number), _TIME_TO_LIVE, fresh=kind == "fresh"
                )

    async def _load(self, number: int) -> int:
        statement = text("SELECT generation_count FROM projects WHERE id = :id")
        async with self._data.transaction() as tx:
            found = await tx.execute(statement.bindparams(id=self._rows.projects[number][0]))
            return int(found.scalar_one())

    async def begin_session(self) -> None:
        with self._journal.operation("begin") as event:
            new = await self._data.sessions.create(self._chance.choice(self._rows.users))
            # In the journal for the other replicas: these sessions live for a minute, in a folder of their own.
            event.facts |= {"session": str(new.session.id), "token": new.token.get_secret_value()}

    async def validate(self) -> None:
        """A request in a session, whichever replica began or ended it."""
        if not self._known.sessions:
            return
        session = self._chance.choice(list(self._known.sessions))
        with self._journal.operation("validate", session=session) as event:
            try:
                found = await self._data.sessions.validate(self._known.sessions[session])
            except InvalidSessionError:
                event.facts["accepted"] = False
            else:
                event.facts["accepted"] = True
                event.facts["is_right"] = str(found.id) == session

    async def revoke(self) -> None:
        if not self._known.sessions:
            return
        session = self._chance.choice(list(self._known.sessions))
        with self._journal.operation("revoke", session=session) as event:
            event.facts["ended"] = await self._data.sessions.revoke(SYSTEM, UUID(session))

    async def upload(self) -> None:
        """A picture, of which each colour is new; now and then one that its owner has already."""
        owner, content = self._chance.choice(self._rows.users), self._picture()
        if self._known.files and self._chance.random() < 0.15:
            again = self._chance.choice(list(self._known.files.values()))
            owner, content = UUID(again["owner"]), self._picture(again["color"])
        color = tuple(content[1])
        with self._journal.operation("upload", owner=str(owner), color=color) as event:
            view = await self._data.files.save(content[0], owner_id=owner, content_type="image/png")
            event.facts |= {"file": str(view.id), "sha256": hashlib.sha256(content[0]).hexdigest()}
            event.facts["is_right"] = view.sha256 == event.facts["sha256"] and view.size == len(content[0])

    def _picture(self, color: list[int] | None = None) -> tuple[bytes, list[int]]:
        chosen = color or [self._chance.randrange(256) for _ in range(3)]
        return picture(size=(96, 64), color=tuple(chosen)), chosen

    async def download(self) -> None:
        if not self._known.files:
            return
        facts = self._chance.choice(list(self._known.files.values()))
        with self._journal.operation("download", file=facts["file"]) as event:
            try:
                content = await self._data.files.download(UUID(facts["file"]), owner_id=UUID(facts["owner"]))
            except (NotFoundError, FileNotFoundInStorageError):  # The latter when it is being deleted.
                event.facts["is_there"] = False
            else:
                event.facts["is_there"] = True
                event.facts["is_right"] = hashlib.sha256(content).hexdigest() == facts["sha256"]

    async def delete(self) -> None:
        if not self._known.files:
            return
        facts = self._known.files.pop(self._chance.choice(list(self._known.files)))
        with self._journal.operation("delete", file=facts["file"]) as event:
            event.facts["was_there"] = await self._data.files.delete(UUID(facts["file"]), owner_id=UUID(facts["owner"]))

    async def record(self) -> None:
        """An audit entry that belongs to no transaction, as of a copied code."""
        entry = str(uuid7())
        with self._journal.operation("record", entry=entry):
            self._data.audit.record_soon(
                AuditAction.CODE_COPY, "Copied", user_id=self._chance.choice(self._rows.users), resource_id=entry
            )
