"""Codes of authenticator apps (TOTP, RFC 6238): six digits, a new one every 30 seconds."""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from hmac import compare_digest
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from data_layer.extras import require_extra

STEP_SECONDS = 30
_EITHER_WAY = 1  # Steps: clocks of telephones are a little off (RFC 6238, 5.2).
_DIGITS = 6
_NONCE = 12
_ISSUER = "Data layer"


class SealedSecrets:
    """Encrypts what apps share with us (AES-256-GCM), with a key derived from SESSION_SECRET and the id of the factor.

    Args:
        secrets: the one to encrypt with, then older ones.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]

    def seal(self, factor_id: UUID, secret: str) -> bytes:
        """Encrypt a secret."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher(self._secrets[0], factor_id).encrypt(nonce, secret.encode(), None)

    def open(self, factor_id: UUID, sealed: bytes) -> tuple[str, bool] | None:
        """Decrypt a secret, and say whether it is sealed with the present key; None if no key fits."""
        for which, secret in enumerate(self._secrets):
            try:
                opened = self._cipher(secret, factor_id).decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
            except InvalidTag:
                continue
            return opened.decode(), which == 0
        return None

    @staticmethod
    def _cipher(secret: bytes, factor_id: UUID) -> AESGCM:
        return AESGCM(hmac.digest(secret, b"data-layer totp:" + factor_id.bytes, "sha256"))


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
