"""The calls of the page: every field and type of their answers, for people of whom no address is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.errors import ConfigurationError
from data_layer.hosted.back_end import make_router
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.usage import NewUsage
from data_layer.server.faces import whole_application
from tests.conftest import empty_tables
from tests.openid.test_outage import Way
from tests.services.accounts.support import actions

from .fakes import ORIGIN, PUBLIC_URL, SECRET, Clerk, Page
from .roads import database_url, road_to_database


async def test_two_tabs_of_the_first_visit_make_one_account(ann: Page, data: DataLayer) -> None:
    attribution = {"landing_page": "/", "referrer": "", "first_seen_at": "2026-07-01T00:00:00Z", "utm_source": "x"}
    calls = [ann.call("POST", "/users/create", {"attribution": each}) for each in (None, attribution) * 3]
    shown, *others = await asyncio.gather(*calls)
    assert all(other == shown for other in others)
    [account] = await data.accounts.list(SYSTEM)
    assert shown == {
        "email": account.email,
        "first_name": "User",
        "last_name": "",
        "subscriber_tier": "pro",
        "stripe_customer_id": None,
        "stripe_subscription_id": None,
        "stripe_price_lookup_key": None,
        "billing_interval": None,
        "subscription_status": "active",
        "current_period_end": None,
        "cancel_at_period_end": False,
        "whats_new_seen_version": None,
    }
    assert account.email.endswith(".invalid"), "no mail reaches it"
    assert not account.email_verified
    assert (await actions(data)).count("user_register") == 1
    await data.accounts.request_password_reset(account.email, by_mail=True)
    assert await data.mails.list(SYSTEM) == []


async def test_people_are_told_apart(page_of: Callable[[str], Page], data: DataLayer) -> None:
    emails = {(await page_of(sub).call("POST", "/users/create"))["email"] for sub in ("user_1", "user_2")}
    assert len(emails) == 2
    assert len(await data.accounts.list(SYSTEM)) == 2


async def test_entitlement_without_and_with_a_budget(ann: Page, data: DataLayer) -> None:
    answer = await ann.call("POST", "/credits/has_credits")
    assert answer == {"user_id": answer["user_id"], "status": "subscriber_has_credits"}
    user_id = UUID(answer["user_id"])
    await data.usage.set_budget(SYSTEM, user_id, Decimal("1.50"))
    for _ in range(3):
        assert (await ann.call("POST", "/credits/has_credits"))["status"] == "subscriber_has_credits"
    me = Actor.user(user_id, (await data.accounts.list(SYSTEM))[0].role)
    budget = await data.usage.budget(me)
    assert budget is not None
    assert budget.reserved == 1, "asking again sets nothing more aside"
    await data.usage.record(me, NewUsage(key="1", provider="openai", model="m", cost=Decimal("0.80")))
    assert (await ann.call("POST", "/credits/has_credits"))["status"] == "subscriber_has_credits", "0.70 are left"
    await data.usage.record(me, NewUsage(key="2", provider="openai", model="m", cost=Decimal("0.70")))
    assert (await ann.call("POST", "/credits/has_credits"))["status"] == "subscriber_has_no_credits"
    assert await ann.call("POST", "/credits/usage") == {
        "total_monthly_credits": 150,
        "used_monthly_credits": 150,
        "monthly_credit_limit": 150,
        "extra_credits_remaining": 0,
        "extra_credits_next_expiration": None,
        "extra_credit_grants": [],
    }
    assert await ann.call("POST", "/credits/free_trial_usage") == {"used": 0, "limit": 0}


async def test_entitlement_is_answered_while_the_database_is_away(settings: Settings, clerk: Clerk) -> None:
    url = settings.database.database_url
    assert url is not None
    async with Way(url.get_secret_value()) as way:
        replaced = settings.replaced(database_url=way.url)
        async with DataLayer(replaced) as data, DataLayer(replaced) as other:
            await empty_tables(data)
            await data.cache.flush()
            answers: list[Any] = []
            for each in (data, other):
                transport = httpx.ASGITransport(whole_application(each))
                async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
                    page = Page(client, clerk, "user_ann")
                    if not answers:
                        answers.append(await page.call("POST", "/credits/has_credits"))
                        way.close()
                    # Each with a new token, and the second process has never seen her.
                    answers += [await page.call("POST", "/credits/has_credits") for _ in range(2)]
                    assert (await page.send("GET", "/generations/view?page=1")).status_code == 503
                    stranger = await Page(client, clerk, "user_bob").send("POST", "/credits/has_credits")
                    assert (stranger.status_code, type(stranger.json()["detail"])) == (503, str)
            assert answers == [answers[0]] * 5


@pytest.mark.slow
async def test_entitlement_is_answered_in_time_while_the_database_is_silent(settings: Settings, clerk: Clerk) -> None:
    """Also by a process that has not seen her before."""
    url = settings.database.database_url
    assert url is not None
    async with road_to_database(url.get_secret_value()) as road:
        replaced = settings.replaced(database_url=database_url(url.get_secret_value(), road), request_deadline=2)
        async with DataLayer(replaced) as first, DataLayer(replaced) as second:
            await empty_tables(first)
            await first.cache.flush()
            pages, clients = [], []
            for each in (first, second):
                transport = httpx.ASGITransport(whole_application(each))
                clients.append(httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL))
                pages.append(Page(clients[-1], clerk, "user_ann"))
            known = await pages[0].call("POST", "/credits/has_credits")
            await first.usage.set_budget(SYSTEM, UUID(known["user_id"]), Decimal(0))
            known = await pages[0].call("POST", "/credits/has_credits")
            assert known["status"] == "subscriber_has_no_credits"
            road.freeze()
            stranger = Page(clients[1], clerk, "user_bob").send("POST", "/credits/has_credits")
            calls = [
                _timed(call) for call in (*(page.send("POST", "/credits/has_credits") for page in pages), stranger)
            ]
            *answers, (refused, seconds) = await asyncio.gather(*calls)
            assert [answer.json() for answer, _ in answers] == [known, known]
            assert max(after for _, after in answers) < 7
            assert (refused.status_code, refused.json()["code"]) == (504, "deadline_exceeded")
            assert "try again in a moment" in refused.json()["detail"]
            assert seconds < 9
            history = await pages[1].send("GET", "/generations/view?page=1")
            assert (history.status_code, history.json()["code"]) == (504, "deadline_exceeded")
            road.thaw()
            assert await pages[1].call("POST", "/credits/has_credits") == known
            for client in clients:
                await client.aclose()


async def _timed(call: Coroutine[Any, Any, httpx.Response]) -> tuple[httpx.Response, float]:
    begun_at = time.monotonic()
    return await call, time.monotonic() - begun_at


async def test_keys_rotate_and_tokens_expire(ann: Page, clerk: Clerk, data: DataLayer) -> None:
    first = await ann.call("POST", "/credits/has_credits")
    clerk.rotate()
    # Three seconds later, in which the issuer is not asked again.
    data.openid._bearer._provider._keys._tried_at = float("-inf")  # type: ignore[union-attr]
    assert await ann.call("POST", "/credits/has_credits") == first
    for claims in ({"exp": 1}, {"azp": "https://evil.example"}, {"iss": "https://other.example"}):
        refused = await ann.send("POST", "/credits/has_credits", None, **claims)
        assert (refused.status_code, type(refused.json()["detail"])) == (401, str)


async def test_an_empty_history_and_pages_that_make_no_sense(ann: Page) -> None:
    assert await ann.call("GET", "/generations/view?page=1") == {
        "projects": [],
        "generations": [],
        "total_count": 0,
        "page": 1,
        "page_size": 24,
        "total_pages": 0,
    }
    for page in ("0", "-1", "x", "9" * 20, "1.5"):
        answer = await ann.send("GET", f"/generations/view?page={page}")
        assert (answer.status_code, type(answer.json()["detail"])) == (422, str)


async def test_what_the_page_remembers_and_says(ann: Page, data: DataLayer) -> None:
    for version in ("2026-07", 12):
        assert await ann.call("POST", "/users/whats-new/seen", {"version": version}) == {"success": True}
        assert (await ann.call("POST", "/users/create"))["whats_new_seen_version"] == version
    assert await ann.call("POST", "/feedback/submit", {"message": "Nice ☃", "rating": 5}) == {"success": True}
    [account] = await data.accounts.list(SYSTEM)
    [file] = await data.files.list(owner_id=account.id)
    assert b"Nice \xe2\x98\x83" in await data.files.download(file.id, owner_id=account.id)
    for path in ("create_checkout_session", "create_extra_credit_checkout_session", "create_portal_session"):
        refused = await ann.send("POST", f"/payments/{path}", {"plan": "pro"})
        assert (refused.status_code, type(refused.json()["detail"])) == (501, str)


async def test_design_systems_of_each_person(ann: Page, page_of: Callable[[str], Page]) -> None:
    path, bob = "/api/design-systems", page_of("user_bob")
    assert await ann.call("GET", path) == []
    answer = await ann.send("POST", path, {"name": " Corporate ", "content": "Blue"})
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == {"id", "name", "content", "createdAt", "updatedAt"}
    assert all(isinstance(value, str) for value in made.values())
    assert (made["name"], made["content"]) == ("Corporate", "Blue")
    assert await ann.call("GET", path) == [made]
    assert await bob.call("GET", path) == []
    changed = await ann.call("PATCH", f"{path}/{made['id']}", {"content": "Red"})
    assert (changed["name"], changed["content"], changed["createdAt"]) == ("Corporate", "Red", made["createdAt"])
    assert changed["updatedAt"] > made["updatedAt"]
    for person, target in ((bob, made["id"]), (ann, "nonsense")):
        for method, body in (("PATCH", {"name": "x"}), ("DELETE", None)):
            missing = await person.send(method, f"{path}/{target}", body)
            assert (missing.status_code, type(missing.json()["detail"])) == (404, str)
    bodies: list[Any] = [{"name": "  ", "content": ""}, {"name": "x"}, [], {"name": 1, "content": ""}]
    for body in bodies:
        wrong = await ann.send("POST", path, body)
        assert (wrong.status_code, type(wrong.json()["detail"])) == (400, str)
    large = await ann.send("POST", path, {"name": "x", "content": "x" * 2**20})
    assert (large.status_code, type(large.json()["detail"])) == (413, str)
    gone = await ann.send("DELETE", f"{path}/{made['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert await ann.call("GET", path) == []


async def test_a_fault_of_ours_is_not_called_a_missing_design_system(
    data: DataLayer, ann: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(type(data.designs), "list", fail)
    answer = await ann.send("GET", "/api/design-systems")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "OPTIONS"])
async def test_preflights(client: httpx.AsyncClient, method: str) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,content-type",
    }
    for path in ("/generations/view", "/users/create", "/api/design-systems/1"):
        answer = await client.options(path, headers=asked)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert method in answer.headers["access-control-allow-methods"]
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()


async def test_nobody_is_let_in_without_a_token(client: httpx.AsyncClient) -> None:
    given: list[dict[str, str]] = [{}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {SECRET}"}]
    for headers in given:
        for path in ("/users/create", "/credits/has_credits", "/generations/delete", "/api/design-systems"):
            refused = await client.post(path, headers=headers)
            assert (refused.status_code, type(refused.json()["detail"])) == (401, str)


async def test_it_is_off_by_default_and_needs_an_issuer(settings: Settings) -> None:
    async with DataLayer(settings.replaced(saas_api_secret=None)) as data:
        assert make_router(data) is None
        transport = httpx.ASGITransport(whole_application(data))
        async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
            assert (await client.post("/users/create")).status_code == 404
    with pytest.raises(ConfigurationError, match="OIDC_ACCEPT_BEARER must be true"):
        settings.replaced(oidc_accept_bearer=False)
    with pytest.raises(ConfigurationError, match="SAAS_API_SECRET"):
        settings.replaced(environment="production", saas_api_secret="secret")


@pytest.mark.usefixtures("one_window")
async def test_page_calls_are_limited_and_what_the_back_end_sends_is_not(settings: Settings, clerk: Clerk) -> None:
    async with DataLayer(settings.replaced(request_limit_person=2, request_limit_address=4)) as few:
        await few.cache.flush()
        transport = httpx.ASGITransport(whole_application(few), client=("192.0.2.1", 4711))
        async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
            ann, bob = Page(client, clerk, "user_ann"), Page(client, clerk, "user_bob")
            answers = [await ann.send("POST", "/users/create") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert answers[0].headers["ratelimit"].startswith('"person";r=1;')
            assert int(answers[2].headers["retry-after"]) > 0
            assert [(await bob.send("POST", "/users/create")).status_code for _ in range(2)] == [200, 429]
            secret = {"authorization": f"Bearer {SECRET}"}
            for path in ("/generations/store", "/assets/store_image_data", "/assets/store_image_url"):
                answer = await client.post(path, headers=secret, json=[])
                assert answer.status_code in {400, 422}, "it was let in, and read"
