"""``python benchmarks/login_timing.py``: does the time of a failed login tell whether an address has an account?

Failed logins for four kinds of addresses alternate in random order, each from a network of its own, so that nobody has
to wait: an account and a wrong password; one whose hash was made with fewer rounds; one without a password; and no
account. For each kind the median is shown, the difference from the first kind with its 99 % confidence interval (by
bootstrap), and the area under the ROC curve: how often an attacker who sees one time of each guesses right, 0.5 being a
toss of a coin. Few rounds show what bcrypt would hide.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings, request_context
from data_layer.errors import InvalidCredentialsError
from data_layer.schemas.actors import SYSTEM

PASSWORD = "correct horse battery staple"  # noqa: S105  (of accounts that live for seconds)
KNOWN, OLDER, WITHOUT, UNKNOWN = "account", "account, older hash", "account without a password", "no account"
console = Console()


async def make_accounts(data: DataLayer, kind: str, count: int) -> list[str]:
    emails = [f"{uuid7()}@example.com" for _ in range(count)]
    password = None if kind == WITHOUT else PASSWORD
    for email in emails if kind != UNKNOWN else ():
        await data.accounts.create(SYSTEM, email=email, first_name="B", last_name="M", password=password)
    return emails


async def measure(rounds: int, count: int, folder: Path) -> dict[str, list[float]]:
    settings = Settings(_env_file=None, data_folder=folder, local_storage_path=folder / "up", bcrypt_rounds=rounds)
    # An account stands few failures in a row, so each is used three times.
    async with DataLayer(settings.replaced(bcrypt_rounds=rounds - 1 if rounds > 4 else 4)) as older:
        emails = {OLDER: await make_accounts(older, OLDER, count // 3 + 1)}
    times: dict[str, list[float]] = {kind: [] for kind in (KNOWN, OLDER, WITHOUT, UNKNOWN)}
    async with DataLayer(settings) as data:
        emails |= {kind: await make_accounts(data, kind, count // 3 + 1) for kind in (KNOWN, WITHOUT, UNKNOWN)}
        attempts = [(kind, emails[kind][number // 3]) for kind in times for number in range(count)]
        random.Random(1).shuffle(attempts)  # noqa: S311  (an order, no secret)
        for number, (kind, email) in enumerate(attempts):
            with request_context(ip_address=f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"):
                start = time.perf_counter()
                try:
                    await data.accounts.authenticate(email, "wrong password")
                except InvalidCredentialsError:
                    times[kind].append(time.perf_counter() - start)
        await data.audit.flush()
    return times


def interval(ours: Sequence[float], others: Sequence[float], samples: int = 2000) -> tuple[float, float]:
    """The 99 % confidence interval of the difference of medians."""
    generator = random.Random(2)  # noqa: S311  (samples, no secret)
    differences = sorted(
        statistics.median(generator.choices(ours, k=len(ours)))
        - statistics.median(generator.choices(others, k=len(others)))
        for _ in range(samples)
    )
    return differences[int(samples * 0.005)], differences[int(samples * 0.995) - 1]


def area_under_curve(ours: Sequence[float], others: Sequence[float]) -> float:
    ordered = sorted(others)
    return sum(bisect_left(ordered, value) for value in ours) / (len(ours) * len(ordered))


def report(rounds: int, times: dict[str, list[float]]) -> None:
    table = Table(title=f"Failed logins, BCRYPT_ROUNDS={rounds}, {len(times[KNOWN])} of each kind")
    for column in ("Address", "median ms", "difference ms (99 %)", "guessed right"):
        table.add_column(column, justify="left" if column == "Address" else "right")
    for kind, values in times.items():
        low, high = interval(values, times[KNOWN])
        shown = "" if kind == KNOWN else f"{low * 1000:+.2f} … {high * 1000:+.2f}"
        area = "" if kind == KNOWN else f"{area_under_curve(values, times[KNOWN]):.3f}"
        table.add_row(kind, f"{statistics.median(values) * 1000:.2f}", shown, area)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=150, help="failed logins of each kind")
    parser.add_argument("--rounds", type=int, nargs="+", default=[5, 10], help="BCRYPT_ROUNDS to measure with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dl-") as folder:
        for rounds in options.rounds:
            report(rounds, asyncio.run(measure(rounds, options.count, Path(folder))))


if __name__ == "__main__":
    main()
