"""The ``second_factors`` and ``recovery_codes`` tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import delete, func, insert, select

from data_layer.database.statements import named
from data_layer.entities import SecondFactor, recovery_codes
from data_layer.repositories.repository import Repository


class SecondFactorRepository(Repository[SecondFactor]):
    """Rows of ``second_factors``, and the recovery codes that go with them."""

    entity = SecondFactor

    async def confirmed(self, user_id: UUID, *, lock: bool = False) -> Sequence[SecondFactor]:
        """The factors of a person that count, the oldest first; locked, nobody else uses one until the commit."""
        is_confirmed = (SecondFactor.user_id == user_id, SecondFactor.confirmed_at.is_not(None))
        statement = select(SecondFactor).where(*is_confirmed).order_by(SecondFactor.id)
        return await self._session.find(statement.with_for_update() if lock else statement)

    async def remove_unconfirmed(self, user_id: UUID) -> None:
        """Forget what was begun and never confirmed."""
        is_unconfirmed = (SecondFactor.user_id == user_id, SecondFactor.confirmed_at.is_(None))
        await self._session.change(delete(SecondFactor).where(*is_unconfirmed))

    async def remove(self, user_id: UUID) -> int:
        """Remove all factors of a person and the recovery codes; how many factors counted."""
        codes = delete(recovery_codes).where(recovery_codes.c.user_id == user_id)
        await self._session.change(named("recovery_codes.remove", codes))
        statement = delete(SecondFactor).where(SecondFactor.user_id == user_id).returning(SecondFactor.confirmed_at)
        removed = (await self._session.change(statement)).scalars().all()
        return sum(confirmed_at is not None for confirmed_at in removed)

    async def replace_codes(self, user_id: UUID, hashes: Collection[str]) -> None:
        """Store other recovery codes in place of those there are."""
        codes = delete(recovery_codes).where(recovery_codes.c.user_id == user_id)
        await self._session.change(named("recovery_codes.remove", codes))
        rows = [{"user_id": user_id, "code_hash": code_hash} for code_hash in hashes]
        if rows:
            await self._session.change(named("recovery_codes.insert", insert(recovery_codes).values(rows)))

    async def use_code(self, user_id: UUID, code_hash: str) -> bool:
        """Use a recovery code up; whether there was one."""
        is_this = (recovery_codes.c.user_id == user_id, recovery_codes.c.code_hash == code_hash)
        statement = named("recovery_codes.use", delete(recovery_codes).where(*is_this))
        return (await self._session.change(statement)).rowcount == 1

    async def count_codes(self, user_id: UUID) -> int:
        """How many recovery codes are left."""
        statement = select(func.count()).select_from(recovery_codes).where(recovery_codes.c.user_id == user_id)
        return int((await self._session.execute(named("recovery_codes.count", statement))).scalar_one())
