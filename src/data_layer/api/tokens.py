"""Access and refresh tokens over HTTP, for clients that hold no cookie."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from fastapi import Response

from data_layer.api.request_models import Login, Refresh, TokenFactor
from data_layer.api.routes import Call, Routes
from data_layer.api.second_factors import FACTOR_NEEDED, factor_needed
from data_layer.errors import SecondFactorRequiredError
from data_layer.schemas.base import Value
from data_layer.schemas.sessions import TokenPair
from data_layer.services.rate_limits import RequestKind
from data_layer.web.authentication import admit_login


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
        """The pair, shown to the client that it is for."""
        return cls(
            access_token=pair.access_token.get_secret_value(),
            expires_in=pair.access_expires_in,
            refresh_token=pair.refresh_token.get_secret_value(),
            refresh_expires_at=pair.refresh_expires_at,
            session_id=pair.session_id,
        )


routes = Routes("/v1/tokens", "tokens", needs_login=False)


@routes.post(
    "",
    summary="Log in for tokens",
    status_code=201,
    errors=[401, 403, 429],
    response_model=Tokens,
    responses=FACTOR_NEEDED,
)
async def log_in(call: Call, body: Login) -> Tokens | Response:
    """A session begins for a program; DELETE /v1/sessions/current ends it, and both tokens with it.

    200 where a second factor is needed.
    """
    await admit_login(call.served, body.email)
    try:
        pair = await call.data.accounts.log_in_for_tokens(
            body.email, body.password.get_secret_value(), device_id=body.device_id, reactivate=body.reactivate
        )
    except SecondFactorRequiredError as needed:
        return factor_needed(needed)
    return Tokens.of(pair)


@routes.post(
    "/second-factor",
    summary="Log in for tokens with a second factor",
    status_code=201,
    counted=RequestKind.LOG_IN,
    errors=[401, 403, 429],
)
async def finish_log_in(call: Call, body: TokenFactor) -> Tokens:
    """``challenge`` is that of the first answer, and good for five minutes. Wrong answers count as failed logins."""
    challenge = body.challenge.get_secret_value()
    pair = await call.data.accounts.finish_log_in_for_tokens(challenge, body.proof, device_id=body.device_id)
    return Tokens.of(pair)


@routes.post("/refresh", summary="Exchange a refresh token for the next pair", errors=[401])
async def refresh(call: Call, body: Refresh) -> Tokens:
    """One that comes a second time ends its session."""
    return Tokens.of(await call.data.tokens.refresh(body.refresh_token.get_secret_value()))
