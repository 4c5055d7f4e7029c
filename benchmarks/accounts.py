"""``make bench-accounts``: sessions against Redis itself, against cashews, and against the raw statements, in one run.

Peers, on the same servers in the same run:

- redis-py: one GET, which is what checking a session in Redis costs at least;
- cashews: its client-side cache, the best peer known, with a value of the same size;
- raw psycopg: the statements that beginning a session needs, by hand, in one pipeline.

Rounds of the candidates alternate, so that a disturbance meets all of them; the median round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg_pool
from cashews import Cache as Cashews
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings, User, request_context
from data_layer.services.sessions.hashing import make_token
from data_layer.testing.redis_server import RedisServer

Operation = Callable[[], Awaitable[Any]]

WORKERS = (1, 32)
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"
console = Console()


async def measure(operation: Operation, workers: int, seconds: float) -> float:
    """How often per second the operation is done."""
    end = time.perf_counter() + seconds
    done = 0

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < end:
            # Several for each look at the clock, which would cost more than the quickest candidate.
            for _ in range(20):
                await operation()
            done += 20
            # Who never has to wait would never let anybody else work.
            await asyncio.sleep(0)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return done / (time.perf_counter() - started)


async def compare(
    title: str, candidates: dict[str, Operation], workers: int, options: argparse.Namespace
) -> dict[str, float]:
    """Print and return the median rate of each candidate; the first is ours."""
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(options.rounds):
        for name, operation in candidates.items():
            rates[name].append(await measure(operation, workers, options.seconds))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours = next(iter(medians.values()))
    table = Table(title=f"{title}, {workers} worker{'s' if workers > 1 else ''}", title_justify="left", box=None)
    for column in ("candidate", "per second", "microseconds", "data layer / candidate"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for name, rate in medians.items():
        table.add_row(name, f"{rate:,.0f}", f"{1e6 / rate:,.1f}", f"{ours / rate:.2f}")
    console.print(table)
    console.print()
    return medians


async def new_user(data: DataLayer) -> UUID:
    user = User(email=f"{uuid7()}@example.com", first_name="Bench", last_name="Mark")
    async with data.transaction() as tx:
        tx.add(user)
    return user.id


async def bench_validation(data: DataLayer, url: str, options: argparse.Namespace) -> None:
    """Hot: from the copy of this process. Via Redis: that copy is dropped each time."""
    user_id = await new_user(data)
    tokens = [(await data.sessions.create(user_id)).token.get_secret_value() for _ in range(64)]
    near = data.sessions._copies.near  # noqa: SLF001  (to measure what happens without it)
    while not near.by_key:
        await data.sessions.validate(tokens[0])
        await asyncio.sleep(0.01)
    near.clear()
    for token in tokens:
        await data.sessions.validate(token)
    async for key in data.cache.keys("session-copy:*"):
        stored_key = f"{data.settings.redis.redis_key_prefix}:{key}"
    redis = Redis.from_url(url, protocol=3)
    value = await redis.get(stored_key)
    assert value
    cashews = Cashews()
    cashews.setup(url, client_side=True)
    await cashews.set("key", value, expire=3600)
    await cashews.get("key")

    turn = 0

    async def via_redis() -> None:
        nonlocal turn
        turn += 1
        near.clear()
        await data.sessions.validate(tokens[turn % len(tokens)])

    hot, get = partial(data.sessions.validate, tokens[0]), partial(redis.get, stored_key)
    for workers in WORKERS:
        peers: dict[str, Operation] = {"redis-py GET": get, "cashews, client side": partial(cashews.get, "key")}
        await compare("Check a session, hot", {"data layer": hot, **peers}, workers, options)
        await compare("Check a session via Redis", {"data layer": via_redis, "redis-py GET": get}, workers, options)
    await redis.aclose()
    await cashews.close()


async def bench_creation(data: DataLayer, options: argparse.Namespace) -> None:
    """Lock the user, end what is too much, insert the session and an audit entry, commit."""
    users = [await new_user(data) for _ in range(64)]
    turn = 0
    pool = psycopg_pool.AsyncConnectionPool(
        data.database.address.url.set(drivername="postgresql").render_as_string(hide_password=False),
        min_size=20,
        max_size=20,
        open=False,
        kwargs={"autocommit": True},
    )

    def next_user() -> UUID:
        nonlocal turn
        turn += 1
        return users[turn % len(users)]

    async def ours() -> None:
        await data.sessions.create(next_user())

    async def raw() -> None:
        user_id, session_id = next_user(), uuid7()
        async with pool.connection() as connection, connection.pipeline(), connection.transaction():
            await connection.execute("SELECT role FROM users WHERE id = %s FOR NO KEY UPDATE", (user_id,))
            await connection.execute(
                "UPDATE sessions SET status = 'revoked', revoked_at = now() WHERE id IN (SELECT id FROM sessions "
                "WHERE user_id = %s AND status = 'active' AND expires_at > now() "
                "ORDER BY last_active_at DESC OFFSET 999)",
                (user_id,),
            )
            await connection.execute(
                "INSERT INTO sessions (id, session_id, user_id, user_agent, ip_address, expires_at) "
                "VALUES (%s, %s, %s, %s, '192.0.2.1', now() + interval '1 hour')",
                (session_id, make_token(), user_id, USER_AGENT),
            )
            await connection.execute(
                "INSERT INTO audit_logs (id, user_id, action, category, description, resource_id) "
                "VALUES (%s, %s, 'session_create', 'authentication', 'Session began', %s)",
                (uuid7(), user_id, str(session_id)),
            )

    async with pool:
        await pool.wait()
        for workers in WORKERS:
            with request_context(ip_address="192.0.2.1", user_agent=USER_AGENT):
                await compare("Begin a session", {"data layer": ours, "raw psycopg": raw}, workers, options)


async def run(options: argparse.Namespace) -> None:
    """All comparisons."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, RedisServer() as redis:
        settings = Settings(
            data_folder=Path(folder) / "servers",
            local_storage_path=Path(folder) / "uploads",
            redis_url=redis.url,
            db_max_connections=20,
            db_min_connections=20,
            session_limit=1000,
            log_level="error",
        )
        async with DataLayer(settings) as data:
            await bench_validation(data, redis.url, options)
            await bench_creation(data, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each candidate")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
