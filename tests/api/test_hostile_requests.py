"""Headers and values that nobody sends by accident: cookies that look like ours, dates out of range, forwarded lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.errors import ConfigurationError, InvalidValueError
from data_layer.schemas.operations import Health
from data_layer.schemas.users import ProfileChanges
from data_layer.web.authentication import COOKIE
from data_layer.web.conditions import Conditions
from data_layer.web.middleware import TrustedProxies
from tests.services.accounts.support import PASSWORD, make_account, trail

LOGIN = {"email": "ann@example.com", "password": PASSWORD}
PROXY, CLIENT = "10.0.0.1", "203.0.113.9"
Headers = list[tuple[bytes, bytes]]


def client_of(data: DataLayer, peer: str | None = CLIENT) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(data), client=(peer, 1) if peer else None, raise_app_exceptions=False)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="https://service")


@pytest.fixture
async def client(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(data) as client:
        yield client


@pytest.fixture
async def token(data: DataLayer, client: httpx.AsyncClient) -> bytes:
    await make_account(data)
    return str((await client.post("/v1/sessions", json=LOGIN)).json()["token"]).encode()


async def asks_with(client: httpx.AsyncClient, *headers: tuple[bytes, bytes]) -> int:
    return (await client.get("/v1/accounts/me", headers=list(headers))).status_code


async def test_only_the_session_cookie_itself_is_one(client: httpx.AsyncClient, token: bytes) -> None:
    name = COOKIE.encode()
    assert await asks_with(client, (b"cookie", b"theme=dark; " + name + b"=" + token)) == 200
    for prefix in (b"\xa0", b"\xc2\xa0", b"\t", b"\x0b", b"\x85", b"\x1f", b'"', b"$", b"\xef\xbb\xbf"):
        assert await asks_with(client, (b"cookie", prefix + name + b"=" + token)) == 401, prefix
    for other in (name.upper(), name.lower(), name + b" ", name + b"\xa0", b"__Host-\xc5\xbfession", b""):
        assert await asks_with(client, (b"cookie", other + b"=" + token)) == 401, other
    for value in (b'"' + token + b'"', b" " + token, token + b"\xa0", b"%" + token):
        assert await asks_with(client, (b"cookie", name + b"=" + value)) == 401, value


async def test_two_session_cookies_are_none(client: httpx.AsyncClient, token: bytes) -> None:
    one = COOKIE.encode() + b"=" + token
    other = COOKIE.encode() + b"=other"
    for pair in ((one, other), (other, one), (one, one)):
        assert await asks_with(client, (b"cookie", b"; ".join(pair))) == 401
        assert await asks_with(client, *((b"cookie", each) for each in pair)) == 401
    # A name that is only like it does not count as one.
    assert await asks_with(client, (b"cookie", b"\xa0" + other + b"; " + one)) == 200


async def test_one_bearer_token_as_it_is_written(client: httpx.AsyncClient, token: bytes) -> None:
    for form in (b"Bearer %s", b"bearer %s", b"BEARER  %s"):
        assert await asks_with(client, (b"authorization", form % token)) == 200
    for form in (b"Bearer\xa0%s", b"Bearer\t%s", b"Bearer %s x", b"Bearer %s,", b"Token %s", b'Bearer "%s"', b"%s"):
        assert await asks_with(client, (b"authorization", form % token)) == 401, form
    header = (b"authorization", b"Bearer " + token)
    assert await asks_with(client, header, header) == 401
    # A wrong one is not made up for by a cookie, which others could have sent along.
    cookie = (b"cookie", COOKIE.encode() + b"=" + token)
    assert await asks_with(client, (b"authorization", b"Basic eDp5"), cookie) == 401


@pytest.mark.parametrize(
    "origin", [b"http://[", b"http://[::1", b"null", b"", b"http://\xff", b"//service", b"https://x:y"]
)
async def test_no_origin_is_a_failure_of_ours(client: httpx.AsyncClient, token: bytes, origin: bytes) -> None:
    headers = [(b"cookie", COOKIE.encode() + b"=" + token), (b"origin", origin)]
    answer = await client.patch("/v1/accounts/me", json={"first_name": "Eve"}, headers=headers)
    assert answer.status_code == (200 if origin == b"//service" else 403)


ODD_DATES = ["Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", "Mon, 01 Jan 99999 00:00:00 GMT"]
ODD_DATES += ["Mon, 01 Jan 2020 99:99:99 +99999999999999999999", "9" * 5000, "\0", "Mon", "0 Jan 0 0:0:0 +0"]


@pytest.mark.parametrize("date", ODD_DATES)
def test_dates_out_of_range_are_no_dates(date: str) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert not Conditions(None, date, None).is_unchanged('"x"', moment) or "9999" in date
    assert not Conditions(None, None, date).allows_range('"x"', moment)


@given(st.text(max_size=60) | st.from_regex(r"\w{3}, \d{1,5} \w{3} \d{1,6} \d{1,3}:\d{1,3}:\d{1,3} [+-]\d{1,9}"))
def test_no_header_of_conditions_is_a_failure(header: str) -> None:
    conditions = Conditions(header, header, header)
    conditions.is_unchanged('"x"', datetime(2026, 1, 1, tzinfo=UTC))
    Conditions(None, header, header).is_unchanged('"x"', datetime(2026, 1, 1, tzinfo=UTC))
    conditions.allows_range('"x"', datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("device", ["a\0b", "\ud800", "x" * 256])
@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/tokens"])
async def test_nothing_else_tells_a_right_password_from_a_wrong_one(
    data: DataLayer, client: httpx.AsyncClient, device: str, path: str
) -> None:
    await make_account(data)
    body = '{"email": "ann@example.com", "password": "%s", "device_id": "%s"}'
    escaped = "".join(f"\\u{ord(each):04x}" for each in device)
    headers = {"content-type": "application/json", "x-request-id": "the-same"}
    answers = [
        await client.post(path, content=body % (password, escaped), headers=headers)
        for password in (PASSWORD, "wrong " + PASSWORD)
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(
    "avatar",
    [
        "//evil/x.png",
        "\\\\evil\\x.png",
        "/\\evil/x.png",
        "\\/evil",
        "/absolute.png",
        "java\tscript:alert(1)",
        " javascript:alert(1)",
        "\thttps://evil",
        "https:/evil",
        "https:///evil",
        "https://\\evil",
        "https://user@evil/x.png",
        "https://evil/\n",
        "https://[",
        "https://a:b/",
        "HTTPS://evil/x",
        "../x.png",
        "a/../../x",
        "a//b",
        "data:,x",
        "x.png\n",
        "%2f%2fevil",
    ],
)
def test_an_avatar_is_a_key_or_an_address(avatar: str) -> None:
    with pytest.raises(InvalidValueError):
        ProfileChanges(avatar=avatar)


@pytest.mark.parametrize("avatar", ["avatars/me.png", "https://example.com/a.png?s=1&v=2", "https://[::1]:8443/a"])
def test_what_is_plainly_one_of_both_is_taken(avatar: str) -> None:
    assert ProfileChanges(avatar=avatar).avatar == avatar


async def test_no_redirect_names_the_host_that_the_client_sent(client: httpx.AsyncClient) -> None:
    for path in ("/v1/accounts/", "/livez/", "/docs/", "/v1/sessions/"):
        answer = await client.get(path, headers={"host": "evil.example"})
        assert answer.status_code in {404, 405}, path


TRUSTED = TrustedProxies(("10.0.0.0/8", "fd00::/8", "unix"))
STANDARD = TrustedProxies(("10.0.0.0/8", "fd00::/8"), "forwarded")


def forwarded(*values: str, proto: str | None = None) -> Headers:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in values]
    return headers + ([(b"x-forwarded-proto", proto.encode())] if proto else [])


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        (CLIENT, forwarded("1.1.1.1"), CLIENT),
        (None, forwarded("1.1.1.1"), "1.1.1.1"),
        (PROXY, [], PROXY),
        (PROXY, forwarded("1.1.1.1"), "1.1.1.1"),
        (PROXY, forwarded("6.6.6.6, 1.1.1.1"), "1.1.1.1"),
        (PROXY, forwarded("6.6.6.6", "1.1.1.1"), "1.1.1.1"),
        (PROXY, forwarded("6.6.6.6, 1.1.1.1, 10.9.9.9"), "1.1.1.1"),
        (PROXY, forwarded("10.2.2.2, 10.9.9.9"), "10.2.2.2"),
        (PROXY, forwarded("6.6.6.6, unknown"), PROXY),
        (PROXY, forwarded("6.6.6.6, junk, 10.9.9.9"), "10.9.9.9"),
        (PROXY, forwarded("1.1.1.1,, "), "1.1.1.1"),
        (PROXY, forwarded("1.1.1.1:4711"), "1.1.1.1"),
        (PROXY, forwarded("[2001:db8::1]:4711"), "2001:db8::1"),
        (PROXY, forwarded("fe80::1%eth0"), "fe80::1"),
        ("::ffff:10.0.0.1", forwarded("::ffff:1.1.1.1"), "1.1.1.1"),
        ("fd00::1", forwarded("2001:db8::1"), "2001:db8::1"),
        (PROXY, [(b"forwarded", b"for=6.6.6.6")], PROXY),
        (PROXY, forwarded(",".join(["6.6.6.6"] + ["10.1.1.1"] * 5000)), "10.1.1.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(
    peer: str | None, headers: Headers, client: str | None
) -> None:
    assert TRUSTED.origin(peer, headers)[0] == client


@pytest.mark.parametrize(
    ("header", "client", "scheme"),
    [
        ("for=1.1.1.1;proto=https", "1.1.1.1", "https"),
        ('For="[2001:db8::1]:4711"; Proto=HTTP', "2001:db8::1", "http"),
        ("for=6.6.6.6, for=1.1.1.1;by=10.0.0.1", "1.1.1.1", None),
        ("for=1.1.1.1, for=10.2.2.2;proto=https", "1.1.1.1", "https"),
        ("for=_hidden;proto=gopher", PROXY, None),
        ("proto=https", PROXY, "https"),
    ],
)
def test_the_standard_header(header: str, client: str, scheme: str | None) -> None:
    headers = [(b"forwarded", header.encode()), (b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-proto", b"http")]
    assert STANDARD.origin(PROXY, headers) == (client, scheme)


@given(st.binary(max_size=200))
def test_no_forwarding_header_is_a_failure(value: bytes) -> None:
    for proxies in (TRUSTED, STANDARD):
        headers = [(b"x-forwarded-for", value), (b"forwarded", value), (b"x-forwarded-proto", value)]
        proxies.origin(PROXY, headers)
        assert proxies.origin(CLIENT, headers) == (CLIENT, None)


@pytest.mark.parametrize("wrong", ["0.0.0.0/0", "::/0", "*", "proxy.example", "10.0.0.0/33", "::ffff:0.0.0.0/96"])
def test_trusting_everybody_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES"):
        Settings(trusted_proxies=wrong, _env_file=None)


async def test_everything_goes_by_the_address_behind_the_proxy(data: DataLayer) -> None:
    user = await make_account(data)
    settings = data.settings.replaced(trusted_proxies=("10.0.0.0/8",))
    object.__setattr__(data, "settings", settings)
    async with client_of(data, PROXY) as client:
        headers = {"x-forwarded-for": "6.6.6.6, 192.0.2.77"}
        assert (await client.post("/v1/sessions", json=LOGIN, headers=headers)).status_code == 201
        # What one client does wrong is not counted for another.
        for _ in range(40):
            await client.post("/v1/sessions", json=LOGIN | {"password": "wrong"}, headers=headers)
        others = {"x-forwarded-for": "198.51.100.5"}
        assert (await client.post("/v1/sessions", json=LOGIN, headers=others)).status_code == 201
    entries = [entry for entry in await trail(data) if entry.user_id == user.id and entry.action == "user_login"]
    assert {str(entry.ip_address) for entry in entries} == {"192.0.2.77", "198.51.100.5"}


async def test_health_is_probed_once_for_all_who_ask(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = 0
    probe = data.health

    async def counted() -> Health:
        nonlocal probes
        probes += 1
        return await probe()

    monkeypatch.setattr(data, "health", counted)
    now = 1000.0
    monkeypatch.setattr("data_layer.api.health.time.monotonic", lambda: now)
    async with client_of(data) as client:
        answers = await asyncio.gather(*(client.get("/health") for _ in range(20)))
        assert ({answer.status_code for answer in answers}, probes) == ({200}, 1)
        now += 1.5
        await client.get("/health")
    assert probes == 2
