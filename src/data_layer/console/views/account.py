"""The own account: profile, password, devices, API keys, usage, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from fastapi import Response
from fastapi.responses import RedirectResponse

from data_layer.console.charts import costs_of_days
from data_layer.console.confirming import shown_in, ways_to_confirm
from data_layer.console.pages import LOGIN_PATH, PageCall, Pages, choice
from data_layer.entities.enums import ApiScope, AuthProvider
from data_layer.errors import (
    AuthenticationError,
    ConflictError,
    InvalidValueError,
    LastLoginMethodError,
    PermissionDeniedError,
    TooManyAttemptsError,
)
from data_layer.schemas.usage import UsageGroup
from data_layer.schemas.users import ProfileChanges
from data_layer.services.accounts.addresses import login_name
from data_layer.web.authentication import COOKIE, COOKIE_RULES

ACCOUNT = "/console/account"
_PROVIDERS = {
    AuthProvider.OIDC: ("oidc", "OpenID Connect"),
    AuthProvider.GOOGLE: ("google", "Google"),
    AuthProvider.GITHUB: ("github", "GitHub"),
    AuthProvider.AZURE_AD: ("entra", "Microsoft"),
}
_DAYS = 30
_DOWNLOAD_BEGINS = timedelta(minutes=5)
_LIFETIMES = {"30": timedelta(days=30), "90": timedelta(days=90), "365": timedelta(days=365)}

pages = Pages(ACCOUNT)


@pages.get("")
async def show(call: PageCall) -> Response:
    """The profile, and where the person is logged in."""
    return await _account(call)


async def _account(
    call: PageCall,
    code: int = 200,
    problems: dict[str, str] | None = None,
    going_to: Mapping[str, str] | None = None,
) -> Response:
    user = await call.data.accounts.get(call.actor, call.user_id)
    ways = await ways_to_confirm(call)
    labels = {each.name: each.label for each in call.data.openid.providers}
    known = [(each, _PROVIDERS[each.provider]) for each in ways.methods.identities]
    linked = {kind for _, (kind, _) in known}
    return call.page(
        "account.html",
        code,
        user=user,
        sessions=await call.data.sessions.list(call.actor, call.user_id),
        current=call.session_id,
        problems=problems or {},
        ways=ways,
        identities=[
            {"provider": each.provider, "issuer": each.issuer, "label": labels.get(kind, name)}
            for each, (kind, name) in known
        ],
        linkable=[each for each in call.data.openid.providers if each.name not in linked],
        going_to=going_to,
        export=next(iter(await call.data.exports.list(call.actor, call.user_id, limit=1)), None),
    )


@pages.post("/exports")
async def export(call: PageCall) -> Response:
    """Have everything about the person written into an archive, in the background."""
    await call.data.exports.start(call.actor, call.user_id)
    return call.go(ACCOUNT, "export_begun")


@pages.get("/exports/{export_id}/content")
async def download_export(call: PageCall, export_id: UUID) -> Response:
    """Go where the archive is."""
    signed = await call.data.exports.signed_url(call.actor, export_id, expires_in=_DOWNLOAD_BEGINS)
    return RedirectResponse(signed.url, 303)


@pages.post("/profile")
async def change_profile(call: PageCall) -> Response:
    """Change names."""
    fields = await call.fields()
    changes: dict[str, Any] = {name: fields.get(name, "").strip() for name in ("first_name", "last_name")}
    changes["display_name"] = fields.get("display_name", "").strip() or None
    try:
        await call.data.accounts.update_profile(call.actor, call.user_id, ProfileChanges(**changes))
    except InvalidValueError as error:
        return await _account(call, 422, {"profile": call.reason_of(error)})
    return call.go(ACCOUNT, "saved")


@pages.post("/password")
async def change_password(call: PageCall) -> Response:
    """Choose another password; all other sessions end."""
    fields = await call.fields()
    try:
        await call.data.accounts.change_password(
            call.actor, call.user_id, current=fields.get("current", ""), new=fields.get("new", "")
        )
    except TooManyAttemptsError as error:
        text = call.text("Too many attempts. Try again in %(seconds)s seconds.", seconds=round(error.retry_after))
        return await _account(call, 429, {"password": text})
    except AuthenticationError:
        return await _account(call, 422, {"password": call.text("The current password is not right.")})
    except (InvalidValueError, ConflictError) as error:
        return await _account(call, 422, {"password": call.reason_of(error)})
    return call.go(ACCOUNT, "password_changed")


@pages.post("/sessions/{session_id}/end")
async def end_session(call: PageCall, session_id: UUID) -> Response:
    """Log out on another device."""
    await call.data.sessions.revoke(call.actor, session_id)
    return call.go(ACCOUNT, "session_ended")


@pages.post("/sessions/end-others")
async def end_others(call: PageCall) -> Response:
    """Log out everywhere else."""
    await call.data.sessions.revoke_all(call.actor, call.user_id, keep=call.session_id)
    return call.go(ACCOUNT, "session_ended")


@pages.post("/identities/{provider}/link")
async def link(call: PageCall, provider: str) -> Response:
    """Confirm that an identity is to be linked, and show the way to its issuer.

    It is a link, because a form may not lead to another host: see the policy of the pages.
    """
    fields = await call.fields()
    session_id = call.session_id
    if session_id is None:
        raise PermissionDeniedError("an identity is linked in a session: log in with the browser")
    try:
        start = await call.data.openid.begin_link(
            call.actor, session_id, provider, next_path=f"{ACCOUNT}?done=identity_linked", **shown_in(fields)
        )
    except (AuthenticationError, ConflictError, InvalidValueError) as error:
        return await _account(call, 422, {"identities": call.reason_of(error)})
    labels = {each.name: each.label for each in call.data.openid.providers}
    response = await _account(call, going_to={"url": start.url, "label": labels[provider]})
    response.set_cookie(start.cookie_name, start.cookie, max_age=start.lifetime, **COOKIE_RULES)
    return response


@pages.post("/identities/{provider}/unlink")
async def unlink(call: PageCall, provider: AuthProvider) -> Response:
    """Forget an identity; the last way to log in stays."""
    fields = await call.fields()
    try:
        await call.data.accounts.unlink(call.actor, call.user_id, provider, **shown_in(fields))
    except LastLoginMethodError:
        text = call.text("It is the only way to log in. Set a password first, by resetting it, or link another one.")
        return await _account(call, 422, {"identities": text})
    except (AuthenticationError, ConflictError, InvalidValueError) as error:
        return await _account(call, 422, {"identities": call.reason_of(error)})
    return call.go(ACCOUNT, "identity_unlinked")


@pages.post("/delete")
async def delete(call: PageCall) -> Response:
    """Erase the account for good; its address and the password, or a second factor, confirm it."""
    fields = await call.fields()
    own = await call.data.accounts.get(call.actor, call.user_id)
    try:
        if login_name(fields.get("email", "")) != own.email:
            text = call.text("This is not the address of your account, so nothing was deleted.")
            return await _account(call, 422, {"delete": text})
        await call.data.accounts.delete(call.actor, call.user_id, **shown_in(fields))
    except (AuthenticationError, InvalidValueError, ConflictError) as error:
        return await _account(call, 422, {"delete": call.reason_of(error)})
    response = call.go(LOGIN_PATH, "account_deleted")
    response.delete_cookie(COOKIE, **COOKIE_RULES)
    return response


@pages.get("/usage")
async def usage(call: PageCall) -> Response:
    """What was spent in the last 30 days, and what is left of the month's budget."""
    today = datetime.now(UTC).date()
    first = today - timedelta(days=_DAYS - 1)
    by_day = await call.data.usage.sums(call.actor, [UsageGroup.DAY], first_day=first)
    by_model = await call.data.usage.sums(call.actor, [UsageGroup.MODEL], first_day=first)
    costs = costs_of_days(by_day, today, _DAYS)
    budgets = [await call.data.usage.budget(call.actor, currency=currency) for currency in costs or ["USD"]]
    return call.page(
        "usage.html",
        costs=costs,
        by_model=sorted(by_model, key=lambda each: -each.cost),
        budgets=[each for each in budgets if each is not None],
    )


