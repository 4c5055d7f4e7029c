"""Registering, and proving that one reads mail at the address."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from data_layer.entities import User
from data_layer.entities.enums import AuditAction, UserRole, UserStatus
from data_layer.errors import DuplicateError, InvalidOneTimeTokenError
from data_layer.schemas.actors import ANONYMOUS, Actor
from data_layer.schemas.users import UserFull
from data_layer.services.accounts.addresses import deliverable_email, login_name
from data_layer.services.accounts.one_time_tokens import OneTimeToken, Purpose
from data_layer.services.accounts.tools import (
    AccountPart,
    admin_entry,
    changed,
    mark_verified,
    own_entry,
    take_from_strangers,
    was_mailed_lately,
)
from data_layer.services.permissions import Permission, require

if TYPE_CHECKING:
    from data_layer.repositories.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Registered:
    """A new account, and the token to mail to its address."""

    user: UserFull
    verification: OneTimeToken


class Registration(AccountPart):
    """New accounts."""

    async def register(
        self, *, email: str, password: str, first_name: str, last_name: str, display_name: str | None = None
    ) -> Registered:
        """Make an account that is open once its address is verified, and say whether the address is taken.

        For callers who may know who has an account. An address whose owner never verified it is free again once the
        token has expired.

        Raises:
            DuplicateError: somebody has the address; of several who register it at once, all but one get this.
            WeakPasswordError: see ``password_policy``.
            InvalidValueError: for an unusable address or name.
            OverloadedError: too many passwords wait to be hashed.
        """
        user = User(
            email=deliverable_email(email),
            first_name=first_name,
            last_name=last_name,
            display_name=display_name,
            status=UserStatus.PENDING,
        )
        self._check_password(password, user)
        user.password_hash = await self._tools.passwords.hash(password)
        user.password_changed_at = datetime.now(UTC)
        async with self._tools.transactions() as tx:
            await self._make_room(tx, user.email)
            verification = self._issue(user, Purpose.VERIFY_EMAIL)
            await _insert(tx, user)
            tx.add(own_entry(ANONYMOUS, AuditAction.USER_REGISTER, user.id, "Registered"))
        return Registered(UserFull.model_validate(user), verification)

    async def request_registration(
        self, *, email: str, password: str, first_name: str, last_name: str, display_name: str | None = None
    ) -> OneTimeToken | None:
        """The same for a public form, which must not tell who has an account.

        Answer every caller alike, such as "we have sent you a mail", after about the same time; then send the mail:
        with the token, or without one a note that somebody tried to register an address that has an account already.

        Raises:
            WeakPasswordError: see ``password_policy``.
            InvalidValueError: for an unusable address or name.
            OverloadedError: too many passwords wait to be hashed.
        """
        try:
            registered = await self.register(
                email=email, password=password, first_name=first_name, last_name=last_name, display_name=display_name
            )
        except DuplicateError:
            await self._note_second_registration(deliverable_email(email))
            return None
        return registered.verification

    async def request_email_verification(self, email: str) -> OneTimeToken | None:
        """A new token for an address that is not verified yet.

        Answer every caller alike, and before calling this, so that the time tells nothing either. Then mail what there
        is: nothing for an unknown or verified address, and within five minutes of the last mail.
        """
        async with self._tools.transactions() as tx:
            user = await tx.users.find_one(email=login_name(email))
            if user is None or user.email_verified:
                return None
            user = await tx.users.get(user.id, lock=True)
            if user.is_erased or user.email_verified or was_mailed_lately(user, Purpose.VERIFY_EMAIL):
                return None
            return self._issue(user, Purpose.VERIFY_ADDRESS)

    async def verify_email(self, token: str) -> UserFull:
        """Take a mailed token as proof that the person reads mail at the address; a new account is open then.

        Sessions and external identities from before are removed, because nobody knew whose they were. The password
        stays only with the token of the registration in which it was chosen: with one that was asked for later, the
        person may be another one than who registered, and chooses a password by resetting it.

        Raises:
            InvalidOneTimeTokenError: when it is unknown, expired or used.
        """
        async with self._tools.transactions() as tx:
            user, is_registering = await self._owner_who_verifies(tx, token)
            if not user.email_verified:
                await take_from_strangers(tx, user, reason="address_verified", keep_password=is_registering)
            mark_verified(user)
            tx.add(changed(ANONYMOUS, AuditAction.USER_VERIFY_EMAIL, user, "Verified the address"))
            await tx.flush()
            return UserFull.model_validate(user)

    async def _owner_who_verifies(self, tx: UnitOfWork, token: str) -> tuple[User, bool]:
        """The account of a token, and whether it is the one of the registration."""
        try:
            return await self._owner_of(tx, Purpose.VERIFY_EMAIL, token), True
        except InvalidOneTimeTokenError:
            return await self._owner_of(tx, Purpose.VERIFY_ADDRESS, token), False

    async def create(
        self,
        actor: Actor,
        *,
        email: str,
        first_name: str,
        last_name: str,
        display_name: str | None = None,
        password: str | None = None,
        role: UserRole = UserRole.USER,
        email_verified: bool = False,
    ) -> UserFull:
        """Make an account for somebody else; it is open at once.

        Args:
            actor: an administrator, or the system.
            email: the address; for ``email_verified`` the actor vouches that the person reads mail there.
            first_name: the first name.
            last_name: the last name.
            display_name: what others see.
            password: none for somebody who will choose one by resetting it, or log in by an external identity.
            role: the role.
            email_verified: see above.

        Raises:
            PermissionDeniedError: for anybody else.
            DuplicateError: somebody has the address.
            WeakPasswordError: see ``password_policy``.
            InvalidValueError: for an unusable address or name.
        """
        require(actor, Permission.CREATE_ACCOUNT)
        user = User(
            email=deliverable_email(email),
            first_name=first_name,
            last_name=last_name,
            display_name=display_name,
            role=role,
            email_verified=email_verified,
            email_verified_at=datetime.now(UTC) if email_verified else None,
        )
        if password is not None:
            self._check_password(password, user)
            user.password_hash = await self._tools.passwords.hash(password)
            user.password_changed_at = datetime.now(UTC)
        async with self._tools.transactions() as tx:
            await self._confirm(tx, actor, Permission.CREATE_ACCOUNT)
            await self._make_room(tx, user.email)
            await _insert(tx, user)
            values = {"role": role, "email_verified": email_verified}
            tx.add(admin_entry(actor, AuditAction.ADMIN_USER_CREATE, user.id, "Created an account", new_values=values))
        return UserFull.model_validate(user)

    async def _make_room(self, tx: UnitOfWork, email: str) -> None:
        """An address that nobody verified in time is no longer kept for who claimed it."""
        claimed = await tx.users.find_one(email=email, status=UserStatus.PENDING)
        if claimed is None or claimed.email_verified:
            return
        expires_at = claimed.email_verification_expires_at
        if expires_at is not None and expires_at <= datetime.now(UTC):
            await self._throttle.forget(tx, email)
            locked = await tx.users.get(claimed.id, lock=True)
            if locked.status is UserStatus.PENDING and locked.email_verification_expires_at == expires_at:
                tx.add(own_entry(ANONYMOUS, AuditAction.USER_DELETE_ACCOUNT, locked.id, "Never verified the address"))
                await tx.users.delete(locked)

    async def _note_second_registration(self, email: str) -> None:
        async with self._tools.transactions() as tx:
            user = await tx.users.find_one(email=email)
            if user is not None:
                entry = own_entry(
                    ANONYMOUS, AuditAction.USER_REGISTER, user.id, "Tried to register an address that is taken"
                )
                entry.is_success = False
                tx.add(entry)


async def _insert(tx: UnitOfWork, user: User) -> None:
    """Alone, so that a taken address, which is no surprise, fails before other statements are under way."""
    tx.add(user)
    await tx.flush()
