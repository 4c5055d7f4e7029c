"""Attempts to show a password or a second factor: counted, compared, and written down when they fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from data_layer.context import current_context
from data_layer.entities.enums import AuditAction
from data_layer.errors import (
    AuthenticationError,
    CommitUnknownError,
    DataLayerError,
    InvalidCredentialsError,
    TooManyAttemptsError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.repositories.users import Credentials
from data_layer.schemas.factors import FactorProof
from data_layer.services.accounts.second_factors import kind_of
from data_layer.services.accounts.throttle import Admission, LoginThrottle
from data_layer.services.accounts.tools import AccountDependencies
from data_layer.services.audit.service import AuditService

log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One that was counted; whether its password is right, if it shows one."""

    name: str
    admission: Admission
    found: Credentials | None
    is_right: bool = False

    def proven(self) -> Credentials:
        """What the password was right for.

        Raises:
            InvalidCredentialsError: when it was not.
        """
        if self.found is None or not self.is_right:
            raise wrong_credentials()
        return self.found


class LoginAttempts:
    """Let somebody show a password, or a second factor, within the limits of the throttle.

    An attempt is counted before anything is compared. A block that finds it right calls ``give_back`` in its
    transaction, before it locks the user's row. When it fails with an AuthenticationError the attempt stays counted,
    and is written down; after any other error, which says nothing of what was shown, it is given back.
    """

    def __init__(self, dependencies: AccountDependencies, throttle: LoginThrottle) -> None:
        self._dependencies = dependencies
        self._throttle = throttle

    @asynccontextmanager
    async def with_password(self, name: str, password: str) -> AsyncIterator[Attempt]:
        """Compare a password with that of an address: the same statements and the same work for every address.

        Raises:
            InvalidCredentialsError: address or password is wrong.
            TooManyAttemptsError: too many failed lately; nothing was compared.
            OverloadedError: too many passwords wait; the attempt does not count.
        """
        async with self._counted(name) as attempt:
            stored = attempt.found.password_hash if attempt.found else None
            shown = replace(attempt, is_right=await self._dependencies.passwords.verify(password, stored))
            shown.proven()
            yield shown

    @asynccontextmanager
    async def with_factor(self, name: str, proof: FactorProof) -> AsyncIterator[Attempt]:
        """Count an attempt of an address to show a second factor, which the block checks.

        Raises:
            TooManyAttemptsError: too many failed lately.
            InvalidValueError: the proof is not exactly one; the attempt does not count.
        """
        kind_of(proof)
        async with self._counted(name) as attempt:
            yield attempt

    async def give_back(self, tx: UnitOfWork, attempt: Attempt) -> None:
        """Stop counting an attempt. Levels are locked before the user's row, as when it was counted."""
        await self._throttle.give_back(tx, attempt.admission)
        await tx.users.take_back_attempt(attempt.name, attempt.admission.locked_until)

    async def succeed(self, tx: UnitOfWork, attempt: Attempt) -> None:
        """Remember where somebody has come in, after ``give_back``."""
        await self._throttle.succeed(tx, attempt.admission)

    @asynccontextmanager
    async def _counted(self, name: str) -> AsyncIterator[Attempt]:
        try:
            async with self._dependencies.transactions() as tx:
                admission = await self._throttle.admit(tx, name, current_context().ip_address)
                attempt = Attempt(name, admission, await tx.users.note_attempt(name, admission.locked_until))
        except TooManyAttemptsError as error:
            log.info("login_delayed", seconds=error.retry_after)
            raise
        try:
            yield attempt
        except AuthenticationError as error:
            self._record_failure(attempt, error)
            raise
        except CommitUnknownError:
            raise  # Perhaps it was given back.
        except Exception:
            await self._give_back_alone(attempt)
            raise

    async def _give_back_alone(self, attempt: Attempt) -> None:
        try:
            async with self._dependencies.transactions() as tx:
                await self.give_back(tx, attempt)
        except DataLayerError as error:  # Of no interest beside the error that is raised.
            log.warning("attempt_not_given_back", reason=error.code)

    def _record_failure(self, attempt: Attempt, error: AuthenticationError) -> None:
        """Write down that an attempt failed; never the address that was tried, which may be a password by mistake.

        It belongs to no transaction, and an attacker makes many: so it waits for nothing.
        """
        user_id = attempt.found.user_id if attempt.found else None
        record_failed_login(self._dependencies.audit, user_id, error)
        if attempt.admission.is_last_for_now:
            self._dependencies.audit.record_soon(
                AuditAction.SECURITY_ACCOUNT_LOCKED,
                "Further logins have to wait",
                user_id=user_id,
                resource_type="user" if user_id else None,
                resource_id=user_id,
            )


def record_failed_login(audit: AuditService, user_id: UUID | None, error: AuthenticationError) -> None:
    """Write down that somebody could not come in, and why."""
    log.info("login_failed", user_id=user_id, reason=error.code)
    audit.record_soon(
        AuditAction.SECURITY_LOGIN_FAILED,
        "Login failed",
        user_id=user_id,
        resource_type="user" if user_id else None,
        resource_id=user_id,
        error_message=error.code,
    )


def wrong_credentials() -> InvalidCredentialsError:
    """The one answer for unknown addresses, wrong passwords and accounts without a password."""
    return InvalidCredentialsError("the address or the password is wrong")
