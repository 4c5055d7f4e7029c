"""Changing a password that one knows, and replacing one that one has forgotten."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from data_layer.context import current_context
from data_layer.entities import User
from data_layer.entities.changes import changes_of
from data_layer.entities.enums import AuditAction, UserStatus
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import ANONYMOUS, Actor
from data_layer.schemas.users import UserAdmin, UserFull
from data_layer.services.accounts.addresses import login_name
from data_layer.services.accounts.dependencies import (
    AccountDependencies,
    MailedTokens,
    admin_entry,
    changed,
    check_password_is,
    check_password_of,
    clear_token,
    load_authorized,
    mark_verified,
    own_entry,
    take_from_strangers,
    was_mailed_lately,
)
from data_layer.services.accounts.one_time_tokens import OneTimeToken, Purpose, invalid_token
from data_layer.services.accounts.throttle import LoginAttempts, LoginThrottle
from data_layer.services.permissions import Permission

log = get_log(__name__)


class PasswordChanges:
    """Passwords that are replaced."""

    def __init__(
        self,
        dependencies: AccountDependencies,
        throttle: LoginThrottle,
        attempts: LoginAttempts,
        tokens: MailedTokens,
    ) -> None:
        self._dependencies = dependencies
        self._throttle = throttle
        self._attempts = attempts
        self._tokens = tokens

    async def change_password(self, actor: Actor, user_id: UUID, *, current: str, new: str) -> None:
        """Replace one's own password. All other sessions end; the one in ``request_context`` stays.

        Somebody who found a session open must not guess the password here: failures count as failed logins.

        Raises:
            PermissionDeniedError: for anybody but the owner.
            InvalidCredentialsError: the current password is wrong, or there is none: reset it by mail then.
            TooManyAttemptsError: too many failed lately.
            WeakPasswordError: see ``passwords.check_new_password``.
            ChangedMeanwhileError: the password was changed elsewhere at the same moment.
            OverloadedError: too many passwords wait to be checked.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.CHANGE_PASSWORD, user_id)
            check_password_of(user, new, minimum=self._dependencies.settings.password_min_length, field="new")
            email = user.email
        async with self._attempts.with_password(email, current) as attempt:
            hashed = await self._dependencies.passwords.hash(new)
            async with self._dependencies.transactions() as tx:
                await self._attempts.give_back(tx, attempt)
                user = await load_authorized(tx, actor, Permission.CHANGE_PASSWORD, user_id)
                await check_password_is(tx, user_id, attempt.proven().password_hash)
                await self._replace(
                    tx, actor, user, hashed, AuditAction.USER_CHANGE_PASSWORD, keep=current_context().session_id
                )
        log.info("password_replaced", user_id=user_id, way="changed")

    async def request_password_reset(self, email: str, *, by_mail: bool = False) -> OneTimeToken | None:
        """A token to mail to an address, by which its owner can choose a new password within an hour.

        Answer every caller alike, and before calling this, so that the time discloses nothing. Then mail what there
        is: nothing for an unknown address or an account that is suspended or deactivated, and within five minutes of
        the last mail.

        Args:
            email: the address.
            by_mail: queue the mail for ``data.mails`` in the same transaction; no token is returned then.
        """
        async with self._dependencies.transactions() as tx:
            user = await tx.users.find_one(email=login_name(email))
            if user is None:
                return None
            user = await tx.users.get(user.id, lock=True)
            if not _may_reset(user) or was_mailed_lately(user, Purpose.RESET_PASSWORD):
                return None
            tx.add(own_entry(ANONYMOUS, AuditAction.USER_RESET_PASSWORD, user.id, "Asked for a new password"))
            if not by_mail:
                return self._tokens.issue(user, Purpose.RESET_PASSWORD)
            self._tokens.issue_by_mail(tx, user, Purpose.RESET_PASSWORD)
        self._tokens.wake()
        return None

    async def mail_password_reset(self, actor: Actor, user_id: UUID) -> UserAdmin:
        """Queue the mail of ``request_password_reset`` for somebody, who asked a moderator for it.

        Nothing is queued within five minutes of the last mail, nor for an account that is suspended or deactivated.

        Raises:
            PermissionDeniedError: for anybody but moderators.
            NotFoundError: the account does not exist.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.READ_ACCOUNT_AS_ADMIN, user_id)
            is_due = _may_reset(user) and not was_mailed_lately(user, Purpose.RESET_PASSWORD)
            if is_due:
                entry = admin_entry(actor, AuditAction.USER_RESET_PASSWORD, user_id, "Had a link for a password mailed")
                tx.add(entry)
                self._tokens.issue_by_mail(tx, user, Purpose.RESET_PASSWORD)
            view = UserAdmin.model_validate(user)
        if is_due:
            self._tokens.wake()
        return view

    async def reset_password(self, token: str, password: str) -> UserFull:
        """Choose a new password with a mailed token.

        All sessions end, and failed logins are forgotten, so that who owns the mailbox always gets in. The mail also
        proves the address.

        Raises:
            InvalidOneTimeTokenError: when the token is unknown, expired or used. It is checked before the password.
            WeakPasswordError: see ``passwords.check_new_password``; the token still works then.
            OverloadedError: too many passwords wait to be hashed; the token still works then.
        """
        # Looked at first, and not yet used up: hashing is costly, and strangers may send anything.
        async with self._dependencies.transactions() as tx:
            user = await self._tokens.owner_of(tx, Purpose.RESET_PASSWORD, token)
            check_password_of(user, password, minimum=self._dependencies.settings.password_min_length)
            email = user.email
        hashed = await self._dependencies.passwords.hash(password)
        async with self._dependencies.transactions() as tx:
            # Levels before the user's row, as logging in locks them.
            await self._throttle.forget(tx, email)
            user = await self._tokens.owner_of(tx, Purpose.RESET_PASSWORD, token)
            if not _may_reset(user):
                raise invalid_token()
            if not user.email_verified:
                await take_from_strangers(tx, user, reason="password_reset")
            mark_verified(user)
            await self._replace(tx, ANONYMOUS, user, hashed, AuditAction.USER_RESET_PASSWORD)
            view = UserFull.model_validate(user)
        async with self._dependencies.transactions() as tx:  # Its pair may be new, so not after all others are locked.
            await self._throttle.remember(tx, email, current_context().ip_address)
        log.info("password_replaced", user_id=view.id, way="reset")
        return view

    async def set_password(self, actor: Actor, user_id: UUID, password: str) -> UserAdmin:
        """Give an account another password, for a person who gets no mail. All sessions end, and waiting ends.

        Args:
            actor: the system alone: an administrator who could do this could be anybody.
            user_id: whose.
            password: the password.

        Raises:
            WeakPasswordError: see ``passwords.check_new_password``.
            NotFoundError: the account does not exist.
            OverloadedError: too many passwords wait to be hashed.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.SET_PASSWORD, user_id)
            check_password_of(user, password, minimum=self._dependencies.settings.password_min_length)
            email = user.email
        hashed = await self._dependencies.passwords.hash(password)
        async with self._dependencies.transactions() as tx:
            await self._throttle.forget(tx, email)  # Levels before the user's row, as logging in locks them.
            user = await load_authorized(tx, actor, Permission.SET_PASSWORD, user_id)
            await self._replace(tx, actor, user, hashed, AuditAction.ADMIN_USER_UPDATE)
            view = UserAdmin.model_validate(user)
        log.info("password_replaced", user_id=user_id, way="set")
        return view

    async def _replace(
        self, tx: UnitOfWork, actor: Actor, user: User, hashed: str, action: AuditAction, *, keep: UUID | None = None
    ) -> None:
        """Store a new password; the old one and mailed tokens no longer work."""
        user.password_hash = hashed
        user.password_changed_at = datetime.now(UTC)
        clear_token(user, Purpose.RESET_PASSWORD)
        if action is AuditAction.ADMIN_USER_UPDATE:
            tx.add(admin_entry(actor, action, user.id, "Set a password", **changes_of(user)._asdict()))
        else:
            tx.add(changed(actor, action, user, "Chose a new password"))
        await tx.flush()
        await tx.users.forget_failures(user.id)
        await tx.sessions.end_all(user.id, action, keep=keep)


def _may_reset(user: User) -> bool:
    return not user.is_erased and user.status in {UserStatus.ACTIVE, UserStatus.PENDING}
