"""Random tokens, and the keyed hashes that stand for them wherever something is kept."""

from __future__ import annotations

import hmac
import secrets

from pydantic import SecretStr

_TOKEN_BYTES = 32
TOKEN_LENGTH = 43
"""Characters of 256 bits in base64url."""


def make_token() -> str:
    """256 random bits, in base64url."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


class TokenHasher:
    """HMAC-SHA256 under SESSION_SECRET; tokens of another purpose have other hashes.

    While the secret is being changed, hashes under the former one are found as well.
    """

    def __init__(self, secret: SecretStr, previous: SecretStr | None, purpose: str) -> None:
        keys = [key.get_secret_value().encode() for key in (secret, previous) if key is not None]
        # Copying a keyed state is quicker than keying a new one.
        self._states = [hmac.new(key, f"{purpose}\0".encode(), "sha256") for key in keys]
        self._present = self._states[0]

    def hash(self, token: str) -> str:
        """The hash under the present secret, in hexadecimal; surrogates and other nonsense have one too."""
        state = self._present.copy()
        state.update(token.encode("utf-8", "surrogatepass"))
        return state.hexdigest()

    def hashes(self, token: str) -> list[str]:
        """The hashes under the present and the former secret."""
        return [self._hash(state, token).hexdigest() for state in self._states]

    def derive(self, token: str) -> list[bytes]:
        """256 bits that only somebody with the token and the secret can compute; under both secrets."""
        return [self._hash(state, token).digest() for state in self._states]

    @staticmethod
    def _hash(state: hmac.HMAC, token: str) -> hmac.HMAC:
        state = state.copy()
        state.update(token.encode("utf-8", "surrogatepass"))
        return state
