"""Logging in by an issuer, for browsers: away to it, and back with a session, or with an identity that is linked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from fastapi.responses import RedirectResponse
from pydantic import StringConstraints

from data_layer.api.account_pages import plain_page
from data_layer.api.routes import Call, Routes
from data_layer.errors import DataLayerError
from data_layer.schemas.base import Value
from data_layer.services.mails.delivery import ACCOUNT_PATH
from data_layer.services.openid.service import LoginOrigin
from data_layer.services.openid.states import cookie_name
from data_layer.services.rate_limits import RequestKind
from data_layer.web.authentication import COOKIE, COOKIE_RULES, cookie_of
from data_layer.web.errors import failure_headers, problem_of

_BACK = {303: {"description": "Where the browser goes on."}}

# All of them together fit into a URL of 8 KiB, which the server takes at most.
Parameter = Annotated[str, StringConstraints(max_length=1024)]
Code = Annotated[str, StringConstraints(max_length=4096)]


class IssuerAnswer(Value):
    """What an issuer sends back with the browser; what else it sends is of no interest."""

    state: Parameter = ""
    code: Code | None = None
    error: Parameter | None = None
    iss: Parameter | None = None


class ProviderButton(Value):
    """Whom people can log in by: what a button says, and where it leads."""

    name: str
    label: str
    login_url: str


class ProviderList(Value):
    """Everybody whom people can log in by."""

    providers: tuple[ProviderButton, ...]


routes = Routes("/v1/oidc", "sessions", needs_login=False)


@routes.get("", summary="List whom one can log in by")
async def show(call: Call) -> ProviderList:
    """A button is a link to ``login_url``, with ``?next=`` and the path to go on with."""
    return ProviderList(
        providers=[
            ProviderButton(name=each.name, label=each.label, login_url=f"/v1/oidc/{each.name}/login")
            for each in call.data.openid.providers
        ]
    )


@routes.get(
    "/{provider}/login",
    summary="Log in by an issuer",
    errors=[404, 422, 502],
    counted=RequestKind.LOG_IN_ELSEWHERE,
    response_class=RedirectResponse,
    status_code=303,
    responses=_BACK,
)
async def begin(call: Call, provider: str, next_path: Annotated[str, Query(alias="next")] = "/") -> Response:
    """For browsers: the person logs in there, and comes back to ``next``, a path of this host, with a cookie."""
    start = await call.data.openid.begin_login(provider, next_path=next_path)
    response = RedirectResponse(start.url, 303)
    response.set_cookie(start.cookie_name, start.cookie, max_age=start.lifetime, **COOKIE_RULES)
    return response


@routes.get(
    "/{provider}/callback",
    summary="Come back from an issuer",
    # Not counted: without the cookie of a login, which was counted when it began, nothing is done.
    errors=[400, 401, 403, 404, 409, 422, 502],
    response_class=RedirectResponse,
    status_code=303,
    responses=_BACK,
)
async def finish(
    call: Call,
    provider: str,
    answer: Annotated[IssuerAnswer, Query()],
) -> Response:
    """The redirect URI to register at the issuer. Only a browser that has begun to log in here gets in.

    Where linking an identity was begun (``POST /v1/accounts/me/identities/{provider}/link``), it is linked. A
    client that accepts ``text/html``, as browsers do, gets a failure as a page.
    """
    name = cookie_name(answer.state)
    cookie = None if name is None else cookie_of(call, name)
    try:
        done = await call.data.openid.finish_login(
            provider, state=answer.state, cookie=cookie, code=answer.code, error=answer.error, issuer=answer.iss
        )
    except DataLayerError as error:
        if "text/html" not in call.headers.get("accept", ""):
            raise
        origin = call.data.openid.origin(provider, state=answer.state, cookie=cookie)
        response = _failure_page(call, error, origin)
        if name is not None:
            response.delete_cookie(name, **COOKIE_RULES)
        return response
    response = RedirectResponse(done.next_path, 303)
    # The issuer's page must not learn where people go, nor this address, with its code, travel on.
    response.headers["referrer-policy"] = "no-referrer"
    if name is not None:
        response.delete_cookie(name, **COOKIE_RULES)
    if done.login is not None and done.login.session is not None:
        token = done.login.session.token.get_secret_value()
        longest = call.data.settings.security.session_max_age
        response.set_cookie(COOKIE, token, max_age=longest, **COOKIE_RULES)
    return response


def _failure_page(call: Call, error: DataLayerError, origin: LoginOrigin | None) -> Response:
    """A page that says why it did not work, and leads back to where the person was."""
    problem = problem_of(call.scope, error)
    title = "Linking did not work" if origin is not None and origin.is_link else "Logging in did not work"
    reason = f"{problem.detail[:1].upper()}{problem.detail[1:]}."
    return plain_page(
        title,
        reason,
        back=origin.path if origin is not None else ACCOUNT_PATH,
        status=problem.status,
        headers=failure_headers(problem.status, error),
    )
