"""Logging in with a password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from data_layer.context import current_context
from data_layer.entities import User
from data_layer.entities.enums import AuditAction, SessionType
from data_layer.errors import AuthenticationError, InvalidValueError, OverloadedError
from data_layer.repositories.users import Credentials
from data_layer.schemas.actors import ANONYMOUS
from data_layer.schemas.sessions import NewSession, Place, TokenPair
from data_layer.schemas.users import UserFull
from data_layer.services.accounts.addresses import login_name
from data_layer.services.accounts.attempts import Attempt, Attempts, wrong_credentials
from data_layer.services.accounts.tools import changed, own_entry, require_usable

if TYPE_CHECKING:
    from data_layer.repositories.unit_of_work import UnitOfWork

Result = TypeVar("Result")

_LONGEST_TEXT = 255


class Login(Attempts):
    """Who somebody is, by address and password."""

    async def authenticate(self, email: str, password: str, *, reactivate: bool = False) -> UserFull:
        """The account that address and password belong to; ``log_in`` begins a session for it as well.

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

        async def view(_: UnitOfWork, user: User) -> UserFull:
            return UserFull.model_validate(user)

        return await self._pass(email, password, view, reactivate=reactivate)

    async def log_in(
        self,
        email: str,
        password: str,
        *,
        kind: SessionType = SessionType.WEB,
        device_id: str | None = None,
        place: Place | None = None,
        reactivate: bool = False,
    ) -> NewSession:
        """Authenticate, and begin a session in the same transaction.

        So whoever replaces a password, or suspends an account, ends all sessions that began by what was true before:
        none begins a moment later by a password that was right a moment ago.

        Raises:
            AuthenticationError: see ``authenticate``.
            OverloadedError: see ``authenticate``.
        """
        _check_texts(device_id, place)

        async def begin(tx: UnitOfWork, user: User) -> NewSession:
            return await self._tools.sessions.begin(tx, user.id, kind=kind, device_id=device_id, place=place)

        return await self._pass(email, password, begin, reactivate=reactivate)

    async def log_in_for_tokens(
        self,
        email: str,
        password: str,
        *,
        kind: SessionType = SessionType.API,
        device_id: str | None = None,
        place: Place | None = None,
        reactivate: bool = False,
    ) -> TokenPair:
        """The same for a client that holds an access token and a refresh token; see ``data.tokens``.

        Raises:
            AuthenticationError: see ``authenticate``.
            OverloadedError: see ``authenticate``.
        """
        _check_texts(device_id, place)

        async def begin(tx: UnitOfWork, user: User) -> TokenPair:
            new = await self._tools.sessions.begin(tx, user.id, kind=kind, device_id=device_id, place=place)
            return await self._tools.tokens.begin(tx, new.session)

        return await self._pass(email, password, begin, reactivate=reactivate)

    async def _pass(
        self, email: str, password: str, then: Callable[[UnitOfWork, User], Awaitable[Result]], *, reactivate: bool
    ) -> Result:
        """Check the password, and do something in the transaction in which it is known to be right."""
        attempt = await self._attempt(login_name(email), password)
        try:
            found, renewed = attempt.proven(), await self._renew(attempt, password)
            async with self._tools.transactions() as tx:
                user = await self._enter(tx, attempt, found, renewed, reactivate=reactivate)
                return await then(tx, user)
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

    async def _enter(
        self, tx: UnitOfWork, attempt: Attempt, found: Credentials, renewed: str | None, *, reactivate: bool
    ) -> User:
        await self._throttle.succeed(tx, attempt.admission)
        user = await tx.users.get(found.user_id, lock=True)
        if await tx.users.secret(user.id, "password_hash") != found.password_hash:
            raise wrong_credentials()
        if require_usable(user, reactivate=reactivate):
            tx.add(changed(ANONYMOUS, AuditAction.USER_UPDATE_PROFILE, user, "Reactivated by logging in"))
        if renewed is not None:
            user.password_hash = renewed
        await record_login(tx, user, "Logged in")
        return user


def _check_texts(device_id: str | None, place: Place | None) -> None:
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


async def record_login(tx: UnitOfWork, user: User, description: str) -> None:
    """Count a login that succeeded, and write it down."""
    context = current_context()
    await tx.flush()
    await tx.users.record_login(user, ip_address=context.ip_address, user_agent=context.user_agent)
    tx.add(own_entry(ANONYMOUS, AuditAction.USER_LOGIN, user.id, description))
