"""Accounts: registering, and what people do with their own. No answer tells who has an account."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response

from data_layer.api.authentication import (
    REGISTRATION_COOKIE,
    LoggedIn,
    RegistrationProof,
    Served,
    limited,
    never_stored,
    refuse_other_sites,
)
from data_layer.api.errors import described
from data_layer.api.mails import AccountMail, MailKind
from data_layer.api.request_models import (
    Address,
    EmailVerification,
    NewAccount,
    PasswordChange,
    PasswordReset,
    Preferences,
    SmallBodyRoute,
)
from data_layer.schemas.base import Value
from data_layer.schemas.users import ProfileChanges, UserFull
from data_layer.services.accounts.addresses import deliverable_email
from data_layer.services.request_limits import RequestKind

_PROOF_SECONDS = 86_400  # As long as the mailed token.
_COOKIE: dict[str, Any] = {"secure": True, "httponly": True, "samesite": "strict"}


class Accepted(Value):
    """The answer to everybody: what there is to tell goes by mail."""

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


@cache
def make_router() -> APIRouter:
    """The routes of accounts."""
    router = APIRouter(
        prefix="/v1/accounts", tags=["accounts"], route_class=SmallBodyRoute, dependencies=[Depends(never_stored)]
    )
    _add_routes_for_anybody(router)
    _add_routes_by_mail(router)
    _add_routes_for_owners(router)
    return router


def _add_routes_for_anybody(router: APIRouter) -> None:
    asking: dict[str, Any] = {
        "status_code": 202,
        "responses": described(422, 429, 503),
        "dependencies": [Depends(limited(RequestKind.ASK_FOR_MAIL))],
    }
    registering = asking | {
        "responses": described(403, 422, 429, 503),
        "dependencies": [Depends(limited(RequestKind.REGISTER))],
    }

    @router.post("", summary="Register", **registering)
    async def register(
        body: NewAccount, request: Request, response: Response, served: Served, after: BackgroundTasks
    ) -> AcceptedRegistration:
        """The account is open once its address is verified. A mail says how, or that there is an account already."""
        if body.cookie:
            refuse_other_sites(request)
        requested = await served.data.accounts.request_registration(
            email=body.email,
            password=body.password.get_secret_value(),
            first_name=body.first_name,
            last_name=body.last_name,
            display_name=body.display_name,
        )
        kind = MailKind.ADDRESS_TAKEN if requested.verification is None else MailKind.VERIFY_EMAIL
        mail = AccountMail(kind, deliverable_email(body.email), requested.verification)
        after.add_task(served.mailing.send, mail)
        if body.cookie:
            response.set_cookie(REGISTRATION_COOKIE, requested.proof, max_age=_PROOF_SECONDS, **_COOKIE)
        return AcceptedRegistration(proof=None if body.cookie else requested.proof)

    @router.post("/verification", summary="Ask for a mail to verify the address", **asking)
    async def ask_for_verification(body: Address, served: Served, after: BackgroundTasks) -> Accepted:
        """It is sent to an address that is not verified, once in five minutes."""
        make = partial(served.data.accounts.request_email_verification, body.email)
        after.add_task(served.mailing.send_token, MailKind.VERIFY_EMAIL, make)
        return Accepted()

    @router.post("/password-reset", summary="Ask for a mail to choose a new password", **asking)
    async def ask_for_reset(body: Address, served: Served, after: BackgroundTasks) -> Accepted:
        """It is sent to the address of an account, once in five minutes."""
        make = partial(served.data.accounts.request_password_reset, body.email)
        after.add_task(served.mailing.send_token, MailKind.RESET_PASSWORD, make)
        return Accepted()


def _add_routes_by_mail(router: APIRouter) -> None:
    taking: dict[str, Any] = {
        "responses": described(400, 422, 429, 503),
        "dependencies": [Depends(limited(RequestKind.SHOW_MAILED_TOKEN))],
    }

    @router.post("/verification/confirm", summary="Verify the address by a mailed token", **taking)
    async def verify(
        body: EmailVerification, response: Response, served: Served, cookie: RegistrationProof
    ) -> Verified:
        """A new account is open then; its password stays if the proof comes from the device that registered."""
        proof = body.proof.get_secret_value() if body.proof else cookie
        verified = await served.data.accounts.verify_email(body.token.get_secret_value(), proof=proof)
        if cookie is not None:
            response.delete_cookie(REGISTRATION_COOKIE, **_COOKIE)
        choice = verified.password_choice
        return Verified(password_token=choice.token if choice else None)

    @router.post(
        "/password-reset/confirm",
        summary="Choose a new password by a mailed token",
        status_code=204,
        response_model=None,
        **taking,
    )
    async def reset(body: PasswordReset, served: Served) -> None:
        """All sessions end."""
        await served.data.accounts.reset_password(body.token.get_secret_value(), body.password.get_secret_value())


def _add_routes_for_owners(router: APIRouter) -> None:
    refused = described(401, 403, 503)
    refused_change = refused | described(409, 422)

    @router.get("/me", summary="Read the own account", responses=refused)
    async def show(session: LoggedIn, served: Served) -> UserFull:
        return await served.data.accounts.get(session.actor, session.user_id)

    @router.patch("/me", summary="Change the own profile", responses=refused_change)
    async def change(body: ProfileChanges, session: LoggedIn, served: Served) -> UserFull:
        """What is not given stays."""
        return await served.data.accounts.update_profile(session.actor, session.user_id, body)

    @router.patch("/me/preferences", summary="Change the own preferences", responses=refused_change)
    async def change_preferences(body: Preferences, session: LoggedIn, served: Served) -> UserFull:
        """They are merged as JSON Merge Patch does it (RFC 7396): null removes."""
        return await served.data.accounts.update_preferences(session.actor, session.user_id, body.preferences)

    replacing = refused_change | described(429)

    @router.post(
        "/me/password", summary="Change the own password", status_code=204, response_model=None, responses=replacing
    )
    async def change_password(body: PasswordChange, session: LoggedIn, served: Served) -> None:
        """All other sessions end. Wrong guesses count as failed logins."""
        await served.data.accounts.change_password(
            session.actor, session.user_id, current=body.current.get_secret_value(), new=body.new.get_secret_value()
        )
