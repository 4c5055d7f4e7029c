"""Accounts: registering, and what people do with their own. No answer reveals whether an account exists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

from fastapi import BackgroundTasks, Response

from data_layer.api.request_models import (
    AccountDeletion,
    Address,
    EmailVerification,
    NewAccount,
    PasswordChange,
    PasswordReset,
    Preferences,
)
from data_layer.api.routes import Call, Routes
from data_layer.entities.enums import ApiScope
from data_layer.errors import InvalidValueError
from data_layer.observability.log import get_log
from data_layer.schemas.base import Value
from data_layer.schemas.users import ProfileChanges, UserFull
from data_layer.services.accounts.addresses import login_name
from data_layer.services.rate_limits import RequestKind
from data_layer.web.authentication import COOKIE, REGISTRATION_COOKIE, RegistrationProof, refuse_other_sites
from data_layer.web.conditions import moment_if_sent, moment_tag

log = get_log(__name__)

_PROOF_SECONDS = 86_400  # As long as the mailed token.
_COOKIE: dict[str, Any] = {"secure": True, "httponly": True, "samesite": "strict"}


class Accepted(Value):
    """The answer to everybody: everything else goes by mail."""

    status: Literal["accepted"] = "accepted"


class AcceptedRegistration(Accepted):
    """The answer to everybody who registers.

    ``proof`` is for the device that registers, to be sent along when the address is verified; it is null where it went
    into a cookie.
    """

    proof: str | None


class Verified(Value):
    """The address is verified.

    ``password_token`` is there when the account has no password now, because it was verified on another device than it
    was registered on, maybe by another person: send it to ``/v1/accounts/password-reset/confirm`` with a new one.
    """

    status: Literal["verified"] = "verified"
    password_token: str | None


routes = Routes("/v1/accounts", "accounts")
# A mail says what there is to say, so these answer everybody alike.
_asking: dict[str, Any] = {"status_code": 202, "needs_login": False, "counted": RequestKind.ASK_FOR_MAIL}
_confirming: dict[str, Any] = {"errors": [400], "needs_login": False, "counted": RequestKind.SHOW_MAILED_TOKEN}


@routes.post("", summary="Register", takes_key=True, **_asking | {"counted": RequestKind.REGISTER, "errors": [403]})
async def register(call: Call, body: NewAccount, response: Response) -> AcceptedRegistration:
    """The account is open once its address is verified. A mail says how, or that there is an account already.

    With an ``Idempotency-Key`` a repeated request gets the same ``proof`` again, and sends no second mail.
    """
    if body.cookie:
        refuse_other_sites(call)
    requested = await call.data.accounts.request_registration(
        email=body.email,
        password=body.password.get_secret_value(),
        first_name=body.first_name,
        last_name=body.last_name,
        display_name=body.display_name,
        by_mail=True,
    )
    if body.cookie:
        response.set_cookie(REGISTRATION_COOKIE, requested.proof, max_age=_PROOF_SECONDS, **_COOKIE)
    return AcceptedRegistration(proof=None if body.cookie else requested.proof)


@routes.post("/verification", summary="Ask for a mail to verify the address", **_asking)
async def ask_for_verification(call: Call, body: Address, after: BackgroundTasks) -> Accepted:
    """It is sent to an address that is not verified, once in five minutes."""
    after.add_task(_queue_mail, partial(call.data.accounts.request_email_verification, body.email, by_mail=True))
    return Accepted()


@routes.post("/password-reset", summary="Ask for a mail to choose a new password", **_asking)
async def ask_for_reset(call: Call, body: Address, after: BackgroundTasks) -> Accepted:
    """It is sent to the address of an account, once in five minutes."""
    after.add_task(_queue_mail, partial(call.data.accounts.request_password_reset, body.email, by_mail=True))
    return Accepted()


@routes.post("/verification/confirm", summary="Verify the address by a mailed token", **_confirming)
async def verify(call: Call, body: EmailVerification, response: Response, cookie: RegistrationProof) -> Verified:
    """A new account is open then; its password stays if the proof comes from the device that registered."""
    proof = body.proof.get_secret_value() if body.proof else cookie
    verified = await call.data.accounts.verify_email(body.token.get_secret_value(), proof=proof)
    if cookie is not None:
        response.delete_cookie(REGISTRATION_COOKIE, **_COOKIE)
    choice = verified.password_choice
    return Verified(password_token=choice.token if choice else None)


@routes.post(
    "/password-reset/confirm", summary="Choose a new password by a mailed token", status_code=204, **_confirming
)
async def reset(call: Call, body: PasswordReset) -> None:
    """All sessions end."""
    await call.data.accounts.reset_password(body.token.get_secret_value(), body.password.get_secret_value())


@routes.get("/me", summary="Read the own account", scope=ApiScope.READ, etag=moment_tag)
async def show(call: Call) -> UserFull:
    """What its owner sees of it. ``ETag`` is what a change may name."""
    return await call.data.accounts.get(call.actor, call.user_id)


@routes.patch("/me", summary="Change the own profile", errors=[409, 412], etag=moment_tag)
async def change(call: Call, body: ProfileChanges) -> UserFull:
    """What is not given stays. ``If-Match`` is heeded where it is sent."""
    expected = moment_if_sent(call.headers)
    return await call.data.accounts.update_profile(call.actor, call.user_id, body, expected=expected)


@routes.patch("/me/preferences", summary="Change the own preferences", errors=[409, 412], etag=moment_tag)
async def change_preferences(call: Call, body: Preferences) -> UserFull:
    """They are merged as JSON Merge Patch does it (RFC 7396): null removes. ``If-Match`` is heeded where it is sent."""
    expected = moment_if_sent(call.headers)
    return await call.data.accounts.update_preferences(call.actor, call.user_id, body.preferences, expected=expected)


@routes.post("/me/password", summary="Change the own password", status_code=204, errors=[409, 429])
async def change_password(call: Call, body: PasswordChange) -> None:
    """All other sessions end. Wrong guesses count as failed logins."""
    await call.data.accounts.change_password(
        call.actor,
        call.user_id,
        current=body.current.get_secret_value(),
        new=body.new.get_secret_value(),
    )


@routes.post("/me/delete", summary="Delete the own account", status_code=204, errors=[401, 409, 429])
async def delete(call: Call, body: AccountDeletion, response: Response) -> None:
    """For good: personal data, sessions, projects, images and files. ``email`` must be the address of the account.

    The password, or a second factor, is asked for once more. 409 for the last active administrator.
    """
    own = await call.data.accounts.get(call.actor, call.user_id)
    if login_name(body.email) != own.email:
        raise InvalidValueError("email is not the address of this account, so nothing was deleted", field="email")
    await call.data.accounts.delete(call.actor, call.user_id, **body.shown)
    response.delete_cookie(COOKIE, **_COOKIE | {"samesite": "lax"})


async def _queue_mail(request: Callable[[], Awaitable[object]]) -> None:
    """Have a mail queued after the answer, so that neither its content nor its time reveals whether an account exists.

    A failure is logged, because nobody waits for the outcome: the person asks again.
    """
    try:
        await request()
    except Exception as error:  # noqa: BLE001  (the answer was sent: there is nobody to raise it to)
        # A traceback may hold the token.
        log.error("mail_not_queued", error=type(error).__name__)  # noqa: TRY400
