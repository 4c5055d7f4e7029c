"""What providers say is looked at with care: an issuer that lies, GitHub, Google, Microsoft Entra."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from pydantic import SecretStr

from data_layer.entities.enums import AuthProvider
from data_layer.errors import InvalidLoginError, InvalidTokenError, IssuerError, IssuerUnavailableError
from data_layer.schemas.users import ExternalIdentity
from data_layer.services.openid.calls import IssuerCalls
from data_layer.services.openid.providers import (
    Callback,
    GitHubProvider,
    OpenIdProvider,
    Provider,
    ProviderConfiguration,
    make_provider,
)
from data_layer.services.openid.states import LoginStates, PendingLogin
from data_layer.settings.openid import OpenIdSettings
from data_layer.settings.security import SecuritySettings

from .issuer import make_key, sign
from .site import Site

OWN, FOREIGN = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
OBJECT = "aaaaaaaa-2222-3333-4444-555555555555"
KEY = make_key("one")
CODE = Callback(code="the code")


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
async def calls() -> AsyncIterator[IssuerCalls]:
    calls = IssuerCalls(2)
    yield calls
    await calls.close()


@pytest.fixture
def login() -> PendingLogin:
    return LoginStates(SecuritySettings()).begin("oidc", "/")[0]


def configuration(site: Site, kind: Any = "oidc", **values: Any) -> ProviderConfiguration:
    given: dict[str, Any] = {"client_id": "id", "client_secret": SecretStr("secret")} | values
    return ProviderConfiguration(kind, "x", site.url, "https://service.example/callback", **given)


def describe(site: Site, base: str = "", **changes: Any) -> None:
    """Have the site answer as an issuer at a path of it."""
    site.answers[f"{base}/.well-known/openid-configuration"] = {
        "issuer": f"{site.url}{base}",
        "authorization_endpoint": f"{site.url}/authorize",
        "token_endpoint": f"{site.url}/token",
        "jwks_uri": f"{site.url}/keys",
        "userinfo_endpoint": f"{site.url}/userinfo",
    } | changes
    site.answers["/keys"] = {"keys": [KEY.as_dict(private=False)]}


def id_token(site: Site, login: PendingLogin, *, key: Any = KEY, header: Any = None, **claims: Any) -> str:
    now = int(time.time())
    values = {"iss": site.url, "aud": "id", "sub": "ann", "nonce": login.nonce, "iat": now, "exp": now + 60} | claims
    return sign({"alg": "RS256", "kid": "one"} | (header or {}), values, key)


async def identify(provider: Provider, site: Site, login: PendingLogin, token: str, **more: Any) -> ExternalIdentity:
    site.answers["/token"] = {"access_token": "access", "token_type": "Bearer", "id_token": token} | more
    return await provider.identify(CODE, login)


async def test_an_id_token_is_of_this_issuer_this_client_and_this_login(
    site: Site, calls: IssuerCalls, login: PendingLogin
) -> None:
    describe(site)
    site.answers["/userinfo"] = {"sub": "ann", "email": "ann@example.com", "email_verified": True, "name": "A\0nn"}
    settings = OpenIdSettings(oidc_issuer=site.url, oidc_client_id="id", oidc_allowed_azp="https://app.example")
    provider = make_provider(configuration(site), settings, calls)
    half = base64.urlsafe_b64encode(hashlib.sha256(b"access").digest()[:16]).rstrip(b"=").decode()
    other = LoginStates(SecuritySettings()).begin("oidc", "/")[0]
    for claims in ({}, {"at_hash": half}, {"aud": ["id", "b"], "azp": "id"}, {"azp": "https://app.example"}):
        identity = await identify(provider, site, login, id_token(site, login, **claims))
        assert (identity.subject, identity.issuer, identity.email) == ("ann", site.url, "ann@example.com")
        assert (identity.email_verified, identity.display_name) == (True, None), "what cannot be stored is left out"
    path, form, headers = next(asked for asked in site.asked if asked[0] == "/token")
    assert headers["authorization"] == "Basic " + base64.b64encode(b"id:secret").decode()
    assert (form["code_verifier"], "client_secret" in form, path) == ([login.verifier], False, "/token")
    wrong: list[dict[str, Any]] = [
        {"nonce": other.nonce},
        {"nonce": None},
        {"aud": "another"},
        {"aud": ["id", "b"]},
        {"azp": "another"},
        {"aud": None, "azp": "id"},
        {"iss": f"{site.url}/"},
        {"at_hash": half[::-1]},
        {"at_hash": 7},
        {"exp": 1},
        {"sub": "bob"},  # Userinfo is of ann.
        {"key": make_key("one")},
        {"header": {"alg": "none"}},
        {"header": {"alg": "HS256"}, "key": b"secret"},
    ]
    for claims in wrong:
        with pytest.raises(InvalidTokenError):
            await identify(provider, site, login, id_token(site, login, **claims))
            pytest.fail(str(claims))
    with pytest.raises(InvalidLoginError):
        await provider.identify(Callback(code="x", issuer="https://other.example"), login)
    with pytest.raises(IssuerError, match="no ID token"):
        await identify(provider, site, login, "x", id_token=None)
    site.answers["/token"], site.statuses["/token"] = {"error": "invalid_client"}, 401
    with pytest.raises(IssuerError, match=r"gave no token \(invalid_client\); see whether client"):
        await provider.identify(CODE, login)


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (ECKey.generate_key("P-256", {"kid": "one"}), "ES256"),
        (OKPKey.generate_key("Ed25519", {"kid": "one"}), "EdDSA"),
        (make_key("one"), "PS256"),
    ],
)
async def test_other_algorithms(site: Site, calls: IssuerCalls, login: PendingLogin, key: Any, alg: str) -> None:
    import jwt

    describe(site)
    public = {name: value for name, value in key.as_dict(private=False).items() if name != "alg"}
    # What signs nothing is left out, and what is too short.
    with pytest.warns(SecurityWarning) if alg == "PS256" else nullcontext():
        short = RSAKey.generate_key(1024, {"kid": "one"}) if alg == "PS256" else None
    others = [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}, {"kty": "EC", "crv": "x"}, 7, public | {"use": "enc"}]
    site.answers["/keys"] = {"keys": [*others, *([short.as_dict(private=False)] if short else []), public]}
    settings = OpenIdSettings(oidc_issuer=site.url, oidc_client_id="id")
    provider = make_provider(configuration(site), settings, calls)
    now = int(time.time())
    claims = {"iss": site.url, "aud": "id", "sub": "ann", "nonce": login.nonce, "exp": now + 60, "email": "a@b.example"}
    private = key.private_key
    token = jwt.encode(claims, private, algorithm=alg, headers={"kid": "one"})
    assert (await identify(provider, site, login, token)).email == "a@b.example"
    with pytest.raises(InvalidTokenError):
        await identify(provider, site, login, token[:-10] + "AAAAAAAAAA")
    if short is not None:
        weak = sign({"alg": "RS256", "kid": "one"}, claims, short)
        with pytest.raises(InvalidTokenError):
            await identify(provider, site, login, weak)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "ftp://evil.example"},
        {"jwks_uri": "https://user@evil.example"},
        {"authorization_endpoint": 7},
        {"userinfo_endpoint": "javascript:alert(1)"},
    ],
)
async def test_a_description_of_somebody_else_is_refused(
    site: Site, calls: IssuerCalls, login: PendingLogin, changes: dict[str, Any]
) -> None:
    describe(site, **changes)
    provider = make_provider(configuration(site), OpenIdSettings(), calls)
    for _ in range(3):
        with pytest.raises(IssuerError):
            await provider.authorization_url(login)
    assert len(site.asked) == 1, "asked once in some seconds"


async def test_answers_are_bounded_and_lead_nowhere(site: Site, calls: IssuerCalls) -> None:
    site.answers |= {"/large": "[" + " " * 600_000 + "]", "/text": "<html>", "/list": [1], "/moved": {}, "/broken": {}}
    site.statuses |= {"/moved": 302, "/broken": 500}
    site.headers["/moved"] = {"location": f"{site.url}/list"}
    for path in ("/large", "/text", "/list", "/moved", "/missing"):
        with pytest.raises(IssuerError) as caught:
            await calls.get(site.url + path)
        assert not isinstance(caught.value, IssuerUnavailableError), path
    with pytest.raises(IssuerUnavailableError):
        await calls.get(f"{site.url}/broken")
    with pytest.raises(IssuerUnavailableError, match="cannot be reached"):
        await calls.get("http://127.0.0.1:1/")


async def test_github_vouches_for_its_verified_primary_address(
    site: Site, calls: IssuerCalls, login: PendingLogin
) -> None:
    provider = make_provider(configuration(site, "github", api=f"{site.url}/api"), OpenIdSettings(), calls)
    assert isinstance(provider, GitHubProvider)
    assert (await provider.authorization_url(login)).startswith(f"{site.url}/login/oauth/authorize?response_type=code&")
    site.answers |= {
        "/login/oauth/access_token": {"access_token": "gho_x", "scope": "read:user,user:email"},
        "/api/user": {
            "id": 42,
            "login": "ann",
            "name": None,
            "email": "public@example.com",
            "avatar_url": "https://a/b",
        },
        "/api/user/emails": [
            {"email": "other@example.com", "primary": False, "verified": True},
            {"email": "ann@example.com", "primary": True, "verified": True},
        ],
    }
    identity = await provider.identify(CODE, login)
    assert (identity.provider, identity.subject, identity.email) == (AuthProvider.GITHUB, "42", "ann@example.com")
    assert (identity.email_verified, identity.display_name) == (True, "ann")
    assert site.asked[-1][2]["authorization"] == "Bearer gho_x"
    site.answers["/api/user/emails"] = [
        {"email": "other@example.com", "primary": False, "verified": True},
        {"email": "ann@example.com", "primary": True, "verified": False},
    ]
    assert not (await provider.identify(CODE, login)).email_verified
    site.answers["/api/user/emails"] = []
    assert (await provider.identify(CODE, login)).email is None
    site.answers["/login/oauth/access_token"] = {"error": "bad_verification_code"}  # With the status 200.
    with pytest.raises(InvalidLoginError):
        await provider.identify(CODE, login)


async def test_google_has_a_column_of_its_own(site: Site, calls: IssuerCalls, login: PendingLogin) -> None:
    describe(site)
    provider = make_provider(configuration(site, "google"), OpenIdSettings(), calls)
    token = id_token(site, login, email="ann@example.com", email_verified=True, given_name="Ann", family_name="Other")
    identity = await identify(provider, site, login, token)
    assert (identity.provider, identity.issuer, identity.first_name) == (AuthProvider.GOOGLE, None, "Ann")


@pytest.mark.parametrize("tenant", [OWN, "organizations"])
async def test_entra_names_tenants(site: Site, calls: IssuerCalls, login: PendingLogin, tenant: str) -> None:
    base = f"/{tenant}/v2.0"
    issuer = f"{site.url}/{tenant}/v2.0" if tenant == OWN else f"{site.url}/{{tenantid}}/v2.0"
    describe(site, base, issuer=issuer)
    provider = make_provider(configuration(site, "entra", tenant=tenant), OpenIdSettings(), calls)
    assert isinstance(provider, OpenIdProvider)

    def token(tid: Any = OWN, **claims: Any) -> str:
        given = {"iss": f"{site.url}/{tid}/v2.0", "tid": tid, "oid": OBJECT, "email": "ann@example.com"}
        return id_token(site, login, **given | claims)

    identity = await identify(provider, site, login, token())
    assert (identity.provider, identity.subject) == (AuthProvider.AZURE_AD, f"{OWN}.{OBJECT}")
    assert identity.email_verified == (tenant == OWN), "any administrator can write any address"
    assert (await identify(provider, site, login, token(xms_edov=True))).email_verified
    for wrong in (token(oid=None), token(iss=f"{site.url}/{FOREIGN}/v2.0"), token("../x"), token(tid=None)):
        with pytest.raises(InvalidTokenError):
            await identify(provider, site, login, wrong)
    if tenant == OWN:
        with pytest.raises(InvalidTokenError):
            await identify(provider, site, login, token(FOREIGN))
    else:
        assert (await identify(provider, site, login, token(FOREIGN))).subject == f"{FOREIGN}.{OBJECT}"
