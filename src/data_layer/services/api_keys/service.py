"""What can be done with API keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from data_layer.entities import ApiKey, AuditLog, User
from data_layer.entities.enums import ApiScope, AuditAction, UserRole, UserStatus
from data_layer.errors import InvalidValueError, LimitReachedError, NotFoundError, PermissionDeniedError
from data_layer.repositories.repository import MAXIMUM_PAGE
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.api_keys import ActiveApiKey, ApiKeyView, NewApiKey
from data_layer.services.accounts.dependencies import own_entry
from data_layer.services.api_keys.validation import PREFIX, ApiKeyValidator, KeyUses, hash_key
from data_layer.services.arguments import checks_arguments
from data_layer.services.permissions import Permission, as_of_now, is_allowed, require
from data_layer.services.sessions import SessionCopies, SessionService
from data_layer.services.sessions.hashing import make_token

MOST_KEYS = 50
"""How many keys a person may have in force."""

LONGEST_LIFETIME = timedelta(days=3650)
KEPT_AFTER_END = timedelta(days=90)
"""How long a key that has ended is still listed."""

_SHOWN = 8  # Characters of the key that its owner sees again: five of them are random, which leaves 226 bits.


@checks_arguments
class ApiKeyService:
    """Keys with which programs act for people, ``data.api_keys``.

    A key does what its scopes allow, never more than its owner may, and acts on what is not its owner's only with the
    scope ``admin``, which administrators alone can give. No key makes keys, changes the password or ends the account.

    Args:
        transactions: where keys are kept.
        sessions: follows which keys and accounts change.
        copies: what is known of that.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        transactions: Transactions,
        sessions: SessionService,
        copies: SessionCopies,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transactions = transactions
        self._sessions = sessions
        self._watermark = copies.watermark
        self.uses = KeyUses(transactions, clock)
        self._validator = ApiKeyValidator(transactions, copies.watermark, self.uses, follow=self._follow, clock=clock)
        self._is_closed = False

    async def create(
        self,
        actor: Actor,
        *,
        name: str,
        scopes: Collection[ApiScope],
        expires_in: timedelta | None = None,
        owner_id: UUID | None = None,
    ) -> NewApiKey:
        """Make a key. What a program shows is returned here once; what is stored is a hash.

        Args:
            actor: whose key it will be.
            name: by which its owner knows it.
            scopes: what it is good for, at least one thing.
            expires_in: after which time it ends; ten years at most, never by default.
            owner_id: instead of the actor, where the system acts.

        Raises:
            PermissionDeniedError: the actor has no active account, shows a key itself, or asks for ``admin`` without
                being an administrator.
            LimitReachedError: there are 50 keys in force.
            InvalidValueError: a value cannot be one of a key; ``field`` says which.
        """
        owner_id = owner_id or actor.user_id
        require(actor, Permission.CREATE_API_KEY, owner=owner_id)
        if owner_id is None:
            raise InvalidValueError("owner_id is missing: the system has no keys", field="owner_id")
        chosen = _checked(scopes)
        name = name.strip()
        if not name:
            raise InvalidValueError("name may not be empty", field="name")
        if expires_in is not None and not timedelta(0) < expires_in <= LONGEST_LIFETIME:
            raise InvalidValueError("expires_in must be longer than nothing, and ten years at most", field="expires_in")
        secret = f"{PREFIX}{make_token()}"
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.CREATE_API_KEY, owner=owner_id)
            # Two that are created at the same moment are counted one after the other.
            owner = await tx.users.get(owner_id, lock=True)
            _require_usable(owner, chosen)
            if await tx.api_keys.count_live(owner_id) >= MOST_KEYS:
                raise LimitReachedError(f"a person may have {MOST_KEYS} API keys; revoke one first")
            key = ApiKey(
                user_id=owner_id,
                name=name,
                prefix=secret[:_SHOWN],
                key_hash=hash_key(secret),
                scopes=[*chosen],
                expires_at=None if expires_in is None else datetime.now(UTC) + expires_in,
            )
            tx.add(key)
            await tx.flush()
            view = ApiKeyView.model_validate(key)
            shown = view.model_dump(mode="json", include={"name", "scopes", "expires_at"}, exclude_none=True)
            tx.add(_entry(actor, AuditAction.USER_CREATE_API_KEY, key, "Made an API key", shown))
        return NewApiKey(key=view, secret=SecretStr(secret))

    async def list(
        self, actor: Actor, user_id: UUID, *, limit: int = MAXIMUM_PAGE, after: UUID | None = None
    ) -> Sequence[ApiKeyView]:
        """The keys of a person, the newest first; those that have ended for 90 days more.

        Args:
            actor: the person, or an administrator.
            user_id: whose.
            limit: the length of the page, 1000 at most.
            after: the id of the last key of the page before.

        Raises:
            PermissionDeniedError: the actor may not see them.
        """
        require(actor, Permission.LIST_API_KEYS, owner=user_id)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.LIST_API_KEYS, owner=user_id)
            return [ApiKeyView.model_validate(key) for key in await tx.api_keys.of_user(user_id, limit, after)]

    async def revoke(self, actor: Actor, key_id: UUID) -> bool:
        """End a key for good, everywhere within two seconds; whether it was not revoked already.

        Raises:
            NotFoundError: there is none, or the actor may not end it.
        """
        async with self._transactions() as tx:
            key = await tx.api_keys.find_one(id=key_id)
            owner = await tx.users.get(key.user_id) if key else None
            actor = await as_of_now(tx, actor)
            if owner is None or not is_allowed(actor, Permission.REVOKE_API_KEY, owner=owner.id, owner_role=owner.role):
                raise NotFoundError(f"no API key has the id {key_id}")
            key = await tx.api_keys.get(key_id, lock=True)
            if key.revoked_at is not None:
                return False
            key.revoked_at = datetime.now(UTC)
            tx.add(_entry(actor, AuditAction.USER_REVOKE_API_KEY, key, "Revoked an API key", {"name": key.name}))
        self._watermark.give_up([key_id])
        return True

    async def authenticate(self, secret: str) -> ActiveApiKey:
        """Return the key that a program shows; its use is noted.

        Raises:
            InvalidApiKeyError: it is unknown, has expired or was revoked, or its account is not active.
            DatabaseError: that cannot be known at the moment.
        """
        return await self._validator.validate(secret)

    async def close(self) -> None:
        """Write the uses that were collected, and stop what runs in the background."""
        self._is_closed = True
        await self._validator.close()
        await self.uses.close()

    def _follow(self) -> None:
        self._sessions.follow_changes()
        if not self._is_closed:
            self.uses.start()


def _checked(scopes: Collection[ApiScope]) -> list[ApiScope]:
    chosen = [scope for scope in ApiScope if scope in scopes]
    if not chosen:
        raise InvalidValueError(f"scopes must name at least one of: {', '.join(ApiScope)}", field="scopes")
    return chosen


def _require_usable(owner: User, scopes: Collection[ApiScope]) -> None:
    if owner.status is not UserStatus.ACTIVE:
        raise PermissionDeniedError("only an active account can have API keys")
    if ApiScope.ADMIN in scopes and owner.role is not UserRole.ADMIN:
        raise PermissionDeniedError("only an administrator can have an API key with the scope admin")


def _entry(actor: Actor, action: AuditAction, key: ApiKey, what: str, values: dict[str, Any]) -> AuditLog:
    entry = own_entry(actor, action, key.user_id, what, new_values=values)
    entry.resource_type, entry.resource_id = "api_key", str(key.id)
    return entry
