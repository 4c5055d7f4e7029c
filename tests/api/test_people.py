"""Accounts, sessions and tokens over HTTP: what people can do, and what others cannot."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.api.routes import SMALL_BODY
from data_layer.entities.enums import MailKind
from data_layer.schemas.actors import SYSTEM
from data_layer.web.authentication import COOKIE, REGISTRATION_COOKIE
from tests.leaks import LogLines, places_of
from tests.mail_server import token_of
from tests.services.accounts.support import PASSWORD, make_account, trail
from tests.support import until

EMAIL = "ann@example.com"
NEW_ACCOUNT = {"email": EMAIL, "password": PASSWORD, "first_name": "Ann", "last_name": "Other"}
CONFIRM = "/v1/accounts/verification/confirm"
LOGIN = {"email": EMAIL, "password": PASSWORD}
NEW_PASSWORD = "another horse and battery"


class Inbox:
    """Everybody's mailbox: what the service has queued arrives when somebody looks."""

    def __init__(self, data: DataLayer) -> None:
        self._data = data
        self._messages: list[EmailMessage] = []
        data.mails.send_with(self)

    async def send(self, message: EmailMessage, /) -> None:
        self._messages.append(message)

    async def rest(self) -> None:
        pass

    async def read(self) -> list[EmailMessage]:
        await self._data.mails.deliver_due()
        return self._messages

    async def last_token(self) -> str:
        return token_of((await self.read())[-1])


@pytest.fixture
def inbox(data: DataLayer) -> Inbox:
    return Inbox(data)


@pytest.fixture
async def client(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(data) as client:
        yield client


def client_of(data: DataLayer, address: str = "192.0.2.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(data), client=(address, 4711))
    return httpx.AsyncClient(transport=transport, base_url="https://service", headers={"user-agent": "Browser/1"})


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def log_in(client: httpx.AsyncClient, **changes: Any) -> dict[str, str]:
    answer = await client.post("/v1/sessions", json=LOGIN | changes)
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["token"])


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def kinds_of(data: DataLayer) -> list[tuple[str, str]]:
    """What was queued, oldest first."""
    return [(mail.kind, mail.email) for mail in reversed(await data.mails.list(SYSTEM))]


async def test_from_registering_to_logging_out(client: httpx.AsyncClient, inbox: Inbox) -> None:
    answer = await client.post("/v1/accounts", json=NEW_ACCOUNT)
    proof = answer.json()["proof"]
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "proof": proof})
    assert answer.headers["cache-control"] == "no-store"
    [mail] = await inbox.read()
    assert (mail["Subject"], mail["To"]) == ("Verify your address", EMAIL)
    assert code_of(await client.post("/v1/sessions", json=LOGIN)) == (403, "email_not_verified")

    verified = await client.post(CONFIRM, json={"token": token_of(mail), "proof": proof})
    assert (verified.status_code, verified.json()) == (200, {"status": "verified", "password_token": None})
    assert verified.headers["cache-control"] == "no-store"
    again = await client.post(CONFIRM, json={"token": token_of(mail)})
    assert code_of(again) == (400, "one_time_token_invalid")
    session = await log_in(client)
    me = await client.get("/v1/accounts/me", headers=session)
    assert (me.json()["email"], me.json()["email_verified"]) == (EMAIL, True)
    assert me.headers["cache-control"] == "no-store"

    assert (await client.delete("/v1/sessions/current", headers=session)).status_code == 204
    refused = await client.get("/v1/accounts/me", headers=session)
    assert code_of(refused) == (401, "session_invalid")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["cache-control"] == "no-store"


async def test_a_browser_that_registers_keeps_its_password(client: httpx.AsyncClient, inbox: Inbox) -> None:
    answer = await client.post("/v1/accounts", json=NEW_ACCOUNT | {"cookie": True})
    assert answer.json() == {"status": "accepted", "proof": None}
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith(f"{REGISTRATION_COOKIE}=")
    assert {each.lower() for each in attributes} == {
        "path=/", "httponly", "secure", "samesite=strict", "max-age=86400",
    }  # fmt: skip

    verified = await client.post(CONFIRM, json={"token": await inbox.last_token()})

    assert verified.json() == {"status": "verified", "password_token": None}
    assert client.cookies.get(REGISTRATION_COOKIE) is None
    await log_in(client)


