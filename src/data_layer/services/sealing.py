"""Encryption of what the database keeps and must not disclose (AES-256-GCM), with keys derived from SESSION_SECRET."""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


class Seals:
    """Encrypts, decrypts and hashes for one purpose.

    Each ``subject``, such as the id of a row, has keys of its own: what is sealed for one opens for no other.

    Args:
        purpose: what for; a part of each key, so it must never change.
        secrets: the one to encrypt with, then older ones.
    """

    def __init__(self, purpose: str, secrets: Sequence[str]) -> None:
        self._prefix = f"data-layer {purpose}:".encode()
        self._secrets = [secret.encode() for secret in secrets]

    def seal(self, subject: bytes, content: bytes) -> bytes:
        """Encrypt with the present secret."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher(self._secrets[0], subject).encrypt(nonce, content, None)

    def open(self, subject: bytes, sealed: bytes) -> tuple[bytes, bool] | None:
        """Decrypt, and say whether it was sealed with the present secret; None if no secret fits."""
        for which, secret in enumerate(self._secrets):
            try:
                return self._cipher(secret, subject).decrypt(sealed[:_NONCE], sealed[_NONCE:], None), which == 0
            except InvalidTag:
                continue
        return None

    def mac(self, subject: bytes, content: bytes) -> bytes:
        """A hash of what may not be guessed by trying, such as a body with a password (HMAC-SHA-256)."""
        return self._mac(self._secrets[0], subject, content)

    def has_mac(self, subject: bytes, content: bytes, mac: bytes) -> bool:
        """Whether this is the hash of the content, with the present secret or an older one."""
        return any(hmac.compare_digest(self._mac(secret, subject, content), mac) for secret in self._secrets)

    def _cipher(self, secret: bytes, subject: bytes) -> AESGCM:
        return AESGCM(hmac.digest(secret, self._prefix + subject, "sha256"))

    def _mac(self, secret: bytes, subject: bytes, content: bytes) -> bytes:
        key = hmac.digest(secret, b"mac of " + self._prefix + subject, "sha256")
        return hmac.digest(key, content, "sha256")
