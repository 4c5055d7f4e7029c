"""``data.first_administrator``: how a service without an administrator gets one, by a code that its operator has seen.

The process that starts prints the code, and only its hash is kept, in the cache: every process of the service can
compare it. It ends after a day. A cache that has lost it costs a restart.

| an outsider | |
| --- | --- |
| guesses | the code has 100 bits, and attempts are limited by network |
| registers before the operator | has no role by that, and does not stand in the way |
| has seen a code of the past | there is an administrator, so it is refused |
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta

from data_layer.cache import Cache
from data_layer.entities.enums import UserRole
from data_layer.errors import ConflictError, InvalidOneTimeTokenError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.users import UserFull
from data_layer.services.accounts import AccountService
from data_layer.services.arguments import checks_arguments

_CODE = "first-administrator:code"
_CLAIM = "first-administrator:claim"
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_GROUPS, _LENGTH = 4, 5
_CODE_LIFETIME = timedelta(days=1)
_CLAIM_SECONDS = 30


@checks_arguments
class FirstAdministratorService:
    """Makes the first administrator, once.

    Args:
        accounts: finds people, and makes the account.
        cache: holds the hash of the code.
    """

    def __init__(self, accounts: AccountService, cache: Cache) -> None:
        self._accounts = accounts
        self._cache = cache
        self._is_missing = True

    async def is_missing(self) -> bool:
        """Whether an administrator is missing. Once there is one, the process remembers it: the last one stays."""
        if self._is_missing:
            self._is_missing = not await self._accounts.list(SYSTEM, role=UserRole.ADMIN, limit=1)
        return self._is_missing

    async def offer(self) -> str | None:
        """Return a new code for the operator, in place of the one before; None where there is an administrator."""
        if not await self.is_missing():
            return None
        groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH)) for _ in range(_GROUPS))
        code = "-".join(groups)
        await self._cache.set(_CODE, _hash(code), ttl=_CODE_LIFETIME)
        return code

    async def claim(self, code: str, *, email: str, password: str, first_name: str, last_name: str) -> UserFull:
        """Make the account of the first administrator, which is open at once.

        Args:
            code: what the operator has seen, in any letter case.
            email: the address, for which having the code vouches.
            password: see ``passwords.check_new_password``.
            first_name: the first name.
            last_name: the last name.

        Raises:
            InvalidOneTimeTokenError: the code is another one or has ended, or there is an administrator already.
            ConflictError: somebody else uses the code at this moment.
            DuplicateError: somebody has the address.
            WeakPasswordError: the code can be used again with a better one.
            InvalidValueError: an unusable address or name; the same.
        """
        stored = await self._cache.get(_CODE)
        # Compared before the lock is taken: nobody without the code can keep the operator from it.
        if not isinstance(stored, str) or not hmac.compare_digest(stored, _hash(code)):
            raise _not_valid()
        if not await self._cache.add(_CLAIM, 1, ttl=_CLAIM_SECONDS):
            raise ConflictError("somebody else is using the code at this moment; try again in a minute")
        try:
            if not await self.is_missing():
                raise _not_valid()
            user = await self._accounts.create(
                SYSTEM,
                email=email,
                first_name=first_name,
                last_name=last_name,
                password=password,
                role=UserRole.ADMIN,
                email_verified=True,
            )
            await self._cache.delete(_CODE)
        finally:
            await self._cache.delete(_CLAIM)
        return user


def _not_valid() -> InvalidOneTimeTokenError:
    return InvalidOneTimeTokenError("the code is not valid; the service prints a new one when it starts")


def _hash(code: str) -> str:
    plain = "".join(character for character in code.upper() if character in _ALPHABET)
    return hashlib.sha256(plain.encode()).hexdigest()
