"""A short run of the whole; ``python -m tests.cache.distributed`` runs it for longer, with more processes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from data_layer import Settings
from data_layer.testing.redis_server import RedisServer
from tests.cache.distributed.failover import Pair
from tests.cache.distributed.run import Outcome, Plan, run
from tests.cache.wire import Endpoint

pytestmark = pytest.mark.slow

SECONDS = 6


@pytest.fixture
def plan(settings: Settings) -> Plan:
    assert settings.database.database_url is not None
    return Plan(
        {
            "environment": "testing",
            "database_url": settings.database.database_url.get_secret_value(),
            "local_storage_path": settings.storage.local_storage_path,
            "db_max_connections": 4,
        },
        SECONDS,
        processes=4,
    )


async def test_no_read_is_older_than_the_bound_and_nothing_old_survives(plan: Plan) -> None:
    with RedisServer(unix_socket=True) as server:
        plan.settings["redis_url"] = server.url
        outcome = await run(plan)
    assert outcome.verdict.violations == []
    assert outcome.failed == 0
    assert outcome.killed + outcome.stopped > 0
    assert outcome.verdict.reads > 50
    assert outcome.verdict.writes > 5


async def test_it_finds_fault_with_a_cache_that_is_not_told_of_changes(plan: Plan) -> None:
    with RedisServer(unix_socket=True) as server:
        plan.settings["redis_url"] = server.url
        outcome = await run(replace(plan, sabotage="settling"))
    assert outcome.verdict.violations


async def fail_over_again_and_again(plan: Plan) -> tuple[Outcome, int]:
    with RedisServer() as first, RedisServer() as second:
        async with Endpoint(first) as endpoint:
            pair = Pair(endpoint, second, random.Random())
            await pair.follow()
            outcome = await run(replace(plan, settings=plan.settings | {"redis_url": endpoint.url}, pair=pair))
    return outcome, pair.swaps


async def test_no_read_is_older_than_the_bound_while_two_servers_behind_one_name_swap_roles(plan: Plan) -> None:
    outcome, swaps = await fail_over_again_and_again(plan)
    assert outcome.verdict.violations == []
    assert outcome.failed == 0
    assert swaps > 1
    assert outcome.verdict.reads > 50
    assert outcome.verdict.writes > 5


@pytest.mark.timeout(300)
async def test_it_finds_fault_with_a_cache_that_does_not_notice_a_change_of_roles(plan: Plan) -> None:
    # Whether a process reads from a demoted server at the wrong moment is chance: about every second run shows it.
    for _ in range(10):
        outcome, swaps = await fail_over_again_and_again(replace(plan, sabotage="roles"))
        assert swaps > 1
        if outcome.verdict.violations:
            break
    assert outcome.verdict.violations
