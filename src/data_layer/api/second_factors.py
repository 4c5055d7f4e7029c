"""Second factors over HTTP: authenticator apps, passkeys and recovery codes of the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Response
from pydantic import Field, StringConstraints

from data_layer.api.request_models import Body, Confirmation, Token
from data_layer.api.routes import Call, Routes
from data_layer.errors import SecondFactorRequiredError
from data_layer.schemas.base import Value
from data_layer.schemas.factors import ConfirmedFactor, FactorChallenge, FactorsView, FactorView

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class SecondFactorNeeded(Value):
    """The password is right, and no session has begun yet: answer ``challenge`` within ``expires_in`` seconds.

    ``methods`` are ``totp``, ``passkey`` and ``recovery_code``; ``passkey`` holds the options for
    ``navigator.credentials.get``.
    """

    status: Literal["second_factor_required"] = "second_factor_required"
    challenge: str
    methods: tuple[str, ...]
    passkey: Mapping[str, Any] | None
    expires_in: int


FACTOR_NEEDED: dict[int | str, dict[str, Any]] = {
    200: {"model": SecondFactorNeeded, "description": "A second factor is needed"}
}
"""What a route says of itself that a second factor may follow."""


def factor_needed(needed: SecondFactorRequiredError) -> Response:
    """Return the answer to a right password where a second factor is needed."""
    answer = _shown(needed.challenge)
    return Response(answer.model_dump_json(), media_type="application/json")


def _shown(challenge: FactorChallenge) -> SecondFactorNeeded:
    return SecondFactorNeeded(
        challenge=challenge.challenge.get_secret_value(),
        methods=challenge.methods,
        passkey=challenge.passkey,
        expires_in=challenge.expires_in,
    )


class NewApp(Confirmation):
    """An authenticator app to add, with the password or a second factor once more, if the account has one of them."""

    name: Name = "Authenticator"


class AddedApp(Value):
    """An app that counts once a code of it was shown. ``uri`` is for a QR code; neither can be had again."""

    id: UUID
    secret: str
    uri: str


class AppCode(Body):
    """A code that the app shows."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=16), Field(examples=["492039"])]


class PasskeyBeginning(Confirmation):
    """A passkey to make, with the password or a second factor once more, if the account has one of them."""


class PasskeyOptions(Value):
    """What a passkey answers: ``options`` are for the browser; send ``challenge`` back with what it answers."""

    challenge: str
    options: Mapping[str, Any]
    expires_in: int


class NewPasskey(Body):
    """A passkey that the browser has made; ``answer`` is its ``toJSON()``."""

    challenge: Token
    answer: dict[str, Any]
    name: Name = "Passkey"


class AddedFactor(Value):
    """A factor that counts from now on. ``recovery_codes`` come with the first one, and cannot be had again."""

    factor: FactorView
    recovery_codes: tuple[str, ...]

    @classmethod
    def of(cls, added: ConfirmedFactor) -> AddedFactor:
        """Return it as its owner sees it, this once."""
        codes = tuple(code.get_secret_value() for code in added.recovery_codes)
        return cls(factor=added.factor, recovery_codes=codes)


class RecoveryCodes(Value):
    """Ten codes, each of which works once in place of a factor; they cannot be had again."""

    recovery_codes: tuple[str, ...]


routes = Routes("/v1/accounts/me/second-factors", "second factors")


@routes.get("", summary="List the own second factors")
async def list_factors(call: Call) -> FactorsView:
    """The oldest first, and how many recovery codes are left."""
    return await call.data.accounts.list_factors(call.actor, call.user_id)


@routes.post("/totp", summary="Add an authenticator app", status_code=201, errors=[401, 409, 429])
async def begin_totp(call: Call, body: NewApp) -> AddedApp:
    """It counts once a code was confirmed. One that was begun before, and not confirmed, is forgotten."""
    new = await call.data.accounts.begin_totp(call.actor, call.user_id, name=body.name, **body.shown)
    return AddedApp(id=new.id, secret=new.secret.get_secret_value(), uri=new.uri.get_secret_value())


@routes.post("/totp/{factor_id}/confirm", summary="Confirm an authenticator app", errors=[401, 404, 409, 429])
async def confirm_totp(call: Call, factor_id: UUID, body: AppCode) -> AddedFactor:
    """From now on logging in with the password asks for a second factor."""
    return AddedFactor.of(await call.data.accounts.confirm_totp(call.actor, factor_id, body.code))


@routes.post("/passkeys/options", summary="Begin to make a passkey", errors=[401, 409, 429])
async def begin_passkey(call: Call, body: PasskeyBeginning) -> PasskeyOptions:
    """``options`` are for ``navigator.credentials.create``.

    Passkeys are bound to PASSKEY_DOMAIN, which is the host of PUBLIC_URL by default.
    """
    new = await call.data.accounts.begin_passkey(call.actor, call.user_id, **body.shown)
    return PasskeyOptions(challenge=new.challenge.get_secret_value(), options=new.options, expires_in=new.expires_in)


@routes.post("/passkeys", summary="Add a passkey", status_code=201, errors=[401, 409])
async def add_passkey(call: Call, body: NewPasskey) -> AddedFactor:
    """From now on logging in with the password asks for a second factor."""
    added = await call.data.accounts.add_passkey(
        call.actor,
        call.user_id,
        challenge=body.challenge.get_secret_value(),
        answer=body.answer,
        name=body.name,
    )
    return AddedFactor.of(added)


@routes.post("/challenge", summary="Ask for a challenge that a second factor answers")
async def begin_confirmation(call: Call) -> SecondFactorNeeded:
    """For adding or removing a factor, or for other recovery codes, with a passkey."""
    return _shown(await call.data.accounts.begin_confirmation(call.actor, call.user_id))


@routes.post("/recovery-codes", summary="Renew the recovery codes", status_code=201, errors=[401, 404, 409, 429])
async def renew(call: Call, body: Confirmation) -> RecoveryCodes:
    """Those there were work no more. The password, or a second factor, is asked for once more."""
    codes = await call.data.accounts.renew_recovery_codes(call.actor, call.user_id, **body.shown)
    return RecoveryCodes(recovery_codes=tuple(code.get_secret_value() for code in codes))


@routes.post("/{factor_id}/remove", summary="Remove a second factor", status_code=204, errors=[401, 404, 409, 429])
async def remove(call: Call, factor_id: UUID, body: Confirmation) -> None:
    """The password, or a second factor, is asked for once more. With the last factor the recovery codes go."""
    await call.data.accounts.remove_factor(call.actor, factor_id, **body.shown)
