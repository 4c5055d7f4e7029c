"""Registering, and proving that one reads mail at the address."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any

from data_layer.context import current_context
from data_layer.entities import User
from data_layer.entities.enums import AuditAction, MailKind, UserRole, UserStatus
from data_layer.errors import DuplicateError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import ANONYMOUS, Actor
from data_layer.schemas.users import UserFull
from data_layer.services.accounts.addresses import deliverable_email, login_name
from data_layer.services.accounts.dependencies import (
    AccountDependencies,
    MailedTokens,
    admin_entry,
    changed,
    check_password_of,
    mark_verified,
    own_entry,
    reauthorize,
    take_from_strangers,
    was_mailed_lately,
)
from data_layer.services.accounts.one_time_tokens import OneTimeToken, Purpose, false_proof, owner_of, registrant_proof
from data_layer.services.accounts.throttle import LoginThrottle
from data_layer.services.permissions import Permission, require


@dataclass(frozen=True, slots=True)
class Registered:
    """A new account, and the token to mail to its address.

    ``proof`` goes to the registrant's device, never into the mail: it shows who chose the password, see
    ``verify_email``.
    """

    user: UserFull
    verification: OneTimeToken
    proof: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """The outcome of a public form: the token to mail, none where the address is taken, and a proof in any case."""

    verification: OneTimeToken | None
    proof: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifiedAddress:
    """An account whose address is verified.

    ``password_choice`` is there if it has no password now: a token for ``reset_password``, so that the person
    whose mailed token was right chooses a password at once.
    """

    user: UserFull
    password_choice: OneTimeToken | None


class Registration:
    """New accounts."""

    def __init__(self, dependencies: AccountDependencies, throttle: LoginThrottle, tokens: MailedTokens) -> None:
        self._dependencies = dependencies
        self._throttle = throttle
        self._tokens = tokens

    async def register(
        self, *, email: str, password: str, first_name: str, last_name: str, display_name: str | None = None
    ) -> Registered:
        """Make an account that is open once its address is verified, and say whether the address is taken.

        For callers who may know who has an account. An address whose owner never verified it is free again once the
        token has expired.

        Raises:
            DuplicateError: somebody has the address; of several who register it at once, all but one get this.
            WeakPasswordError: see ``passwords.check_new_password``.
            InvalidValueError: for an unusable address or name.
            OverloadedError: too many passwords wait to be hashed.
        """
        user = await self._pending(
            password, email=email, first_name=first_name, last_name=last_name, display_name=display_name
        )
        verification = self._tokens.issue(user, Purpose.VERIFY_EMAIL)
        proof = await self._store(user)
        return Registered(UserFull.model_validate(user), verification, proof)

    async def request_registration(
        self,
        *,
        email: str,
        password: str,
        first_name: str,
        last_name: str,
        display_name: str | None = None,
        by_mail: bool = False,
    ) -> RegistrationRequest:
        """The same for a public form, which must not disclose who has an account.

        Answer every caller alike, such as "we have sent you a mail", after about the same time, with the proof, which
        the caller's device keeps; then send the mail: with the token, or without one a note that somebody tried to
        register an address that has an account already.

        Args:
            email: the address.
            password: the password.
            first_name: the first name.
            last_name: the last name.
            display_name: what others see.
            by_mail: queue the mail for ``data.mails`` in the same transaction; no token is returned then.

        Raises:
            WeakPasswordError: see ``passwords.check_new_password``.
            InvalidValueError: for an unusable address or name.
            OverloadedError: too many passwords wait to be hashed.
        """
        user = await self._pending(
            password, email=email, first_name=first_name, last_name=last_name, display_name=display_name
        )
        verification = None if by_mail else self._tokens.issue(user, Purpose.VERIFY_EMAIL)
        try:
            proof = await self._store(user, by_mail=by_mail)
        except DuplicateError:
            await self._note_second_registration(user.email, by_mail=by_mail)
            return RegistrationRequest(None, false_proof())
        return RegistrationRequest(verification, proof)

    async def request_email_verification(self, email: str, *, by_mail: bool = False) -> OneTimeToken | None:
        """A new token for an address that is not verified yet.

        Answer every caller alike, and before calling this, so that the time discloses nothing. Then mail what there
        is: nothing for an unknown or verified address, and within five minutes of the last mail.

        Args:
            email: the address.
            by_mail: queue the mail for ``data.mails`` in the same transaction; no token is returned then.
        """
        async with self._dependencies.transactions() as tx:
            user = await tx.users.find_one(email=login_name(email))
            if user is None or user.email_verified:
                return None
            user = await tx.users.get(user.id, lock=True)
            if user.is_erased or user.email_verified or was_mailed_lately(user, Purpose.VERIFY_EMAIL):
                return None
            if not by_mail:
                return self._tokens.issue(user, Purpose.VERIFY_EMAIL)
            self._tokens.issue_by_mail(tx, user, Purpose.VERIFY_EMAIL)
        self._tokens.wake()
        return None

    async def verify_email(self, token: str, *, proof: str | None = None) -> VerifiedAddress:
        """Take a mailed token as proof that the person reads mail at the address; a new account is open then.

        The token does not say who chose the password: anybody can register anybody's address, and it is the owner who
        gets the mail and opens the link. So the password stays only with the proof, which only the device has on which
        it was chosen. Without it the account gets a new one, see ``VerifiedAddress``. Sessions and external identities
        from before are removed in any case, because nobody knew whose they were.

        Args:
            token: what was mailed.
            proof: what ``register`` or ``request_registration`` handed to the same device, if it did.

        Raises:
            InvalidOneTimeTokenError: when the token is unknown, expired or used. A wrong proof is not an error.
        """
        async with self._dependencies.transactions() as tx:
            claimed = await tx.users.find_one(id=owner_of(token))
            if claimed is not None:  # Levels before the user's row, as logging in locks them.
                await self._throttle.remember(tx, claimed.email, current_context().ip_address)
            user = await self._tokens.owner_of(tx, Purpose.VERIFY_EMAIL, token)
            if not user.email_verified:
                keeps = await self._chose_password(tx, user, proof)
                await take_from_strangers(tx, user, reason="address_verified", keep_password=keeps)
            mark_verified(user)
            tx.add(changed(ANONYMOUS, AuditAction.USER_VERIFY_EMAIL, user, "Verified the address"))
            await tx.flush()
            choice = None
            if user.status is UserStatus.ACTIVE and await tx.users.secret(user.id, "password_hash") is None:
                choice = self._tokens.issue(user, Purpose.RESET_PASSWORD, is_mailed=False)
            return VerifiedAddress(UserFull.model_validate(user), choice)

    async def _chose_password(self, tx: UnitOfWork, user: User, proof: str | None) -> bool:
        """Whether the one who verifies is the one who registered."""
        stored = await tx.users.secret(user.id, "password_hash")
        if proof is None or stored is None:
            return False
        expected = registrant_proof(self._dependencies.secret, user.id, stored)
        return compare_digest(expected.encode(), proof.encode(errors="replace"))

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
            WeakPasswordError: see ``passwords.check_new_password``.
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
            check_password_of(user, password, minimum=self._dependencies.settings.password_min_length)
            user.password_hash = await self._dependencies.passwords.hash(password)
            user.password_changed_at = datetime.now(UTC)
        async with self._dependencies.transactions() as tx:
            await reauthorize(tx, actor, Permission.CREATE_ACCOUNT)
            await self._make_room(tx, user.email)
            await _insert(tx, user)
            values = {"role": role, "email_verified": email_verified}
            tx.add(admin_entry(actor, AuditAction.ADMIN_USER_CREATE, user.id, "Created an account", new_values=values))
        return UserFull.model_validate(user)

    async def _pending(self, password: str, **values: Any) -> User:
        """An account that waits for its address to be verified, not stored yet."""
        user = User(**values | {"email": deliverable_email(values["email"]), "status": UserStatus.PENDING})
        check_password_of(user, password, minimum=self._dependencies.settings.password_min_length)
        user.password_hash = await self._dependencies.passwords.hash(password)
        user.password_changed_at = datetime.now(UTC)
        return user

    async def _store(self, user: User, *, by_mail: bool = False) -> str:
        """Store a new account, with a mail to it; the proof for the device that registered."""
        async with self._dependencies.transactions() as tx:
            await self._make_room(tx, user.email)
            await _insert(tx, user)
            tx.add(own_entry(ANONYMOUS, AuditAction.USER_REGISTER, user.id, "Registered"))
            if by_mail:
                self._tokens.issue_by_mail(tx, user, Purpose.VERIFY_EMAIL)
        if by_mail:
            self._tokens.wake()
        return registrant_proof(self._dependencies.secret, user.id, user.password_hash or "")

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

    async def _note_second_registration(self, email: str, *, by_mail: bool) -> None:
        async with self._dependencies.transactions() as tx:
            user = await tx.users.find_one(email=email)
            if user is not None:
                entry = own_entry(
                    ANONYMOUS, AuditAction.USER_REGISTER, user.id, "Tried to register an address that is taken"
                )
                entry.is_success = False
                tx.add(entry)
                if by_mail:
                    self._tokens.note_by_mail(tx, user, MailKind.ADDRESS_TAKEN)
        if by_mail:
            self._tokens.wake()


async def _insert(tx: UnitOfWork, user: User) -> None:
    """Send it alone, so that an address that is taken fails before other statements are sent."""
    tx.add(user)
    await tx.flush()
