"""All commands: their help, their usage errors, and what ``dev`` and ``start`` refuse before they start anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup

from data_layer import __version__
from tests.service.support import clean_environment, run_command

from .support import Commands, command_tree

command = Commands()


def all_commands() -> list[tuple[str, ...]]:
    """Those for people: a hidden one is called by the service itself."""

    def below(node: TyperGroup | TyperCommand, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        children = {name: child for name, child in getattr(node, "commands", {}).items() if not child.hidden}
        return [path, *(found for name, child in children.items() for found in below(child, (*path, name)))]

    return below(command_tree(), ())


WITHOUT_JSON = {("app",), ("dev",), ("start",)}
PROMISED = {
    *WITHOUT_JSON,
    *(("db", name) for name in ("create", "migrate", "rollback", "current", "check", "seed", "reset")),
    *(("cache", name) for name in ("flush", "stats", "keys", "cleanup")),
    *(("storage", "init"), ("health",), ("stats",), ("doctor",), ("import",), ("config", "show")),
    *(
        ("projects", name)
        for name in ("list", "show", "open", "export-html", "export", "history", "clone", "delete", "restore", "search")
    ),
    *(("codes", name) for name in ("show", "diff", "save")),
    *(("images", name) for name in ("list", "show", "save", "delete")),
    *(("users", name) for name in ("create", "list", "show", "role", "suspend", "unsuspend", "unlock")),
    *(("users", name) for name in ("sessions", "delete", "verify", "password", "reset-factors", "export")),
    *(("users", "keys", name) for name in ("list", "create", "revoke")),
    *(("mails", name) for name in ("list", "show", "retry")),
    *(("sessions", "list"), ("sessions", "revoke")),
    *(("audit", "list"), ("audit", "export"), ("maintenance", "run")),
    *(("usage", name) for name in ("sums", "entries", "budget")),
    *(("logs", "level"), ("logs", "reset")),
    *(("storage", name) for name in ("check", "cleanup", "migrate", "stats")),
}


def test_every_promised_command_is_there() -> None:
    groups = {path[:-1] for path in all_commands()}
    assert {path for path in all_commands() if path and path not in groups} == PROMISED


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_help(path: tuple[str, ...]) -> None:
    shown = command(*path, "--help").output
    assert f"Usage: {' '.join(('root', *path))}" in shown.replace("data-layer", "root")
    node = command_tree()
    for name in path:
        node = node.commands[name]
    assert str(node.help).split("\n")[0].rstrip(".") in " ".join(shown.split())
    for name, child in getattr(node, "commands", {}).items():
        assert (f" {name} " in shown) != child.hidden
    for parameter in node.params:
        described = getattr(parameter, "help", None)
        assert described, f"{parameter.name} has no help"
        assert described.split(".")[0][:40] in " ".join(shown.replace("│", " ").split())
    assert ("--json" in shown) == (path in PROMISED - WITHOUT_JSON)


def test_help_loads_nothing_heavy() -> None:
    """What makes --help quick, said without a clock."""
    program = """
import sys
from data_layer.cli.application import application
application(["db", "--help"], standalone_mode=False)
heavy = {"sqlalchemy", "psycopg", "redis", "fastapi", "uvicorn", "alembic", "dotenv"}
sys.exit(", ".join(heavy & set(sys.modules)) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_version_and_usage_errors() -> None:
    assert command("--version").output == f"data-layer {__version__}\n"
    assert "Usage:" in command(code=2).errors + command(code=2).output
    for wrong in (["nonsense"], ["db", "migrat"], ["projects", "show"], ["health", "--xml"]):
        refused = command(*wrong, code=2)
        assert refused.output == ""
        assert "Error" in refused.errors


@pytest.mark.parametrize("name", ["dev", "start"])
def test_production_is_refused_with_all_problems_at_once(name: str) -> None:
    refused = command(name, code=1, ENVIRONMENT="production")
    assert refused.output == ""
    assert refused.errors.startswith("Error (configuration_invalid): The configuration cannot be used:\n  - ")
    for part in (
        "DB_HOST or DATABASE_URL",
        "REDIS_HOST, REDIS_URL",
        "SESSION_SECRET is missing",
        "JWT_SECRET is missing",
    ):
        assert part in refused.errors


def test_dev_is_refused_in_production_even_with_complete_settings() -> None:
    complete = {
        "ENVIRONMENT": "production",
        "DATABASE_URL": "postgresql://user@127.0.0.1:1/name",
        "REDIS_URL": "redis://127.0.0.1:1",
        "SESSION_SECRET": "3eb1a0f5c2d94786ab51e07c9d3f6a28",
        "JWT_SECRET": "9c0d7e42f6b18a35d4c97f02e6518b3a",
    }
    refused = command("dev", code=1, **complete)
    assert refused.errors == (
        "Error (configuration_invalid): dev changes the database, and ENVIRONMENT is production; "
        "use: data-layer start\n"
    )


def test_a_port_on_an_address_that_is_not_ours() -> None:
    refused = command("dev", code=1, HOST="192.0.2.1", PORT="3000")
    assert "cannot listen on 192.0.2.1:3000" in refused.errors
    assert "set HOST and PORT" in refused.errors
    assert "cannot listen on no-such-host.invalid" in command("start", code=1, HOST="no-such-host.invalid").errors


def test_output_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    shown = run_command(tmp_path, "config", "show", DB_NAME="größe", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert shown.returncode == 0, shown.stderr
    assert r"gr\xf6\xdfe" in shown.stdout
