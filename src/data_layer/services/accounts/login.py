"""Logging in with a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.context import current_context
from data_layer.entities.enums import AuditAction
from data_layer.errors import AuthenticationError, OverloadedError
from data_layer.schemas.actors import ANONYMOUS
from data_layer.schemas.users import UserFull
from data_layer.services.accounts.addresses import login_name
from data_layer.services.accounts.attempts import Attempts, wrong_credentials
from data_layer.services.accounts.tools import changed, own_entry, require_usable

if TYPE_CHECKING:
    from data_layer.entities import User
    from data_layer.repositories.unit_of_work import UnitOfWork
    from data_layer.repositories.users import Credentials
    from data_layer.services.accounts.attempts import Attempt


class Login(Attempts):
    """Who somebody is, by address and password."""

    async def authenticate(self, email: str, password: str, *, reactivate: bool = False) -> UserFull:
        """The account that address and password belong to; begin a session for it with ``data.sessions.create``.

        Where the attempt comes from is taken from ``request_context``; ``throttle`` tells how failed ones slow down the
        next. An unknown address, a wrong password and an account without a password get the same answer after the same
        work. Only the right password is told that the account is suspended, deactivated or not verified.

        Args:
            email: the address, in any letter case.
            password: the password.
            reactivate: whether somebody who has deactivated the account wants it back.

        Raises:
            InvalidCredentialsError: address or password is wrong.
            TooManyAttemptsError: too many failed lately; ``retry_after`` says how long to wait.
            AccountSuspendedError: see above.
            AccountInactiveError: see above.
            EmailNotVerifiedError: see above.
            OverloadedError: too many passwords wait to be checked.
        """
        attempt = await self._attempt(login_name(email), password)
        try:
            return await self._enter(
                attempt, attempt.proven(), await self._renew(attempt, password), reactivate=reactivate
            )
        except AuthenticationError as error:
            self._record_failure(attempt, error)
            raise

    async def _renew(self, attempt: Attempt, password: str) -> str | None:
        """A hash of today's rounds for a right password whose hash has others."""
        stored = attempt.found.password_hash if attempt.found else None
        if not attempt.is_right or stored is None or not self._tools.passwords.needs_rehash(stored):
            return None
        try:
            return await self._tools.passwords.hash(password)
        except OverloadedError:
            return None

    async def _enter(self, attempt: Attempt, found: Credentials, renewed: str | None, *, reactivate: bool) -> UserFull:
        async with self._tools.transactions() as tx:
            await self._throttle.succeed(tx, attempt.admission)
            user = await tx.users.get(found.user_id, lock=True)
            if await tx.users.secret(user.id, "password_hash") != found.password_hash:
                raise wrong_credentials()
            if require_usable(user, reactivate=reactivate):
                tx.add(changed(ANONYMOUS, AuditAction.USER_UPDATE_PROFILE, user, "Reactivated by logging in"))
            if renewed is not None:
                user.password_hash = renewed
            await record_login(tx, user, "Logged in")
            return UserFull.model_validate(user)


async def record_login(tx: UnitOfWork, user: User, description: str) -> None:
    """Count a login that succeeded, and write it down."""
    context = current_context()
    await tx.flush()
    await tx.users.record_login(user, ip_address=context.ip_address, user_agent=context.user_agent)
    tx.add(own_entry(ANONYMOUS, AuditAction.USER_LOGIN, user.id, description))
