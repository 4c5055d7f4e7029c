"""Sessions over HTTP: logging in, seeing where one is logged in, logging out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from data_layer.api.authentication import COOKIE, LoggedIn, Served, admit_login, never_stored, refuse_other_sites
from data_layer.api.errors import described
from data_layer.api.request_models import SessionLogin, SmallBodyRoute
from data_layer.schemas.base import Value
from data_layer.schemas.sessions import ActiveSession, SessionSecure


class BegunSession(Value):
    """A session that has begun. ``token`` cannot be had again; it is null where it went into a cookie."""

    token: str | None
    session: ActiveSession


class OwnSessions(Value):
    """Where somebody is logged in, the one that was active last first; ``current`` is the one that asks."""

    current: UUID
    sessions: Sequence[SessionSecure]


class EndedSessions(Value):
    """How many sessions were ended."""

    ended: int


@cache
def make_router() -> APIRouter:
    """The routes of sessions."""
    router = APIRouter(
        prefix="/v1/sessions", tags=["sessions"], route_class=SmallBodyRoute, dependencies=[Depends(never_stored)]
    )
    _add_log_in(router)
    refused = described(401, 403, 503)

    @router.get("", summary="List the own sessions", responses=refused)
    async def show(session: LoggedIn, served: Served) -> OwnSessions:
        sessions = await served.data.sessions.list(session.actor, session.user_id)
        return OwnSessions(current=session.id, sessions=sessions)

    @router.delete("/current", summary="Log out", status_code=204, response_model=None, responses=refused)
    async def log_out(session: LoggedIn, response: Response, served: Served) -> None:
        """The cookie, if there is one, is removed."""
        await served.data.sessions.revoke(session.actor, session.id)
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")

    @router.post("/revoke-others", summary="Log out everywhere else", responses=refused)
    async def end_others(session: LoggedIn, served: Served) -> EndedSessions:
        ended = await served.data.sessions.revoke_all(session.actor, session.user_id, keep=session.id)
        return EndedSessions(ended=ended)

    @router.delete(
        "/{session_id}",
        summary="End a session",
        status_code=204,
        response_model=None,
        responses=refused | described(404, 422),
    )
    async def end(session_id: UUID, session: LoggedIn, served: Served) -> None:
        """One of the own, such as that of a lost device. Harmless when it has ended."""
        await served.data.sessions.revoke(session.actor, session_id)

    return router


def _add_log_in(router: APIRouter) -> None:
    refused = described(401, 403, 422, 429, 503)

    @router.post("", summary="Log in", status_code=201, responses=refused)
    async def log_in(body: SessionLogin, request: Request, response: Response, served: Served) -> BegunSession:
        """The token is in the answer, or in a cookie if the body asks for one."""
        if body.cookie:
            refuse_other_sites(request)
        await admit_login(served, body.email)
        new = await served.data.accounts.log_in(
            body.email, body.password.get_secret_value(), device_id=body.device_id, reactivate=body.reactivate
        )
        token = new.token.get_secret_value()
        if body.cookie:
            longest = served.data.settings.security.session_max_age
            response.set_cookie(COOKIE, token, max_age=longest, secure=True, httponly=True, samesite="lax")
        return BegunSession(token=None if body.cookie else token, session=new.session)
