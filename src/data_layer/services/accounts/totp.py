"""Codes of authenticator apps (TOTP, RFC 6238): six digits, a new one every 30 seconds."""

from __future__ import annotations

from hmac import compare_digest

from data_layer.extras import require_extra

STEP_SECONDS = 30
_EITHER_WAY = 1  # Steps: clocks of telephones are a little off (RFC 6238, 5.2).
_DIGITS = 6
_ISSUER = "Data layer"


def new_secret() -> str:
    """Return 160 random bits in base32, as apps expect them."""
    require_extra("service", "a code of an app", "pyotp")
    import pyotp  # Here because only the extra has it.

    return pyotp.random_base32()


def uri_of(secret: str, email: str) -> str:
    """Return what the QR code for an app holds."""
    import pyotp

    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=_ISSUER)


def matching_step(secret: str, code: str, *, now: float, after: int) -> int | None:
    """Return the time step of a code that is in force and later than the last one that was used; None if it is not."""
    require_extra("service", "a code of an app", "pyotp")
    import pyotp

    code = code.replace(" ", "")
    if len(code) != _DIGITS or not (code.isascii() and code.isdigit()):
        return None
    present, found = int(now) // STEP_SECONDS, None
    for step in range(present - _EITHER_WAY, present + _EITHER_WAY + 1):
        # All of them are compared, so that the time says nothing.
        if compare_digest(pyotp.TOTP(secret).generate_otp(step), code) and step > after:
            found = step
    return found
