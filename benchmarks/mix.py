"""``make bench-mix``: what an application does all day, in one mix, against named peers on the same servers in one run.

Of a hundred requests, in an order that is the same for every candidate:

- 70 check a session and open a project of its person;
- 20 check a session and list the first 50 projects;
- 9 save a generation of 12 KB with its audit entry and its entry in the ledger;
- 1 stores a file of 200 KB durably.

Sixteen people have 64 projects each. Candidates:

- data layer: the services, with the cache that they have by default;
- by hand: redis-py for sessions (one GET), psycopg's pool with prepared statements, write and fsync for files;
- SQLAlchemy ORM: a session of SQLAlchemy per request, sessions of people in a table;
- TypeORM: the same in a Node.js of its own.

The data layer does 4,500 requests before the first round, so that its cache has what it has in an application that runs
all day: each project has been opened three times. The others keep nothing between requests. Rounds of the candidates
alternate, so that a disturbance meets all of them; the median round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from measuring import Operation
from node_loop import NodeLoop, node_loop
from projects import Orm, Ours, Raw, Rows, compare, report, typeorm_connection
from redis.asyncio import Redis
from rich.console import Console
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Session
from data_layer.testing.redis_server import RedisServer
from database import CODE, POOL_SIZE, WORKERS, all_clients
from storage import Bare

PEOPLE = 16
REQUESTS = ("open",) * 70 + ("list",) * 20 + ("save",) * 9 + ("put",)
REQUESTS_BEFORE = 4500
FILE = random.Random(5).randbytes(200_000)  # noqa: S311  (no secret)
console = Console()


class Candidate(Protocol):
    """Does each kind of request for one person."""

    async def open(self) -> None: ...

    async def list(self) -> None: ...

    async def save(self) -> None: ...

    async def put(self) -> None: ...


class OurPerson(Ours):
    """The services."""

    def __init__(self, data: DataLayer, rows: Rows, token: str) -> None:
        super().__init__(data, rows)
        self._token = token

    async def open(self) -> None:
        await self._data.sessions.validate(self._token)
        await super().open()

    async def list(self) -> None:
        await self._data.sessions.validate(self._token)
        await super().list()

    async def put(self) -> None:
        await self._data.storage.upload(FILE, f"mix/{uuid7().hex}", "image/png")


class RawPerson(Raw):
    """By hand."""

    def __init__(self, pool: Any, rows: Rows, redis: Redis, key: str, disk: Bare) -> None:
        super().__init__(pool, redis, rows)
        self._key = key
        self._disk = disk

    async def _check(self) -> None:
        found = await self._redis.get(self._key)
        assert found is not None
        assert json.loads(found)["user_id"] == str(self._rows.user.id)

    async def open(self) -> None:
        await self._check()
        await super().open()

    async def list(self) -> None:
        await self._check()
        await super().list()

    async def put(self) -> None:
        await self._disk.put(uuid7().hex, FILE)


class OrmPerson(Orm):
    """SQLAlchemy's ORM."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], rows: Rows, session_hash: str, disk: Bare) -> None:
        super().__init__(sessions, rows)
        self._hash = session_hash
        self._disk = disk

    async def _check(self) -> None:
        live = (Session.session_id == self._hash) & (Session.expires_at > datetime.now(UTC))
        async with self._sessions() as session:
            assert (await session.scalars(select(Session).where(live))).one().user_id == self._rows.user.id

    async def open(self) -> None:
        await self._check()
        await super().open()

    async def list(self) -> None:
        await self._check()
        await super().list()

    async def put(self) -> None:
        await self._disk.put(uuid7().hex, FILE)


def mixed(people: Sequence[Candidate]) -> Operation:
    """One request after the other, of one person after the other."""
    order = list(REQUESTS)
    random.Random(6).shuffle(order)  # noqa: S311  (no secret)
    requests = [[getattr(person, kind) for kind in order] for person in people]
    turn = 0

    async def request() -> None:
        nonlocal turn
        turn += 1
        await requests[turn % len(people)][turn % len(order)]()

    return request


async def begin_session(data: DataLayer, rows: Rows) -> tuple[str, str]:
    """The token of a new session of the person, and what the table knows of it."""
    token = (await data.sessions.create(rows.user.id)).token.get_secret_value()
    async with data.transaction() as tx:
        [session] = await tx.sessions.list(user_id=rows.user.id)
    return token, session.session_id


async def fill(data: DataLayer) -> list[Rows]:
    """Store the people and their projects."""
    people = [Rows() for _ in range(PEOPLE)]
    for rows in people:
        async with data.transaction() as tx:
            for row in (rows.user, *rows.projects, *rows.written):
                tx.add(row)
    return people


def typeorm_task(data: DataLayer, people: Sequence[Rows], hashes: Sequence[str], folder: Path) -> str:
    """What the script in Node.js has to know."""
    task = {
        "connection": typeorm_connection(data),
        "people": [
            {
                "user": str(rows.user.id),
                "session": session,
                "projects": [str(project.id) for project in rows.projects],
                "written": [str(project.id) for project in rows.written],
            }
            for rows, session in zip(people, hashes, strict=True)
        ],
        "code": CODE,
        "pool": POOL_SIZE,
        "requests": REQUESTS,
        "folder": str(folder),
    }
    return json.dumps(task)


async def bench(folder: Path, redis_url: str, threads: ThreadPoolExecutor, rounds: int, seconds: float) -> None:
    """The mix, with one worker and with 32."""
    async with all_clients(folder, redis_url) as (data, pool, orm_sessions):
        people = await fill(data)
        begun = [await begin_session(data, rows) for rows in people]
        disk = Bare(folder / "bare", threads)
        redis = Redis.from_url(redis_url, protocol=3)
        keys = [f"by-hand:{hashlib.sha256(token.encode()).hexdigest()}" for token, _ in begun]
        for key, rows in zip(keys, people, strict=True):
            await redis.set(key, json.dumps({"user_id": str(rows.user.id), "role": "user"}), ex=3600)
        task = typeorm_task(data, people, [found for _, found in begun], folder)
        async with node_loop(folder / "node", "typeorm_mix.mjs", task) as peer:
            each = list(zip(people, begun, keys, strict=True))
            ours = mixed([OurPerson(data, rows, token) for rows, (token, _), _ in each])
            candidates: dict[str, Operation | NodeLoop] = {
                "data layer": ours,
                "by hand": mixed([RawPerson(pool, rows, redis, key, disk) for rows, _, key in each]),
                "SQLAlchemy ORM": mixed([OrmPerson(orm_sessions, rows, found, disk) for rows, (_, found), _ in each]),
                "TypeORM": peer,
            }
            for _ in range(REQUESTS_BEFORE):
                await ours()
            figures = {workers: await compare(candidates, workers, rounds, seconds) for workers in WORKERS}
        report("70 % open, 20 % list, 9 % save, 1 % put", figures, "by hand")
        await redis.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each candidate")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    options = parser.parse_args()
    console.print(f"load average {os.getloadavg()[0]:.1f}\n")
    with (
        ThreadPoolExecutor(32) as threads,
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        RedisServer() as redis,
    ):
        asyncio.run(bench(Path(folder), redis.url, threads, options.rounds, options.seconds))


if __name__ == "__main__":
    main()
