"""Coming in and going out: logging in, logging out, the language."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Response
from fastapi.responses import JSONResponse, RedirectResponse

from data_layer.console.confirming import object_in, proof_in
from data_layer.console.languages import LANGUAGE_COOKIE
from data_layer.console.pages import LOGIN_PATH, PageCall, Pages
from data_layer.context import current_context
from data_layer.errors import (
    AccountInactiveError,
    AccountSuspendedError,
    AuthenticationError,
    ConflictError,
    EmailNotVerifiedError,
    InvalidLoginError,
    InvalidOneTimeTokenError,
    InvalidSecondFactorError,
    InvalidValueError,
    SecondFactorRequiredError,
    TooManyAttemptsError,
    TooManyRequestsError,
)
from data_layer.schemas.factors import FactorProof
from data_layer.schemas.sessions import NewSession
from data_layer.services.own_paths import is_own_path
from data_layer.services.rate_limits import RequestKind
from data_layer.web.authentication import (
    COOKIE,
    COOKIE_RULES,
    admit_login,
    authenticate,
    cookie_of,
    people_of,
)

HOME = "/console/projects"
_YEAR_SECONDS = 31_536_000

pages = Pages("/console", needs_login=False)
Next = Annotated[str, Query(alias="next", max_length=2000)]


@pages.get("")
async def enter(_call: PageCall) -> Response:
    """Lead to the projects."""
    return RedirectResponse(HOME, 303)


@pages.get("/login")
async def ask(call: PageCall, next_path: Next = HOME) -> Response:
    """Ask for a login; a person with a session goes on."""
    target = next_path if is_own_path(next_path) else HOME
    if cookie_of(call, COOKIE) is not None:
        try:
            await authenticate(call)
        except AuthenticationError:
            pass
        else:
            return call.go(target)
    return await _login_page(call, target)


@pages.post("/login")
async def log_in(call: PageCall) -> Response:
    """Begin a session in a cookie, and go on."""
    fields = await call.fields()
    email, target = fields.get("email", ""), fields.get("next", "")
    target = target if is_own_path(target) else HOME
    try:
        await admit_login(people_of(call), email)
        new = await call.data.accounts.log_in(
            email, fields.get("password", ""), reactivate=fields.get("reactivate") == "yes"
        )
    except SecondFactorRequiredError as needed:
        challenge = needed.challenge.challenge.get_secret_value()
        return call.page(
            "second_factor.html", target=target, challenge=challenge, passkey=needed.challenge.passkey, problem=None
        )
    except (AuthenticationError, InvalidValueError, TooManyRequestsError) as error:
        return await _login_page(call, target, email=email, error=error)
    return _with_session(call, new, target)


def _with_session(call: PageCall, new: NewSession, target: str) -> Response:
    response = call.go(target)
    longest = call.data.settings.security.session_max_age
    response.set_cookie(COOKIE, new.token.get_secret_value(), max_age=longest, **COOKIE_RULES)
    return response


@pages.post("/login/factor")
async def show_factor(call: PageCall) -> Response:
    """Answer with a code of an app, a recovery code or a passkey, and begin the session."""
    fields = await call.fields()
    target, challenge = fields.get("next", ""), fields.get("challenge", "")
    target = target if is_own_path(target) else HOME
    try:
        await people_of(call).limiter.admit(current_context().ip_address, RequestKind.LOG_IN)
        new = await call.data.accounts.finish_log_in(challenge, proof_in(fields))
    except InvalidSecondFactorError as error:
        if fields.get("answer"):
            return await _login_page(call, target, error=error)
        problem = call.text("The code is not right, or was used before.")
        passkey = object_in(fields, "passkey") if fields.get("passkey") else None
        return call.page(
            "second_factor.html", 401, target=target, challenge=challenge, passkey=passkey, problem=problem
        )
    except (AuthenticationError, InvalidValueError, TooManyRequestsError) as error:
        return await _login_page(call, target, error=error)
    return _with_session(call, new, target)


@pages.get("/login/passkey")
async def ask_for_passkey(call: PageCall) -> Response:
    """Return, for the script, what a passkey answers in place of a password."""
    await people_of(call).limiter.admit(current_context().ip_address, RequestKind.LOG_IN_ELSEWHERE)
    new = await call.data.accounts.begin_passkey_log_in(reactivate=call.query_params.get("reactivate") == "yes")
    return JSONResponse({"challenge": new.challenge.get_secret_value(), "options": dict(new.options)})


@pages.post("/login/passkey")
async def log_in_with_passkey(call: PageCall) -> Response:
    """Begin a session with what a passkey has answered."""
    fields = await call.fields()
    target = fields.get("next", "")
    target = target if is_own_path(target) else HOME
    try:
        await people_of(call).limiter.admit(current_context().ip_address, RequestKind.LOG_IN)
        proof = FactorProof(passkey=object_in(fields, "answer"))
        new = await call.data.accounts.finish_log_in(fields.get("challenge", ""), proof)
    except (AuthenticationError, InvalidValueError, TooManyRequestsError) as error:
        return await _login_page(call, target, error=error)
    return _with_session(call, new, target)


@pages.get("/first")
async def ask_for_code(call: PageCall) -> Response:
    """Ask for the code by which the first administrator is made; where there is one, log in."""
    if not await call.data.first_administrator.is_missing():
        return call.go(LOGIN_PATH)
    return call.page("first.html", values={}, problem=None)


@pages.post("/first")
async def make_first(call: PageCall) -> Response:
    """Make the first administrator, and log in."""
    fields = await call.fields()
    values = {name: fields.get(name, "") for name in ("email", "first_name", "last_name")}
    password = fields.get("password", "")
    await people_of(call).limiter.admit(current_context().ip_address, RequestKind.SHOW_MAILED_TOKEN)
    try:
        await call.data.first_administrator.claim(fields.get("code", ""), password=password, **values)
    except InvalidOneTimeTokenError:
        problem = call.text("The code is not valid. The service prints a new one when it starts.")
        return call.page("first.html", 403, values=values, problem=problem)
    except (InvalidValueError, ConflictError) as error:
        return call.page("first.html", 422, values=values, problem=call.reason_of(error))
    return _with_session(call, await call.data.accounts.log_in(values["email"], password), HOME)


@pages.post("/logout")
async def log_out(call: PageCall) -> Response:
    """End the session of the request. Harmless without one."""
    token = cookie_of(call, COOKIE)
    if token is not None:
        try:
            session = await call.data.sessions.validate(token)
            await call.data.sessions.revoke(session.actor, session.id)
        except AuthenticationError:
            pass  # It has ended already.
    response = call.go(LOGIN_PATH, done="logged_out")
    response.delete_cookie(COOKIE, **COOKIE_RULES)
    return response


@pages.post("/language")
async def choose_language(call: PageCall) -> Response:
    """Remember a language in this browser."""
    fields = await call.fields()
    response = call.back(fields, HOME)
    if fields.get("language") in call.renderer.languages.all:
        response.set_cookie(LANGUAGE_COOKIE, fields["language"], max_age=_YEAR_SECONDS, path="/console", **COOKIE_RULES)
    return response


async def _login_page(call: PageCall, target: str, *, email: str = "", error: Exception | None = None) -> Response:
    buttons = [
        (each.label, f"/v1/oidc/{each.name}/login?next={quote(target, safe='')}") for each in call.data.openid.providers
    ]
    status = 200 if error is None else 429 if isinstance(error, TooManyAttemptsError | TooManyRequestsError) else 401
    return call.page(
        "login.html",
        status,
        target=target,
        email=email,
        problem=None if error is None else _reason(call, error),
        is_inactive=isinstance(error, AccountInactiveError),
        buttons=buttons,
        is_first=await call.data.first_administrator.is_missing(),
    )


def _reason(call: PageCall, error: Exception) -> str:
    """Why somebody does not get in, and what to do. It says nothing about an account without its password."""
    if isinstance(error, TooManyAttemptsError | TooManyRequestsError):
        return call.text("Too many attempts. Try again in %(seconds)s seconds.", seconds=round(error.retry_after))
    if isinstance(error, EmailNotVerifiedError):
        return call.text("Your address is not verified yet. Follow the link in the mail that we sent to you.")
    if isinstance(error, AccountSuspendedError):
        return call.text("This account is suspended. Ask an administrator.")
    if isinstance(error, AccountInactiveError):
        return call.text("You have closed this account. Do you want to open it again?")
    if isinstance(error, InvalidSecondFactorError):
        return call.text("This passkey is not known here, or did not check who you are. Log in another way.")
    if isinstance(error, InvalidLoginError):
        return call.text("That took too long. Log in once more.")
    return call.text("Address and password do not fit together.")