async def test_a_stranger_keeps_no_password_of_an_account_that_its_owner_verifies(
    data: DataLayer, client: httpx.AsyncClient, inbox: Inbox
) -> None:
    """The owner registers too, in a browser with a cookie of its own, and opens the link of the first mail."""
    owner = client
    async with client_of(data, "198.51.100.7") as stranger:
        # Mails of the service reach the owner, regardless of who causes them.
        stranger._transport = owner._transport
        guessed = "the stranger's own password"
        await stranger.post("/v1/accounts", json=NEW_ACCOUNT | {"password": guessed, "cookie": True})
        await owner.post("/v1/accounts", json=NEW_ACCOUNT | {"cookie": True})
        assert await kinds_of(data) == [(MailKind.VERIFY_EMAIL, EMAIL), (MailKind.ADDRESS_TAKEN, EMAIL)]
        token = token_of((await inbox.read())[0])
        stolen = LOGIN | {"password": guessed}
        assert code_of(await stranger.post("/v1/sessions", json=stolen)) == (403, "email_not_verified")

        verified = await owner.post(CONFIRM, json={"token": token})

        assert code_of(await stranger.post("/v1/sessions", json=stolen)) == (401, "invalid_credentials")
        again = await stranger.post(CONFIRM, json={"token": token})
        assert code_of(again) == (400, "one_time_token_invalid")
        chosen = {"token": verified.json()["password_token"], "password": NEW_PASSWORD}
        assert (await owner.post("/v1/accounts/password-reset/confirm", json=chosen)).status_code == 204
        await log_in(owner, password=NEW_PASSWORD)
        assert code_of(await stranger.post("/v1/sessions", json=stolen)) == (401, "invalid_credentials")


async def test_registering_answers_alike_whether_or_not_the_address_is_taken(client: httpx.AsyncClient) -> None:
    for cookie in (False, True):
        shapes = []
        for _ in range(2):
            answer = await client.post("/v1/accounts", json=NEW_ACCOUNT | {"cookie": cookie})
            proof = answer.json()["proof"] or answer.cookies[REGISTRATION_COOKIE]
            shapes.append((answer.status_code, answer.text.replace(proof, "…"), len(proof), set(answer.headers)))
        assert shapes[0] == shapes[1]


async def test_another_site_gives_a_browser_no_proof(client: httpx.AsyncClient, inbox: Inbox) -> None:
    """With it the password that the other site chose would stay when the owner opens the link in this browser."""
    body = NEW_ACCOUNT | {"cookie": True}
    refused = await client.post("/v1/accounts", json=body, headers={"sec-fetch-site": "cross-site"})
    assert code_of(refused) == (403, "permission_denied")
    assert await inbox.read() == []
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("shadow", ["__Host-registration=x; {}", "{}; __Host-registration=x", "\xa0{}", "__host-{}"])
async def test_a_proof_that_a_sibling_domain_could_have_set_counts_nothing(
    client: httpx.AsyncClient, inbox: Inbox, shadow: str
) -> None:
    proof = (await client.post("/v1/accounts", json=NEW_ACCOUNT)).json()["proof"]
    cookie = shadow.format(f"{REGISTRATION_COOKIE}={proof}").encode("latin-1")
    verified = await client.post(CONFIRM, json={"token": await inbox.last_token()}, headers=[(b"cookie", cookie)])
    assert verified.json()["password_token"]
    assert code_of(await client.post("/v1/sessions", json=LOGIN)) == (401, "invalid_credentials")


async def test_what_is_done_in_a_session_is_recorded_with_it(client: httpx.AsyncClient, data: DataLayer) -> None:
    user = await make_account(data)
    session = await log_in(client)
    await client.patch("/v1/accounts/me", json={"first_name": "Anna"}, headers=session | {"x-request-id": "request-7"})
    [entry] = [entry for entry in await trail(data) if entry.action == "user_update_profile"]
    [own] = await data.sessions.list(SYSTEM, user.id)
    assert (entry.user_id, entry.session_id, entry.correlation_id) == (user.id, str(own.id), "request-7")
    assert (str(entry.ip_address), entry.user_agent) == ("192.0.2.1", "Browser/1")


