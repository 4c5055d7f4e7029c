"""The password or a second factor, shown once more before something changes that decides who gets in.

Somebody who found a session open must neither remove a factor nor add one, nor link an identity, which would keep the
owner out. So each such change asks for the password again, or for a factor that counts already; where there is neither,
the session is all there is. Wrong answers count as failed logins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

from data_layer.entities import User
from data_layer.errors import ChangedMeanwhileError, InvalidValueError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.factors import FactorProof
from data_layer.services.accounts.challenges import CONFIRM
from data_layer.services.accounts.dependencies import AccountDependencies, check_password_is, load_authorized
from data_layer.services.accounts.second_factors import SecondFactors
from data_layer.services.accounts.throttle import Attempt, LoginAttempts
from data_layer.services.permissions import Permission


class Confirmations:
    """Open transactions for owners who have confirmed a change."""

    def __init__(self, dependencies: AccountDependencies, attempts: LoginAttempts, factors: SecondFactors) -> None:
        self._dependencies = dependencies
        self._attempts = attempts
        self._factors = factors

    @asynccontextmanager
    async def confirmed(
        self,
        actor: Actor,
        permission: Permission,
        user_id: UUID,
        *,
        password: str | None,
        proof: FactorProof | None,
        challenge: str | None,
    ) -> AsyncIterator[tuple[UnitOfWork, User]]:
        """Yield a transaction in which the owner has shown the password or a factor once more, where there is one.

        Raises:
            PermissionDeniedError: the actor does not have the permission.
            InvalidCredentialsError: the password is wrong.
            InvalidSecondFactorError: the proof is not right.
            InvalidLoginError: the challenge is not in force.
            TooManyAttemptsError: too many failed lately.
            InvalidValueError: neither password nor proof was shown, and the account has one of them.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, permission, user_id, lock=False)
            email, stored = user.email, await tx.users.secret(user_id, "password_hash")
            has_factors = bool(await tx.second_factors.confirmed(user_id))
        pending = None
        if challenge is not None:
            pending = self._factors.challenges.check(CONFIRM, challenge, user_id, stored)
        if password is not None:
            showing = self._attempts.with_password(email, password)
            async with self.granted(showing, actor, permission, user_id) as (tx, user, attempt):
                await check_password_is(tx, user_id, attempt.proven().password_hash)
                yield tx, user
        elif proof is not None and has_factors:
            showing = self._attempts.with_factor(email, proof)
            async with self.granted(showing, actor, permission, user_id) as (tx, user, _):
                await check_password_is(tx, user_id, stored)  # The one that the challenge was made with.
                await self._factors.use(tx, user_id, proof, pending)
                yield tx, user
        elif stored is None and not has_factors:
            async with self._dependencies.transactions() as tx:
                user = await load_authorized(tx, actor, permission, user_id)
                await check_password_is(tx, user_id, None)
                if await tx.second_factors.confirmed(user_id):
                    raise ChangedMeanwhileError("a second factor was added elsewhere at the same moment; show it")
                yield tx, user
        else:
            raise InvalidValueError("show the password, or a second factor, once more", field="password")

    @asynccontextmanager
    async def granted(
        self, showing: AbstractAsyncContextManager[Attempt], actor: Actor, permission: Permission, user_id: UUID
    ) -> AsyncIterator[tuple[UnitOfWork, User, Attempt]]:
        """Yield a transaction that gives the attempt back if the block accepts it, and the owner, locked."""
        async with showing as attempt, self._dependencies.transactions() as tx:
            await self._attempts.give_back(tx, attempt)
            yield tx, await load_authorized(tx, actor, permission, user_id), attempt
