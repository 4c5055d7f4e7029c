"""``health``, ``stats``, ``cache``, ``storage`` and ``config``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from data_layer import AuditAction, AuditLog, DataLayer, Settings
from data_layer.entities import Entity
from tests.file_content import picture
from tests.support import make_user

from .support import Commands

GONE = {"REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/name"}


def test_health(command: Commands) -> None:
    lines = command("health").output.splitlines()
    assert lines[0] == "Health: healthy"
    assert [line.split()[:2] for line in lines[2:]] == [["database", "ok"], ["cache", "ok"], ["storage", "ok"]]
    assert command("health", "--json").json["overall"] is True


@pytest.mark.parametrize(
    ("broken", "setting", "code"),
    [("database", "DATABASE_URL", "database_unavailable"), ("cache", "REDIS_URL", "cache_unavailable")],
)
def test_health_says_which_part_is_broken(command: Commands, broken: str, setting: str, code: str) -> None:
    sick = command("health", code=1, **{setting: GONE[setting]})
    states = {line.split()[0]: line.split()[1] for line in sick.output.splitlines()[2:]}
    assert states == {"database": "ok", "cache": "ok", "storage": "ok"} | {broken: "FAILED"}
    assert "127.0.0.1" in sick.output, "operators may know what is wrong with it"
    report = command("health", "--json", code=1, **{setting: GONE[setting]}).json
    assert report["parts"][broken]["error_code"] == code
    assert [report[name] for name in ("database", "cache", "storage")].count(False) == 1
    assert report["overall"] is False
    assert report["status"] == ("degraded" if broken == "cache" else "unhealthy")


def test_health_of_a_storage_that_cannot_be_used(command: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    report = command("health", "--json", code=1, LOCAL_STORAGE_PATH=str(tmp_path / "file")).json
    assert report["parts"]["storage"]["error_code"] == "storage_unavailable"
    assert (report["database"], report["cache"]) == (True, True)


def test_health_of_a_database_that_does_not_exist(command_on_nothing: Commands) -> None:
    report = command_on_nothing("health", "--json", code=1).json
    assert report["parts"]["database"]["error_code"] == "database_missing"


def test_statistics(command: Commands, settings: Settings) -> None:
    async def fill() -> None:
        async with DataLayer(settings) as data:
            for number in range(3):
                await data.files.save(picture(color=(number, 0, 0)), owner_id=None)
            async with data.transaction() as tx:
                tx.add(make_user())
                tx.add(AuditLog.security_event(AuditAction.SECURITY_DATA_EXPORT, "Exported", is_success=True))

    asyncio.run(fill())
    figures = command("stats", "--json").json
    assert figures["errors"] == {}
    tables = {table["name"]: table for table in figures["database"]["tables"]}
    assert set(tables) == set(Entity.metadata.tables)
    # The rows are in its months.
    assert tables["audit_logs"]["size"] > 0
    assert figures["database"]["pool"]["maximum"] == 20
    assert figures["storage"]["file_count"] >= 3
    assert figures["storage"]["free_size"] > 0
    assert figures["database"]["connections_by_state"]["active"] >= 1
    assert figures["cache"]["server"].startswith("valkey")
    shown = command("stats").output
    for word in (f"Database {figures['database']['name']}", "Tables", "Cache", "Storage", "generated_codes", "MiB"):
        assert word in shown
    assert "\n\n\n" not in shown
    assert "SECONDS" in command("stats", "5", code=2).errors


def test_statistics_without_a_database(command: Commands) -> None:
    shown = command("stats", code=1, DATABASE_URL="postgresql://user:hidden-password@127.0.0.1:1/name")
    assert "Cache" in shown.output, "what works is shown"
    assert "hidden-password" not in shown.output + shown.errors
    assert "Free" in shown.output
    assert "database: " in shown.errors
    figures = command("stats", "--json", code=1, DATABASE_URL=GONE["DATABASE_URL"]).json
    assert figures["database"] is None
    assert figures["storage"]["notes"].keys() == {"files"}
    assert figures["errors"].keys() == {"database"}


def test_statistics_without_a_cache(command: Commands) -> None:
    shown = command("stats", code=1, REDIS_URL=GONE["REDIS_URL"])
    assert "Database" in shown.output, "what works is shown"
    assert "cache: " in shown.errors
    figures = command("stats", "--json", code=1, REDIS_URL=GONE["REDIS_URL"]).json
    assert figures["cache"] is None
    assert figures["errors"].keys() == {"cache"}


def test_cache(command: Commands, settings: Settings) -> None:
    # A prefix that no other test has, because `flush` leaves the locks that earlier tests took.
    prefix = f"{settings.redis.redis_key_prefix}-counted"
    command.environment["REDIS_KEY_PREFIX"] = prefix
    settings = settings.replaced(redis_key_prefix=prefix)

    async def fill() -> None:
        async with DataLayer(settings) as data:
            await data.cache.set_many({"a": 1, "b": 2}, ttl=60)
            await data.cache.client.set(f"{settings.redis.redis_key_prefix}:endless", "3")
        async with DataLayer(settings.replaced(redis_key_prefix="somebody-else")) as data:
            await data.cache.set("theirs", 3, ttl=60)

    asyncio.run(fill())
    assert command("cache", "stats", "--json").json["keys"] == 3
    shown = command("cache", "stats").output
    assert "Keys of ours  3\n" in shown
    assert "MiB" in shown
    assert command("cache", "keys").output == "a\nb\nendless\n"
    assert command("cache", "keys", "[b-z]", "--json").json == {"keys": ["b"], "complete": True}
    cut = command("cache", "keys", "--limit", "1")
    assert cut.output in {"a\n", "b\n", "endless\n"}
    assert "--limit" in cut.errors
    assert command("cache", "keys", "--limit", "1", "--json").json["complete"] is False
    assert command("cache", "cleanup").output == f"Removed 1 useless key with the prefix {prefix!r}.\n"
    assert command("cache", "cleanup", "--json").json == {"removed": 0}
    assert command("cache", "flush").output == f"Removed 2 keys with the prefix {prefix!r}.\n"
    assert command("cache", "flush", "--json").json == {"removed": 0}
    assert command("cache", "flush", "--json", REDIS_KEY_PREFIX="somebody-else").json == {"removed": 1}
    for words in (["cache", "flush"], ["cache", "stats"], ["cache", "keys"], ["cache", "cleanup"]):
        assert "cache_unavailable" in command.error(*words, REDIS_URL=GONE["REDIS_URL"])
        command(*words, DATABASE_URL=GONE["DATABASE_URL"])  # The cache works without the database.


def test_storage(command: Commands, tmp_path: Path) -> None:
    place = Path(command.environment["LOCAL_STORAGE_PATH"])
    made = command("storage", "init", LOCAL_STORAGE_PATH=str(tmp_path / "a" / "new place"))
    assert made.output == f"The local storage is ready: {tmp_path / 'a' / 'new place'}\n"
    assert (tmp_path / "a" / "new place").is_dir()
    assert command("storage", "init", "--json").json == {"backend": "local", "place": str(place), "unknown": []}
    (tmp_path / "file").touch()
    message = command.error("storage", "init", LOCAL_STORAGE_PATH=str(tmp_path / "file"))
    assert "storage_unavailable" in message
    assert str(tmp_path / "file") in message


SECRETS: dict[str, Any] = {
    "DATABASE_URL": "postgresql://someone:in-url-1@db.example.com:5432/name?sslmode=disable&password=in-query-2",
    "DB_DIRECT_URL": "postgresql://someone:in-url-3@db.example.com/name",
    "REDIS_URL": "redis://someone:in-url-4@cache.example.com",
    "REDIS_PASSWORD": "plain-5",
    "DB_PASSWORD": "plain-6",
    "SESSION_SECRET": "secret-7-secret-7-secret-7-secret-7",
}
WORDS = ("in-url-1", "in-query-2", "in-url-3", "in-url-4", "plain-5", "plain-6", "secret-7")


def test_the_settings_without_their_secrets(command: Commands) -> None:
    shown = command("config", "show", **SECRETS)
    as_json = command("config", "show", "--json", **SECRETS)
    for word in WORDS:
        assert word not in shown.output + shown.errors + as_json.output + as_json.errors
    rows = {line.split()[0]: line.split()[1:] for line in shown.output.splitlines()[2:]}
    assert rows.keys() == {name.upper() for name in Settings.fields()}
    assert rows["PORT"] == ["3000", "default"], "as one would write it into the environment"
    assert rows["DB_LOGGING"] == ["false", "default"]
    assert rows["ENVIRONMENT"] == ["testing", "set"]
    assert as_json.json["port"] == 3000
    assert as_json.json.keys() == set(Settings.fields())


@pytest.mark.parametrize("words", [["config", "show"], ["health"], ["db", "current"], ["projects", "list"]])
def test_all_problems_with_the_settings_at_once(words: list[str], command: Commands) -> None:
    wrong = {"PORT": "99999", "LOG_LEVEL": "loud", "DB_HOTS": "x", "DATABASE_URL": "mysql://u:hidden-word@h/n"}
    message = command.error(*words, **wrong)
    for part in ("PORT", "LOG_LEVEL", "did you mean DB_HOST", "DATABASE_URL", "postgresql://"):
        assert part in message
    assert "hidden-word" not in message
    assert "Traceback" not in message
