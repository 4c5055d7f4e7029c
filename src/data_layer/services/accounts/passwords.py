"""Passwords become hashes here, and are compared with them: off the event loop, and in equal time for everybody.

A stored hash is ``v1:`` and what bcrypt makes of the base64 text of HMAC-SHA-256(password). The first hash carries
every byte of a password past bcrypt's limit of 72, and NUL bytes too; it is keyed with a constant of ours, so that
hashes stolen elsewhere cannot be tried in its place ("password shucking"). A new scheme gets a new marker.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

import bcrypt

from data_layer.errors import OverloadedError

Result = TypeVar("Result")

MAXIMUM_LENGTH = 1024
"""Longest password, in characters. NIST SP 800-63B asks for 64 at least; a limit keeps the work for each bounded."""

_MARKER = "v1:"
_KEY = b"data_layer.password.v1"
_STORED = re.compile(r"v1:\$2b\$(?P<rounds>0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_WAITING_PER_THREAD = 32
_MOST_THREADS = 8


def normalize(password: str) -> str:
    """The same text for every way of typing it: the OpaqueString profile of RFC 8265, section 4.2.

    Letters keep their case and width; all spaces become the ASCII one; then NFC. NFKC, which NIST allows too, would
    make different characters equal.
    """
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in password)
    return unicodedata.normalize("NFC", spaced)


class PasswordHasher:
    """bcrypt in a few threads of its own.

    Args:
        rounds: cost of new hashes, as a power of two (BCRYPT_ROUNDS).
        threads: how many passwords are worked on at once; by default one core is left to everything else.
    """

    def __init__(self, rounds: int, *, threads: int | None = None) -> None:
        threads = threads or min(_MOST_THREADS, max(1, (os.cpu_count() or 1) - 1))
        self.rounds = rounds
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._places = threading.BoundedSemaphore(threads * _WAITING_PER_THREAD)
        self._counting = threading.Lock()
        self._work = 0

    @property
    def work(self) -> int:
        """The work done so far, in iterations of bcrypt: each computation adds two to the power of its rounds."""
        return self._work

    async def hash(self, password: str) -> str:
        """The text to store for a password.

        Raises:
            OverloadedError: when too many are waiting.
        """
        return await self._in_thread(partial(self._hash, _digest(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password belongs to a stored hash.

        It takes as long without a stored hash, and with one of fewer rounds. Only hashes of more rounds, which stay
        from before BCRYPT_ROUNDS was lowered until their owners log in, take longer.

        Raises:
            OverloadedError: when too many are waiting.
        """
        if len(password) > MAXIMUM_LENGTH:
            password, stored = "", None
        return await self._in_thread(partial(self._verify, _digest(password), stored))

    def needs_rehash(self, stored: str) -> bool:
        """Whether a hash was made with other rounds than are set now, and should be replaced at the next login."""
        return _rounds_of(stored) != self.rounds

    def close(self) -> None:
        """Drop the waiting requests. What a thread is computing ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        if not self._places.acquire(blocking=False):
            raise OverloadedError("too many passwords wait to be checked; try again in a few seconds")
        try:
            future = self._threads.submit(work)
        except BaseException:
            self._places.release()
            raise
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _: Future[Result]) -> None:
        self._places.release()

    def _hash(self, digest: bytes) -> str:
        return _MARKER + self._compute(digest, bcrypt.gensalt(self.rounds)).decode()

    def _verify(self, digest: bytes, stored: str | None) -> bool:
        rounds = _rounds_of(stored)
        if stored is None or rounds is None:
            self._compute(digest, bcrypt.gensalt(self.rounds))
            return False
        salted = stored.removeprefix(_MARKER).encode()
        matches = hmac.compare_digest(self._compute(digest, salted), salted)
        # 2^r + 2^r + 2^(r+1) + … + 2^(n-1) = 2^n: together as much work as one hash of today's rounds.
        for missing in range(rounds, self.rounds):
            self._compute(digest, bcrypt.gensalt(missing))
        return matches

    def _compute(self, digest: bytes, salt: bytes) -> bytes:
        with self._counting:
            self._work += 2 ** int(salt.split(b"$")[2])
        return bcrypt.hashpw(digest, salt)


def _digest(password: str) -> bytes:
    """44 characters of base64. Half a surrogate pair, which is not a character, is refused for new passwords only."""
    encoded = normalize(password).encode(errors="surrogatepass")
    return base64.b64encode(hmac.digest(_KEY, encoded, hashlib.sha256))


def _rounds_of(stored: str | None) -> int | None:
    """The rounds of a stored hash; none for a text that is not a hash of ours, which no password fits."""
    found = _STORED.fullmatch(stored or "")
    return int(found["rounds"]) if found else None
