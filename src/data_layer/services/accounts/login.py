"""Logging in with a password."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from pydantic import SecretStr

from data_layer.context import current_context
from data_layer.entities import User
from data_layer.entities.enums import AuditAction, SessionType
from data_layer.errors import AuthenticationError, InvalidValueError, OverloadedError, SecondFactorRequiredError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.repositories.users import Credentials
from data_layer.schemas.actors import ANONYMOUS
from data_layer.schemas.factors import FactorProof, PasskeyChallenge
from data_layer.schemas.sessions import GeoLocation, NewSession, TokenPair
from data_layer.schemas.users import UserFull
from data_layer.services.accounts import passkeys
from data_layer.services.accounts.addresses import login_name
from data_layer.services.accounts.challenges import LIFETIME, LOG_IN, invalid_challenge
from data_layer.services.accounts.dependencies import (
    AccountDependencies,
    changed,
    check_usable,
    own_entry,
    require_usable,
)
from data_layer.services.accounts.second_factors import SecondFactors
from data_layer.services.accounts.throttle import (
    Attempt,
    LoginAttempts,
    LoginThrottle,
    record_failed_login,
    wrong_credentials,
)

_LONGEST_TEXT = 255
_WITH_PASSWORD = {
    "code": "Logged in with a password and an authenticator app",
    "passkey": "Logged in with a password and a passkey",
    "recovery_code": "Logged in with a password and a recovery code",
}

_Known: TypeAlias = "AbstractAsyncContextManager[tuple[UnitOfWork, User]]"
"""An account whose owner has shown enough to log in, in the transaction that verified it."""


class Login:
    """Logging in with address and password, and with a second factor where the account has one."""

    def __init__(
        self,
        dependencies: AccountDependencies,
        throttle: LoginThrottle,
        attempts: LoginAttempts,
        factors: SecondFactors,
    ) -> None:
        self._dependencies = dependencies
        self._throttle = throttle
        self._attempts = attempts
        self._factors = factors

    async def authenticate(self, email: str, password: str, *, reactivate: bool = False) -> UserFull:
        """The account that address and password belong to; ``log_in`` begins a session for it as well.

        Where the attempt comes from is taken from ``request_context``; ``throttle`` describes how failed ones delay the
        next. An unknown address, a wrong password and an account without a password get the same answer after the same
        work. Only the right password learns that the account is suspended, deactivated or not verified.

        Args:
            email: the address, in any letter case.
            password: the password.
            reactivate: whether a deactivated account is to be active again.

        Raises:
            InvalidCredentialsError: address or password is wrong.
            TooManyAttemptsError: too many failed lately; ``retry_after`` says how long to wait.
            AccountSuspendedError: see above.
            AccountInactiveError: see above.
            EmailNotVerifiedError: see above.
            SecondFactorRequiredError: the password is right, and the account has a second factor; see
                ``finish_log_in``.
            OverloadedError: too many passwords wait to be checked.
        """
        async with self._with_verified_user(email, password, reactivate=reactivate) as (_, user):
            return UserFull.model_validate(user)

    async def knows_network(self, email: str) -> bool:
        """Whether the owner of the account was here lately, in the network that ``request_context`` names."""
        async with self._dependencies.transactions() as tx:
            return await self._throttle.is_known(tx, login_name(email), current_context().ip_address)

    async def log_in(
        self,
        email: str,
        password: str,
        *,
        kind: SessionType = SessionType.WEB,
        device_id: str | None = None,
        place: GeoLocation | None = None,
        reactivate: bool = False,
    ) -> NewSession:
        """Authenticate, and begin a session in the same transaction.

        So replacing a password, or suspending an account, ends all sessions that began by what was true before:
        none begins a moment later by a password that was right a moment ago.

        Raises:
            AuthenticationError: see ``authenticate``.
            OverloadedError: see ``authenticate``.
        """
        who = self._with_verified_user(email, password, reactivate=reactivate)
        return await self._begin(who, kind, device_id, place)

    async def log_in_for_tokens(
        self,
        email: str,
        password: str,
        *,
        kind: SessionType = SessionType.API,
        device_id: str | None = None,
        place: GeoLocation | None = None,
        reactivate: bool = False,
    ) -> TokenPair:
        """The same for a client that holds an access token and a refresh token; see ``data.tokens``.

        Raises:
            AuthenticationError: see ``authenticate``.
            OverloadedError: see ``authenticate``.
        """
        who = self._with_verified_user(email, password, reactivate=reactivate)
        return await self._begin_tokens(who, kind, device_id, place)

    async def begin_passkey_log_in(self, *, reactivate: bool = False) -> PasskeyChallenge:
        """Return what a passkey answers in place of a password; ``finish_log_in`` takes what it answers.

        The device lets people choose among the passkeys that it keeps for this domain, and must verify who they are,
        by a PIN or a finger: so the passkey counts as both factors.

        Args:
            reactivate: whether a deactivated account is to be active again.
        """
        challenge, signed = self._factors.challenges.make(LOG_IN, None, reactivate=reactivate)
        options = passkeys.options_for_anybody(self._factors.site, signed)
        return PasskeyChallenge(challenge=SecretStr(challenge), options=options, expires_in=LIFETIME)

    async def finish_log_in(
        self,
        challenge: str,
        proof: FactorProof,
        *,
        kind: SessionType = SessionType.WEB,
        device_id: str | None = None,
        place: GeoLocation | None = None,
    ) -> NewSession:
        """Answer the challenge of a SecondFactorRequiredError, or of ``begin_passkey_log_in``, and begin the session.

        Wrong answers count as failed logins.

        Raises:
            InvalidLoginError: the challenge is not in force; begin again.
            InvalidSecondFactorError: the proof is not right, or was used before.
            AuthenticationError: see ``authenticate``.
        """
        return await self._begin(self._with_proven_user(challenge, proof), kind, device_id, place)

    async def finish_log_in_for_tokens(
        self,
        challenge: str,
        proof: FactorProof,
        *,
        kind: SessionType = SessionType.API,
        device_id: str | None = None,
        place: GeoLocation | None = None,
    ) -> TokenPair:
        """The same for ``log_in_for_tokens``.

        Raises:
            AuthenticationError: see ``finish_log_in``.
        """
        return await self._begin_tokens(self._with_proven_user(challenge, proof), kind, device_id, place)

    async def finish_authentication(self, challenge: str, proof: FactorProof) -> UserFull:
        """The same for ``authenticate``.

        Raises:
            AuthenticationError: see ``finish_log_in``.
        """
        async with self._with_proven_user(challenge, proof) as (_, user):
            return UserFull.model_validate(user)

    async def _begin(
        self, who: _Known, kind: SessionType, device_id: str | None, place: GeoLocation | None
    ) -> NewSession:
        check_texts(device_id, place)
        async with who as (tx, user):
            return await self._dependencies.sessions.begin(tx, user.id, kind=kind, device_id=device_id, place=place)

    async def _begin_tokens(
        self, who: _Known, kind: SessionType, device_id: str | None, place: GeoLocation | None
    ) -> TokenPair:
        check_texts(device_id, place)
        async with who as (tx, user):
            new = await self._dependencies.sessions.begin(tx, user.id, kind=kind, device_id=device_id, place=place)
            return await self._dependencies.tokens.begin(tx, new.session)

    @asynccontextmanager
    async def _with_proven_user(self, challenge: str, proof: FactorProof) -> AsyncIterator[tuple[UnitOfWork, User]]:
        """Yield the user after both factors, or a passkey alone, were proven, and the transaction that proved them."""
        pending = self._factors.challenges.read(LOG_IN, challenge)
        is_alone = pending.user_id is None
        async with self._dependencies.transactions() as tx:
            try:
                user_id = pending.user_id or await self._factors.owner_of(tx, proof)
            except AuthenticationError as error:
                record_failed_login(self._dependencies.audit, None, error)
                raise
            known = await tx.users.find_one(id=user_id)
        if known is None:
            raise invalid_challenge()
        async with self._attempts.with_factor(known.email, proof) as attempt, self._dependencies.transactions() as tx:
            await self._attempts.give_back(tx, attempt)
            user = await tx.users.get(user_id, lock=True)
            if not is_alone:
                stored = await tx.users.secret(user_id, "password_hash")
                self._factors.challenges.check(LOG_IN, challenge, user_id, stored)
            shown = await self._factors.use(tx, user_id, proof, pending)
            how = "Logged in with a passkey" if is_alone else _WITH_PASSWORD[shown]
            await self._complete_login(tx, attempt, user, how, reactivate=pending.reactivate)
            yield tx, user

    @asynccontextmanager
    async def _with_verified_user(
        self, email: str, password: str, *, reactivate: bool
    ) -> AsyncIterator[tuple[UnitOfWork, User]]:
        """Yield the user whom the password proves, and the transaction in which it is known to be right.

        The transaction is committed at the end of the block. Where a second factor is needed it holds another hash of
        the password at most, and the attempt is given back: the password was right, and nobody is in yet.
        """
        challenge = None
        async with self._attempts.with_password(login_name(email), password) as attempt:
            renewed = await self._renew(attempt, password)
            async with self._dependencies.transactions() as tx:
                await self._attempts.give_back(tx, attempt)
                user = await self._lock(tx, attempt.proven())
                if renewed is not None:
                    user.password_hash = renewed
                if factors := await tx.second_factors.confirmed(user.id):
                    check_usable(user, reactivate=reactivate)
                    stored = renewed or attempt.proven().password_hash
                    challenge = self._factors.ask(LOG_IN, user, factors, password_hash=stored, reactivate=reactivate)
                else:
                    await self._complete_login(tx, attempt, user, "Logged in", reactivate=reactivate)
                    yield tx, user
        if challenge is not None:
            raise SecondFactorRequiredError("the password is right; now show a second factor", challenge=challenge)

    async def _lock(self, tx: UnitOfWork, found: Credentials) -> User:
        """Return the account, which still has the password that was right."""
        user = await tx.users.get(found.user_id, lock=True)
        if await tx.users.secret(user.id, "password_hash") != found.password_hash:
            raise wrong_credentials()
        return user

    async def _renew(self, attempt: Attempt, password: str) -> str | None:
        """A hash of today's rounds for a right password whose hash has others."""
        stored = attempt.found.password_hash if attempt.found else None
        if not attempt.is_right or stored is None or not self._dependencies.passwords.needs_rehash(stored):
            return None
        try:
            return await self._dependencies.passwords.hash(password)
        except OverloadedError:
            return None

    async def _complete_login(
        self, tx: UnitOfWork, attempt: Attempt, user: User, description: str, *, reactivate: bool
    ) -> None:
        if require_usable(user, reactivate=reactivate):
            tx.add(changed(ANONYMOUS, AuditAction.USER_UPDATE_PROFILE, user, "Reactivated by logging in"))
        await self._attempts.succeed(tx, attempt)
        await record_login(tx, user, description)


def check_texts(device_id: str | None, place: GeoLocation | None) -> None:
    """Refuse what a session cannot hold before the password is looked at: an error afterwards would prove it right."""
    texts = {"device_id": device_id, **(place.model_dump() if place else {})}
    for name, value in texts.items():
        if value is None:
            continue
        if len(value) > _LONGEST_TEXT or "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
            raise InvalidValueError(
                f"{name} must be text of {_LONGEST_TEXT} characters at most, without NUL and half surrogate pairs",
                field=name,
            )


async def record_login(tx: UnitOfWork, user: User, description: str, **fields: Any) -> None:
    """Count a login that succeeded, and write it down."""
    context = current_context()
    await tx.flush()
    await tx.users.record_login(user, ip_address=context.ip_address, user_agent=context.user_agent)
    tx.add(own_entry(ANONYMOUS, AuditAction.USER_LOGIN, user.id, description, **fields))
