"""The limits of requests over HTTP, and what clients learn of them.

Every answer to a request that was counted says where its sender stands, in the fields of
draft-ietf-httpapi-ratelimit-headers-09::

    RateLimit-Policy: "person";q=6000;w=60
    RateLimit: "person";r=5871;t=42

A request is counted for its address and, once it is known who sends it, for the person or the API key. The fields show
the one of which less is left. What may be guessed has limits of its own (``RequestLimiter``).
"""

from __future__ import annotations

from functools import cache

from fastapi import Response
from starlette.types import Scope

from data_layer.context import current_context
from data_layer.errors import TooManyRequestsError
from data_layer.layer import DataLayer
from data_layer.services.accounts.addresses import network_of
from data_layer.services.rate_limits import Policy, RateLimiter, Standing
from data_layer.web.deadlines import STORE, STORE_IMAGE_DATA, STORE_IMAGE_URL
from data_layer.web.errors import failure

_UNCOUNTED = frozenset(
    {
        "/livez",
        "/readyz",
        "/health",
        # All from one address, sent once and never again; each shows its secret before anything is done.
        STORE,
        STORE_IMAGE_DATA,
        STORE_IMAGE_URL,
    }
)
_STATIC = "/console/static/"
_STANDINGS = "rate_limits"


def rate_limiter(data: DataLayer) -> RateLimiter:
    """Return what counts requests, as the settings say."""
    settings = data.settings.security
    policies = (
        Policy("person", settings.request_limit_person),
        Policy("key", settings.request_limit_key),
        Policy("address", settings.request_limit_address),
    )
    return RateLimiter(data.cache, policies)


async def admit(rates: RateLimiter, scope: Scope, identity: str) -> None:
    """Count a request of this identity.

    Raises:
        TooManyRequestsError: it is one too many.
    """
    standing = await rates.count(identity)
    if standing is None:
        return
    scope[_STANDINGS].append(standing)
    standing.require()


async def refused_address(rates: RateLimiter, scope: Scope) -> Response | None:
    """Count a request of an address; the refusal, if it is one too many.

    Probes, static files and what the back end of the hosted application sends are not counted. Neither are callers
    whose address is not known: they would share one limit.
    """
    # A list, because middleware inside may hand on a copy of the scope.
    scope[_STANDINGS] = []
    address = current_context().ip_address
    if address is None or not is_counted(scope["path"]):
        return None
    try:
        await admit(rates, scope, f"address:{network_of(address)}")
    except TooManyRequestsError as error:
        return failure(scope, error)
    return None


def is_counted(path: str) -> bool:
    """Whether requests for a path are counted."""
    return path not in _UNCOUNTED and not path.startswith(_STATIC)


def _remaining(standing: Standing) -> int:
    return standing.remaining


def headers_of(scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
    """Return what the answer says of the limit; nothing where the request was not counted."""
    standings: list[Standing] | None = scope.get(_STANDINGS)
    if not standings:
        return ()
    standing = min(standings, key=_remaining)
    policy, left = standing.policy, max(0, standing.remaining)
    return (
        (b"ratelimit-policy", _shown(policy)),
        (b"ratelimit", f'"{policy.name}";r={left};t={standing.reset}'.encode()),
    )


@cache
def _shown(policy: Policy) -> bytes:
    return f'"{policy.name}";q={policy.most};w={policy.window}'.encode()
