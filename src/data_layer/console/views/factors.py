"""The second factors of the own account: authenticator apps, passkeys, and recovery codes."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import segno
from fastapi import Response
from markupsafe import Markup
from pydantic import SecretStr

from data_layer.console.confirming import object_in, shown_in, ways_to_confirm
from data_layer.console.pages import PageCall, Pages
from data_layer.errors import AuthenticationError, ConflictError, InvalidValueError
from data_layer.schemas.factors import NewTotp, PasskeyChallenge

FACTORS = "/console/account/factors"

pages = Pages(FACTORS)


@pages.get("")
async def show(call: PageCall) -> Response:
    """The factors that count."""
    return await _factors(call)


@pages.post("")
async def begin(call: PageCall) -> Response:
    """Add an authenticator app, which counts once a code of it was shown."""
    fields = await call.fields()
    try:
        new = await call.data.accounts.begin_totp(call.actor, call.user_id, **shown_in(fields))
    except (AuthenticationError, ConflictError, InvalidValueError) as error:
        return await _factors(call, 422, problem=call.reason_of(error))
    return await _factors(call, new=new)


@pages.post("/passkeys")
async def begin_passkey(call: PageCall) -> Response:
    """Ask for a name, and let the browser make a passkey."""
    fields = await call.fields()
    try:
        new = await call.data.accounts.begin_passkey(call.actor, call.user_id, **shown_in(fields))
    except (AuthenticationError, ConflictError, InvalidValueError) as error:
        return await _factors(call, 422, problem=call.reason_of(error))
    return await _factors(call, new_passkey=new)


@pages.post("/passkeys/add")
async def add_passkey(call: PageCall) -> Response:
    """Take the passkey that the browser has made; the recovery codes come with the first factor."""
    fields = await call.fields()
    try:
        done = await call.data.accounts.add_passkey(
            call.actor,
            call.user_id,
            challenge=fields.get("challenge", ""),
            answer=object_in(fields, "answer"),
            name=fields.get("name", ""),
        )
    except (AuthenticationError, ConflictError, InvalidValueError) as error:
        return await _factors(call, 422, problem=call.reason_of(error))
    return await _factors(call, codes=done.recovery_codes)


@pages.post("/codes")
async def renew_codes(call: PageCall) -> Response:
    """Other recovery codes in place of those there are."""
    fields = await call.fields()
    try:
        codes = await call.data.accounts.renew_recovery_codes(call.actor, call.user_id, **shown_in(fields))
    except (AuthenticationError, InvalidValueError) as error:
        return await _factors(call, 422, problem=call.reason_of(error))
    return await _factors(call, codes=codes)


@pages.post("/{factor_id}/confirm")
async def confirm(call: PageCall, factor_id: UUID) -> Response:
    """Show a code of the app; the recovery codes come with the first factor."""
    fields = await call.fields()
    try:
        done = await call.data.accounts.confirm_totp(call.actor, factor_id, fields.get("code", "").replace(" ", ""))
    except (AuthenticationError, ConflictError, InvalidValueError) as error:
        return await _factors(call, 422, problem=call.reason_of(error))
    return await _factors(call, codes=done.recovery_codes)


@pages.post("/{factor_id}/remove")
async def remove(call: PageCall, factor_id: UUID) -> Response:
    """Remove a factor."""
    fields = await call.fields()
    try:
        await call.data.accounts.remove_factor(call.actor, factor_id, **shown_in(fields))
    except (AuthenticationError, InvalidValueError) as error:
        return await _factors(call, 422, problem=call.reason_of(error))
    return call.go(FACTORS, "saved")


async def _factors(
    call: PageCall,
    code: int = 200,
    *,
    problem: str | None = None,
    new: NewTotp | None = None,
    new_passkey: PasskeyChallenge | None = None,
    codes: Sequence[SecretStr] = (),
) -> Response:
    ways = await ways_to_confirm(call)
    qr = None
    if new is not None:
        drawn = segno.make(new.uri.get_secret_value()).svg_inline(scale=5, border=3, light="#fff")
        qr = Markup(drawn)  # noqa: S704  (modules of a QR code, no text)
    return call.page(
        "factors.html",
        code,
        ways=ways,
        problem=problem,
        new=new,
        new_passkey=new_passkey,
        qr=qr,
        codes=[each.get_secret_value() for each in codes],
    )
