"""What moderators and administrators do to accounts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from data_layer.entities import User
from data_layer.entities.changes import changes_of
from data_layer.entities.enums import AuditAction, AuditLevel, UserRole, UserStatus
from data_layer.errors import ConflictError, InvalidValueError, NotFoundError
from data_layer.repositories.repository import MAXIMUM_PAGE
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.users import UserAdmin
from data_layer.services.accounts.addresses import login_name
from data_layer.services.accounts.dependencies import (
    AccountDependencies,
    admin_entry,
    load_authorized,
    mark_verified,
    reauthorize,
    require_unchanged,
)
from data_layer.services.accounts.throttle import LoginThrottle
from data_layer.services.permissions import Permission, require
from data_layer.services.project_keys import owner_key


class Administration:
    """Accounts in the hands of others."""

    def __init__(self, dependencies: AccountDependencies, throttle: LoginThrottle) -> None:
        self._dependencies = dependencies
        self._throttle = throttle

    async def list(
        self,
        actor: Actor,
        *,
        limit: int = 100,
        after: UUID | None = None,
        status: UserStatus | None = None,
        role: UserRole | None = None,
        ids: Collection[UUID] | None = None,
    ) -> Sequence[UserAdmin]:
        """A page of the accounts that were not deleted, oldest first, for moderators.

        Args:
            actor: the caller.
            limit: the length of the page, 1000 at most.
            after: the id of the last account of the page before.
            status: only these.
            role: only these.
            ids: only these.
        """
        require(actor, Permission.LIST_ACCOUNTS)
        if not 1 <= limit <= MAXIMUM_PAGE:
            raise InvalidValueError(f"limit must be a number from 1 to {MAXIMUM_PAGE}", field="limit")
        async with self._dependencies.transactions() as tx:
            await reauthorize(tx, actor, Permission.LIST_ACCOUNTS)
            users = await tx.users.page(limit=limit, after=after, status=status, role=role, ids=ids)
            return [UserAdmin.model_validate(user) for user in users]

    async def find(self, actor: Actor, id_or_email: str) -> UserAdmin:
        """An account by its id or its address, for moderators.

        Raises:
            NotFoundError: when there is none.
        """
        require(actor, Permission.READ_ACCOUNT_AS_ADMIN)
        async with self._dependencies.transactions() as tx:
            await reauthorize(tx, actor, Permission.READ_ACCOUNT_AS_ADMIN)
            return UserAdmin.model_validate(await _find(tx, id_or_email))

    async def set_role(
        self, actor: Actor, user_id: UUID, role: UserRole, *, expected: datetime | None = None
    ) -> UserAdmin:
        """Give an account another role. Its sessions end, so that no open one has the old rights.

        Args:
            actor: an administrator.
            user_id: whose role.
            role: the new one.
            expected: the ``updated_at`` that the caller has seen; without it the last change wins.

        Raises:
            ChangedMeanwhileError: the account is no longer the one that the caller has seen.
            LastAdminError: for the last active administrator.
        """
        async with self._dependencies.transactions() as tx:
            guard = role is not UserRole.ADMIN
            user = await load_authorized(tx, actor, Permission.SET_ROLE, user_id, guard_admins=guard)
            require_unchanged(user, expected)
            if user.role is not role:
                user.role = role
                await _write(tx, actor, user, AuditAction.ADMIN_USER_UPDATE, "Changed the role")
                await tx.sessions.end_all(user_id, "role_changed")
            return UserAdmin.model_validate(user)

    async def verify(self, actor: Actor, user_id: UUID) -> UserAdmin:
        """Vouch for it that the person who registered reads mail at the address; a new account is open then.

        The password stays: the actor vouches for the person who chose it as well. Nothing changes where the address is
        verified already.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.VERIFY_ACCOUNT, user_id)
            if not user.email_verified or user.status is UserStatus.PENDING:
                mark_verified(user)
                await _write(tx, actor, user, AuditAction.ADMIN_USER_UPDATE, "Vouched for the address")
            return UserAdmin.model_validate(user)

    async def suspend(self, actor: Actor, user_id: UUID, *, reason: str) -> UserAdmin:
        """Keep somebody out until ``unsuspend``. All sessions end.

        Args:
            actor: a moderator for users, an administrator for everybody.
            user_id: whom.
            reason: for the audit trail; the person does not see it.

        Raises:
            LastAdminError: for the last active administrator.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.SUSPEND_ACCOUNT, user_id, guard_admins=True)
            if user.status is not UserStatus.SUSPENDED:
                user.status = UserStatus.SUSPENDED
                tx.invalidate(owner_key(user_id))
                action = AuditAction.ADMIN_USER_SUSPEND
                await _write(tx, actor, user, action, "Suspended an account", details=reason)
                await tx.sessions.end_all(user_id, "account_suspended")
            return UserAdmin.model_validate(user)

    async def unsuspend(self, actor: Actor, user_id: UUID) -> UserAdmin:
        """Let somebody in again. An address that was never verified still has to be.

        Raises:
            ConflictError: the account is not suspended.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.SUSPEND_ACCOUNT, user_id)
            _require_status(user, UserStatus.SUSPENDED)
            has_been_open = user.email_verified or user.last_login_at is not None
            user.status = UserStatus.ACTIVE if has_been_open else UserStatus.PENDING
            await _write(tx, actor, user, AuditAction.ADMIN_USER_UNSUSPEND, "Ended the suspension")
            return UserAdmin.model_validate(user)

    async def reactivate(self, actor: Actor, user_id: UUID) -> UserAdmin:
        """Open an account that was deactivated.

        Raises:
            ConflictError: the account is not deactivated.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.REACTIVATE_ACCOUNT, user_id)
            _require_status(user, UserStatus.INACTIVE)
            user.status = UserStatus.ACTIVE
            await _write(tx, actor, user, AuditAction.ADMIN_USER_UPDATE, "Reactivated an account")
            return UserAdmin.model_validate(user)

    async def unlock(self, actor: Actor, user_id: UUID) -> None:
        """End the waiting after failed logins, wherever they came from."""
        require(actor, Permission.UNLOCK_ACCOUNT)
        async with self._dependencies.transactions() as tx:
            # Levels before the user's row, as logging in locks them.
            await self._throttle.forget(tx, (await tx.users.get(user_id)).email)
            user = await load_authorized(tx, actor, Permission.UNLOCK_ACCOUNT, user_id)
            await tx.users.forget_failures(user_id)
            action = AuditAction.SECURITY_ACCOUNT_UNLOCKED
            entry = admin_entry(actor, action, user.id, "Ended the waiting after failed logins")
            entry.level = AuditLevel.INFO
            tx.add(entry)


async def _write(
    tx: UnitOfWork, actor: Actor, user: User, action: AuditAction, description: str, *, details: str | None = None
) -> None:
    """Write a change down together with it."""
    tx.add(admin_entry(actor, action, user.id, description, details=details, **changes_of(user)._asdict()))
    await tx.flush()


async def _find(tx: UnitOfWork, id_or_email: str) -> User:
    try:
        return await tx.users.get(UUID(id_or_email))
    except ValueError:
        pass
    user = await tx.users.find_one(email=login_name(id_or_email))
    if user is None:
        raise NotFoundError(f"no account has the address {id_or_email!r}; see: data-layer users list")
    return user


def _require_status(user: User, status: UserStatus) -> None:
    if user.status is not status:
        raise ConflictError(f"the account is {user.status}, not {status}", field="status")
