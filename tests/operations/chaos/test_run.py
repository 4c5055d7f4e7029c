"""A short run of the whole; ``python -m tests.operations.chaos`` runs it for longer, with exact limits."""

from __future__ import annotations

import pytest

from tests.operations.chaos.plan import Plan
from tests.operations.chaos.run import run

pytestmark = pytest.mark.slow

# Timings never decide a test: on a busy machine a wait of seconds says nothing.
PATIENCE, LONG = 60.0, 300.0
SETTINGS = {
    "db_pool_timeout": PATIENCE,
    "db_connect_timeout": PATIENCE,
    "db_statement_timeout": PATIENCE,
    "redis_command_timeout": 10_000,
    "storage_connect_timeout": PATIENCE,
    "storage_timeout": 5.0,
    "storage_retries": 0,
}


@pytest.mark.timeout(600)
async def test_nothing_wrong_is_seen_and_nothing_is_lost_while_servers_fail() -> None:
    outcome = await run(Plan(seconds=13, replicas=2, bound=LONG, allowance=PATIENCE, overrides=SETTINGS))
    assert {promise: violations for promise, violations in outcome.violations.items() if violations} == {}
    for kind in ("save", "save at once", "read", "begin", "validate", "upload"):
        assert outcome.operations[kind]["done"] > 3, "the load was too small to prove anything"
    refused = sum(numbers.get("failed", 0) for numbers in outcome.operations.values())
    assert refused, "the servers were not missed"
