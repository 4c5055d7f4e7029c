"""Time that tests move, and session services that stand for processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.cache import Cache
from data_layer.database.listener import Listener
from data_layer.entities.enums import UserStatus
from data_layer.errors import DatabaseUnavailableError
from data_layer.repositories.session_changes import SESSION_CHANNEL
from data_layer.repositories.unit_of_work import AfterCommit, CommitHooks, UnitOfWork
from data_layer.services.sessions import SessionCopies, SessionService
from tests.conftest import empty_tables
from tests.support import make_user

# In the search path before PostgreSQL's own, for connections that ask for it. Time stands still until it is moved, so
# that a slow machine changes nothing.
_MOVABLE_TIME = """
CREATE TABLE public.movable_time AS SELECT pg_catalog.now() AS moment;
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT moment FROM public.movable_time';
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT moment FROM public.movable_time'
"""
_USUAL_TIME = """
DROP FUNCTION public.now();
DROP FUNCTION public.clock_timestamp();
DROP TABLE public.movable_time
"""


class World:
    """A database whose clock tests can put forward, with the clocks of all processes."""

    def __init__(self, data: DataLayer, settings: Settings) -> None:
        self.data = data
        self.settings = settings
        self.time = 1000.0

    def clock(self) -> float:
        return self.time

    async def pass_time(self, seconds: float) -> None:
        """Put all clocks forward."""
        self.time += seconds
        async with self.data.transaction() as tx:
            change = text("UPDATE public.movable_time SET moment = moment + make_interval(secs => :seconds)")
            await tx.execute(change.bindparams(seconds=seconds))

    async def new_user(self) -> UUID:
        user = make_user()
        async with self.data.transaction() as tx:
            tx.add(user)
        return user.id

    async def sql(self, statement: str, **values: object) -> None:
        """What somebody does by hand."""
        async with self.data.transaction() as tx:
            await tx.execute(text(statement).bindparams(**values))

    async def set_status(self, user_id: UUID, status: UserStatus) -> None:
        await self.sql("UPDATE users SET status = :status WHERE id = :id", status=status.value, id=user_id)


class Process:
    """Sessions as one process sees them. Nothing happens in the background: tests say when."""

    def __init__(self, world: World, cache: Cache) -> None:
        self.cache = cache
        self.is_cut_off = False
        self._world = world
        address = world.data.database.address
        self._connect = partial(Listener.open, address, world.settings.database, SESSION_CHANNEL, time_limit=5)
        security = world.settings.security
        self.copies = copies = SessionCopies(cache, security, clock=world.clock)
        hooks = CommitHooks(ended_sessions=partial(AfterCommit, copies.forget))
        self.transactions = partial(UnitOfWork, world.data.database, hooks)
        self.sessions = SessionService(
            self.transactions, copies, self._listen, security, clock=world.clock, background=False
        )

    async def _listen(self) -> Listener:
        if self.is_cut_off:
            raise DatabaseUnavailableError("the network of the test is down")
        return await self._connect()

    async def cut_off(self) -> None:
        """From here on the journal cannot be read."""
        self.is_cut_off = True
        await self.sessions.changes.disconnect()

    async def catch_up(self) -> None:
        if not self.is_cut_off:
            await self.sessions.changes.catch_up()

    async def kill(self) -> None:
        """End as by ``kill -9``: nothing is written any more."""
        await self.sessions.changes.disconnect()
        await self.cache.close()

    async def stop(self) -> None:
        await self.sessions.close()
        await self.cache.close()


@asynccontextmanager
async def movable_time(settings: Settings) -> AsyncIterator[World]:
    """A world with empty tables."""
    url = settings.database.database_url.get_secret_value() if settings.database.database_url else ""
    moved = settings.replaced(
        database_url=SecretStr(f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3Dpublic%2Cpg_catalog")
    )
    async with DataLayer(settings) as usual:
        await empty_tables(usual)
        await usual.cache.flush()
        for statement in _MOVABLE_TIME.split(";"):
            await _run(usual, statement)
        try:
            async with DataLayer(moved) as data:
                yield World(data, settings)
        finally:
            for statement in _USUAL_TIME.split(";"):
                await _run(usual, statement)


async def _run(data: DataLayer, statement: str) -> None:
    async with data.transaction() as tx:
        await tx.execute(text(statement))


async def start_process(world: World, redis_url: str | None = None) -> Process:
    url = redis_url or (world.settings.redis.redis_url.get_secret_value() if world.settings.redis.redis_url else "")
    cache = Cache(world.settings.redis, url)
    await cache.open()
    return Process(world, cache)
