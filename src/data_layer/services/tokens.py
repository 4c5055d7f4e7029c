"""Tokens for clients that hold no cookie: JWTs for access, bound to a session, and refresh tokens.

Access tokens are signed with HMAC-SHA256, and accepted in exactly the form in which they are made.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import jwt
from pydantic import SecretStr
from uuid_utils.compat import uuid4, uuid7

from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, AuditLevel
from data_layer.errors import ExpiredTokenError, InvalidSessionError, InvalidTokenError, ReusedTokenError
from data_layer.repositories.refresh_tokens import FoundRefreshToken
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.sessions import ActiveSession, TokenPair
from data_layer.services.arguments import checks_arguments
from data_layer.services.sessions import SessionService
from data_layer.services.sessions.hashing import TOKEN_LENGTH, TokenHasher, make_token
from data_layer.settings.security import SecuritySettings

_ALGORITHM = "HS256"
_LEEWAY_SECONDS = 5
"""By how much the clocks of our machines may differ."""

_REQUIRED = ["iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"]
_LONGEST = 4096
_ACCESS_REFUSED = "the access token is not valid; log in again"


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
            raise InvalidTokenError(_ACCESS_REFUSED)
        try:
            claims = self._decode(token)
            return UUID(claims["sid"]), UUID(claims["sub"])
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError):
            # Without the cause, whose text may quote the token.
            raise InvalidTokenError(_ACCESS_REFUSED) from None

    def _decode(self, token: str) -> dict[str, Any]:
        key = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
        if key is None:
            raise InvalidTokenError(_ACCESS_REFUSED)
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
            raise InvalidTokenError(_ACCESS_REFUSED)
        if now >= int(claims["exp"]) + _LEEWAY_SECONDS:
            raise ExpiredTokenError("the access token has expired; exchange the refresh token for a new pair")
        return claims


def _key_id(key: bytes) -> str:
    """A name for a key that does not help to find it."""
    return hashlib.sha256(b"key id\0" + key).hexdigest()[:16]


GRACE_SECONDS = 10.0
"""How long after its exchange a refresh token still gives the same successor."""

REUSED = "refresh_token_reused"
_REFUSED = "the refresh token is not valid; log in again"


@checks_arguments
class TokenService:
    """JWT access tokens and refresh tokens, both bound to a session: when it ends, they end.

    A refresh token is exchanged for the next pair; its family is the session. One that comes a second time was stolen,
    or its thief has already been here: the session ends, and the audit trail says why. Two things are no theft: a
    client that did not get the answer and asks again, and two tabs that ask at once. So within ten seconds, while its
    successor has not been used, a token gives the same successor again. There is never more than one token of a family
    that leads on, so a theft is noticed as soon as both the thief and the owner have used what they hold.

    The successor can be given again although only hashes are stored, because it is computed: from the token that is
    shown, the secret, and the random id of the successor's row.

    Args:
        transactions: where tokens are kept.
        sessions: which they are bound to.
        settings: the ``jwt_`` ones and the secrets.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        transactions: Transactions,
        sessions: SessionService,
        settings: SecuritySettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._transactions = transactions
        self._sessions = sessions
        self._access = AccessTokens(settings, clock)
        secrets = (settings.session_secret, settings.session_secret_previous)
        self._hasher = TokenHasher(*secrets, "refresh token")
        self._successors = TokenHasher(*secrets, "successor of a refresh token")
        self._lifetime = settings.jwt_refresh_expires_in
        self._longest = settings.session_max_age

    async def issue(self, session: ActiveSession) -> TokenPair:
        """The first pair for a session, which then lives as long as the refresh token (JWT_REFRESH_EXPIRES_IN).

        One that was issued for it before can no longer be exchanged: it counts as used, and its use as a theft.

        Raises:
            InvalidSessionError: when the session has ended.
        """
        async with self._transactions() as tx:
            return await self.begin(tx, session)

    async def begin(self, tx: UnitOfWork, session: ActiveSession) -> TokenPair:
        """The same within a transaction, such as the one that begins the session.

        Raises:
            InvalidSessionError: when the session has ended.
        """
        token, token_id = make_token(), uuid7()
        await tx.sessions.extend(session.id, self._lifetime, self._longest)
        expires_at = await tx.refresh_tokens.begin(token_id, self._hasher.hash(token), session.id)
        if expires_at is None:
            raise InvalidSessionError("the session has ended; log in again")
        return self._pair(session.id, session.user_id, token, expires_at)

    async def verify(self, access_token: str) -> ActiveSession:
        """The session of an access token; its use is counted like any other.

        Raises:
            ExpiredTokenError: when the token has expired.
            InvalidTokenError: when it is not one of ours, or its session has ended.
            DatabaseError: when that cannot be known at the moment.
        """
        session_id, user_id = self._access.read(access_token)
        try:
            session = await self._sessions.validate_id(session_id)
        except InvalidSessionError:
            raise InvalidTokenError("the session of the access token has ended; log in again") from None
        if session.user_id != user_id:
            raise InvalidTokenError("the access token is not valid; log in again")
        return session

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for the next pair; see the class for what happens when it comes twice.

        Raises:
            ReusedTokenError: when it was exchanged before. Its session has been ended.
            InvalidTokenError: when it is unknown, has expired, or its session has ended.
        """
        if len(refresh_token) != TOKEN_LENGTH:
            raise InvalidTokenError(_REFUSED)
        async with self._transactions() as tx:
            pair: TokenPair | None
            found = await tx.refresh_tokens.find_locked(self._hasher.hashes(refresh_token))
            if found is None or not found.is_in_force:
                raise InvalidTokenError(_REFUSED)
            if found.used_seconds_ago is None:
                pair = await self._exchange(tx, found, refresh_token)
            else:
                pair = self._give_again(found, refresh_token)
            if pair is None:
                await self._end_family(tx, found)
        if pair is None:
            raise ReusedTokenError("the refresh token was used before, so its session was ended; log in again")
        return pair

    async def _exchange(self, tx: UnitOfWork, found: FoundRefreshToken, token: str) -> TokenPair:
        successor_id = uuid7()
        successor = self._successor(token, successor_id)[0]
        await tx.sessions.extend(found.session_id, self._lifetime, self._longest)
        expires_at = await tx.refresh_tokens.exchange(found, successor_id, self._hasher.hash(successor))
        if expires_at is None:
            raise InvalidTokenError(_REFUSED)
        return self._pair(found.session_id, found.user_id, successor, expires_at)

    def _give_again(self, found: FoundRefreshToken, token: str) -> TokenPair | None:
        """The pair with the successor that was given before, or ``None`` where that would help a thief."""
        if found.used_seconds_ago is None or found.used_seconds_ago > GRACE_SECONDS:
            return None
        if found.successor_id is None or found.successor_expires_at is None or found.successor_is_used:
            return None
        for successor in self._successor(token, found.successor_id):
            if found.successor_hash in self._hasher.hashes(successor):
                return self._pair(found.session_id, found.user_id, successor, found.successor_expires_at)
        return None

    async def _end_family(self, tx: UnitOfWork, found: FoundRefreshToken) -> None:
        await tx.sessions.end(found.session_id, REUSED)
        tx.add(
            AuditLog.security_event(
                AuditAction.SECURITY_SUSPICIOUS_ACTIVITY,
                "A refresh token was used twice; its session was ended",
                user_id=found.user_id,
                level=AuditLevel.CRITICAL,
                resource_type="session",
                resource_id=str(found.session_id),
                new_values={"reason": REUSED},
            )
        )

    def _successor(self, token: str, successor_id: UUID) -> list[str]:
        """The token that follows, under the present and the former secret."""
        bits = self._successors.derive(f"{token}\0{successor_id}")
        return [base64.urlsafe_b64encode(value).rstrip(b"=").decode() for value in bits]

    def _pair(self, session_id: UUID, user_id: UUID, refresh_token: str, expires_at: datetime) -> TokenPair:
        return TokenPair(
            access_token=SecretStr(self._access.make(session_id, user_id)),
            access_expires_in=self._access.lifetime,
            refresh_token=SecretStr(refresh_token),
            refresh_expires_at=expires_at,
            session_id=session_id,
        )
