"""``data-layer mails``, and what an operator does for somebody who gets none."""

from __future__ import annotations

import asyncio
from typing import get_args

from data_layer import DataLayer, Settings
from data_layer.cli.mails import Status
from data_layer.entities.enums import MailStatus
from tests.services.accounts.support import PASSWORD

from .support import Commands
from .test_users import can_log_in, entries

EMAIL = "ann@example.com"
OTHER_PASSWORD = "another horse and battery"


def register(settings: Settings) -> None:
    async def work() -> None:
        async with DataLayer(settings) as data:
            await data.accounts.request_registration(
                email=EMAIL, password=PASSWORD, first_name="Ann", last_name="Other", by_mail=True
            )

    asyncio.run(work())


def test_a_registration_without_a_mail_server(command: Commands, settings: Settings) -> None:
    register(settings)
    [mail] = command("mails", "list", "--user", EMAIL, "--status", "queued", "--json").json
    assert (mail["email"], mail["kind"], "link" in mail) == (EMAIL, "verify_email", False)
    assert EMAIL in command("mails", "list").output
    shown = command("mails", "show", mail["id"], "--json").json
    assert "/verify-email#token=" in shown["link"]
    assert shown["link"] in command("mails", "show", mail["id"]).output
    assert "is due now" in command("mails", "retry", mail["id"]).output
    assert command("mails", "list", "--status", "failed").output == "There are no such mails.\n"

    assert "is verified" in command("users", "verify", EMAIL).output
    assert can_log_in(settings, EMAIL, PASSWORD)
    assert command("mails", "show", mail["id"], "--json").json["link"] is None, "there is nothing left to verify"

    changed = command("users", "password", EMAIL, typed=f"{OTHER_PASSWORD}\n")
    assert "another password" in changed.output
    assert OTHER_PASSWORD not in changed.output + changed.errors
    assert can_log_in(settings, EMAIL, OTHER_PASSWORD)
    assert not can_log_in(settings, EMAIL, PASSWORD)
    assert "weak_password" in command("users", "password", EMAIL, typed="ann\n", code=1).errors
    said = [entry.description for entry in entries(settings)]
    assert {"Vouched for the address", "Set a password"} <= set(said)


def test_what_is_refused(command: Commands) -> None:
    missing = "01234567-89ab-7cde-8f01-23456789abcd"
    for name in ("show", "retry"):
        assert "(not_found)" in command("mails", name, missing, code=1).errors
        command("mails", name, "nonsense", code=2)
    assert set(get_args(Status)) == set(MailStatus)
