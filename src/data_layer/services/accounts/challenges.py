"""What a second factor, or a new passkey, answers: signed, good for five minutes, and stored nowhere."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from hmac import compare_digest
from uuid import UUID

import orjson

from data_layer.errors import InvalidLoginError
from data_layer.services.sessions.hashing import TokenHasher, make_token
from data_layer.settings.security import SecuritySettings

LIFETIME = 300
"""Seconds for an answer."""

LOG_IN, CONFIRM, ADD_PASSKEY = "log in", "confirm", "add a passkey"
"""What an answer is good for; one for one purpose is none for another."""

_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class PendingChallenge:
    """A challenge that is in force.

    ``user_id`` is None for one that anybody's passkey may answer in place of a password. ``issued_at`` is in
    milliseconds since 1970. ``bytes_for_passkey`` is what a passkey signs. ``state`` is a fingerprint of the password
    that was right, so that a challenge ends with it.
    """

    user_id: UUID | None
    state: str
    reactivate: bool
    issued_at: int
    bytes_for_passkey: bytes


def now() -> float:
    """Return the time, in seconds since 1970; codes of apps go by it as well."""
    return time.time()


class Challenges:
    """Makes and reads them.

    Args:
        settings: the secrets.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        secrets = (settings.session_secret, settings.session_secret_previous)
        self._seals = TokenHasher(*secrets, "second factor challenge")
        self._bytes = TokenHasher(*secrets, "passkey challenge")
        self._states = TokenHasher(*secrets, "password of a challenge")

    def make(
        self, purpose: str, user_id: UUID | None, *, password_hash: str | None = None, reactivate: bool = False
    ) -> tuple[str, bytes]:
        """Return a challenge for somebody, or for anybody, and what a passkey signs of it."""
        issued_at = int(now() * 1000)
        state = self._states.hash(password_hash or "")
        content = orjson.dumps([purpose, user_id and str(user_id), state, reactivate, issued_at, make_token()])
        payload = base64.urlsafe_b64encode(content).rstrip(b"=").decode()
        return f"{payload}.{self._seals.hash(payload)}", self._bytes.derive(payload)[0]

    def read(self, purpose: str, challenge: str) -> PendingChallenge:
        """Return what a challenge says; ``check`` says whether it counts for somebody.

        Raises:
            InvalidLoginError: it is not one of ours for this purpose, or took longer than five minutes.
        """
        payload, _, seal = challenge.partition(".")
        if len(challenge) > _LONGEST or not challenge.isascii():
            raise invalid_challenge()
        matching = [which for which, one in enumerate(self._seals.hashes(payload)) if compare_digest(one, seal)]
        if not matching:
            raise invalid_challenge()
        content = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        made_for, user_id, state, reactivate, issued_at, _ = content
        if made_for != purpose or not 0 <= now() * 1000 - issued_at + 5000 < (LIFETIME + 5) * 1000:
            raise invalid_challenge()
        signed = self._bytes.derive(payload)[matching[0]]
        return PendingChallenge(user_id and UUID(user_id), state, reactivate, issued_at, signed)

    def check(self, purpose: str, challenge: str, user_id: UUID, password_hash: str | None) -> PendingChallenge:
        """Return a challenge that is in force for an account, which still has the password of then.

        Raises:
            InvalidLoginError: it is not.
        """
        pending = self.read(purpose, challenge)
        if pending.user_id != user_id or pending.state not in self._states.hashes(password_hash or ""):
            raise invalid_challenge()
        return pending


def invalid_challenge() -> InvalidLoginError:
    """Return the one answer to every challenge that is not in force."""
    return InvalidLoginError("this challenge is not in force: it is good for five minutes; begin again")
