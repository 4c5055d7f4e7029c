"""From an API key to the account that it stands for; on the way of every request of a program.

Uses are collected, and written to the database in batches.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from data_layer.concurrency import RegularFlush, SingleFlight
from data_layer.entities.enums import UserStatus
from data_layer.errors import DataLayerError, InvalidApiKeyError
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.api_keys import ActiveApiKey
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
