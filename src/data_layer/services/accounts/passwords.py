"""Passwords: which new ones are refused, and how they are hashed and compared, in equal time for every account.

Hashing runs off the event loop.

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
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from importlib import resources
from itertools import pairwise
from typing import Self, TypeVar

import bcrypt

from data_layer.errors import OverloadedError, WeakPasswordError

Result = TypeVar("Result")

MAXIMUM_LENGTH = 1024
"""Longest password, in characters. NIST SP 800-63B asks for 64 at least; a limit keeps the work for each bounded."""

_MARKER = "v1:"
_KEY = b"data_layer.password.v1"
_STORED = re.compile(r"v1:\$2b\$(?P<rounds>0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_WAITING_PER_THREAD = 32
_MOST_THREADS = 8

_FEWEST_DIFFERENT = 4
_LONGEST_DECORATION = 5  # "summer" and up to so many digits and signs is still "summer".
_SHORTEST_NAME = 4
_REFUSED_CATEGORIES = {"Cc": "a control character", "Cs": "half a surrogate pair", "Cn": "an unassigned character"}


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


def check_new_password(password: str, *, minimum: int, personal: Iterable[str] = (), field: str = "password") -> None:
    """Refuse a password that others would try first, after NIST SP 800-63B: length counts, kinds of characters do not.

    Refused are short ones, the most common ones, repetitions and sequences, the person's own address or name, and
    characters that cannot be typed again reliably (control characters, unassigned ones; RFC 8265, section 4.2).

    Args:
        password: what the person chose.
        minimum: fewest characters (PASSWORD_MIN_LENGTH).
        personal: the address and the names of the person, which are no passwords.
        field: what the caller's argument is called, which the error names: ``password`` or ``new``.

    Raises:
        WeakPasswordError: with the reason; it never repeats the password.
    """
    weakness = _weakness(password, minimum, personal)
    if weakness is not None:
        reason, text = weakness
        what = "the password" if field == "password" else f"the {field} password"
        raise WeakPasswordError(f"{what} {text}", field=field, reason=reason)


def _weakness(password: str, minimum: int, personal: Iterable[str]) -> tuple[str, str] | None:
    """Why a password is refused, as a name and as text; None for one that is taken."""
    if len(password) > MAXIMUM_LENGTH:
        return "too_long", f"may have {MAXIMUM_LENGTH} characters at most"
    for character in password:
        if kind := _REFUSED_CATEGORIES.get(unicodedata.category(character)):
            return "untypable", f"holds {kind}, which cannot be typed again; remove it"
    password = normalize(password)
    if len(password) < minimum:
        return "too_short", f"needs {minimum} characters or more; a few words in a row are easy to remember"
    folded = password.casefold()
    if _is_common(folded):
        return "common", "is one of the most common ones, which are tried first; choose another"
    if len(set(folded)) < _FEWEST_DIFFERENT or _is_sequence(folded):
        return "repetitive", "repeats a few characters or is a sequence; choose another"
    if any(_is_like(folded, name.casefold()) for name in personal):
        return "personal", "is the address or the name of the account; choose another"
    return None


@cache
def _common() -> frozenset[str]:
    file = resources.files("data_layer.services.accounts").joinpath("common_passwords.txt")
    return frozenset(line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))


def _is_common(folded: str) -> bool:
    word = folded.rstrip("0123456789!?.,-_#$*+@ ")
    return folded in _common() or (len(folded) - len(word) <= _LONGEST_DECORATION and word in _common())


def _is_sequence(folded: str) -> bool:
    steps = {ord(after) - ord(before) for before, after in pairwise(folded)}
    return steps in ({1}, {-1})


def _is_like(folded: str, name: str) -> bool:
    letters = _letters(name)
    return folded == name or (len(letters) >= _SHORTEST_NAME and _letters(folded) == letters)


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text))
