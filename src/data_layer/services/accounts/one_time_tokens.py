"""Tokens that are mailed and work once: 256 random bits for the mail, a keyed hash for the database."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from data_layer.errors import InvalidOneTimeTokenError

_RANDOM_BYTES = 32
_ID_BYTES = 16


class Purpose(StrEnum):
    """What a token is good for; one for one purpose is none for another."""

    VERIFY_EMAIL = "verify_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105  (the name of a purpose)


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A token for the mail, and nothing else: it is not stored, and must not be logged.

    ``email`` is where to send it, ``token`` what the link carries (64 characters that are safe in a URL).
    """

    user_id: UUID
    email: str
    expires_at: datetime
    token: str = field(repr=False)


def make_token(user_id: UUID) -> str:
    """A new token. It begins with the id of its account, so that finding the row needs no search for the secret."""
    return base64.urlsafe_b64encode(user_id.bytes + secrets.token_bytes(_RANDOM_BYTES)).decode()


def derived_token(secret: bytes, purpose: Purpose, user_id: UUID, mail_id: UUID) -> str:
    """The token of a mail in the queue. It is computed whenever the mail is sent, so it is stored nowhere.

    Only somebody with SESSION_SECRET can compute it; the ids alone help nobody.
    """
    bits = hmac.new(secret, f"mailed token:{purpose}:{user_id}:{mail_id}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(user_id.bytes + bits).decode()


def owner_of(token: str) -> UUID:
    """The account that a token claims to belong to.

    Raises:
        InvalidOneTimeTokenError: for a text that is not a token.
    """
    try:
        decoded = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        decoded = b""
    if len(decoded) != _ID_BYTES + _RANDOM_BYTES:
        raise invalid_token()
    return UUID(bytes=decoded[:_ID_BYTES])


def hash_token(secret: bytes, purpose: Purpose, token: str) -> str:
    """What the database keeps: HMAC-SHA-256 under SESSION_SECRET, different for each purpose."""
    return hmac.new(secret, f"{purpose}:{token}".encode(), hashlib.sha256).hexdigest()


def registrant_proof(secret: bytes, user_id: UUID, password_hash: str) -> str:
    """What shows that somebody chose the password of an account, without being the password.

    It needs no row: the hash of a password has a salt, so it is different for every choice.
    """
    return hmac.new(secret, f"registrant:{user_id}:{password_hash}".encode(), hashlib.sha256).hexdigest()


def false_proof() -> str:
    """What looks like a proof, for a registration that made no account."""
    return secrets.token_hex(hashlib.sha256().digest_size)


def invalid_token() -> InvalidOneTimeTokenError:
    """The one answer for every token that does not work."""
    return InvalidOneTimeTokenError("this link is not valid, was used already or has expired; ask for a new one")
