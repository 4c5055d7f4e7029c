"""A short run through HTTP; ``python -m tests.operations.chaos.over_http`` runs it for longer."""

from __future__ import annotations

import pytest

from tests.operations.chaos.over_http import run
from tests.operations.chaos.plan import Plan

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
async def test_nothing_that_was_answered_is_lost_while_servers_fail() -> None:
    outcome = await run(Plan(seconds=8, replicas=2, storage="local"))
    assert outcome.violations == []
    for kind in ("create", "generate", "read", "send_file"):
        assert outcome.seen.done[kind] > 3, "the load was too small to prove anything"
    assert len(outcome.faults) == 5
