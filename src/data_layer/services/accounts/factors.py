"""Second factors in the hands of their owners: added, listed, removed; and reset by administrators.

Each change asks for the password or a factor once more: see ``confirmations``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from uuid_utils.compat import uuid7

from data_layer.entities import SecondFactor, User
from data_layer.entities.enums import AuditAction, FactorKind
from data_layer.errors import (
    DuplicateError,
    InvalidValueError,
    LimitReachedError,
    NotFoundError,
)
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.factors import (
    ConfirmedFactor,
    FactorChallenge,
    FactorProof,
    FactorsView,
    FactorView,
    NewTotp,
    PasskeyChallenge,
)
from data_layer.services.accounts import passkeys, totp
from data_layer.services.accounts.challenges import ADD_PASSKEY, CONFIRM, LIFETIME
from data_layer.services.accounts.confirmations import Confirmations
from data_layer.services.accounts.dependencies import (
    AccountDependencies,
    admin_entry,
    load_authorized,
    own_entry,
)
from data_layer.services.accounts.passkeys import refused
from data_layer.services.accounts.second_factors import SecondFactors, hash_code, new_codes
from data_layer.services.accounts.throttle import LoginAttempts
from data_layer.services.permissions import Permission

MOST_FACTORS = 20
_LONGEST_NAME = 100


class Factors:
    """What people show beside their passwords."""

    def __init__(
        self,
        dependencies: AccountDependencies,
        attempts: LoginAttempts,
        factors: SecondFactors,
        confirmations: Confirmations,
    ) -> None:
        self._dependencies = dependencies
        self._attempts = attempts
        self._factors = factors
        self._confirmations = confirmations

    async def list_factors(self, actor: Actor, user_id: UUID) -> FactorsView:
        """The factors of a person that count, and how many recovery codes are left.

        Raises:
            PermissionDeniedError: the actor may not see them.
        """
        async with self._dependencies.transactions() as tx:
            await load_authorized(tx, actor, Permission.LIST_FACTORS, user_id, lock=False)
            found = await tx.second_factors.confirmed(user_id)
            left = await tx.second_factors.count_codes(user_id)
            return FactorsView(
                factors=tuple(FactorView.model_validate(factor) for factor in found), recovery_codes_left=left
            )

    async def begin_totp(
        self,
        actor: Actor,
        user_id: UUID,
        *,
        name: str = "Authenticator",
        password: str | None = None,
        proof: FactorProof | None = None,
        challenge: str | None = None,
    ) -> NewTotp:
        """Add an authenticator app, which counts once ``confirm_totp`` has seen a code of it.

        Its secret is returned here once, and stored encrypted. One that was begun before is forgotten.

        Args:
            actor: the owner.
            user_id: the owner.
            name: by which the owner knows it.
            password: that of the account, if it has one.
            proof: or else a factor that counts already.
            challenge: of ``begin_confirmation``, where a passkey has answered it.

        Raises:
            PermissionDeniedError: for anybody but the owner.
            InvalidCredentialsError: the password is wrong.
            InvalidSecondFactorError: the proof is not right.
            InvalidLoginError: the challenge is not in force.
            TooManyAttemptsError: too many failed lately.
            InvalidValueError: neither password nor proof was shown, and the account has one of them.
            LimitReachedError: there are 20 factors.
        """
        name, secret = _checked(name), totp.new_secret()
        async with self._confirmed(actor, user_id, password=password, proof=proof, challenge=challenge) as (tx, user):
            await _require_room(tx, user_id)
            await tx.second_factors.remove_unconfirmed(user_id)
            factor_id = uuid7()
            sealed = self._factors.seal_secret(factor_id, secret)
            tx.add(SecondFactor(id=factor_id, user_id=user_id, kind=FactorKind.TOTP, name=name, secret=sealed))
            uri = totp.uri_of(secret, user.email)
        return NewTotp(id=factor_id, secret=SecretStr(secret), uri=SecretStr(uri))

    async def confirm_totp(self, actor: Actor, factor_id: UUID, code: str) -> ConfirmedFactor:
        """Show a code of the app that was added; from now on logging in with the password asks for one.

        Raises:
            NotFoundError: the actor has begun none with this id.
            InvalidSecondFactorError: the code is not right.
            TooManyAttemptsError: too many failed lately.
        """
        user_id = await self._owner_of(actor, factor_id)
        async with self._dependencies.transactions() as tx:
            email = (await load_authorized(tx, actor, Permission.CHANGE_FACTORS, user_id, lock=False)).email
        showing = self._attempts.with_factor(email, FactorProof(code=code))
        async with self._confirmations.granted(showing, actor, Permission.CHANGE_FACTORS, user_id) as (tx, user, _):
            factor = await tx.second_factors.find_one(id=factor_id, user_id=user_id)
            if factor is None or factor.confirmed_at is not None:
                raise _missing(factor_id)
            if not self._factors.accept_code(factor, code):
                raise refused()
            return await self._confirm_factor(tx, actor, user, factor)

    async def begin_passkey(
        self,
        actor: Actor,
        user_id: UUID,
        *,
        password: str | None = None,
        proof: FactorProof | None = None,
        challenge: str | None = None,
    ) -> PasskeyChallenge:
        """Return what a browser needs to make a passkey; ``add_passkey`` takes what it answers.

        Args:
            actor: the owner.
            user_id: the owner.
            password: see ``begin_totp``.
            proof: see ``begin_totp``.
            challenge: see ``begin_totp``.

        Raises:
            InvalidSecondFactorError: see ``begin_totp``.
            InvalidLoginError: see ``begin_totp``.
            InvalidValueError: see ``begin_totp``.
            InvalidCredentialsError: see ``begin_totp``.
            TooManyAttemptsError: see ``begin_totp``.
            LimitReachedError: see ``begin_totp``.
        """
        async with self._confirmed(actor, user_id, password=password, proof=proof, challenge=challenge) as (tx, user):
            await _require_room(tx, user_id)
            factors = await tx.second_factors.confirmed(user_id)
            known = [factor for factor in factors if factor.kind is FactorKind.PASSKEY]
            password_hash = await tx.users.secret(user_id, "password_hash")
            new, signed = self._factors.challenges.make(ADD_PASSKEY, user_id, password_hash=password_hash)
            options = passkeys.options_for_new(self._factors.site, user, signed, known)
        return PasskeyChallenge(challenge=SecretStr(new), options=options, expires_in=LIFETIME)

    async def add_passkey(
        self, actor: Actor, user_id: UUID, *, challenge: str, answer: dict[str, Any], name: str = "Passkey"
    ) -> ConfirmedFactor:
        """Take a passkey that a browser has made; from now on logging in with the password asks for a factor.

        Raises:
            InvalidLoginError: the challenge is not in force.
            InvalidSecondFactorError: the answer is not right.
            DuplicateError: the passkey is there already.
            LimitReachedError: see ``begin_totp``.
        """
        name = _checked(name)
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.CHANGE_FACTORS, user_id)
            stored = await tx.users.secret(user_id, "password_hash")
            pending = self._factors.challenges.check(ADD_PASSKEY, challenge, user_id, stored)
            made = passkeys.check_new(self._factors.site, answer, pending.bytes_for_passkey)
            await _require_room(tx, user_id)
            if await tx.second_factors.find_one(credential_id=made.credential_id):
                raise DuplicateError("this passkey was added before", field="answer")
            factor = SecondFactor(
                user_id=user_id,
                kind=FactorKind.PASSKEY,
                name=name,
                secret=made.public_key,
                credential_id=made.credential_id,
                sign_count=made.sign_count,
            )
            tx.add(factor)
            return await self._confirm_factor(tx, actor, user, factor)

    async def begin_confirmation(self, actor: Actor, user_id: UUID) -> FactorChallenge:
        """Return what a passkey answers, for whatever takes a ``proof``.

        Raises:
            PermissionDeniedError: for anybody but the owner.
        """
        async with self._dependencies.transactions() as tx:
            user = await load_authorized(tx, actor, Permission.CHANGE_FACTORS, user_id, lock=False)
            password_hash = await tx.users.secret(user_id, "password_hash")
            factors = await tx.second_factors.confirmed(user_id)
            return self._factors.ask(CONFIRM, user, factors, password_hash=password_hash)

    async def remove_factor(
        self,
        actor: Actor,
        factor_id: UUID,
        *,
        password: str | None = None,
        proof: FactorProof | None = None,
        challenge: str | None = None,
    ) -> None:
        """Remove a factor; with the last one the recovery codes go.

        Args:
            actor: the owner.
            factor_id: which one.
            password: that of the account.
            proof: or else a factor, perhaps the same one.
            challenge: of ``begin_confirmation``, where a passkey has answered it.

        Raises:
            NotFoundError: the actor has no such factor.
            InvalidCredentialsError: the password is wrong.
            InvalidSecondFactorError: the proof is not right.
            InvalidLoginError: the challenge is not in force.
            TooManyAttemptsError: too many failed lately.
            InvalidValueError: neither password nor proof was shown.
        """
        user_id = await self._owner_of(actor, factor_id)
        async with self._confirmed(actor, user_id, password=password, proof=proof, challenge=challenge) as (tx, _):
            factor = await tx.second_factors.find_one(id=factor_id, user_id=user_id)
            if factor is None:
                raise _missing(factor_id)
            kind, was_confirmed = factor.kind, factor.confirmed_at is not None
            await tx.second_factors.delete(factor)
            if not await tx.second_factors.confirmed(user_id):
                await tx.second_factors.replace_codes(user_id, ())
            if was_confirmed:
                tx.add(
                    own_entry(
                        *(actor, AuditAction.USER_REMOVE_FACTOR, user_id, "Removed a second factor"),
                        old_values={"factor_id": str(factor_id), "kind": kind.value},
                    )
                )

    async def renew_recovery_codes(
        self,
        actor: Actor,
        user_id: UUID,
        *,
        password: str | None = None,
        proof: FactorProof | None = None,
        challenge: str | None = None,
    ) -> Sequence[SecretStr]:
        """Return ten new recovery codes; the former ones no longer work.

        Raises:
            NotFoundError: the account has no second factor.
            AuthenticationError: see ``remove_factor``.
            InvalidValueError: see ``remove_factor``.
        """
        async with self._confirmed(actor, user_id, password=password, proof=proof, challenge=challenge) as (tx, _):
            if not await tx.second_factors.confirmed(user_id):
                raise NotFoundError("the account has no second factor, so it needs no recovery codes")
            tx.add(own_entry(actor, AuditAction.USER_ADD_FACTOR, user_id, "Renewed the recovery codes"))
            return await self._new_codes(tx, user_id)

    async def reset_factors(self, actor: Actor, user_id: UUID) -> int:
        """Remove all factors and recovery codes after a person lost them; return how many. All sessions end.

        Args:
            actor: an administrator, after checking the identity of the person.
            user_id: whose.

        Raises:
            PermissionDeniedError: the actor may not do it.
            NotFoundError: the account does not exist.
        """
        async with self._dependencies.transactions() as tx:
            await load_authorized(tx, actor, Permission.RESET_FACTORS, user_id)
            removed = await tx.second_factors.remove(user_id)
            if removed:
                entry = admin_entry(actor, AuditAction.ADMIN_USER_UPDATE, user_id, "Reset the second factors")
                tx.add(entry)
                await tx.sessions.end_all(user_id, "factors_reset")
            return removed

    async def _confirm_factor(self, tx: UnitOfWork, actor: Actor, user: User, factor: SecondFactor) -> ConfirmedFactor:
        is_first = not await tx.second_factors.confirmed(user.id)
        factor.confirmed_at = datetime.now(UTC)
        await tx.flush()
        codes = await self._new_codes(tx, user.id) if is_first else ()
        tx.add(
            own_entry(
                *(actor, AuditAction.USER_ADD_FACTOR, user.id, "Added a second factor"),
                new_values={"factor_id": str(factor.id), "kind": factor.kind.value},
            )
        )
        return ConfirmedFactor(factor=FactorView.model_validate(factor), recovery_codes=tuple(codes))

    async def _new_codes(self, tx: UnitOfWork, user_id: UUID) -> Sequence[SecretStr]:
        codes = new_codes()
        await tx.second_factors.replace_codes(user_id, [hash_code(user_id, code) for code in codes])
        return [SecretStr(code) for code in codes]

    def _confirmed(
        self, actor: Actor, user_id: UUID, **shown: Any
    ) -> AbstractAsyncContextManager[tuple[UnitOfWork, User]]:
        return self._confirmations.confirmed(actor, Permission.CHANGE_FACTORS, user_id, **shown)

    async def _owner_of(self, actor: Actor, factor_id: UUID) -> UUID:
        """Return the actor, if the factor is theirs."""
        async with self._dependencies.transactions() as tx:
            factor = await tx.second_factors.find_one(id=factor_id)
        if factor is None or (factor.user_id != actor.user_id and not actor.is_system):
            raise _missing(factor_id)
        return factor.user_id


def _checked(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise InvalidValueError(f"name must have 1 to {_LONGEST_NAME} characters", field="name")
    return name


async def _require_room(tx: UnitOfWork, user_id: UUID) -> None:
    if len(await tx.second_factors.confirmed(user_id)) >= MOST_FACTORS:
        raise LimitReachedError(f"a person may have {MOST_FACTORS} second factors; remove one first")


def _missing(factor_id: UUID) -> NotFoundError:
    return NotFoundError(f"no second factor has the id {factor_id}")
