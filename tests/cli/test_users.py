"""``data-layer users``: the first administrator, and what one does in an incident."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from data_layer import AuditLog, DataLayer, Settings
from data_layer.cli.users import Role, Status
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.errors import InvalidCredentialsError
from tests.services.accounts.support import PASSWORD, make_account

from .support import Commands

ROOT = ("users", "create", "root@example.com", "--name", "Ada Root", "--role", "admin")


def can_log_in(settings: Settings, email: str, password: str) -> bool:
    async def try_it() -> bool:
        async with DataLayer(settings) as data:
            try:
                await data.accounts.authenticate(email, password)
            except InvalidCredentialsError:
                return False
            return True

    return asyncio.run(try_it())


def entries(settings: Settings) -> Sequence[AuditLog]:
    async def read() -> Sequence[AuditLog]:
        async with DataLayer(settings) as data, data.transaction() as tx:
            return await tx.audit.list()

    return asyncio.run(read())


def test_the_first_administrator(command: Commands, settings: Settings) -> None:
    made = command(*ROOT, typed=f"{PASSWORD}\n")
    assert made.output.startswith("Made an account for root@example.com with the role admin: ")
    assert PASSWORD not in made.output + made.errors
    assert can_log_in(settings, "Root@example.com", PASSWORD)
    shown = command("users", "show", "root@example.com", "--json").json
    assert (shown["first_name"], shown["last_name"], shown["role"]) == ("Ada", "Root", "admin")
    assert "password_hash" not in shown
    entry = entries(settings)[0]
    assert (entry.action, entry.user_id, entry.source, entry.resource_id) == (
        "admin_user_create",
        None,
        "cli",
        shown["id"],
    )


def test_a_password_is_taken_as_it_is(command: Commands, settings: Settings) -> None:
    command("users", "create", "ann@example.com", typed="  spaces belong to it  \r\nnot this line\n")
    assert can_log_in(settings, "ann@example.com", "  spaces belong to it  ")
    assert not can_log_in(settings, "ann@example.com", "spaces belong to it")


@pytest.mark.parametrize(
    ("arguments", "typed", "code"),
    [
        (("ann@example.com",), "short\n", "weak_password"),
        (("ann@example.com",), "", "invalid_value"),
        (("nonsense",), PASSWORD, "invalid_value"),
        (("ROOT@example.com",), PASSWORD, "duplicate"),
    ],
)
def test_what_is_refused(
    command: Commands, settings: Settings, arguments: tuple[str, ...], typed: str, code: str
) -> None:
    store(settings, ("root@example.com", "admin"))
    assert f"({code})" in command.error("users", "create", *arguments, typed=typed)


def test_a_password_is_no_argument(command: Commands) -> None:
    assert command("users", "create", "ann@example.com", "--password", PASSWORD, code=2).output == ""


def test_without_a_password(command: Commands, settings: Settings) -> None:
    made = command("users", "create", "ann@example.com", "--without-password", "--verified", "--json").json
    assert (made["first_name"], made["email_verified"], made["password_changed_at"]) == ("ann", True, None)
    assert not can_log_in(settings, "ann@example.com", "")


def test_the_list(command: Commands, settings: Settings) -> None:
    assert command("users", "list").output == "There are no such accounts. Make one with: data-layer users create\n"
    users = store(settings, ("root@example.com", "admin"), ("one@example.com", "user"), ("two@example.com", "user"))
    lines = command("users", "list").output.splitlines()
    assert lines[0] == "3 accounts"
    assert lines[2].split()[:4] == ["root@example.com", "Ann", "Other", "admin"]
    chosen = command("users", "list", "--role", "admin", "--status", "active", "--json").json
    assert [row["email"] for row in chosen] == ["root@example.com"]
    page = command("users", "list", "--limit", "1", "--after", users[0])
    assert page.output.startswith(f"1 account; for more: --after {users[1]}\n")


def test_the_choices_are_those_of_the_enumerations() -> None:
    assert get_args(Role) == tuple(UserRole)
    assert get_args(Status) == tuple(UserStatus)


def store(settings: Settings, *users: tuple[str, str]) -> list[str]:
    async def add() -> list[str]:
        async with DataLayer(settings) as data:
            made = [await make_account(data, email, role=UserRole(role)) for email, role in users]
        return [str(user.id) for user in made]

    return asyncio.run(add())


def test_an_incident(command: Commands, settings: Settings) -> None:
    [user_id] = store(settings, ("ann@example.com", "user"))

    async def log_in() -> None:
        async with DataLayer(settings) as data:
            account = await data.accounts.authenticate("ann@example.com", PASSWORD)
            await data.sessions.create(account.id)

    asyncio.run(log_in())
    assert len(command("users", "sessions", "ann@example.com", "--json").json) == 1
    suspended = command("users", "suspend", "ann@example.com", "--reason", "stolen password", "--json").json
    assert suspended["status"] == "suspended"
    assert command("users", "sessions", user_id).output == "This user is not logged in.\n"
    assert "suspended" in command("users", "show", "ann@example.com").output
    assert command("users", "unsuspend", user_id).output == "ann@example.com is active again.\n"
    assert "(conflict)" in command.error("users", "unsuspend", user_id)
    assert command("users", "role", "ann@example.com", "moderator").output == (
        "ann@example.com has the role moderator now.\n"
    )
    assert command("users", "unlock", "ann@example.com", "--json").json["failed_login_count"] == 0
    [entry] = [entry for entry in entries(settings) if entry.action == "admin_user_suspend"]
    assert (entry.details, entry.source) == ("stolen password", "cli")


def test_the_last_administrator_stays(command: Commands, settings: Settings) -> None:
    [root] = store(settings, ("root@example.com", "admin"))
    for arguments in (("role", root, "user"), ("suspend", root), ("delete", root, "--yes")):
        assert "(last_admin)" in command("users", *arguments, code=1).errors


def test_deleting_asks_first(command: Commands, settings: Settings) -> None:
    [user_id] = store(settings, ("ann@example.com", "user"))
    command("users", "delete", "ann@example.com", typed="n\n", code=1)
    assert command("users", "show", "ann@example.com", "--json").json["id"] == user_id
    assert command("users", "delete", "ann@example.com", "--yes", "--json").json == {"deleted": user_id}
    assert "(not_found)" in command.error("users", "show", "ann@example.com")


@pytest.mark.parametrize("action", [("show",), ("role", "admin")])
def test_an_account_that_is_not_there(command: Commands, action: tuple[str, ...]) -> None:
    message = command.error("users", action[0], "nobody@example.com", *action[1:])
    assert "no account has the address 'nobody@example.com'" in message


@pytest.mark.parametrize(("second", "made"), [(PASSWORD, True), ("something else", False)])
def test_in_a_terminal_the_password_is_asked_for_twice_and_not_shown(
    command: Commands, settings: Settings, tmp_path: Path, *, second: str, made: bool
) -> None:
    ours, theirs = os.openpty()
    program = "import sys; from data_layer.cli import main; sys.argv = ['data-layer', *sys.argv[1:]]; main()"
    environment = os.environ | command.environment | {"BCRYPT_ROUNDS": "4"}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, "users", "create", "ann@example.com"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = _read_until(ours, b"Password: ")
        os.write(ours, f"{PASSWORD}\n".encode())
        shown += _read_until(ours, b"Once more: ")
        os.write(ours, f"{second}\n".encode())
        output, _ = process.communicate(timeout=60)
        assert (process.returncode == 0) == made
    os.close(ours)
    assert PASSWORD.encode() not in shown + output
    assert can_log_in(settings, "ann@example.com", PASSWORD) == made


def _read_until(terminal: int, prompt: bytes) -> bytes:
    shown = b""
    while prompt not in shown:
        shown += os.read(terminal, 1000)
    return shown


def test_api_keys(command: Commands, settings: Settings) -> None:
    store(settings, ("ann@example.com", "user"))
    ann = "ann@example.com"
    assert "no API keys" in command("users", "keys", "list", ann).output
    made = command("users", "keys", "create", ann, "--name", "build", "--scope", "read", "--scope", "write", "--json")
    secret, key = made.json["secret"], made.json["api_key"]
    assert key["scopes"] == ["read", "write"]
    assert secret.startswith(key["prefix"])
    ending = command("users", "keys", "create", ann, "--name", "night", "--scope", "generate", "--expires-in", "30")
    assert "dl_" in ending.output.splitlines()[-1]
    listed = command("users", "keys", "list", ann)
    assert all(each in listed.output for each in ("build", "night", "2 API keys", key["prefix"]))
    assert secret not in listed.output
    assert "--scope must be one of" in command.error("users", "keys", "create", ann, "--name", "x", "--scope", "all")
    assert "only an administrator" in command.error("users", "keys", "create", ann, "--name", "x", "--scope", "admin")
    assert command("users", "keys", "revoke", key["id"]).output == "The key is revoked.\n"
    assert command("users", "keys", "revoke", key["id"], "--json").json == {"revoked": False}


def test_exporting_a_person(command: Commands, settings: Settings, tmp_path: Path) -> None:
    store(settings, ("ann@example.com", "user"))
    target = tmp_path / "ann.zip"
    assert "Wrote everything" in command("users", "export", "ann@example.com", "--output", str(target)).output
    with zipfile.ZipFile(target) as archive:
        assert b"ann@example.com" in archive.read("account.json")
    refused = command("users", "export", "ann@example.com", "--output", str(target), code=2)
    assert "exists" in refused.errors
    assert command("users", "export", "ann@example.com", "-o", str(target), "--force", "--json").json["file"]
    assert "security_data_export" in {entry.action for entry in entries(settings)}
