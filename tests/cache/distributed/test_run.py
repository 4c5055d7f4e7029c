"""A short run of the whole; ``python -m tests.cache.distributed`` runs it for longer, with more processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from data_layer.testing.redis_server import RedisServer
from tests.cache.distributed.run import Plan, run

if TYPE_CHECKING:
    from data_layer import Settings

SECONDS = 6


@pytest.fixture
def plan(settings: Settings) -> Plan:
    assert settings.database_url is not None
    return Plan(
        {
            "environment": "testing",
            "database_url": settings.database_url.get_secret_value(),
            "local_storage_path": settings.local_storage_path,
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
        outcome = await run(Plan(plan.settings, 3, processes=2, sabotage="settling"))
    assert outcome.verdict.violations
