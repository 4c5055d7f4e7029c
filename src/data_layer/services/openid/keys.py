"""The keys that an issuer signs with (JWKS), as they change."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_layer.errors import IssuerError
from data_layer.services.openid.renewal import Renewed

if TYPE_CHECKING:
    from joserfc.jwk import Key

KEY_TYPES = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    **dict.fromkeys(("EdDSA", "Ed25519"), "OKP"),
}
"""The algorithms that are accepted, with the kind of their keys: none of them can be verified with a shared secret."""

_MOST_KEYS = 100
_FEWEST_RSA_BITS = 2048
_PRIVATE = frozenset({"d", "p", "q", "k"})


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of an issuer, with what it is said to be for."""

    kid: str | None
    kty: str
    alg: str | None
    thumbprint: str
    key: Key


def read_keys(document: dict[str, Any], host: str) -> Sequence[PublicKey]:
    """Read a key set; keys that sign nothing, or of a kind that is not known, are left out (RFC 7517, 5).

    Raises:
        IssuerError: none of the keys can be used.
    """
    listed = document.get("keys")
    found = [_read_key(one) for one in listed[:_MOST_KEYS]] if isinstance(listed, list) else []
    keys = [key for key in found if key is not None]
    if not keys:
        raise IssuerError(f"the key set at {host} holds no public key that can be used")
    return keys


def _read_key(jwk: object) -> PublicKey | None:
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or _PRIVATE & jwk.keys():
        return None
    kid, kty, alg, uses = (jwk.get(name) for name in ("kid", "kty", "alg", "key_ops"))
    if kty not in KEY_TYPES.values() or (isinstance(uses, list) and "verify" not in uses):
        return None
    try:
        if kty == "RSA" and _bits(jwk["n"]) < _FEWEST_RSA_BITS:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = import_key({name: value for name, value in jwk.items() if name not in {"key_ops", "x5c"}})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    kid, alg = (value if isinstance(value, str) else None for value in (kid, alg))
    return PublicKey(kid, str(kty), alg, key.thumbprint(), key)


def _bits(number: str) -> int:
    padded = number + "=" * (-len(number) % 4)
    return int.from_bytes(base64.urlsafe_b64decode(padded), "big").bit_length()


class IssuerKeys:
    """Finds the key of a token. An unknown one makes the key set be asked for again, at most every few seconds.

    While the issuer is down, the keys that were known stay in force.
    """

    def __init__(self, keys: Renewed[Sequence[PublicKey]]) -> None:
        self._keys = keys

    async def candidates(self, kid: str | None, alg: str) -> Sequence[PublicKey]:
        """Return the keys by which a token may have been signed: those of its ``kid``, or all of its kind without one.

        Raises:
            IssuerError: no keys are known, and the issuer publishes none.
        """
        matching = _matching(await self._keys.get(), kid, alg)
        return matching or _matching(await self._keys.renew(), kid, alg)

    async def has(self, thumbprint: str) -> bool:
        """Whether a key is among those that the issuer has published last.

        Raises:
            IssuerError: see ``candidates``.
        """
        return any(key.thumbprint == thumbprint for key in await self._keys.get())


def _matching(keys: Sequence[PublicKey], kid: str | None, alg: str) -> Sequence[PublicKey]:
    return [
        key for key in keys if (kid is None or key.kid == kid) and key.kty == KEY_TYPES[alg] and key.alg in {None, alg}
    ]
