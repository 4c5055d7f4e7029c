"""Passkeys in Chromium, with an authenticator that its DevTools make up: they are bound to a name, here localhost."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.server.faces import whole_application
from tests.conftest import empty_tables
from tests.services.accounts.support import PASSWORD, make_account

from .test_in_browser import Person, chromium, person, served, source_of_axe

pytestmark = [pytest.mark.needs_debian, pytest.mark.timeout(240)]

FACTORS = "/console/account/factors"
NARROW = {"viewport": {"width": 360, "height": 740}}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def base(listener: socket.socket) -> str:
    return f"http://localhost:{listener.getsockname()[1]}"


@pytest.fixture
async def data(settings: Settings, base: str) -> AsyncIterator[DataLayer]:
    async with DataLayer(settings.replaced(public_url=by_number(base))) as data:
        await empty_tables(data)
        await data.cache.flush()
        yield data


def by_number(base: str) -> str:
    """The same address as `data-layer run` prints it."""
    return base.replace("localhost", "127.0.0.1")


class Authenticator:
    """What Chromium asks in place of a device."""

    def __init__(self, session: Any, number: str) -> None:
        self._session = session
        self._number = number

    @classmethod
    async def of(cls, somebody: Person) -> Authenticator:
        session = await somebody.context.new_cdp_session(somebody.page)
        await session.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        made = await session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        return cls(session, made["authenticatorId"])

    async def verify(self, *, does: bool) -> None:
        """Let the device know its owner, or not."""
        values = {"authenticatorId": self._number, "isUserVerified": does}
        await self._session.send("WebAuthn.setUserVerified", values)

    async def credentials(self) -> list[dict[str, Any]]:
        found = await self._session.send("WebAuthn.getCredentials", {"authenticatorId": self._number})
        credentials: list[dict[str, Any]] = found["credentials"]
        return credentials


async def log_out(ann: Person) -> None:
    await ann.context.clear_cookies()


async def give_password(ann: Person) -> None:
    await ann.go("/console/login")
    await ann.page.fill("#email", "ann@example.com")
    await ann.page.fill("#password", PASSWORD)
    await ann.page.get_by_role("button", name="Log in", exact=True).click()


async def say_what_is_missing(browser: Browser, base: str) -> None:
    async with person(browser, base, java_script_enabled=False) as nobody:
        await nobody.go("/console/login")
        await expect(nobody.page.locator(".passkey-note")).to_contain_text("needs JavaScript")
        await expect(nobody.page.get_by_role("button", name="Log in with a passkey")).to_be_hidden()
    async with person(browser, by_number(base)) as nobody:
        await nobody.go("/console/login")
        await nobody.page.get_by_role("button", name="Log in with a passkey").click()
        await expect(nobody.page.locator(".passkey-note")).to_contain_text("not by an IP address")


@pytest.mark.slow
async def test_a_passkey_in_a_browser(data: DataLayer, listener: socket.socket, base: str) -> None:
    source_of_axe()
    ann_id = (await make_account(data, "ann@example.com")).id
    async with served(whole_application(data), listener), chromium() as browser:
        await say_what_is_missing(browser, base)
        async with person(browser, base, **NARROW) as ann:
            page, device = ann.page, await Authenticator.of(ann)
            await ann.log_in("ann@example.com")
            await ann.inspect(FACTORS)
            await page.fill("#passkey-password", PASSWORD)
            await page.locator("form[action$=passkeys] button").click()
            await expect(page.get_by_role("heading", name="Make the passkey")).to_be_visible()
            await ann.inspect_this()
            await page.fill("#name", "Laptop")
            await page.get_by_role("button", name="Make it").click()
            await expect(page.get_by_role("heading", name="Recovery codes", exact=True)).to_be_visible()
            await expect(page.locator(".lines")).to_contain_text("Laptop")
            await ann.inspect_this()
            [credential] = await device.credentials()
            assert (credential["isResidentCredential"], credential["rpId"]) == (True, "localhost")

            # A second one on the same device is none.
            await page.fill("#passkey-password", PASSWORD)
            await page.locator("form[action$=passkeys] button").click()
            await page.get_by_role("button", name="Make it").click()
            await expect(page.locator(".passkey-note")).to_contain_text("has a passkey of this account already")

            await log_out(ann)
            await give_password(ann)
            await expect(page.get_by_role("heading", name="Second factor")).to_be_visible()
            await ann.inspect_this()
            await page.get_by_role("button", name="Go on with a passkey").click()
            await page.wait_for_url("**/console/projects")

            await log_out(ann)
            await ann.inspect("/console/login?next=/console/account/keys")
            await device.verify(does=False)
            await page.get_by_role("button", name="Log in with a passkey").click()
            await expect(page.locator(".passkey-note")).to_contain_text("cancelled")
            await device.verify(does=True)
            await page.get_by_role("button", name="Log in with a passkey").click()
            await page.wait_for_url(re.compile(r"^[^?]+/console/account/keys$"))

            # Somebody without a password confirms with the passkey.
            async with data.transaction() as tx:
                statement = text("UPDATE users SET password_hash = NULL WHERE id = :id")
                await tx.execute(statement.bindparams(id=ann_id))
            await ann.inspect(FACTORS)
            await page.get_by_role("button", name="Remove, with a passkey").click()
            await expect(page.get_by_role("status").first).to_contain_text("Saved")
            await expect(page.get_by_text("Laptop")).to_have_count(0)
