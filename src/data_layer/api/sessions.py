"""Sessions over HTTP: logging in, seeing where one is logged in, logging out."""

from __future__ import annotations

from uuid import UUID

from fastapi import Response

from data_layer.api.request_models import PasskeyLogin, SessionFactor, SessionLogin
from data_layer.api.routes import Call, Routes
from data_layer.api.second_factors import FACTOR_NEEDED, PasskeyOptions, factor_needed
from data_layer.errors import SecondFactorRequiredError
from data_layer.schemas.base import Value
from data_layer.schemas.sessions import ActiveSession, NewSession, SessionSecure
from data_layer.services.rate_limits import RequestKind
from data_layer.web.authentication import COOKIE, admit_login, refuse_other_sites


class BegunSession(Value):
    """A session that has begun. ``token`` cannot be had again; it is null where it went into a cookie."""

    token: str | None
    session: ActiveSession


class OwnSessions(Value):
    """Where somebody is logged in, the one that was active last first; ``current`` is the session that asks, if any."""

    current: UUID | None
    sessions: tuple[SessionSecure, ...]


class EndedSessions(Value):
    """How many sessions were ended."""

    ended: int


routes = Routes("/v1/sessions", "sessions")


@routes.post(
    "",
    summary="Log in",
    status_code=201,
    needs_login=False,
    errors=[401, 403, 429],
    response_model=BegunSession,
    responses=FACTOR_NEEDED,
)
async def log_in(call: Call, body: SessionLogin, response: Response) -> BegunSession | Response:
    """The token is in the answer, or in a cookie if the body asks for one. 200 where a second factor is needed."""
    if body.cookie:
        refuse_other_sites(call)
    await admit_login(call.served, body.email)
    try:
        new = await call.data.accounts.log_in(
            body.email, body.password.get_secret_value(), device_id=body.device_id, reactivate=body.reactivate
        )
    except SecondFactorRequiredError as needed:
        return factor_needed(needed)
    return _begun(call, new, response, cookie=body.cookie)


@routes.post(
    "/second-factor",
    summary="Log in with a second factor",
    status_code=201,
    needs_login=False,
    counted=RequestKind.LOG_IN,
    errors=[401, 403, 429],
)
async def finish_log_in(call: Call, body: SessionFactor, response: Response) -> BegunSession:
    """Wrong answers count as failed logins.

    ``challenge`` is that of the first answer, or of ``POST /v1/sessions/passkey``, and good for five minutes.
    """
    if body.cookie:
        refuse_other_sites(call)
    challenge = body.challenge.get_secret_value()
    new = await call.data.accounts.finish_log_in(challenge, body.proof, device_id=body.device_id)
    return _begun(call, new, response, cookie=body.cookie)


@routes.post(
    "/passkey",
    summary="Begin to log in with a passkey",
    needs_login=False,
    counted=RequestKind.LOG_IN_ELSEWHERE,
)
async def begin_passkey_log_in(call: Call, body: PasskeyLogin) -> PasskeyOptions:
    """``options`` are for ``navigator.credentials.get``. It takes the place of password and second factor.

    Send ``challenge`` and the answer to ``POST /v1/sessions/second-factor`` or ``POST /v1/tokens/second-factor``. The
    passkey must verify its owner, by a PIN or a finger.
    """
    new = await call.data.accounts.begin_passkey_log_in(reactivate=body.reactivate)
    return PasskeyOptions(challenge=new.challenge.get_secret_value(), options=new.options, expires_in=new.expires_in)


@routes.get("", summary="List the own sessions")
async def show(call: Call) -> OwnSessions:
    """Those that are accepted, the one that was active last first."""
    sessions = await call.data.sessions.list(call.actor, call.user_id)
    return OwnSessions(current=call.session_id, sessions=sessions)


@routes.delete("/current", summary="Log out", status_code=204)
async def log_out(call: Call, response: Response) -> None:
    """The cookie, if there is one, is removed."""
    await call.data.sessions.revoke(call.actor, call.active_session.id)
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")


@routes.post("/revoke-others", summary="Log out everywhere else")
async def end_others(call: Call) -> EndedSessions:
    """All but the one of this request."""
    ended = await call.data.sessions.revoke_all(call.actor, call.user_id, keep=call.session_id)
    return EndedSessions(ended=ended)


@routes.delete("/{session_id}", summary="End a session", status_code=204, errors=[404])
async def end(call: Call, session_id: UUID) -> None:
    """One of the own, such as that of a lost device. Harmless when it has ended."""
    await call.data.sessions.revoke(call.actor, session_id)


def _begun(call: Call, new: NewSession, response: Response, *, cookie: bool) -> BegunSession:
    token = new.token.get_secret_value()
    if cookie:
        longest = call.data.settings.security.session_max_age
        response.set_cookie(COOKIE, token, max_age=longest, secure=True, httponly=True, samesite="lax")
    return BegunSession(token=None if cookie else token, session=new.session)
