"""Who sends a request: the token of a session as bearer or in a cookie, an access token, one of an issuer, an API key.

An API key is accepted only where a route names the scope that it needs.

A browser sends its cookies with what other sites have it send, too. ``SameSite=Lax`` keeps them from most of it, and
what changes something is also refused when the browser says that it comes from elsewhere (Fetch Metadata, and
``Origin`` where a browser does not know that). A bearer token is never sent by itself, so it needs none of this.
"""

# Annotations are evaluated at once: FastAPI before 0.124 does not resolve those of objects that are called.
import re
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Self
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie

from data_layer.context import current_context, extend_request_context
from data_layer.entities.enums import ApiScope
from data_layer.errors import (
    ExpiredTokenError,
    InvalidSessionError,
    InvalidTokenError,
    MissingScopeError,
    PermissionDeniedError,
    TooManyRequestsError,
)
from data_layer.layer import DataLayer
from data_layer.schemas.actors import Actor
from data_layer.schemas.api_keys import ActiveApiKey
from data_layer.schemas.sessions import ActiveSession
from data_layer.services.api_keys import PREFIX as API_KEY_PREFIX
from data_layer.services.rate_limits import RateLimiter, RequestKind, RequestLimiter
from data_layer.services.sessions.hashing import TOKEN_LENGTH

