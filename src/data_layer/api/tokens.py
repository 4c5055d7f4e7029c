"""Access and refresh tokens over HTTP, for clients that hold no cookie."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends

from data_layer.api.authentication import Served, admit_login, never_stored
from data_layer.api.errors import described
from data_layer.api.request_models import Login, Refresh, SmallBodyRoute
from data_layer.schemas.base import Value
from data_layer.schemas.sessions import TokenPair


class Tokens(Value):
    """A pair of tokens, with the names of OAuth 2.0 (RFC 6749, 5.1). ``expires_in`` is in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  (a kind of token)
    expires_in: int
    refresh_token: str
    refresh_expires_at: datetime
    session_id: UUID

    @classmethod
    def of(cls, pair: TokenPair) -> Self:
        """The pair, told to the client that it is for."""
        return cls(
            access_token=pair.access_token.get_secret_value(),
            expires_in=pair.access_expires_in,
            refresh_token=pair.refresh_token.get_secret_value(),
            refresh_expires_at=pair.refresh_expires_at,
            session_id=pair.session_id,
        )


@cache
def make_router() -> APIRouter:
    """The routes of tokens."""
    router = APIRouter(
        prefix="/v1/tokens", tags=["tokens"], route_class=SmallBodyRoute, dependencies=[Depends(never_stored)]
    )
    refused = described(401, 422, 503)
    refused_login = refused | described(403, 429)

    @router.post("", summary="Log in for tokens", status_code=201, responses=refused_login)
    async def log_in(body: Login, served: Served) -> Tokens:
        """A session begins for a program; DELETE /v1/sessions/current ends it, and both tokens with it."""
        await admit_login(served, body.email)
        pair = await served.data.accounts.log_in_for_tokens(
            body.email, body.password.get_secret_value(), device_id=body.device_id, reactivate=body.reactivate
        )
        return Tokens.of(pair)

    @router.post("/refresh", summary="Exchange a refresh token for the next pair", responses=refused)
    async def refresh(body: Refresh, served: Served) -> Tokens:
        """One that comes a second time ends its session."""
        return Tokens.of(await served.data.tokens.refresh(body.refresh_token.get_secret_value()))

    return router
