"""The program: servers of its own, as long and as large as you like."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from dataclasses import replace
from typing import Any

from data_layer import DataLayer, Settings
from data_layer.testing.postgresql_server import PostgresqlServer
from data_layer.testing.redis_server import RedisServer
from tests.cache.distributed.failover import Pair
from tests.cache.distributed.run import Plan, run
from tests.cache.wire import Endpoint

_SHOWN = 20


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cache.distributed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument(
        "--sabotage",
        choices=["intents", "settling", "leases", "roles"],
        help="leave out intents before the commit, all invalidation, the leases of readers, or what notices that a "
        "server was demoted (with --failover); has to be noticed",
    )
    parser.add_argument("--failover", action="store_true", help="two servers behind one name, which swap roles")
    arguments = parser.parse_args()
    with (
        PostgresqlServer(options={"max_connections": "200"}) as postgresql,
        RedisServer(unix_socket=not arguments.failover) as redis,
        RedisServer() as replica,
        tempfile.TemporaryDirectory() as uploads,
    ):
        settings: dict[str, Any] = {
            "environment": "testing",
            "database_url": postgresql.url("distributed"),
            "redis_url": redis.url,
            "local_storage_path": uploads,
            "db_max_connections": 8,
        }
        async with DataLayer(Settings(**settings), prepare=True):
            pass
        plan = Plan(settings, arguments.seconds, arguments.processes, arguments.rows, arguments.sabotage)
        if arguments.failover:
            async with Endpoint(redis) as endpoint:
                pair = Pair(endpoint, replica, random.Random())
                await pair.follow()
                outcome = await run(replace(plan, settings=settings | {"redis_url": endpoint.url}, pair=pair))
            say(f"{pair.swaps} swaps of roles")
        else:
            outcome = await run(plan)
    verdict = outcome.verdict
    say(f"{verdict.events} events: {verdict.reads} reads, {verdict.writes} writes")
    say(f"{outcome.killed} killed, {outcome.stopped} stopped, {outcome.disconnected} times all disconnected")
    say(f"{verdict.stale_reads} reads were out of date when they began, at most by {verdict.stalest * 1000:.1f} ms")
    say(f"{len(verdict.violations)} violations, {outcome.failed} processes failed")
    for violation in verdict.violations[:_SHOWN]:
        say(f"  {violation}")
    return 1 if verdict.violations or outcome.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
