"""What people change of their own accounts, and how they end them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from data_layer.entities import User
from data_layer.entities.columns import json_object_of
from data_layer.entities.enums import AuditAction, UserStatus
from data_layer.errors import InvalidValueError, ValueTooLongError
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.repositories.users import account_key
from data_layer.schemas.actors import Actor
from data_layer.schemas.factors import FactorProof
from data_layer.schemas.users import ProfileChanges, UserFull, UserPublic
from data_layer.services.accounts.confirmations import Confirmations
from data_layer.services.accounts.dependencies import (
    AccountDependencies,
    admin_entry,
    changed,
    load_authorized,
    own_entry,
    require_unchanged,
)
from data_layer.services.accounts.throttle import LoginThrottle
from data_layer.services.permissions import Permission, acting_account_inactive, require
from data_layer.services.project_keys import owner_key, project_key

log = get_log(__name__)

MAXIMUM_PREFERENCES_SIZE = 16 * 1024
"""Largest preferences, in bytes of JSON."""

_CACHED_SECONDS = 60
_NEVER_EMPTY = ("first_name", "last_name")


class Profiles:
    """Accounts in the hands of their owners."""

    def __init__(
        self, dependencies: AccountDependencies, throttle: LoginThrottle, confirmations: Confirmations
    ) -> None:
        self._dependencies = dependencies
        self._throttle = throttle
        self._confirmations = confirmations

    async def get(self, actor: Actor, user_id: UUID) -> UserFull:
        """An account, for its owner and for moderators; its owner gets it from the cache if it is there.

        Raises:
            PermissionDeniedError: for anybody else, whether the account exists or not.
            NotFoundError: when there is none, or it was deleted.
        """
        if actor.user_id == user_id:
            require(actor, Permission.READ_ACCOUNT, owner=user_id)
            return await self._own(user_id)
        async with self._dependencies.transactions() as tx:
            return UserFull.model_validate(
                await load_authorized(tx, actor, Permission.READ_ACCOUNT, user_id, lock=False)
            )

    async def _own(self, user_id: UUID) -> UserFull:
        async def load() -> UserFull:
            async with self._dependencies.transactions() as tx:
                user = await tx.users.find_one(id=user_id)
                if user is None or user.is_erased:
                    raise acting_account_inactive()
                return UserFull.model_validate(user)

        cache = self._dependencies.cache
        own = await cache.get_or_load(account_key(user_id), load, _CACHED_SECONDS, as_type=UserFull)
        if own.status is not UserStatus.ACTIVE:
            raise acting_account_inactive()
        return own

    async def get_public(self, user_id: UUID) -> UserPublic:
        """What anybody may see of somebody; of a deleted account the id.

        Raises:
            NotFoundError: the account does not exist.
        """
        async with self._dependencies.transactions() as tx:
            return UserPublic.model_validate(await tx.users.get(user_id))

    async def update_profile(
        self, actor: Actor, user_id: UUID, changes: ProfileChanges, *, expected: datetime | None = None
    ) -> UserFull:
        """Change names and picture.

        Args:
            actor: the owner, or an administrator.
            user_id: whose profile.
            changes: what is not given stays.
            expected: the ``updated_at`` that the caller has seen; without it the last change wins.

        Raises:
            ChangedMeanwhileError: the account is no longer the one that the caller has seen.
            InvalidValueError: for a value that may not be empty.
        """
        given = {name: getattr(changes, name) for name in changes.model_fields_set}
        for name in _NEVER_EMPTY:
            if name in given and given[name] is None:
                raise InvalidValueError(f"{name} may not be empty", field=name)
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.UPDATE_PROFILE, user_id)
            require_unchanged(user, expected)
            return await self._apply(tx, actor, user, "Changed the profile", given)

    async def update_preferences(
        self, actor: Actor, user_id: UUID, patch: dict[str, Any], *, expected: datetime | None = None
    ) -> UserFull:
        """Merge into the preferences, as JSON Merge Patch does it (RFC 7396).

        Objects are merged, everything else is replaced, and ``None`` removes. Patches that arrive at the same moment
        are merged one after the other, so different keys do not undo each other.

        Args:
            actor: the owner, or an administrator.
            user_id: whose preferences.
            patch: what to change.
            expected: as in ``update_profile``.

        Raises:
            ChangedMeanwhileError: see ``update_profile``.
            ValueTooLongError: the result has more than 16 KiB as JSON.
            InvalidValueError: for what JSON cannot carry.
        """
        patch = json_object_of("preferences", patch)
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.UPDATE_PREFERENCES, user_id)
            require_unchanged(user, expected)
            merged = merge_patch(dict(user.preferences), patch)
            _check_preferences(merged)
            return await self._apply(tx, actor, user, "Changed the preferences", {"preferences": merged})

    async def deactivate(self, actor: Actor, user_id: UUID) -> UserFull:
        """Close an account until its owner logs in with ``reactivate=True``. All sessions end; nothing is lost.

        Raises:
            LastAdminError: for the last active administrator.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.DEACTIVATE_ACCOUNT, user_id, guard_admins=True)
            if user.status is UserStatus.SUSPENDED:
                raise InvalidValueError("a suspended account cannot be deactivated", field="status")
            tx.invalidate(owner_key(user_id))
            await tx.sessions.end_all(user_id, "account_deactivated")
            return await self._apply(tx, actor, user, "Deactivated the account", {"status": UserStatus.INACTIVE})

    async def delete(
        self,
        actor: Actor,
        user_id: UUID,
        *,
        password: str | None = None,
        proof: FactorProof | None = None,
        challenge: str | None = None,
    ) -> None:
        """Erase an account for good: personal data, sessions, projects, images and files.

        The id stays, and so does the audit trail. Files are removed after the commit. The address is free again.

        Args:
            actor: the owner, who confirms it, or an administrator.
            user_id: whose account.
            password: that of the account, if it has one.
            proof: or else a second factor.
            challenge: of ``begin_confirmation``, where a passkey has answered it.

        Raises:
            AuthenticationError: what the owner has shown is not right; see ``remove_factor``.
            InvalidValueError: neither password nor proof was shown, and the account has one of them.
            LastAdminError: for the last active administrator.
            NotFoundError: the account does not exist, or it was deleted already.
        """
        require(actor, Permission.DELETE_ACCOUNT, owner=user_id)
        if actor.user_id == user_id:
            # In a transaction of its own: it locks the user's row before levels, and the deletion after them.
            shown: dict[str, Any] = {"password": password, "proof": proof, "challenge": challenge}
            async with self._confirmations.confirmed(actor, Permission.DELETE_ACCOUNT, user_id, **shown):
                log.info("deletion_confirmed", user_id=user_id)
        async with self._dependencies.transactions() as tx:
            # Levels before the user's row, as logging in locks them.
            await self._throttle.forget(tx, (await tx.users.get(user_id)).email)
            user = await load_authorized(tx, actor, Permission.DELETE_ACCOUNT, user_id, guard_admins=True)
            if actor.user_id == user_id:
                tx.add(own_entry(actor, AuditAction.USER_DELETE_ACCOUNT, user_id, "Deleted the own account"))
            else:
                tx.add(admin_entry(actor, AuditAction.ADMIN_USER_DELETE, user_id, "Deleted an account"))
            await tx.sessions.end_all(user_id, "account_deleted")
            tx.invalidate(owner_key(user_id), *map(project_key, await tx.projects.ids_of(user_id)))
            await tx.users.delete(user)

    async def _apply(
        self, tx: UnitOfWork, actor: Actor, user: User, description: str, values: dict[str, Any]
    ) -> UserFull:
        """Assign what differs, and write it down; nothing is written when nothing differs."""
        different = {name: value for name, value in values.items() if getattr(user, name) != value}
        for name, value in different.items():
            setattr(user, name, value)
        if different:
            tx.add(changed(actor, AuditAction.USER_UPDATE_PROFILE, user, description))
            await tx.flush()
        return UserFull.model_validate(user)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2; neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _check_preferences(preferences: dict[str, Any]) -> None:
    try:
        size = len(orjson.dumps(preferences))
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise InvalidValueError(f"preferences hold what JSON cannot carry: {error}", field="preferences") from None
    if size > MAXIMUM_PREFERENCES_SIZE:
        raise ValueTooLongError(
            f"preferences may have {MAXIMUM_PREFERENCES_SIZE} bytes at most; these have {size}", field="preferences"
        )
