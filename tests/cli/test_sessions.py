"""``data-layer sessions``: an incident is handled without SQL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from data_layer import DataLayer, Settings
from data_layer.errors import InvalidSessionError
from data_layer.schemas.sessions import NewSession
from tests.support import make_user

from .support import Commands


def log_in(settings: Settings, *emails: str) -> list[NewSession]:
    """Users with these addresses, each with a session."""

    async def begin() -> list[NewSession]:
        async with DataLayer(settings) as data:
            users = [make_user(email=email) for email in emails]
            async with data.transaction() as tx:
                for user in users:
                    tx.add(user)
            return [await data.sessions.create(user.id) for user in users]

    return asyncio.run(begin())


def accepted(settings: Settings, sessions: list[NewSession]) -> list[bool]:
    async def ask() -> list[bool]:
        async with DataLayer(settings) as data:
            return [await is_accepted(data, new.token.get_secret_value()) for new in sessions]

    return asyncio.run(ask())


async def is_accepted(data: DataLayer, token: str) -> bool:
    try:
        await data.sessions.validate(token)
    except InvalidSessionError:
        return False
    return True


def entries(settings: Settings) -> list[Any]:
    async def read() -> list[Any]:
        async with DataLayer(settings) as data, data.transaction() as tx:
            return list(await tx.audit.list(action="session_revoke"))

    return asyncio.run(read())


def test_who_is_logged_in(command: Commands, settings: Settings) -> None:
    assert command("sessions", "list").output == "Nobody is logged in.\n"
    ann, bob = log_in(settings, "ann@example.com", "bob@example.com")
    output = command("sessions", "list").output
    assert output.startswith("2 sessions\n")
    assert all(str(new.session.id) in output and new.token.get_secret_value() not in output for new in (ann, bob))
    for name in ("Bob@example.com", str(bob.session.user_id)):
        rows = command("sessions", "list", "--user", name, "--json").json
        assert [row["id"] for row in rows] == [str(bob.session.id)]
        assert not rows[0].keys() & {"session_id", "session_data", "token"}
    assert "not_found" in command.error("sessions", "list", "--user", "nobody@example.com")


def test_ending_one(command: Commands, settings: Settings) -> None:
    new = log_in(settings, "ann@example.com", "bob@example.com")
    assert command("sessions", "revoke", str(new[0].session.id)).output == "Ended 1 session.\n"
    assert command("sessions", "revoke", str(new[0].session.id), "--json").json == {"ended": 0}
    assert accepted(settings, new) == [False, True]
    [entry] = entries(settings)
    assert (entry.source, entry.new_values) == ("cli", {"reason": "ended_by_operator"})


def test_ending_those_of_a_user(command: Commands, settings: Settings) -> None:
    new = log_in(settings, "ann@example.com", "bob@example.com")
    done = command("sessions", "revoke", "--user", "bob@example.com", "--reason", "laptop stolen")
    assert done.output == "Ended 1 session.\n"
    assert accepted(settings, new) == [True, False]
    assert [entry.new_values["reason"] for entry in entries(settings)] == ["laptop stolen"]


def test_ending_everything(command: Commands, settings: Settings) -> None:
    new = log_in(settings, "ann@example.com", "bob@example.com")
    assert "Nothing was changed" in command("sessions", "revoke", "--all", typed="n\n", code=1).errors
    assert accepted(settings, new) == [True, True]
    assert command("sessions", "revoke", "--all", "--yes", "--json").json == {"ended": 2}
    assert accepted(settings, new) == [False, False]
    [entry] = entries(settings)
    assert entry.new_values == {"reason": "ended_by_operator", "count": 2}


@pytest.mark.parametrize("arguments", [(), ("--user", "a", "--all"), ("not-an-id",)])
def test_what_is_to_be_ended_must_be_clear(command: Commands, arguments: tuple[str, ...]) -> None:
    assert command("sessions", "revoke", *arguments, code=2).output == ""