async def test_profile_and_preferences(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    session = await log_in(client)
    changed = await client.patch("/v1/accounts/me", json={"display_name": "Annie"}, headers=session)
    assert changed.json()["display_name"] == "Annie"
    patch = {"preferences": {"theme": {"dark": True}}}
    changed = await client.patch("/v1/accounts/me/preferences", json=patch, headers=session)
    assert changed.json()["preferences"]["theme"] == {"dark": True}
    for path, body in (("", {"role": "admin"}), ("", {"avatar": "javascript:x"}), ("/preferences", {"preferences": 1})):
        answer = await client.patch(f"/v1/accounts/me{path}", json=body, headers=session)
        assert code_of(answer) == (422, "request_invalid")


async def test_a_change_of_the_own_account_may_name_what_was_read(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    session = await log_in(client)
    read = (await client.get("/v1/accounts/me", headers=session)).headers["etag"]
    seen = session | {"if-match": read}
    changed = await client.patch("/v1/accounts/me", json={"display_name": "Annie"}, headers=seen)
    assert (changed.status_code, changed.headers["etag"] == read) == (200, False)
    for path, body in (("", {"display_name": "Anna"}), ("/preferences", {"preferences": {"theme": "dark"}})):
        late = await client.patch(f"/v1/accounts/me{path}", json=body, headers=seen)
        assert code_of(late) == (412, "changed_meanwhile")
        wrong = await client.patch(f"/v1/accounts/me{path}", json=body, headers=session | {"if-match": '"x"'})
        assert wrong.status_code == 412
    now = await client.get("/v1/accounts/me", headers=session)
    assert (now.json()["display_name"], now.headers["etag"]) == ("Annie", changed.headers["etag"])
    newest = session | {"if-match": now.headers["etag"]}
    done = await client.patch("/v1/accounts/me/preferences", json={"preferences": {"a": 1}}, headers=newest)
    assert (done.status_code, done.headers["etag"] == now.headers["etag"]) == (200, False)


async def test_own_sessions(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    first, second, third = [await log_in(client) for _ in range(3)]
    listed = (await client.get("/v1/sessions", headers=first)).json()
    assert len(listed["sessions"]) == 3
    assert "token" not in str(listed)
    assert "hash" not in str(listed)
    other = (await client.get("/v1/sessions", headers=second)).json()["current"]
    assert other != listed["current"]
    assert (await client.delete(f"/v1/sessions/{other}", headers=first)).status_code == 204
    assert (await client.delete(f"/v1/sessions/{other}", headers=first)).status_code == 204
    assert (await client.get("/v1/sessions", headers=second)).status_code == 401
    assert (await client.post("/v1/sessions/revoke-others", headers=first)).json() == {"ended": 1}
    assert (await client.get("/v1/sessions", headers=third)).status_code == 401
    assert (await client.get("/v1/sessions", headers=first)).status_code == 200


async def test_sessions_of_others(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    await make_account(data, "eve@example.com", first_name="Eve")
    ann, eve = await log_in(client), await log_in(client, email="eve@example.com")
    current = (await client.get("/v1/sessions", headers=ann)).json()["current"]
    unknown = "00000000-0000-7000-8000-000000000000"
    for session_id in (current, unknown):
        answer = await client.delete(f"/v1/sessions/{session_id}", headers=eve)
        assert code_of(answer) == (404, "not_found")
    assert code_of(await client.delete("/v1/sessions/nonsense", headers=eve)) == (422, "request_invalid")
    assert (await client.get("/v1/sessions", headers=ann)).status_code == 200


async def test_tokens(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    answer = await client.post("/v1/tokens", json=LOGIN)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    first = answer.json()
    assert (first["token_type"], first["expires_in"]) == ("Bearer", data.settings.security.jwt_expires_in)
    assert (await client.get("/v1/accounts/me", headers=bearer(first["access_token"]))).json()["email"] == EMAIL
    second = (await client.post("/v1/tokens/refresh", json={"refresh_token": first["refresh_token"]})).json()
    third = (await client.post("/v1/tokens/refresh", json={"refresh_token": second["refresh_token"]})).json()
    stolen = await client.post("/v1/tokens/refresh", json={"refresh_token": first["refresh_token"]})
    assert code_of(stolen) == (401, "token_reused")
    for token in (first["access_token"], third["access_token"]):
        assert code_of(await client.get("/v1/accounts/me", headers=bearer(token))) == (401, "token_invalid")
    answer = await client.post("/v1/tokens/refresh", json={"refresh_token": third["refresh_token"]})
    assert code_of(answer) == (401, "token_invalid")


@pytest.mark.parametrize("token", ["x", "x" * 43, "a.b.c", "." * 5000, "é" * 43, "\x7f" * 43])
async def test_tokens_that_nobody_gave_out(client: httpx.AsyncClient, token: str) -> None:
    headers = [(b"authorization", b"Bearer " + token.encode("latin-1"))]
    answer = await client.get("/v1/accounts/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("authorization", ["", "Basic YTpi", "Bearer", "Bearer "])
async def test_without_a_token(client: httpx.AsyncClient, authorization: str) -> None:
    answer = await client.get("/v1/accounts/me", headers={"authorization": authorization} if authorization else {})
    assert answer.status_code == 401


async def test_a_cookie_that_scripts_cannot_read(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    answer = await client.post("/v1/sessions", json=LOGIN | {"cookie": True})
    assert answer.json()["token"] is None
    cookie = answer.headers["set-cookie"]
    assert {"secure", "httponly", "samesite=lax", "path=/"} <= set(cookie.lower().split("; "))
    assert "domain" not in cookie.lower()
    assert client.cookies[COOKIE] not in answer.text
    assert (await client.get("/v1/accounts/me")).status_code == 200
    assert (await client.delete("/v1/sessions/current")).status_code == 204
    assert COOKIE not in client.cookies
    assert (await client.get("/v1/accounts/me")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site", "origin": "https://blog.service"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "https://service"}, True),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "https://service"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "https://service"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({}, False),
    ],
)
async def test_other_sites_change_nothing(
    client: httpx.AsyncClient, data: DataLayer, headers: dict[str, str], *, is_refused: bool
) -> None:
    await make_account(data)
    with_cookie = await client.post("/v1/sessions", json=LOGIN | {"cookie": True}, headers=headers)
    assert (with_cookie.status_code == 403) == is_refused, "nobody is logged in to another's account unawares"
    client.cookies.clear()
    session = await log_in(client)
    cookie = {"cookie": f"{COOKIE}={session['authorization'].removeprefix('Bearer ')}"}
    answer = await client.patch("/v1/accounts/me", json={"first_name": "Eve"}, headers=headers | cookie)
    assert (answer.status_code == 403) == is_refused
    assert (await client.get("/v1/accounts/me", headers=headers | cookie)).status_code == 200
    changed = await client.patch("/v1/accounts/me", json={"first_name": "Anna"}, headers=headers | session)
    assert changed.status_code == 200, "a bearer token is not sent by itself"


async def test_changing_the_password_ends_the_others(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    here, elsewhere = await log_in(client), await log_in(client)
    path = "/v1/accounts/me/password"
    wrong = await client.post(path, json={"current": "wrong", "new": NEW_PASSWORD}, headers=here)
    assert code_of(wrong) == (401, "invalid_credentials")
    weak = await client.post(path, json={"current": PASSWORD, "new": "password"}, headers=here)
    assert code_of(weak) == (422, "weak_password")
    changed = await client.post(path, json={"current": PASSWORD, "new": NEW_PASSWORD}, headers=here)
    assert changed.status_code == 204
    assert (await client.get("/v1/accounts/me", headers=here)).status_code == 200
    assert (await client.get("/v1/accounts/me", headers=elsewhere)).status_code == 401


async def test_a_forgotten_password(client: httpx.AsyncClient, data: DataLayer, inbox: Inbox) -> None:
    await make_account(data)
    session = await log_in(client)
    for email in ("nobody@example.com", "no address", EMAIL):
        answer = await client.post("/v1/accounts/password-reset", json={"email": email})
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    [mail] = await inbox.read()
    assert (mail["Subject"], mail["To"]) == ("Choose a new password", EMAIL)
    body = {"token": token_of(mail), "password": NEW_PASSWORD}
    assert (await client.post("/v1/accounts/password-reset/confirm", json=body)).status_code == 204
    answer = await client.post("/v1/accounts/password-reset/confirm", json=body)
    assert code_of(answer) == (400, "one_time_token_invalid")
    assert (await client.get("/v1/accounts/me", headers=session)).status_code == 401
    await log_in(client, password=NEW_PASSWORD)


async def test_no_answer_tells_who_has_an_account(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)

    async def answered(path: str, **body: str) -> tuple[object, ...]:
        answer = await client.post(path, json=body, headers={"x-request-id": "the-same"})
        headers = dict(answer.headers)
        del headers["ratelimit"]  # It counts the requests of the address, whatever they are.
        shown = re.sub('"proof":"[0-9a-f]{64}"', '"proof":"…"', answer.text)  # A new one in each answer.
        return answer.status_code, shown, headers

    for path, body in (
        ("/v1/accounts", {"password": PASSWORD, "first_name": "Eve", "last_name": "Other"}),
        ("/v1/accounts/verification", {}),
        ("/v1/accounts/password-reset", {}),
        ("/v1/sessions", {"password": "wrong"}),
        ("/v1/tokens", {"password": "wrong"}),
    ):
        assert await answered(path, email=EMAIL, **body) == await answered(path, email="nobody@example.com", **body)
    assert (MailKind.ADDRESS_TAKEN, EMAIL) in await kinds_of(data)


async def test_a_mail_that_cannot_be_queued_is_nobody_elses_failure(
    data: DataLayer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ConnectionError("with a secret token")

    monkeypatch.setattr(data.accounts, "request_password_reset", fail)
    with LogLines() as log:
        answer = await client.post("/v1/accounts/password-reset", json={"email": EMAIL})
        assert answer.status_code == 202
    assert any("mail_not_queued" in line for line in log.lines)
    assert not any("secret token" in line for line in log.lines)


@pytest.mark.parametrize("path", ["/verify-email", "/reset-password"])
async def test_the_pages_that_links_open_execute_nothing_else(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    policy = page.headers["content-security-policy"]
    [script] = re.findall(r"<script>(.*)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert (page.headers["referrer-policy"], page.headers["cache-control"]) == ("no-referrer", "no-store")


@pytest.mark.parametrize(
    "body",
    [
        {},
        LOGIN | {"admin": True},
        LOGIN | {"password": ["a secret in a list"]},
        LOGIN | {"email": "x" * 321},
        LOGIN | {"password": "a secret" * 200},
        {"email": "a secret typed into the wrong field" * 20, "password": PASSWORD},
    ],
)
async def test_bodies_that_make_no_sense_are_not_repeated(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await client.post("/v1/sessions", json=body)
    assert code_of(answer) == (422, "request_invalid")
    assert "secret" not in answer.text


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 60_000, b'{"email": NaN}'])
async def test_what_is_no_object(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post("/v1/sessions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}
    assert answer.json()["code"] in {"request_invalid", "bad_request"}


async def test_bodies_are_small(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (SMALL_BODY // 2)

    answer = await client.post("/v1/sessions", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


async def test_a_network_that_sends_too_much_has_to_wait(settings: Settings, data: DataLayer) -> None:
    del data
    few = settings.replaced(rate_limit_max=3)
    body = {"token": "x"}
    async with DataLayer(few) as data, client_of(data) as flood, client_of(data, "198.51.100.7") as other:
        answers = [await flood.post(CONFIRM, json=body) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [400, 400, 400, 429, 429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 900
        refused = await flood.post("/v1/accounts/password-reset/confirm", json=body | {"password": PASSWORD})
        assert code_of(refused) == (429, "too_many_requests")
        # Each kind has a counter of its own.
        for requests in (
            [("/v1/accounts", NEW_ACCOUNT)],
            [("/v1/accounts/verification", {"email": EMAIL}), ("/v1/accounts/password-reset", {"email": EMAIL})],
            [("/v1/sessions", LOGIN), ("/v1/tokens", LOGIN)],
        ):
            sent = [requests[number % len(requests)] for number in range(6)]
            statuses = [(await flood.post(path, json=content)).status_code for path, content in sent]
            assert 429 not in statuses[:3], requests
            assert statuses[3:] == [429] * 3, requests
        assert (await other.post(CONFIRM, json=body)).status_code == 400
        refreshed = await flood.post("/v1/tokens/refresh", json={"refresh_token": "x"})
        assert refreshed.status_code == 401, "it costs little, and cannot be guessed"


async def test_an_attacker_locks_out_nobody_who_shares_the_address(
    client: httpx.AsyncClient, data: DataLayer, inbox: Inbox
) -> None:
    """Behind a NAT, or a proxy that is not trusted, everybody has one address."""

    async def log_in_as(email: str, password: str = PASSWORD) -> int:
        return (await client.post("/v1/sessions", json={"email": email, "password": password})).status_code

    regular, away = ([f"{kind}{number}@example.com" for number in range(4)] for kind in ("regular", "away"))
    for email in (*regular, *away):
        await make_account(data, email)
    assert [await log_in_as(email) for email in regular] == [201] * 4
    for number in range(data.settings.security.rate_limit_max):
        await log_in_as(f"victim{number}@example.com", "guess")
    answer = await client.post("/v1/sessions", json={"email": "victim@example.com", "password": "guess"})
    assert code_of(answer) == (429, "too_many_requests")

    assert [await log_in_as(email) for email in regular] == [201] * 4
    assert (await client.post("/v1/tokens", json={"email": regular[0], "password": PASSWORD})).status_code == 201
    for number in range(2):
        email = f"new{number}@example.com"
        proof = (await client.post("/v1/accounts", json=NEW_ACCOUNT | {"email": email})).json()["proof"]
        await client.post(CONFIRM, json={"token": await inbox.last_token(), "proof": proof})
        assert await log_in_as(email) == 201
    for email in away:
        assert await log_in_as(email) == 429
        await client.post("/v1/accounts/password-reset", json={"email": email})
        chosen = {"token": await inbox.last_token(), "password": NEW_PASSWORD}
        assert (await client.post("/v1/accounts/password-reset/confirm", json=chosen)).status_code == 204
        assert await log_in_as(email, NEW_PASSWORD) == 201
    assert await log_in_as("victim@example.com", "guess") == 429


async def test_guessing_has_to_wait(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    for _ in range(20):
        answer = await client.post("/v1/sessions", json=LOGIN | {"password": "wrong"})
        if answer.status_code == 429:
            break
    assert code_of(answer) == (429, "too_many_attempts")
    assert int(answer.headers["retry-after"]) > 0


async def test_nothing_leaks(client: httpx.AsyncClient, data: DataLayer, inbox: Inbox) -> None:
    with LogLines() as log:
        proof = (await client.post("/v1/accounts", json=NEW_ACCOUNT)).json()["proof"]
        await client.post(CONFIRM, json={"token": await inbox.last_token(), "proof": proof})
        session = await log_in(client)
        pair = (await client.post("/v1/tokens", json=LOGIN)).json()
        await client.post("/v1/tokens/refresh", json={"refresh_token": pair["refresh_token"]})
        await client.get("/v1/sessions", headers=session)
        await client.get(f"/v1/accounts/me?token={pair['access_token']}", headers=session)
        await until(lambda: any("request_answered" in line for line in log.lines))
    secrets = [
        PASSWORD,
        proof,
        await inbox.last_token(),
        session["authorization"][7:],
        pair["access_token"],
        pair["refresh_token"],
    ]
    lines = [line for line in log.lines if "HTTP Request" not in line]  # httpx, which is the client, logs the URL.
    assert await places_of(data, secrets, lines) == []
