"""One attempt to show a password: counted, compared, and written down when it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from data_layer.context import current_context
from data_layer.entities.enums import AuditAction
from data_layer.errors import AuthenticationError, InvalidCredentialsError, OverloadedError, TooManyAttemptsError
from data_layer.observability.log import get_log
from data_layer.repositories.users import Credentials
from data_layer.services.accounts.throttle import Admission, LoginThrottle
from data_layer.services.accounts.tools import AccountDependencies

if TYPE_CHECKING:
    from data_layer.services.audit.service import AuditService

log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came out of it."""

    admission: Admission
    found: Credentials | None
    is_right: bool

    def proven(self) -> Credentials:
        """What the password was right for.

        Raises:
            InvalidCredentialsError: when it was not.
        """
        if self.found is None or not self.is_right:
            raise wrong_credentials()
        return self.found


class PasswordAttempts:
    """Compare passwords that somebody shows, within the limits of the throttle."""

    def __init__(self, dependencies: AccountDependencies, throttle: LoginThrottle) -> None:
        self._dependencies = dependencies
        self._throttle = throttle

    async def make(self, name: str, password: str) -> Attempt:
        """Compare a password with that of an address: the same statements and the same work for every address.

        Raises:
            TooManyAttemptsError: too many failed lately; nothing was compared.
            OverloadedError: too many passwords wait; the attempt does not count.
        """
        try:
            async with self._dependencies.transactions() as tx:
                admission = await self._throttle.admit(tx, name, current_context().ip_address)
                found = await tx.users.note_attempt(name, admission.locked_until)
        except TooManyAttemptsError as error:
            log.info("login_delayed", seconds=error.retry_after)
            raise
        try:
            is_right = await self._dependencies.passwords.verify(password, found.password_hash if found else None)
        except OverloadedError:
            async with self._dependencies.transactions() as tx:
                await self._throttle.give_back(tx, admission)
            raise
        return Attempt(admission, found, is_right)

    def record_failure(self, attempt: Attempt, error: AuthenticationError) -> None:
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
