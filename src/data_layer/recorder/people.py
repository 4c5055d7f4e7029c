"""Who uses the application: the one person of a laptop, or people who have logged in.

| | without ``--login`` | with it |
| --- | --- | --- |
| listens on | loopback addresses only | what HOST says |
| who it is | one local account, made at the first start | the account of the session cookie |
| the request must | name a loopback host | bring the cookie |
| its page must | come from a loopback host | be of this site, or of an origin that may use cookies (CORS) |
| while the database is away | nothing is asked | sessions that were valid a short while ago are believed |
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Request
from starlette.types import Scope

from data_layer.context import request_context
from data_layer.entities.enums import UserRole
from data_layer.errors import (
    AuthenticationError,
    DatabaseError,
    DuplicateError,
    InvalidSessionError,
    PermissionDeniedError,
)
from data_layer.layer import DataLayer
from data_layer.recorder.delivery import is_transient
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.sessions import NewSession
from data_layer.web.authentication import COOKIE, cookie_of, is_own_origin

BELIEVED_SECONDS = 300.0
_ASKED_SECONDS = 1.0
"""For which the database is asked about a session that may be believed."""
_MOST_KNOWN = 10_000

LOCAL_EMAIL = "me@screenshot-to-code.example"
"""The account of the one person of a laptop. Nobody can log in to it: it has no password."""


class LocalPerson:
    """The one person of a laptop, who need not log in."""

    needs_login = False

    def __init__(self, data: DataLayer, user_id: UUID, role: UserRole) -> None:
        self._data = data
        self._user_id = user_id
        self._actor = Actor.user(user_id, role)
        self._session: NewSession | None = None
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, data: DataLayer) -> LocalPerson:
        """Find the account, or make it at the first start."""
        with request_context(source="recorder"):
            with suppress(DuplicateError):
                await data.accounts.create(
                    SYSTEM, email=LOCAL_EMAIL, first_name="Local", last_name="Person", email_verified=False
                )
            found = await data.accounts.find(SYSTEM, LOCAL_EMAIL)
        return cls(data, found.id, found.role)

    async def actor_of(self, scope: Scope) -> Actor:
        """The person, if the request comes from this computer's own pages.

        Raises:
            PermissionDeniedError: it was sent by a page of another host, or for another host's name.
        """
        self._require_own(scope)
        return self._actor

    async def with_session(self, scope: Scope) -> Scope:
        """The same request with the cookie of the person, for the API, unless it brings credentials or is foreign."""
        if _values(scope, b"authorization") or b"__Host-session" in b"".join(_values(scope, b"cookie")):
            return scope
        try:
            self._require_own(scope)
        except PermissionDeniedError:
            return scope
        cookie = f"{COOKIE}={await self._token()}".encode()
        others = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
        given = b"; ".join([*_values(scope, b"cookie"), cookie])
        return {**scope, "headers": [*others, (b"cookie", given)]}

    def _require_own(self, scope: Scope) -> None:
        # A name that somebody else's server gives this computer's address is not one of these (DNS rebinding).
        hosts = [_host_of(f"//{value.decode('latin-1')}") for value in _values(scope, b"host")]
        origins = [_host_of(value.decode("latin-1")) for value in _values(scope, b"origin")]
        if not hosts or not all(is_loopback(name) for name in (*hosts, *origins)):
            raise PermissionDeniedError("without --login only pages of this computer may use the application")

    async def _token(self) -> str:
        """The token of a session that lives: it may have expired, or been ended in the console."""
        async with self._lock:
            if self._session is None or not await self._is_alive(self._session):
                with request_context(source="recorder"):
                    self._session = await self._data.sessions.create(self._user_id)
            return self._session.token.get_secret_value()

    async def _is_alive(self, session: NewSession) -> bool:
        try:
            await self._data.sessions.validate(session.token.get_secret_value())
        except AuthenticationError:
            return False
        except DatabaseError:
            return True  # Nobody knows; the service answers that itself.
        return True


class LoggedInPeople:
    """People who have a session of this service.

    While the database cannot say whether a session is valid, one that was valid within ``BELIEVED_SECONDS`` is
    believed: the application and its page go on, and everything that is of the service refuses for itself.
    """

    needs_login = True

    def __init__(self, data: DataLayer, origins_with_cookies: frozenset[str]) -> None:
        self._data = data
        self._origins = origins_with_cookies
        self._known: OrderedDict[bytes, tuple[Actor, float]] = OrderedDict()
        """By the hash of a token: who it is, and until when that is believed."""

    async def actor_of(self, scope: Scope) -> Actor:
        """Return the person behind the session.

        Raises:
            PermissionDeniedError: a page of another site has sent it.
            AuthenticationError: nobody is logged in.
        """
        origins = [value.decode("latin-1") for value in _values(scope, b"origin")]
        hosts = [value.decode("latin-1") for value in _values(scope, b"host")]
        for origin in origins:
            if len(hosts) != 1 or not is_own_origin(origin, hosts[0], self._origins):
                raise PermissionDeniedError(
                    "pages of other sites may use the application only if CORS_ALLOWED_ORIGINS names their origin, "
                    "with CORS_ALLOW_CREDENTIALS"
                )
        token = cookie_of(Request({**scope, "type": "http"}), COOKIE)
        if token is None:
            raise InvalidSessionError("log in first")
        return await self._holder_of(token)

    async def _holder_of(self, token: str) -> Actor:
        key = hashlib.sha256(token.encode()).digest()
        known = self._known.get(key)
        believed = known if known is not None and monotonic() < known[1] else None
        try:
            async with asyncio.timeout(None if believed is None else _ASKED_SECONDS):
                actor = (await self._data.sessions.validate(token)).actor
        except AuthenticationError:
            self._known.pop(key, None)
            raise
        except Exception as error:
            if believed is None or not is_transient(error):
                raise
            return believed[0]
        self._known[key] = actor, monotonic() + BELIEVED_SECONDS
        self._known.move_to_end(key)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return actor

    async def with_session(self, scope: Scope) -> Scope:
        """The request as it came: it has a cookie, or none."""
        return scope


People = LocalPerson | LoggedInPeople


def is_loopback(host: str | None) -> bool:
    """Whether a host's name can only mean this computer."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _values(scope: Scope, name: bytes) -> Sequence[bytes]:
    return [value for sent, value in scope["headers"] if sent == name]
