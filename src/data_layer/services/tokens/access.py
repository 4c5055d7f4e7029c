"""Access tokens: JWTs, signed with HMAC-SHA256, and accepted in exactly the form in which they are made."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import jwt
from uuid_utils.compat import uuid4

from data_layer.errors import ExpiredTokenError, InvalidTokenError
from data_layer.settings.security import SecuritySettings

_ALGORITHM = "HS256"
_LEEWAY_SECONDS = 5
"""By how much the clocks of our machines may differ."""

_REQUIRED = ["iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"]
_LONGEST = 4096
_REFUSED = "the access token is not valid; log in again"


class AccessTokens:
    """Makes and reads access tokens. The id of the key says under which secret one was signed.

    Args:
        settings: the ``jwt_`` ones.
        clock: seconds since 1970.
    """

    def __init__(self, settings: SecuritySettings, clock: Callable[[], float] = time.time) -> None:
        secrets = [settings.jwt_secret, settings.jwt_secret_previous]
        keys = [secret.get_secret_value().encode() for secret in secrets if secret is not None]
        self._keys = {_key_id(key): key for key in reversed(keys)}
        self._present = _key_id(keys[0])
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self.lifetime = settings.jwt_expires_in
        self._clock = clock

    def make(self, session_id: UUID, user_id: UUID) -> str:
        """A token for a session. It says who and until when, and nothing that may change: not the role."""
        now = int(self._clock())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime,
            "jti": str(uuid4()),
        }
        headers = {"kid": self._present}
        return jwt.encode(claims, self._keys[self._present], algorithm=_ALGORITHM, headers=headers)

    def read(self, token: str) -> tuple[UUID, UUID]:
        """The ids of the session and of the user that a token was made for.

        Raises:
            ExpiredTokenError: when it was right until it expired.
            InvalidTokenError: when it is anything else than a token of ours that is in force.
        """
        if len(token) > _LONGEST:
            raise InvalidTokenError(_REFUSED)
        try:
            claims = self._decode(token)
            return UUID(claims["sid"]), UUID(claims["sub"])
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError):
            # Without the cause, whose text may quote the token.
            raise InvalidTokenError(_REFUSED) from None

    def _decode(self, token: str) -> dict[str, Any]:
        key = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
        if key is None:
            raise InvalidTokenError(_REFUSED)
        # PyJWT would go by the clock of the machine, and takes a token as expired before it looks at the rest.
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=self._issuer,
            audience=self._audience,
            options={"require": _REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        now = self._clock()
        if now < int(claims["nbf"]) - _LEEWAY_SECONDS:
            raise InvalidTokenError(_REFUSED)
        if now >= int(claims["exp"]) + _LEEWAY_SECONDS:
            raise ExpiredTokenError("the access token has expired; exchange the refresh token for a new pair")
        return claims


def _key_id(key: bytes) -> str:
    """A name for a key that does not help to find it."""
    return hashlib.sha256(b"key id\0" + key).hexdigest()[:16]
