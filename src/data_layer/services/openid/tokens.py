"""Tokens that an issuer has signed: which ones are believed (OpenID Connect Core 3.1.3.7, RFC 7519, RFC 8725)."""

from __future__ import annotations

import base64
import hashlib
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

import orjson

from data_layer.errors import ExpiredTokenError, InvalidTokenError
from data_layer.services.openid.keys import KEY_TYPES, IssuerKeys, PublicKey

LONGEST_TOKEN = 16 * 1024
_LONGEST_SUBJECT = 255  # OpenID Connect Core 2.
_MOST_CANDIDATES = 5
_LATEST = 2**53
_TYPES = frozenset({None, "jwt", "at+jwt", "application/at+jwt"})
"""Kinds of tokens that say who somebody is; a logout token, for one, does not (RFC 8725, 3.11)."""
_HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a token says, with the key that has signed it; times are in seconds since 1970."""

    claims: dict[str, Any]
    alg: str
    thumbprint: str
    subject: str
    expires_at: float


def algorithm_of(token: str) -> str | None:
    """Return the algorithm that a token says it was signed by; None for what is not a JWT. Nothing is verified."""
    try:
        header = orjson.loads(_decode(token.partition(".")[0]))
    except ValueError:
        return None
    alg = header.get("alg") if isinstance(header, dict) else None
    return alg if isinstance(alg, str) else None


class TokenVerifier:
    """Verifies signature, issuer and times of a token. Whom it was made for is looked at by the caller.

    Args:
        keys: those of the issuer.
        is_issuer: whether claims are those of the issuer, by ``iss``.
        leeway: seconds by which the clocks may differ.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        keys: IssuerKeys,
        is_issuer: Callable[[dict[str, Any]], bool],
        *,
        leeway: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._is_issuer = is_issuer
        self._leeway = leeway
        self._clock = clock

    async def verify(self, token: str) -> VerifiedToken:
        """Return what a token says.

        Raises:
            ExpiredTokenError: it was right until it expired.
            InvalidTokenError: it is not to be believed; the message says why.
            IssuerError: the keys of the issuer are not known.
        """
        header = _read_header(token)
        alg, kid = header.get("alg"), header.get("kid")
        if not isinstance(alg, str) or alg not in KEY_TYPES:
            raise refused("it is not signed by an algorithm that is accepted")
        if not isinstance(kid, str | None):
            raise refused("the name of its key is not text")
        kind = header.get("typ")
        if not isinstance(kind, str | None) or (kind.lower() if kind else None) not in _TYPES:
            raise refused("it is a token for something else")
        for key in (await self._keys.candidates(kid, alg))[:_MOST_CANDIDATES]:
            claims = _check_signature(token, key, alg)
            if claims is not None:
                return self._check_claims(claims, alg, key)
        raise refused("its signature is by no key of the issuer")

    def require_current(self, token: VerifiedToken) -> None:
        """Refuse a token that has expired since it was verified.

        Raises:
            ExpiredTokenError: it has.
        """
        if self._clock() >= token.expires_at + self._leeway:
            raise ExpiredTokenError("the token of the issuer has expired; get a new one")

    def _check_claims(self, claims: dict[str, Any], alg: str, key: PublicKey) -> VerifiedToken:
        if not self._is_issuer(claims):
            raise refused("it is of another issuer")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise refused("it names no subject")
        times = {name: _time(claims, name) for name in ("exp", "nbf", "iat")}
        if times["exp"] is None:
            raise refused("it never expires")
        now = self._clock()
        for name in ("nbf", "iat"):
            at = times[name]
            if at is not None and at > now + self._leeway:
                raise refused(f"it is not valid yet ({name}); see whether the clocks agree")
        verified = VerifiedToken(claims, alg, key.thumbprint, subject, times["exp"])
        self.require_current(verified)
        return verified


def require_audience(claims: dict[str, Any], wanted: str, allowed_azp: Collection[str], *, is_optional: bool) -> None:
    """Refuse a token that was made for somebody else.

    Args:
        claims: what it says.
        wanted: who it must be made for; empty: nobody in particular.
        allowed_azp: to whom it may have been issued, in addition to ``wanted``.
        is_optional: a token without an audience will do if it says to which allowed party it was issued.

    Raises:
        InvalidTokenError: it was.
    """
    audience, azp = claims.get("aud"), claims.get("azp")
    audiences = [audience] if isinstance(audience, str) else audience
    if audiences is not None and not (isinstance(audiences, list) and all(isinstance(one, str) for one in audiences)):
        raise refused("its audience is not text")
    if not isinstance(azp, str | None):
        raise refused("the party that it was issued to is not text")
    if azp is not None and azp != wanted and azp not in allowed_azp:
        raise refused("it was issued to another party (azp); see OIDC_ALLOWED_AZP")
    if audiences:
        if not wanted or wanted not in audiences:
            raise refused("it was made for another audience (aud)")
        if len(audiences) > 1 and azp is None:
            raise refused("it was made for several, and does not say to whom it was issued (azp)")
    elif not is_optional or azp is None:
        raise refused("it does not say for whom it was made (aud or azp)")


def require_hash(claims: dict[str, Any], name: str, alg: str, value: str) -> None:
    """Refuse an ID token whose hash is that of another value: they do not belong together (Core 3.1.3.6).

    Raises:
        InvalidTokenError: it is.
    """
    stated = claims.get(name)
    if stated is None:
        return
    # Ed25519 goes with SHA-512.
    digest = _HASHES.get(alg[-3:] if alg[:2] in {"RS", "PS", "ES"} else "512", hashlib.sha512)(value.encode()).digest()
    expected = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    if not isinstance(stated, str) or not compare_digest(stated.encode("utf-8", "replace"), expected):
        raise refused(f"it does not belong to what came with it ({name})")


def refused(why: str) -> InvalidTokenError:
    """Return the error for a token of the issuer that is not believed; nothing of the token is in it."""
    return InvalidTokenError(f"the token of the issuer is not accepted: {why}")


def _check_signature(token: str, key: PublicKey, alg: str) -> dict[str, Any] | None:
    """Return the claims if this key has signed them."""
    from joserfc import jwt
    from joserfc.errors import BadSignatureError, JoseError
    from joserfc.jws import JWSRegistry

    # Issuers put parameters of their own into headers (Clerk: cat); what is critical must be known all the same.
    registry = JWSRegistry(algorithms=[alg], strict_check_header=False)
    registry.max_header_length = LONGEST_TOKEN
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That EdDSA has a new name.
            return jwt.decode(token, key.key, algorithms=[alg], registry=registry).claims
    except BadSignatureError:
        return None
    except (JoseError, ValueError, TypeError, RecursionError):
        raise refused("it is not a JWT as they should be") from None


def _read_header(token: str) -> dict[str, Any]:
    if len(token) > LONGEST_TOKEN or token.count(".") != 2 or not token.isascii():
        raise refused("it is not a signed JWT")
    try:
        header = orjson.loads(_decode(token.partition(".")[0]))
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise refused("it is not a signed JWT")
    return header


def _decode(text: str) -> bytes:
    """Return the bytes of base64url.

    Raises:
        ValueError: it is something else.
    """
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # Written so that NaN, which compares false with everything, is refused too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LATEST:
        raise refused(f"its time {name} is not a number")
    return float(value)
