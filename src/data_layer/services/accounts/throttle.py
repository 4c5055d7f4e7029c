"""How failed logins slow down the next ones, without letting anybody lock somebody else out.

An attempt counts before the password is looked at, so attempts that arrive together cannot slip through together, and
it is taken back if the password was right. Three levels rise by one with every failure and fall by one in a fixed time:

=====================  =====  ===================  =========================================================
level of               free   one is forgiven in   stops
=====================  =====  ===================  =========================================================
an account, from one   5      10 minutes           guessing one password from one place
network
a network              30     1 minute             trying one password on many accounts ("spraying")
an account, from       50     10 minutes           guessing one password from many places ("botnet")
everywhere
=====================  =====  ===================  =========================================================

Above the free number each attempt doubles the waiting time, from one second to a quarter of an hour; refused attempts
do not count. In the long run an account sees 6 guesses an hour from all unknown networks together, and as many from
each that it knows. (NIST SP 800-63B, "rate limiting", allows 100 failures in a row and names growing delays of up to
an hour as a way to keep below.)

Nobody is locked out for good, because

- levels fall by themselves, and a refused attempt never makes anybody wait longer;
- a network that the owner used in the last 90 days, to log in or to show a mailed token, only has a level of its own:
  neither what others do from elsewhere reaches it, nor what they do to other accounts from the same network (the idea
  of OWASP's device cookies, with the network as the device). So somebody who shares an address with an attacker, behind
  a NAT or a proxy that is not trusted, gets in there after verifying the address or resetting the password once;
- one network alone cannot raise the level of the account, because its own level lets too few attempts through;
- resetting the password by mail forgets all levels of the account.

Addresses without an account are counted like others, so that waiting times disclose nothing about who has an account.

``LoginThrottle`` counts. ``LoginAttempts`` is the block around the comparison of a password or a second factor: it
counts before, takes back what was right, and records what failed.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from data_layer.context import current_context
from data_layer.entities.enums import AuditAction
from data_layer.errors import (
    AuthenticationError,
    CommitUnknownError,
    DataLayerError,
    InvalidCredentialsError,
    TooManyAttemptsError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.login_attempts import EVERY, Allowance, Bucket, Counted
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.repositories.users import Credentials
from data_layer.schemas.factors import FactorProof
from data_layer.services.accounts.addresses import network_of
from data_layer.services.accounts.dependencies import AccountDependencies
from data_layer.services.accounts.second_factors import kind_of
from data_layer.services.audit.service import AuditService

log = get_log(__name__)

PAIR = Allowance(free=5, forgiven_every=600, first_wait=1, longest_wait=900)
NETWORK = Allowance(free=30, forgiven_every=60, first_wait=1, longest_wait=900)
ACCOUNT = Allowance(free=50, forgiven_every=600, first_wait=1, longest_wait=900)


@dataclass(frozen=True, slots=True)
class Admission:
    """An attempt that may be made, and what was counted for it."""

    pair: Bucket
    counted: tuple[tuple[Bucket, Counted], ...]
    locked_until: datetime | None

    @property
    def is_last_for_now(self) -> bool:
        """Whether the next attempt will have to wait."""
        return any(counted.blocked_until is not None for _, counted in self.counted)


class LoginThrottle:
    """Counts attempts to log in.

    Args:
        secret: key under which addresses are hashed, so that the table holds none.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def admit(self, tx: UnitOfWork, name: str, ip_address: str | None) -> Admission:
        """Count an attempt that is about to be made.

        Args:
            tx: the transaction; when the attempt is refused it must not be committed.
            name: the address that somebody wants to log in with.
            ip_address: where from; callers whose address is not known count as one network.

        Raises:
            TooManyAttemptsError: when it has to wait.
        """
        account, network = self._id("account", name), self._network(ip_address)
        pair = Bucket(account, network)
        counted = [(pair, await _count(tx, pair, PAIR))]
        if not counted[0][1].known:
            if ip_address is not None:
                counted.append((Bucket(EVERY, network), await _count(tx, Bucket(EVERY, network), NETWORK)))
            everywhere = Bucket(account, EVERY)
            counted.append((everywhere, await _count(tx, everywhere, ACCOUNT)))
        return Admission(pair, tuple(counted), max(filter(None, (c.blocked_until for _, c in counted)), default=None))

    async def give_back(self, tx: UnitOfWork, admission: Admission) -> None:
        """Take an attempt back that was right, or never decided."""
        for bucket, counted in admission.counted:
            await tx.login_attempts.give_back(bucket, counted)

    async def succeed(self, tx: UnitOfWork, admission: Admission) -> None:
        """Remember, after an attempt that was given back, that the account knows the network."""
        await tx.login_attempts.succeed(admission.pair)

    async def remember(self, tx: UnitOfWork, name: str, ip_address: str | None) -> None:
        """Let the account know a network from which its owner has shown a mailed token."""
        await tx.login_attempts.succeed(self._pair(name, ip_address))

    async def is_known(self, tx: UnitOfWork, name: str, ip_address: str | None) -> bool:
        """Whether the account knows the network."""
        return await tx.login_attempts.is_known(self._pair(name, ip_address))

    async def forget(self, tx: UnitOfWork, name: str) -> None:
        """Forget all failures of an account, and which networks it knows."""
        await tx.login_attempts.forget(self._id("account", name))

    def _pair(self, name: str, ip_address: str | None) -> Bucket:
        return Bucket(self._id("account", name), self._network(ip_address))

    def _network(self, ip_address: str | None) -> UUID:
        return self._id("network", "unknown" if ip_address is None else network_of(ip_address))

    def _id(self, kind: str, name: str) -> UUID:
        return UUID(bytes=hmac.digest(self._secret, f"login_attempts:{kind}:{name}".encode(), hashlib.sha256)[:16])