COOKIE = "__Host-session"
"""A browser takes a cookie of this name only if it is secure, of this host alone, and for all paths (RFC 6265bis)."""
COOKIE_RULES: dict[str, Any] = {"secure": True, "httponly": True, "samesite": "lax"}
"""No script reads our cookies, and other sites have them sent by links only."""
REGISTRATION_COOKIE = "__Host-registration"
"""Holds the proof of who chose the password of a new account."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)  # RFC 6750, 2.1; nothing around it.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]+")


@dataclass(frozen=True, slots=True)
class People:
    """What the routes for people work with; ``create_app`` gives it to the application."""

    data: DataLayer
    limiter: RequestLimiter
    rates: RateLimiter
    origins_with_cookies: frozenset[str] = frozenset()


class Caller(NamedTuple):
    """An authenticated user.

    ``session`` is None for those who come without one; what concerns the session itself is refused to them. ``api_key``
    is the key that a program shows.
    """

    actor: Actor
    session: ActiveSession | None = None
    api_key: ActiveApiKey | None = None

    @property
    def user_id(self) -> UUID:
        """Whose account it is."""
        return self.actor.user_id  # type: ignore[return-value]  # Nobody else is let in.

    @property
    def counted_as(self) -> str:
        """The identity by which requests are limited; what stands before the colon names the policy."""
        return f"person:{self.actor.user_id}" if self.api_key is None else f"key:{self.api_key.id}"

    @classmethod
    def of_session(cls, session: ActiveSession) -> Self:
        """Return who acts in a session."""
        return cls(session.actor, session)


def people_of(request: Request) -> People:
    """What the routes work with."""
    people: People = request.scope["app"].people
    return people


async def admit_login(people: People, email: str) -> None:
    """Count a login, which is not limited from a network that the account knows.

    A flood from one address must not lock out all who share it; the throttle counts what comes from known networks.

    Raises:
        TooManyRequestsError: when the network has sent too many.
    """
    try:
        await people.limiter.admit(current_context().ip_address, RequestKind.LOG_IN)
    except TooManyRequestsError:
        if not await people.data.accounts.knows_network(email):
            raise


class _HostCookie(APIKeyCookie):
    """A cookie of ours, byte for byte; see ``cookie_of``."""

    async def __call__(self, request: Request) -> str | None:  # type: ignore[override]
        return cookie_of(request, self.model.name)


_registration = _HostCookie(
    name=REGISTRATION_COOKIE,
    scheme_name="RegistrationCookie",
    auto_error=False,
    description="For browsers; see POST /v1/accounts.",
)


def _bearer_of(request: Request) -> str | None:
    """The bearer token, from the bytes that were sent: frameworks would strip, fold and choose among several."""
    values = _values(request, b"authorization")
    if not values:
        return None
    match = _BEARER.fullmatch(values[0])
    if len(values) > 1 or match is None:
        raise InvalidTokenError("send one header of the form: Authorization: Bearer …")
    return match[1].decode()


def cookie_of(request: Request, expected: str) -> str | None:
    """A cookie of ours, byte for byte.

    Only a page of this very host can set a cookie of such a name, and only if the name is compared as browsers compare
    it: a name that is stripped or unquoted into it can come from a sibling domain. Of two, one is not ours.
    """
    name = expected.encode()
    pairs = [pair.strip(b" ").partition(b"=") for value in _values(request, b"cookie") for pair in value.split(b";")]
    found = [value for found_name, _, value in pairs if found_name == name]
    return found[0].decode() if len(found) == 1 and _TOKEN.fullmatch(found[0]) else None


def _values(request: Request, name: bytes) -> list[bytes]:
    """The values of a header, one for each time that it was sent."""
    return [value for sent, value in request.scope["headers"] if sent == name]


async def authenticate(request: Request, scope: ApiScope | None = None) -> Caller:
    """Identify the sender of a request, who acts in everything that is recorded from now on.

    Args:
        request: what was sent.
        scope: what an API key must be good for; without one no key is accepted.

    Raises:
        AuthenticationError: no token was sent, or it is not accepted.
        PermissionDeniedError: when another site has sent it.
        MissingScopeError: the API key is not good for this.
    """
    caller = await _identify(request)
    key = caller.api_key
    if key is not None and scope not in key.scopes:
        what = "an API key cannot be used for this; log in" if scope is None else f"the API key lacks the scope {scope}"
        raise MissingScopeError(what)
    # The middleware's block ends it; a dependency with a block of its own would cost two exit stacks.
    extend_request_context(
        actor_id=caller.user_id,
        actor_role=caller.actor.role,
        session_id=None if caller.session is None else caller.session.id,
        api_key_id=None if key is None else key.id,
    )
    return caller


async def _identify(request: Request) -> Caller:
    data = people_of(request).data
    if (bearer := _bearer_of(request)) is not None:
        caller = await _caller_of(data, bearer)
    elif (cookie := cookie_of(request, COOKIE)) is not None:
        refuse_other_sites(request)
        caller = Caller.of_session(await data.sessions.validate(cookie))
    else:
        raise InvalidSessionError("log in first: send the token as Authorization: Bearer …")
    return caller


async def reauthenticate(request: Request, caller: Caller) -> None:
    """See whether somebody may go on with what takes long, such as following a stream.

    A token of an issuer may have expired since: it is good for a minute, and was good when this began. So the account
    alone decides.

    Raises:
        AuthenticationError: the session has ended, or what proved it is not accepted any more.
        PermissionDeniedError: the account is not active any more.
    """
    try:
        await _identify(request)
    except ExpiredTokenError:
        if caller.session is not None:
            raise
        await people_of(request).data.accounts.get(caller.actor, caller.user_id)


RegistrationProof = Annotated[str | None, Depends(_registration)]


def refuse_other_sites(request: Request) -> None:
    """Refuse what another site has a browser send, where a cookie is used or set.

    Not the pages of an origin that CORS_ALLOWED_ORIGINS names, with CORS_ALLOW_CREDENTIALS.

    Raises:
        PermissionDeniedError: when it is.
    """
    if request.method in _SAFE:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    allowed = people_of(request).origins_with_cookies
    if site is not None:
        is_own = site in _OWN_SITE or origin in allowed
    else:  # An old browser, or none at all.
        is_own = origin is None or is_own_origin(origin, request.headers.get("host"), allowed)
    if not is_own:
        raise PermissionDeniedError("a request that changes something must come from this site")


def is_own_origin(origin: str, host: str | None, allowed: frozenset[str]) -> bool:
    """Whether pages of an origin may use cookies: they are of this host, or of an origin that may use cookies (CORS).

    Args:
        origin: what the browser says.
        host: the header of the request.
        allowed: what CORS_ALLOWED_ORIGINS names, with CORS_ALLOW_CREDENTIALS.
    """
    if origin in allowed:
        return True
    authority = _authority(origin)
    return authority is not None and host is not None and authority.lower() == host.lower()


def _authority(origin: str) -> str | None:
    """Host and port of an origin; none of a text that is not an origin, such as ``null``."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


async def _caller_of(data: DataLayer, token: str) -> Caller:
    """Find the caller that a token belongs to; only access tokens, and those of an issuer, have dots.

    The token of a session may begin like an API key by chance, but not have its length.
    """
    if token.startswith(API_KEY_PREFIX) and len(token) != TOKEN_LENGTH:
        key = await data.api_keys.authenticate(token)
        return Caller(key.actor, api_key=key)
    if "." in token:
        if data.openid.accepts(token):
            return Caller(await data.openid.authenticate(token))
        return Caller.of_session(await data.tokens.verify(token))
    return Caller.of_session(await data.sessions.validate(token))
