"""A short run of the whole; ``python -m tests.operations.chaos`` runs it for longer, with exact limits."""

from __future__ import annotations

import pytest

from tests.operations.chaos.plan import Plan
from tests.operations.chaos.run import run

# Timings never decide a test: on a busy machine a wait of seconds says nothing.
PATIENT = {"bound": 30.0, "allowance": 60.0}


@pytest.mark.timeout(300)
async def test_nothing_wrong_is_seen_and_nothing_is_lost_while_servers_fail() -> None:
    outcome = await run(Plan(seconds=19, replicas=2, **PATIENT))
    assert {promise: violations for promise, violations in outcome.violations.items() if violations} == {}
    for kind in ("save", "save at once", "read", "begin", "validate", "upload"):
        assert outcome.operations[kind]["done"] > 3, "the load was too small to prove anything"
    refused = sum(numbers.get("failed", 0) for numbers in outcome.operations.values())
    assert refused, "the servers were not missed"


@pytest.mark.timeout(300)
async def test_it_finds_fault_with_a_data_layer_that_acknowledges_what_it_could_not_store() -> None:
    plan = Plan(seconds=8, replicas=1, storage="local", sabotage="acknowledgements", **PATIENT)
    outcome = await run(plan)
    assert outcome.violations["saves"]