async def _count(tx: UnitOfWork, bucket: Bucket, allowance: Allowance) -> Counted:
    counted = await tx.login_attempts.count(bucket, allowance)
    if counted is None:
        seconds = math.ceil(await tx.login_attempts.waiting_time(bucket)) or 1
        raise TooManyAttemptsError(
            f"too many failed logins: try again in {seconds} s, or reset the password by mail", retry_after=seconds
        )
    return counted


@dataclass(frozen=True, slots=True)
class Attempt:
    """One that was counted; whether its password is right, if it shows one."""

    name: str
    admission: Admission
    found: Credentials | None
    is_right: bool = False

    def proven(self) -> Credentials:
        """What the password was right for.

        Raises:
            InvalidCredentialsError: when it was not.
        """
        if self.found is None or not self.is_right:
            raise wrong_credentials()
        return self.found


class LoginAttempts:
    """Let somebody show a password, or a second factor, within the limits of the throttle.

    An attempt is counted before anything is compared. A block that finds it right calls ``give_back`` in its
    transaction, before it locks the user's row. When it fails with an AuthenticationError the attempt stays counted,
    and is written down; after any other error, which says nothing of what was shown, it is given back.
    """

    def __init__(self, dependencies: AccountDependencies, throttle: LoginThrottle) -> None:
        self._dependencies = dependencies
        self._throttle = throttle

    @asynccontextmanager
    async def with_password(self, name: str, password: str) -> AsyncIterator[Attempt]:
        """Compare a password with that of an address: the same statements and the same work for every address.

        Raises:
            InvalidCredentialsError: address or password is wrong.
            TooManyAttemptsError: too many failed lately; nothing was compared.
            OverloadedError: too many passwords wait; the attempt does not count.
        """
        async with self._counted(name) as attempt:
            stored = attempt.found.password_hash if attempt.found else None
            shown = replace(attempt, is_right=await self._dependencies.passwords.verify(password, stored))
            shown.proven()
            yield shown

    @asynccontextmanager
    async def with_factor(self, name: str, proof: FactorProof) -> AsyncIterator[Attempt]:
        """Count an attempt of an address to show a second factor, which the block checks.

        Raises:
            TooManyAttemptsError: too many failed lately.
            InvalidValueError: the proof is not exactly one; the attempt does not count.
        """
        kind_of(proof)
        async with self._counted(name) as attempt:
            yield attempt

    async def give_back(self, tx: UnitOfWork, attempt: Attempt) -> None:
        """Stop counting an attempt. Levels are locked before the user's row, as when it was counted."""
        await self._throttle.give_back(tx, attempt.admission)
        await tx.users.take_back_attempt(attempt.name, attempt.admission.locked_until)

    async def succeed(self, tx: UnitOfWork, attempt: Attempt) -> None:
        """Remember where somebody has come in, after ``give_back``."""
        await self._throttle.succeed(tx, attempt.admission)

    @asynccontextmanager
    async def _counted(self, name: str) -> AsyncIterator[Attempt]:
        try:
            async with self._dependencies.transactions() as tx:
                admission = await self._throttle.admit(tx, name, current_context().ip_address)
                attempt = Attempt(name, admission, await tx.users.note_attempt(name, admission.locked_until))
        except TooManyAttemptsError as error:
            log.info("login_delayed", seconds=error.retry_after)
            raise
        try:
            yield attempt
        except AuthenticationError as error:
            self._record_failure(attempt, error)
            raise
        except CommitUnknownError:
            raise  # Perhaps it was given back.
        except Exception:
            await self._give_back_alone(attempt)
            raise

    async def _give_back_alone(self, attempt: Attempt) -> None:
        try:
            async with self._dependencies.transactions() as tx:
                await self.give_back(tx, attempt)
        except DataLayerError as error:  # Of no interest beside the error that is raised.
            log.warning("attempt_not_given_back", reason=error.code)

    def _record_failure(self, attempt: Attempt, error: AuthenticationError) -> None:
        """Write down that an attempt failed; never the address that was tried, which may be a password by mistake.

        It belongs to no transaction, and an attacker makes many: so it waits for nothing.
        """
        user_id = attempt.found.user_id if attempt.found else None
        record_failed_login(self._dependencies.audit, user_id, error)
        if attempt.admission.is_last_for_now:
            self._dependencies.audit.record_soon(
                AuditAction.SECURITY_ACCOUNT_LOCKED,
                "Further logins have to wait",
                user_id=user_id,
                resource_type="user" if user_id else None,
                resource_id=user_id,
            )


def record_failed_login(audit: AuditService, user_id: UUID | None, error: AuthenticationError) -> None:
    """Write down that somebody could not come in, and why."""
    log.info("login_failed", user_id=user_id, reason=error.code)
    audit.record_soon(
        AuditAction.SECURITY_LOGIN_FAILED,
        "Login failed",
        user_id=user_id,
        resource_type="user" if user_id else None,
        resource_id=user_id,
        error_message=error.code,
    )


def wrong_credentials() -> InvalidCredentialsError:
    """The one answer for unknown addresses, wrong passwords and accounts without a password."""
    return InvalidCredentialsError("the address or the password is wrong")
