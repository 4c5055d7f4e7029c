"""Logins that are under way: remembered by the browser that began them, and by nobody else."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest
from uuid import UUID

import orjson

from data_layer.errors import InvalidLoginError, InvalidValueError
from data_layer.services.own_paths import LONGEST_PATH, is_own_path
from data_layer.services.sessions.hashing import TokenHasher, make_token
from data_layer.settings.security import SecuritySettings

LIFETIME = 600
"""Seconds that somebody has to log in at the issuer."""

COOKIE_PREFIX = "__Host-oidc-"
_NAMED = 16
_STATE = re.compile(r"[A-Za-z0-9_-]{43}")
_LONGEST_COOKIE = 4096


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """An account to which an identity is to be linked, and the session in which that was asked for."""

    user_id: UUID
    session_id: UUID


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login that was begun: what goes to the issuer, and what must come back from it.

    ``nonce`` and ``verifier`` (of PKCE) are computed from what the cookie holds and the secret, so that neither stands
    in the browser. ``link`` names account and session where an identity is to be linked.
    """

    provider: str
    next_path: str
    state: str
    nonce: str
    verifier: str
    link: LinkRequest | None = None


class LoginStates:
    """Makes and reads the cookies of logins that are under way.

    ``state`` comes back in the address, and the cookie with it only from the browser that began (RFC 6819, 4.4.1.8).
    Each login has a cookie of its own, named by its state, so that several tabs do not disturb each other.

    Args:
        settings: the secrets.
        clock: seconds since 1970.
    """

    def __init__(self, settings: SecuritySettings, clock: Callable[[], float] = time.time) -> None:
        secrets = (settings.session_secret, settings.session_secret_previous)
        self._seals = TokenHasher(*secrets, "login by an issuer")
        self._link_seals = TokenHasher(*secrets, "identity to be linked")
        self._derived = TokenHasher(*secrets, "part of a login by an issuer")
        self._clock = clock

    def begin(self, provider: str, next_path: str, link: LinkRequest | None = None) -> tuple[PendingLogin, str]:
        """Return a new login, and what its cookie holds.

        Raises:
            InvalidValueError: the path leads elsewhere.
        """
        check_path(next_path)
        secret, expires_at = make_token(), int(self._clock()) + LIFETIME
        linked = [] if link is None else [str(link.user_id), str(link.session_id)]
        payload = _encode(orjson.dumps([provider, next_path, secret, expires_at, *linked]))
        seals = self._seals if link is None else self._link_seals
        return self._derive(0, provider, next_path, secret, link), f"{payload}.{seals.hash(payload)}"

    def resume(self, provider: str, state: str, cookie: str | None) -> PendingLogin:
        """Return the login that a state belongs to.

        Raises:
            InvalidLoginError: it was not begun in this browser, at this provider, within the last ten minutes.
        """
        if cookie is None or len(cookie) > _LONGEST_COOKIE or _STATE.fullmatch(state) is None:
            raise invalid_login()
        payload, _, seal = cookie.partition(".")
        matching = [
            which
            for seals in (self._seals, self._link_seals)
            for which, one in enumerate(seals.hashes(payload))
            if _equal(one, seal)
        ]
        if not matching:
            raise invalid_login()
        begun_at, next_path, secret, expires_at, *linked = orjson.loads(
            base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        )
        link = LinkRequest(*(UUID(each) for each in linked)) if linked else None
        login = self._derive(matching[0], begun_at, next_path, secret, link)
        if begun_at != provider or expires_at <= self._clock() or not _equal(login.state, state):
            raise invalid_login()
        return login

    def _derive(self, which: int, provider: str, next_path: str, secret: str, link: LinkRequest | None) -> PendingLogin:
        def part(name: str) -> str:
            return _encode(self._derived.derive(f"{name}\0{secret}")[which])

        return PendingLogin(provider, next_path, part("state"), part("nonce"), part("verifier"), link)


def cookie_name(state: str) -> str | None:
    """Return the name of the cookie of a login; None for what is not a state."""
    return f"{COOKIE_PREFIX}{state[:_NAMED]}" if _STATE.fullmatch(state) else None


def check_path(path: str) -> None:
    """Refuse where a browser would leave this host: only a path of it may follow a login.

    Raises:
        InvalidValueError: it is another address, or no path.
    """
    if not is_own_path(path):
        raise InvalidValueError(
            f"next must be a path of this host, such as /projects, of {LONGEST_PATH} characters at most", field="next"
        )


def invalid_login() -> InvalidLoginError:
    """Return the one answer to every login that cannot go on."""
    return InvalidLoginError(
        "this login was not begun in this browser, took longer than ten minutes, or was used before; begin again"
    )


def _encode(content: bytes) -> str:
    """Base64url without padding, which a cookie could not hold without quotes."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _equal(one: str, other: str) -> bool:
    return compare_digest(one.encode(), other.encode("utf-8", "replace"))
