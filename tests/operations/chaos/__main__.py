"""The program: servers of its own, as long as you like, and a verdict."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

from tests.operations import chaos
from tests.operations.chaos.plan import Plan
from tests.operations.chaos.run import Outcome, run
from tests.operations.chaos.sabotage import SABOTAGES

_SHOWN = 10


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.operations.chaos", description=chaos.__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--storage", choices=["s3", "local"], default="s3", help="local: nothing makes it slow")
    parser.add_argument("--bound", type=float, default=5, help="seconds until everything works again (default: 5)")
    parser.add_argument("--sabotage", choices=sorted(SABOTAGES), help="break this; has to be noticed")
    parser.add_argument("--keep", type=Path, help="a folder for the journals and the logs")
    parser.add_argument("--json", action="store_true", help="print the verdict alone, as JSON")
    given = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())  # The replicas' logs are beside their journals.
    plan = Plan(given.seconds, given.replicas, given.storage, given.bound, sabotage=given.sabotage, keep=given.keep)
    outcome = asyncio.run(run(plan, (lambda _: None) if given.json else say))
    if given.json:
        say(json.dumps(asdict(outcome) | {"is_good": outcome.is_good, "bound": plan.bound}, indent=2))
    else:
        show(outcome, plan)
    return 0 if outcome.is_good else 1


def show(outcome: Outcome, plan: Plan) -> None:
    """For people."""
    say("\nOperations                acknowledged  unknown  refused    slowest  slowest error")
    for kind, numbers in outcome.operations.items():
        done, unknown = numbers.get("done", 0), numbers.get("unknown", 0)
        refused = numbers.get("failed", 0) + numbers.get("untyped", 0)
        times = f"{numbers['slowest']:8.3f} s  {numbers['slowest_error']:10.3f} s"
        say(f"  {kind:<22}  {done:12}  {unknown:7}  {refused:7} {times}  {numbers['errors'] or ''}")
    say(f"\nRecovery (at most {plan.bound:g} s)")
    for recovery in outcome.recoveries:
        ready = "" if recovery.until_ready is None else f", ready {recovery.until_ready:.2f} s"
        say(f"  {recovery.fault:<42}  away {recovery.away:5.2f} s  last error {recovery.seconds:.2f} s{ready}")
    say(f"\nstorage cleanup removed {outcome.removed_by_cleanup} objects that the outage had left\n")
    for promise, violations in outcome.violations.items():
        say(f"  {promise:<10} {'kept' if not violations else f'BROKEN, {len(violations)} times'}")
        for violation in violations[:_SHOWN]:
            say(f"      {violation[:600]}")
    say("\nNothing wrong was found." if outcome.is_good else "\nSomething is wrong.")


if __name__ == "__main__":
    sys.exit(main())
