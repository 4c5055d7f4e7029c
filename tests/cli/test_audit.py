"""``data-layer audit`` and ``data-layer maintenance``: an incident is looked into without SQL."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest

from data_layer import AuditAction, AuditLog, DataLayer, Settings

from .support import Commands


@pytest.fixture
def trail(command: Commands, settings: Settings) -> Commands:
    """Commands on a trail of five failed logins and an error."""

    async def fill() -> None:
        async with DataLayer(settings) as data, data.transaction() as tx:
            for number in range(5):
                tx.add(
                    AuditLog.security_event(
                        AuditAction.SECURITY_LOGIN_FAILED,
                        f"Login {number} failed",
                        ip_address=f"10.0.0.{number}",
                        correlation_id=f"request-{number}",
                        resource_type="user",
                        resource_id="7",
                    )
                )
            tx.add(AuditLog.system_event(AuditAction.SYSTEM_ERROR, "=1+1", level="error"))  # type: ignore[arg-type]

    asyncio.run(fill())
    return command


def test_an_empty_trail(command: Commands) -> None:
    assert command("audit", "list").output == "There are no such entries.\n"
    assert command("audit", "list", "--json").json == {"entries": [], "next_cursor": None}


def test_entries_are_listed_newest_first_in_pages(trail: Commands) -> None:
    output = trail("audit", "list", "--limit", "4").output
    assert output.startswith("4 entries\n")
    assert "security_login_failed (failed)" in output
    assert "10.0.0.4" in output
    first = trail("audit", "list", "--limit", "4", "--json").json
    rest = trail("audit", "list", "--limit", "4", "--cursor", first["next_cursor"], "--json").json

    shown = [entry["description"] for entry in (*first["entries"], *rest["entries"])]
    assert shown == ["=1+1", *(f"Login {number} failed" for number in (4, 3, 2, 1, 0))]
    assert rest["next_cursor"] is None
    assert "ip_address" not in trail("audit", "list", "--view", "secure", "--json").json["entries"][0]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--action", "system_error"), 1),
        (("--action", "system_error", "--action", "security_login_failed"), 6),
        (("--level", "warning"), 5),
        (("--category", "system"), 1),
        (("--resource", "user"), 5),
        (("--resource", "user:8"), 0),
        (("--correlation", "request-3"), 1),
        (("--since", "1h", "--text", "LOGIN 2"), 1),
        (("--until", "2020-01-01"), 0),
        (("--since", "2020-01-01T12:00+02:00"), 6),
    ],
)
def test_filters(trail: Commands, options: tuple[str, ...], count: int) -> None:
    assert len(trail("audit", "list", *options, "--json").json["entries"]) == count


def test_what_cannot_be_asked_is_explained(trail: Commands) -> None:
    assert "since" in trail.error("audit", "list", "--text", "login")
    assert "'warning'" in trail("audit", "list", "--level", "bad", code=2).errors
    assert "write a time as" in trail("audit", "list", "--since", "yesterday", code=2).errors
    assert "cursor" in trail.error("audit", "list", "--cursor", "nonsense")


def test_an_export_goes_to_a_new_private_file(trail: Commands, tmp_path: Path) -> None:
    path = tmp_path / "trail.csv"
    result = trail("audit", "export", "--format", "csv", "--output", str(path), "--since", "1d")

    assert result.errors == "Exported 6 entries.\n"
    assert path.stat().st_mode & 0o777 == 0o600
    rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
    assert rows[-1]["description"] == "'=1+1"
    assert "exists" in trail("audit", "export", "--output", str(path), code=2).errors
    other = tmp_path / "trail.jsonl"
    assert trail("audit", "export", "-o", str(other), "--json").json == {"file": str(other), "entries": 7}
    lines = [json.loads(line) for line in trail("audit", "export").output.splitlines()]
    assert [line["description"] for line in lines][-1] == "Exported the audit trail"
    assert lines[-1]["source"] == "cli"


def test_maintenance_says_what_there_is_to_do_and_does_it(trail: Commands) -> None:
    planned = trail("maintenance", "run", "--dry-run", "--json").json
    done = trail("maintenance", "run", "--json").json
    again = trail("maintenance", "run").output

    assert planned["is_dry_run"]
    assert done["is_complete"]
    assert planned["audit_partitions_made"] == done["audit_partitions_made"]
    assert "Audit partitions made" in again
    assert "none" in again
