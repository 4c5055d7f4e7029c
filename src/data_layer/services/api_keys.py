"""API keys, which programs show in place of a login: what can be done with them, and to which account each leads.

A key is validated with every request of its program. Uses are collected, and written to the database in batches.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from data_layer.concurrency import RegularFlush, SingleFlight
from data_layer.entities import ApiKey, AuditLog, User
from data_layer.entities.enums import ApiScope, AuditAction, UserRole, UserStatus
from data_layer.errors import (
    DataLayerError,
    InvalidApiKeyError,
    InvalidValueError,
    LimitReachedError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.repository import MAXIMUM_PAGE
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.api_keys import ActiveApiKey, ApiKeyView, NewApiKey
from data_layer.services.accounts.dependencies import own_entry
from data_layer.services.arguments import checks_arguments
from data_layer.services.permissions import Permission, as_of_now, is_allowed, require
from data_layer.services.sessions import SessionCopies, SessionService
from data_layer.services.sessions.hashing import make_token
from data_layer.services.sessions.watermark import Watermark

log = get_log(__name__)

FLUSH_SECONDS = 10.0
"""How often it is written; so much is lost when the process is killed."""

_RETRY_SECONDS = 1.0


class KeyUses:
    """Remembers when each key was used last, until that is written."""

    def __init__(self, transactions: Transactions, clock: Callable[[], float] = time.monotonic) -> None:
        self._transactions = transactions
        self._clock = clock
        self._last: dict[UUID, float] = {}
        self._flusher = RegularFlush(
            self.flush,
            DataLayerError,
            self._note_delay,
            self._note_loss,
            seconds=FLUSH_SECONDS,
            retry_seconds=_RETRY_SECONDS,
            name="api-key-uses",
        )

    def note(self, key_id: UUID) -> None:
        """Remember that a key was used now."""
        self._last[key_id] = self._clock()

    def start(self) -> None:
        """Write in the background from now on. Harmless when it has begun."""
        self._flusher.start()

    async def flush(self) -> None:
        """Write what was collected. What cannot be written is kept for the next time.

        Raises:
            DatabaseError: when it cannot be written.
        """
        collected, self._last = self._last, {}
        if not collected:
            return
        now = self._clock()
        try:
            async with self._transactions() as tx:
                await tx.api_keys.record_use([(key_id, now - at) for key_id, at in collected.items()])
        except BaseException:
            self._last = collected | self._last
            raise

    async def close(self) -> None:
        """Stop, and write what is left; what cannot be written is lost, and logged."""
        await self._flusher.close()

    def _note_delay(self, error: DataLayerError) -> None:
        log.warning("api_key_uses_delayed", keys=len(self._last), reason=str(error))

    def _note_loss(self, error: DataLayerError) -> None:
        log.warning("api_key_uses_lost", keys=len(self._last), reason=str(error))


PREFIX = "dl_"
"""How every key begins, so that a key that leaks is recognised as one: neither sessions nor JWTs begin like it."""

_SHAPE = re.compile(r"dl_[A-Za-z0-9_-]{43}")
_MOST_COPIES = 10_000
_SHARED_SECONDS = 0.25  # Later callers ask again, so that a slow answer is not an old one for them.


def looks_like_key(token: str) -> bool:
    """Whether a bearer token is meant to be an API key."""
    return token.startswith(PREFIX) and _SHAPE.fullmatch(token) is not None


def hash_key(secret: str) -> str:
    """What the database keeps of a key: 256 random bits need neither a key of our own nor a slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Copy:
    """A key as the database had it: see ``services.sessions.watermark``."""

    key: ActiveApiKey
    usable_until: float
    as_of: int
    server: str


class ApiKeyValidator:
    """Answers from a copy of this process while it may be believed, else from the database.

    The same journal that vouches for copies of sessions vouches for those of keys: a trigger writes the id of a key
    that changes, and the id of a user whose role or status does. So a key that is revoked, also by hand in SQL, is
    refused everywhere within two seconds. Redis holds no copy: each process reads a key once.
    """

    def __init__(
        self,
        transactions: Transactions,
        watermark: Watermark,
        uses: KeyUses,
        *,
        follow: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transactions = transactions
        self._watermark = watermark
        self._uses = uses
        self._follow = follow
        self._clock = clock
        self._copies: dict[str, _Copy] = {}
        self._loads: SingleFlight[str, ActiveApiKey] = SingleFlight(
            "api-key", join_seconds=_SHARED_SECONDS, clock=clock
        )

    async def validate(self, secret: str) -> ActiveApiKey:
        """Return the key that a program shows; see ``ApiKeyService.authenticate``."""
        if not looks_like_key(secret):
            raise refused()
        key_hash = hash_key(secret)
        copy = self._copies.get(key_hash)
        if copy is not None and self._is_believed(copy):
            key = copy.key
        else:
            self._follow()
            key = await self._loads.run(key_hash, lambda: self._load(key_hash))
        self._uses.note(key.id)
        return key

    async def close(self) -> None:
        """Wait for what is being looked up."""
        await self._loads.finish()

    def _is_believed(self, copy: _Copy) -> bool:
        now, key = self._clock(), copy.key
        return now < copy.usable_until and self._watermark.believes(now, copy.as_of, copy.server, key.id, key.user_id)

    async def _load(self, key_hash: str) -> ActiveApiKey:
        asked_at = self._clock()
        self._copies.pop(key_hash, None)
        async with self._transactions() as tx:
            found = await tx.api_keys.find_account(key_hash)
        if found is None or found.status is not UserStatus.ACTIVE:
            raise refused()
        key = ActiveApiKey(id=found.id, user_id=found.user_id, role=found.role, scopes=found.scopes)
        while len(self._copies) >= _MOST_COPIES:
            del self._copies[next(iter(self._copies))]
        usable_until = float("inf") if found.seconds_left is None else asked_at + found.seconds_left
        self._copies[key_hash] = _Copy(key, usable_until, found.as_of, found.server)
        return key


def refused() -> InvalidApiKeyError:
    """The one answer to every key that is not accepted."""
    return InvalidApiKeyError("the API key is unknown, has expired or was revoked; make another one")


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
        self._watermark.abandon([key_id])
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
