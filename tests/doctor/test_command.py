"""What the command prints, how it ends, and that it ends."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_layer import DataLayer, Settings
from data_layer.services.doctor import cache as cache_checks
from data_layer.services.doctor import storage as storage_checks
from tests.service.support import clean_environment

from .support import GONE, Examine, Report, silent_server

# However long a busy machine takes: without limits these would wait for ever.
PATIENCE = 120


@pytest.fixture(autouse=True)
def nothing_is_wrong_with_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy it is, and however full its disk."""
    monkeypatch.setattr(cache_checks, "_SLOW_SECONDS", 30.0)
    monkeypatch.setattr(storage_checks, "_LITTLE_SPACE", 0.0)


def test_servers_of_our_own_are_all_well(examine: Examine, tmp_path: Path) -> None:
    """Beside the service that uses them."""
    embedded = {"DATABASE_URL": "", "REDIS_URL": ""}
    folder = Path(examine.command.environment["DATA_FOLDER"])

    async def look() -> Report:
        settings = Settings(environment="testing", data_folder=folder, local_storage_path=tmp_path / "uploads")
        async with DataLayer(settings):
            return await asyncio.to_thread(examine, **embedded)

    report = asyncio.run(look())
    assert report.outcome == "ok", [one for one in report.findings if one["outcome"] != "ok"]
    assert report.counts == {"ok": len(report.findings), "warning": 0, "failed": 0, "skipped": 0}
    assert report.code == 0
    assert len(report.findings) > 40
    # Afterwards they have data and are stopped: the doctor starts them itself.
    assert examine(**embedded).outcome == "ok"


def test_before_the_first_start_nothing_is_made(examine: Examine) -> None:
    folder = Path(examine.command.environment["DATA_FOLDER"])
    report = examine(DATABASE_URL="", REDIS_URL="", LOCAL_STORAGE_PATH=str(folder / "uploads"))
    assert report.code == 0
    for part in ("database", "cache", "storage"):
        report.says(f"{part}.server", "ok", "yet")
        outcomes = report.outcomes(part)
        assert outcomes.pop("server") == {"ok"}
        assert set.union(*outcomes.values()) == {"skipped"}
    assert not folder.exists()


def test_every_line_for_people_is_a_finding_for_programs(examine: Examine) -> None:
    shown = examine.command("doctor", code=None).output.splitlines()
    report = examine()
    assert "10 s" in shown[0], "the time limit is told"
    lines = [line.split()[:2] for line in shown[1:-1] if line]
    assert lines == [
        [one["outcome"].upper() if one["outcome"] != "ok" else "ok", f"{one['part']}.{one['check']}"]
        for one in report.findings
    ]
    # The user of these servers is a superuser.
    assert shown[-1] == f"0 failed, 1 warning, {report.counts['ok']} ok"


def test_a_failure_hides_no_other_and_says_what_it_keeps_from_being_seen(examine: Examine) -> None:
    report = examine(**GONE)
    assert (report.code, report.outcome) == (1, "failed")
    for part in ("database", "cache"):
        report.says(f"{part}.address", "failed", "127.0.0.1:1", "nothing listens there", "see that the server runs")
        skipped = [one for one in report.findings if one["part"] == part and one["outcome"] == "skipped"]
        assert len(skipped) > 8
        assert {one["caused_by"] for one in skipped} == {f"{part}.address"}
    assert report.outcomes("storage")["writes"] == {"ok"}
    shown = examine.command("doctor", code=1, **GONE).output
    assert "because of database.address: login, primary, version" in shown


def test_exit_codes(examine: Examine) -> None:
    warned = examine(DB_FOO="1")
    assert (warned.code, warned.outcome) == (0, "warning")
    assert examine("--strict", DB_FOO="1").code == 1
    assert examine.command("doctor", "--no-such-option", code=2).output == ""
    assert examine.command("doctor", "--time-limit", "0", code=2).output == ""


@pytest.mark.slow
def test_servers_that_accept_and_say_nothing_hold_nobody_up(tmp_path: Path) -> None:
    """As a process of its own, because threads that hang could keep it from ending."""
    with silent_server() as port:
        environment = {
            "ENVIRONMENT": "production",
            "DATABASE_URL": f"postgresql://user:secret-one-1@127.0.0.1:{port}/name",
            "REDIS_URL": f"redis://user:secret-two-2@127.0.0.1:{port}",
            "STORAGE_BACKEND": "s3",
            "AWS_S3_BUCKET": "bucket",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-three-3",
        }
        program = str(Path(sys.executable).with_name("data-layer"))
        done = subprocess.run(
            [program, "doctor", "--json", "--time-limit", "1"],
            env=clean_environment() | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    assert done.returncode == 1, done.stderr
    report = Report(1, json.loads(done.stdout))
    for name in ("database.login", "cache.login", "storage.login"):
        assert report.of(name)["outcome"] == "failed", report.of(name)
    assert max(one["seconds"] for one in report.findings) < PATIENCE
    assert "secret-" not in done.stdout + done.stderr


def test_no_secret_is_shown(examine: Examine) -> None:
    secrets = {
        "DATABASE_URL": "postgresql://user:in-url-1111@127.0.0.1:1/name?password=in-query-2222",
        "REDIS_URL": "redis://user:in-url-3333@127.0.0.1:1",
        "DB_DIRECT_URL": "postgresql://user:in-url-4444@127.0.0.1:1/name",
        "REDIS_PASSWORD": "plain-5555-plain",
        "SESSION_SECRET": "short-6666",
        "JWT_SECRET": "short-7777",
        "STORAGE_BACKEND": "s3",
        "AWS_S3_BUCKET": "bucket",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "key-id",
        "AWS_SECRET_ACCESS_KEY": "secret-8888-secret",
        "ENVIRONMENT": "production",
    }
    said = ""
    for changed in (
        {},
        {"DATABASE_URL": "mysql://user:in-url-1111@host/name", "REDIS_URL": "http://:in-url-3333@host"},
    ):
        for words in ([], ["--json"]):
            done = examine.command("doctor", *words, code=1, **secrets | changed)
            said += done.output + done.errors
    assert "SESSION_SECRET has under 32 characters" in said
    for number in range(1, 9):
        assert str(number) * 4 not in said


def test_a_line_break_in_a_name_begins_no_line(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_\nok", "1")
    shown = examine.command("doctor", code=None).output
    assert not any(line.startswith("ok,") or line == "ok" for line in shown.splitlines())
