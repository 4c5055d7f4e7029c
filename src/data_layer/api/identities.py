"""A person's identities of issuers, by which they log in to their account: listed, linked and unlinked."""

from __future__ import annotations

from fastapi import Response

from data_layer.api.request_models import Confirmation, LinkBeginning
from data_layer.api.routes import Call, Routes
from data_layer.entities.enums import AuthProvider
from data_layer.schemas.base import Value
from data_layer.schemas.users import LoginMethods
from data_layer.web.authentication import COOKIE_RULES


class IssuerAddress(Value):
    """Where the browser proves the identity within ``expires_in`` seconds."""

    url: str
    expires_in: int


routes = Routes("/v1/accounts/me/identities", "accounts")


@routes.get("", summary="List the identities by which one logs in")
async def list_identities(call: Call) -> LoginMethods:
    """And whether there is a password."""
    return await call.data.accounts.list_identities(call.actor, call.user_id)


@routes.post("/{provider}/link", summary="Begin to link an identity", errors=[401, 404, 409, 422, 429, 502])
async def link(call: Call, provider: str, body: LinkBeginning, response: Response) -> IssuerAddress:
    """For browsers: the answer sets a cookie; lead the browser to ``url``. It comes back to ``next``, and is linked.

    ``provider`` is one of ``GET /v1/oidc``. The password, or a second factor, is asked for once more.
    """
    session = call.active_session
    start = await call.data.openid.begin_link(call.actor, session.id, provider, next_path=body.next, **body.shown)
    response.set_cookie(start.cookie_name, start.cookie, max_age=start.lifetime, **COOKIE_RULES)
    return IssuerAddress(url=start.url, expires_in=start.lifetime)


@routes.post("/{provider}/unlink", summary="Unlink an identity", errors=[401, 409, 429])
async def unlink(call: Call, provider: AuthProvider, body: Confirmation) -> LoginMethods:
    """The last way to log in is not removed. The password, or a second factor, is asked for once more.

    ``provider`` is that of ``GET /v1/accounts/me/identities``; for ``oidc`` the identities of all issuers go.
    """
    await call.data.accounts.unlink(call.actor, call.user_id, provider, **body.shown)
    return await call.data.accounts.list_identities(call.actor, call.user_id)