@pages.get("/keys")
async def show_keys(call: PageCall) -> Response:
    """The API keys."""
    return await _keys(call)


@pages.post("/keys")
async def create_key(call: PageCall) -> Response:
    """Make a key, which is shown here once."""
    pairs = await call.pairs()
    fields = dict(pairs)
    scopes = [scope for name, value in pairs if name == "scope" and (scope := choice(ApiScope, value)) is not None]
    try:
        new = await call.data.api_keys.create(
            call.actor,
            name=fields.get("name", ""),
            scopes=scopes,
            expires_in=_LIFETIMES.get(fields.get("expires", "")),
        )
    except (InvalidValueError, ConflictError) as error:
        return await _keys(call, 422, problem=call.reason_of(error))
    return await _keys(call, 201, secret=new.secret.get_secret_value())


@pages.post("/keys/{key_id}/revoke")
async def revoke_key(call: PageCall, key_id: UUID) -> Response:
    """End a key for good."""
    keys = f"{ACCOUNT}/keys"
    if asking := await call.ask(call.text("End this key for good?"), call.text("Revoke"), keys):
        return asking
    await call.data.api_keys.revoke(call.actor, key_id)
    return call.go(keys, "key_revoked")


async def _keys(call: PageCall, code: int = 200, *, problem: str | None = None, secret: str | None = None) -> Response:
    keys = await call.data.api_keys.list(call.actor, call.user_id)
    return call.page(
        "keys.html",
        code,
        keys=keys,
        scopes=list(ApiScope),
        lifetimes=list(_LIFETIMES),
        problem=problem,
        secret=secret,
    )
