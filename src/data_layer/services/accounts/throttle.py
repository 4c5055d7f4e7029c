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
"""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from data_layer.errors import TooManyAttemptsError
from data_layer.repositories.login_attempts import EVERY, Allowance, Bucket, Counted
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.services.accounts.addresses import network_of

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
