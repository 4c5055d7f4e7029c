"""What the collaborators of the account service share: dependencies, rights, mailed tokens, entries of the trail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from data_layer.cache import Cache
from data_layer.entities import AuditLog, User
from data_layer.entities.changes import changes_of
from data_layer.entities.enums import AuditAction, AuthProvider, MailKind, UserRole, UserStatus
from data_layer.errors import (
    AccountInactiveError,
    AccountSuspendedError,
    ChangedMeanwhileError,
    EmailNotVerifiedError,
    LastAdminError,
    NotFoundError,
)
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.repositories.users import SecretColumn
from data_layer.schemas.actors import Actor
from data_layer.schemas.users import UserFull
from data_layer.services.accounts.addresses import is_placeholder
from data_layer.services.accounts.one_time_tokens import (
    OneTimeToken,
    Purpose,
    derived_token,
    hash_token,
    invalid_token,
    make_token,
    owner_of,
)
from data_layer.services.accounts.passkeys import PasskeySite
from data_layer.services.accounts.passwords import PasswordHasher, check_new_password
from data_layer.services.audit.service import AuditService
from data_layer.services.mails.queue import MailQueue
from data_layer.services.permissions import Permission, as_of_now, require
from data_layer.services.sessions import SessionService
from data_layer.services.tokens import TokenService
from data_layer.settings.security import SecuritySettings

MAIL_INTERVAL = timedelta(minutes=5)
"""How long after a mail nobody gets another one of its kind: neither a flood, nor links that stop working at once."""

LIFETIMES = {
    Purpose.VERIFY_EMAIL: timedelta(hours=24),
    Purpose.RESET_PASSWORD: timedelta(hours=1),
}
"""How long a mailed token works."""

_NOTE_LIFETIME = timedelta(hours=24)  # Nobody wants to know of something a day later.

IDENTITY_COLUMNS = {
    AuthProvider.AZURE_AD: "azure_id",
    AuthProvider.GOOGLE: "google_id",
    AuthProvider.GITHUB: "github_id",
}
"""Where the identities of these providers are kept; those of other issuers are rows of ``user_identities``."""


@dataclass(frozen=True, slots=True)
class AccountDependencies:
    """What the composition root hands to the account service."""

    transactions: Transactions
    cache: Cache
    audit: AuditService
    passwords: PasswordHasher
    sessions: SessionService
    tokens: TokenService
    mails: MailQueue
    settings: SecuritySettings
    passkey_site: PasskeySite

    @property
    def secret(self) -> bytes:
        """Key of the hashes of mailed tokens, and of the names under which failed logins are counted."""
        return self.settings.session_secret.get_secret_value().encode()


async def load_authorized(
    tx: UnitOfWork,
    actor: Actor,
    permission: Permission,
    user_id: UUID,
    *,
    guard_admins: bool = False,
    lock: bool = True,
) -> User:
    """Return the account that is about to be changed or read, after checking the actor's right to do it.

    Args:
        tx: the transaction.
        actor: the caller. The role is read again, because the one in a session may be out of date.
        permission: for what.
        user_id: whose account.
        guard_admins: the change ends the account or its role; refuse it for the last active administrator.
        lock: keep others from changing the account until the transaction ends.
    """
    require(actor, permission, owner=user_id)
    admins = await tx.users.lock_admins() if guard_admins else frozenset()
    user = await tx.users.get(user_id, lock=lock)
    await reauthorize(tx, actor, permission, user)
    if user.is_erased:
        raise NotFoundError(f"the account {user_id} was deleted")
    if admins == {user_id}:
        raise LastAdminError("this is the last active administrator: make somebody else one first")
    return user


def require_unchanged(user: User, expected: datetime | None) -> None:
    """Refuse to change an account that is not the one which the caller has seen.

    Args:
        user: as it is stored.
        expected: the ``updated_at`` that the caller has seen; None: any.

    Raises:
        ChangedMeanwhileError: it is another one; ``current`` is what is stored.
    """
    if expected is not None and user.updated_at != expected:
        raise ChangedMeanwhileError(
            f"the account was changed at {user.updated_at:%Y-%m-%d %H:%M:%S}; read it again",
            current=UserFull.model_validate(user).model_dump(),
        )


async def check_password_is(tx: UnitOfWork, user_id: UUID, password_hash: str | None) -> None:
    """Make sure that an account, which is locked, has the password that it had a moment ago.

    Raises:
        ChangedMeanwhileError: it has another one.
    """
    if await tx.users.secret(user_id, "password_hash") != password_hash:
        raise ChangedMeanwhileError("the password was changed elsewhere at the same moment; log in again")


async def reauthorize(tx: UnitOfWork, actor: Actor, permission: Permission, user: User | None = None) -> None:
    """Check the right again, with the role and status that the actor has now."""
    actor = await as_of_now(tx, actor)
    require(actor, permission, owner=user.id if user else None, owner_role=user.role if user else None)


def check_password_of(user: User, password: str, *, minimum: int, field: str = "password") -> None:
    """Refuse a password that is weak, or known from the account itself.

    Raises:
        WeakPasswordError: see ``passwords.check_new_password``.
    """
    personal = (user.email, user.email.partition("@")[0], user.first_name, user.last_name, user.display_name or "")
    names = (*personal, f"{user.first_name}{user.last_name}", f"{user.last_name}{user.first_name}")
    check_new_password(password, minimum=minimum, personal=names, field=field)


class MailedTokens:
    """Issue the one-time tokens that are mailed, and find the accounts that they belong to."""

    def __init__(self, secret: bytes, queue: MailQueue) -> None:
        self._secret = secret
        self._queue = queue

    def issue(self, user: User, purpose: Purpose, *, is_mailed: bool = True) -> OneTimeToken:
        """A token whose hash goes into the row; the former one stops working.

        One that is not mailed, but handed out at once, is not counted as a mail: it ends as if it were older.
        """
        lifetime = LIFETIMES[purpose] - (timedelta(0) if is_mailed else MAIL_INTERVAL)
        return self._store(user, purpose, make_token(user.id), datetime.now(UTC) + lifetime)

    def issue_by_mail(self, tx: UnitOfWork, user: User, purpose: Purpose) -> None:
        """The same for a mail that is queued with the commit. Call ``wake`` after it; the account must be stored.

        Nothing is issued to an account without an address.
        """
        if is_placeholder(user.email):
            return
        mail_id, expires_at = uuid7(), datetime.now(UTC) + LIFETIMES[purpose]
        self._store(user, purpose, derived_token(self._secret, purpose, user.id, mail_id), expires_at)
        self._queue.add(tx, mail_id, user.id, MailKind(purpose.value), expires_at=expires_at)

    def note_by_mail(self, tx: UnitOfWork, user: User, kind: MailKind) -> None:
        """Queue a mail without a token."""
        if is_placeholder(user.email):
            return
        self._queue.add(tx, uuid7(), user.id, kind, expires_at=datetime.now(UTC) + _NOTE_LIFETIME)

    def wake(self) -> None:
        """Have what was queued sent at once, after the commit."""
        self._queue.grown.set()

    def _store(self, user: User, purpose: Purpose, token: str, expires_at: datetime) -> OneTimeToken:
        setattr(user, _HASH[purpose], hash_token(self._secret, purpose, token))
        setattr(user, _EXPIRY[purpose], expires_at)
        return OneTimeToken(user_id=user.id, email=user.email, expires_at=expires_at, token=token)

    async def owner_of(self, tx: UnitOfWork, purpose: Purpose, token: str) -> User:
        """The account of a mailed token, locked; ``clear_token`` uses the token up.

        Raises:
            InvalidOneTimeTokenError: when it is not the one that was mailed last, was used, or has expired.
        """
        user = await tx.users.find_one(id=owner_of(token))
        if user is None:
            raise invalid_token()
        user = await tx.users.get(user.id, lock=True)
        stored = await tx.users.secret(user.id, _HASH[purpose])
        expires_at: datetime | None = getattr(user, _EXPIRY[purpose])
        if stored is None or expires_at is None or expires_at <= datetime.now(UTC):
            raise invalid_token()
        if not compare_digest(stored, hash_token(self._secret, purpose, token)):
            raise invalid_token()
        return user


_HASH: dict[Purpose, SecretColumn] = {
    Purpose.VERIFY_EMAIL: "email_verification_token_hash",
    Purpose.RESET_PASSWORD: "reset_password_token_hash",
}
_EXPIRY = {
    Purpose.VERIFY_EMAIL: "email_verification_expires_at",
    Purpose.RESET_PASSWORD: "reset_password_expires_at",
}


def was_mailed_lately(user: User, purpose: Purpose) -> bool:
    """Whether the last mail of this kind is too recent for another one."""
    expires_at: datetime | None = getattr(user, _EXPIRY[purpose])
    return expires_at is not None and expires_at - LIFETIMES[purpose] + MAIL_INTERVAL > datetime.now(UTC)


def clear_token(user: User, purpose: Purpose) -> None:
    """Invalidate a mailed token."""
    setattr(user, _HASH[purpose], None)
    setattr(user, _EXPIRY[purpose], None)


def mark_verified(user: User) -> None:
    """The person can read mail at the address; an account that waited for that is open."""
    if not user.email_verified:
        user.email_verified = True
        user.email_verified_at = datetime.now(UTC)
    if user.status is UserStatus.PENDING:
        user.status = UserStatus.ACTIVE
    clear_token(user, Purpose.VERIFY_EMAIL)


async def take_from_strangers(tx: UnitOfWork, user: User, *, reason: str, keep_password: bool = False) -> None:
    """Remove every way into an account whose address nobody had verified: somebody else may have made it.

    Proving the address gives an account to which nobody else has a key ("pre-hijacking").
    """
    if not keep_password:
        user.password_hash = None
    for name in IDENTITY_COLUMNS.values():
        setattr(user, name, None)
    await tx.identities.remove(user.id)
    await tx.api_keys.remove(user.id)
    await tx.second_factors.remove(user.id)
    user.auth_provider = AuthProvider.LOCAL
    clear_token(user, Purpose.RESET_PASSWORD)
    await tx.flush()
    await tx.sessions.end_all(user.id, reason)


def require_usable(user: User, *, reactivate: bool) -> bool:
    """Refuse an account that may not be logged in to, and say whether it has just been reactivated.

    Raises:
        AuthenticationError: see ``check_usable``.
    """
    check_usable(user, reactivate=reactivate)
    if user.status is UserStatus.ACTIVE:
        return False
    user.status = UserStatus.ACTIVE
    return True


def check_usable(user: User, *, reactivate: bool) -> None:
    """Refuse an account that may not be logged in to.

    Raises:
        AccountSuspendedError: a moderator has suspended it.
        EmailNotVerifiedError: it waits for its address to be verified.
        AccountInactiveError: its owner has deactivated it, and does not reactivate it.
    """
    match user.status:
        case UserStatus.SUSPENDED:
            raise AccountSuspendedError("this account is suspended; ask the support for the reason")
        case UserStatus.PENDING:
            raise EmailNotVerifiedError("open the link in the mail first, or ask for another mail")
        case UserStatus.INACTIVE if not reactivate or user.is_erased:
            raise AccountInactiveError("this account is deactivated; log in with reactivate=True to have it back")


def own_entry(actor: Actor, action: AuditAction, user_id: UUID, description: str, **fields: Any) -> AuditLog:
    """What happened to an account; if somebody else than its owner did it, the context names that person."""
    entry = AuditLog.user_action(action, user_id, description, resource_type="user", resource_id=str(user_id), **fields)
    if actor.user_id is not None and actor.user_id != user_id:
        entry.context = {"actor_id": str(actor.user_id), "actor_role": str(actor.role or UserRole.USER)}
    return entry


def admin_entry(actor: Actor, action: AuditAction, user_id: UUID, description: str, **fields: Any) -> AuditLog:
    """What somebody with more rights, or an operator's command, did to an account."""
    return AuditLog.admin_action(
        action, actor.user_id, description, resource_type="user", resource_id=str(user_id), **fields
    )


def changed(actor: Actor, action: AuditAction, user: User, description: str) -> AuditLog:
    """The same with the old and new values of what was assigned to the account in this transaction."""
    entry = own_entry(actor, action, user.id, description)
    entry.old_values, entry.new_values = changes_of(user, without=("updated_at", *_EXPIRY.values()))
    return entry
