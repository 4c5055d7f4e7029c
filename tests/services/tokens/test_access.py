"""Access tokens: only those are accepted that were made here, for here, for now, and whose session lives."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from uuid_utils.compat import uuid4, uuid7

from data_layer import DataLayer, Settings
from data_layer.errors import ExpiredTokenError, InvalidTokenError
from data_layer.schemas.actors import SYSTEM
from data_layer.services.tokens import AccessTokens
from tests.services.sessions.test_sessions import new_user

KEY, OTHER = "k" * 64, "o" * 64
NOW = 1_800_000_000


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(base_settings: Settings, clock: Clock) -> AccessTokens:
    return AccessTokens(base_settings.replaced(jwt_secret=SecretStr(KEY), jwt_expires_in=900).security, clock)


def forged(tokens: AccessTokens, *, key: str = KEY, algorithm: str = "HS256", kid: Any = None, **changes: Any) -> str:
    """A token like ours but for what is changed; a claim that is None is left out."""
    ours = tokens.make(uuid7(), uuid7())
    claims = jwt.decode(ours, options={"verify_signature": False}) | changes
    headers = {"kid": jwt.get_unverified_header(ours)["kid"] if kid is None else kid}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key if algorithm != "none" else "", algorithm=algorithm, headers=headers)


def test_what_is_made_is_read(tokens: AccessTokens) -> None:
    session_id, user_id = uuid7(), uuid7()
    token = tokens.make(session_id, user_id)
    assert tokens.read(token) == (session_id, user_id)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["exp"] - claims["iat"]) == ("data-layer", "screenshot-to-code", 900)
    assert set(claims) == {"iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"}, "nothing that may change"


def test_it_expires(tokens: AccessTokens, clock: Clock) -> None:
    token = tokens.make(uuid7(), uuid7())
    clock.now = NOW + 900 + 4
    assert tokens.read(token), "clocks differ a little"
    clock.now = NOW + 900 + 5
    with pytest.raises(ExpiredTokenError):
        tokens.read(token)
    clock.now = NOW - 6
    with pytest.raises(InvalidTokenError) as caught:
        tokens.read(token)
    assert type(caught.value) is InvalidTokenError, "it is not yet in force"


@pytest.mark.parametrize("now", [1_000_000_000, 4_000_000_000], ids=["2001", "2096"])
def test_the_machine_s_own_clock_does_not_count(tokens: AccessTokens, clock: Clock, now: int) -> None:
    clock.now = now
    ids = uuid7(), uuid7()
    assert tokens.read(tokens.make(*ids)) == ids


def test_an_expired_forgery_is_not_called_expired(tokens: AccessTokens, clock: Clock) -> None:
    for changes in ({"aud": "something else"}, {"iss": "somebody else"}, {"jti": None}, {"key": OTHER}):
        clock.now = NOW
        token = forged(tokens, **changes)
        clock.now = NOW + 10**6
        with pytest.raises(InvalidTokenError) as caught:
            tokens.read(token)
        assert type(caught.value) is InvalidTokenError


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "none"},
        {"algorithm": "HS512"},
        {"algorithm": "HS384"},
        {"key": OTHER},
        {"kid": ""},
        {"kid": "unknown"},
        {"kid": "../../dev/null"},
        {"iss": "somebody else"},
        {"aud": "something else"},
        {"aud": ["something else"]},
        *({name: None} for name in ("iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti")),
        {"sid": "1"},
        {"sid": ["a"]},
        {"sub": "' OR 1=1 --"},
        {"exp": "soon"},
        {"exp": [1]},
        {"nbf": {}},
        {"nbf": NOW + 3600},
    ],
)
def test_forgeries(tokens: AccessTokens, changes: dict[str, Any]) -> None:
    assert tokens.read(forged(tokens)), "the forger can write a good one"
    with pytest.raises(InvalidTokenError) as caught:
        tokens.read(forged(tokens, **changes))
    assert type(caught.value) is InvalidTokenError
    assert caught.value.__cause__ is None


def test_changed_claims_under_the_old_signature(tokens: AccessTokens) -> None:
    header, payload, signature = tokens.make(uuid7(), uuid7()).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed = base64.urlsafe_b64encode(json.dumps(claims | {"sid": str(uuid4())}).encode()).rstrip(b"=").decode()
    with pytest.raises(InvalidTokenError):
        tokens.read(f"{header}.{changed}.{signature}")
    with pytest.raises(InvalidTokenError):
        tokens.read(f"{header}.{payload}.")


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "x" * 5000, "é.é.é", "\0", "\ud800.a.b", "e30.e30.e30"])
def test_nonsense(tokens: AccessTokens, token: str) -> None:
    with pytest.raises(InvalidTokenError):
        tokens.read(token)


def test_the_former_secret_is_accepted_while_it_is_known(base_settings: Settings, clock: Clock) -> None:
    old = AccessTokens(base_settings.replaced(jwt_secret=SecretStr(OTHER)).security, clock)
    changes = {"jwt_secret": SecretStr(KEY), "jwt_secret_previous": SecretStr(OTHER)}
    both = AccessTokens(base_settings.replaced(**changes).security, clock)
    new = AccessTokens(base_settings.replaced(**changes | {"jwt_secret_previous": None}).security, clock)
    token = old.make(uuid7(), uuid7())
    assert both.read(token) == old.read(token)
    with pytest.raises(InvalidTokenError):
        new.read(token)
    assert new.read(both.make(uuid7(), uuid7())), "new tokens are signed with the new secret"


async def test_it_ends_with_its_session(data: DataLayer) -> None:
    begun = await data.sessions.create(await new_user(data))
    pair = await data.tokens.issue(begun.session)
    access = pair.access_token.get_secret_value()
    session = await data.tokens.verify(access)
    assert (session.id, session.user_id) == (begun.session.id, begun.session.user_id)
    await data.sessions.revoke(SYSTEM, session.id)
    with pytest.raises(InvalidTokenError):
        await data.tokens.verify(access)


async def test_it_is_good_for_its_own_user_only(data: DataLayer) -> None:
    begun = await data.sessions.create(await new_user(data))
    token = AccessTokens(data.settings.security).make(begun.session.id, uuid7())
    with pytest.raises(InvalidTokenError):
        await data.tokens.verify(token)
