"""Requests that clients may repeat: each is carried out once, and answered the same way for a day.

An answer may hold what is shown once, such as a writer token. So it is encrypted (AES-256-GCM) with a key derived from
SESSION_SECRET and from the key that the client chose, of which the database has only a hash: neither a copy of the
database nor the secret alone discloses an answer.

| it happens | what follows |
| --- | --- |
| the request fails | the key is given back, so that it can be tried again |
| the process dies, or the caller is cancelled | the lease ends after a minute; then the key can be used again |
| the process dies between the commit and keeping the answer | the same: a repeated request does the work again |
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import orjson
import zstandard

from data_layer.concurrency import cancel_and_wait, uninterrupted
from data_layer.errors import (
    AnswerNotKeptError,
    CommitUnknownError,
    DataLayerError,
    IdempotencyKeyReusedError,
    StillRunningError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.idempotency_keys import Claim
from data_layer.repositories.unit_of_work import Transactions
from data_layer.services.sealing import Seals

log = get_log(__name__)

LEASE = timedelta(seconds=60)
LARGEST_ANSWER = 2**20
"""Bytes of an answer as it is kept: compressed. Of a larger one only the headers are kept."""

_LARGEST_BODY = 64 * 2**20
_RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """How a request was answered; ``body`` is None where it was too large to be kept."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


@dataclass(slots=True)
class Execution:
    """A request that is carried out now. ``answer`` and ``fingerprint`` are kept if the block sets them."""

    claim: Claim
    answer: KeptAnswer | None = None
    fingerprint: bytes = b""


class IdempotentRequests:
    """Has each request with a key carried out once.

    Args:
        transactions: begins them.
        secrets: the one to encrypt with, then older ones.
    """

    def __init__(self, transactions: Transactions, secrets: Sequence[str]) -> None:
        self._transactions = transactions
        self._seals = Seals("idempotency", secrets)

    @asynccontextmanager
    async def once(self, scope: UUID, key: str) -> AsyncIterator[Execution | None]:
        """Claim a key for a block that carries the request out and sets its answer; None where there is one already.

        Args:
            scope: a person's id, or ``scope_of`` a request that needs no login.
            key: what the client sent.

        Raises:
            StillRunningError: another request with the key is carried out at the moment.
        """
        claim = Claim(scope, _id_of(key), uuid4())
        async with self._transactions() as tx:
            is_ours = await tx.idempotency_keys.claim(claim, LEASE)
            known = None if is_ours else await tx.idempotency_keys.find(claim)
        if not is_ours:
            if known is None or known.answer is None:
                raise StillRunningError(
                    "a request with this Idempotency-Key is still being carried out; send it again a little later",
                    retry_after=_RETRY_SECONDS,
                )
            yield None
            return
        execution = Execution(claim)
        renewal = asyncio.create_task(self._renew(claim), name="idempotency-lease")
        try:
            yield execution
        except CommitUnknownError:
            raise  # Perhaps it was done: the key stays taken until the lease ends.
        except Exception:
            await uninterrupted(self._settle(execution, key))
            raise
        else:
            await uninterrupted(self._settle(execution, key))
        finally:
            await cancel_and_wait(renewal)

    async def answer(self, scope: UUID, key: str, fingerprint: bytes) -> KeptAnswer:
        """How the request with this key was answered.

        Raises:
            IdempotencyKeyReusedError: that was another request.
            AnswerNotKeptError: it cannot be decrypted since SESSION_SECRET was changed.
            StillRunningError: the answer is gone; the key can be used again.
        """
        claim = Claim(scope, _id_of(key), uuid4())
        async with self._transactions() as tx:
            known = await tx.idempotency_keys.find(claim)
        if known is None or known.answer is None or known.fingerprint is None:
            raise StillRunningError("the answer has just expired; send the request again", retry_after=_RETRY_SECONDS)
        answer = self._decrypted(claim, key, known.answer)
        if not self._seals.has_mac(_subject(claim, key), fingerprint, known.fingerprint):
            raise IdempotencyKeyReusedError(
                "this Idempotency-Key belongs to another request; choose a new one for each piece of work",
                field="Idempotency-Key",
            )
        return answer

    def scope_of(self, key: str, fingerprint: bytes) -> UUID:
        """Where the key of a request without a login belongs: to this request, so that it meets nobody else's."""
        return UUID(bytes=self._seals.mac(key.encode(), fingerprint)[:16])

    async def _settle(self, execution: Execution, key: str) -> None:
        """Keep the answer, or give the key back. A failure here harms no request: the lease ends by itself."""
        try:
            async with self._transactions() as tx:
                if execution.answer is None:
                    await tx.idempotency_keys.release(execution.claim)
                else:
                    sealed = self._encrypted(execution.claim, key, execution.answer)
                    # The body may hold a password, which a plain hash would let a thief guess by trying.
                    fingerprint = self._seals.mac(_subject(execution.claim, key), execution.fingerprint)
                    await tx.idempotency_keys.answer(execution.claim, fingerprint, sealed)
        except DataLayerError as error:
            log.warning("idempotent_answer_not_kept", reason=str(error))

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            try:
                async with self._transactions() as tx:
                    await tx.idempotency_keys.extend(claim, LEASE)
            except DataLayerError as error:
                log.warning("idempotency_lease_not_renewed", reason=str(error))

    def _encrypted(self, claim: Claim, key: str, answer: KeptAnswer) -> bytes:
        packed = _pack(answer)
        if len(packed) > LARGEST_ANSWER:
            packed = _pack(KeptAnswer(answer.status, answer.headers, None))
        return self._seals.seal(_subject(claim, key), packed)

    def _decrypted(self, claim: Claim, key: str, sealed: bytes) -> KeptAnswer:
        opened = self._seals.open(_subject(claim, key), sealed)
        if opened is None:
            raise AnswerNotKeptError(
                "the request was carried out, and its answer cannot be read since SESSION_SECRET was changed; look for "
                "what it has created before you send it with a new Idempotency-Key"
            )
        return _unpack(opened[0])


def _subject(claim: Claim, key: str) -> bytes:
    """One key in its scope."""
    return claim.scope.bytes + key.encode()


def _id_of(key: str) -> UUID:
    return UUID(bytes=hashlib.sha256(key.encode()).digest()[:16])


def _pack(answer: KeptAnswer) -> bytes:
    """The head as a line of JSON, then the body, compressed."""
    head = orjson.dumps([answer.status, answer.headers, answer.body is not None])
    return zstandard.compress(head + b"\n" + (answer.body or b""))


def _unpack(packed: bytes) -> KeptAnswer:
    head, _, body = zstandard.decompress(packed, max_output_size=_LARGEST_BODY).partition(b"\n")
    status, headers, has_body = orjson.loads(head)
    return KeptAnswer(status, tuple((name, value) for name, value in headers), body if has_body else None)
