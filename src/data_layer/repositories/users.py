"""The ``users`` table, found by e-mail in any spelling, never removed; identities and second factors of people."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, func, insert, select, text, update
from typing_extensions import override

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import NamedQuery, named
from data_layer.entities import (
    ApiKey,
    Budget,
    DesignSystem,
    Export,
    FileReference,
    Mail,
    Project,
    SecondFactor,
    Session,
    StoredFile,
    User,
    UserIdentity,
    recovery_codes,
)
from data_layer.entities.columns import normalize_email
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.entities.user import erased_email
from data_layer.errors import InvalidValueError
from data_layer.repositories.projects import stored_files_of
from data_layer.repositories.repository import Repository, check_limit
from data_layer.repositories.standing import STANDING, Standing, read_standing

SecretColumn = Literal["password_hash", "reset_password_token_hash", "email_verification_token_hash"]

# The literal lets PostgreSQL see that the partial index on roles will do.
_IS_ADMIN = text("users.role = 'admin'")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is compared with."""

    user_id: UUID
    password_hash: str | None = field(repr=False)


def account_key(user_id: UUID) -> str:
    """Where the cache keeps an account, as its owner sees it. Whatever changes the row invalidates it."""
    return f"account:{user_id}"


def standing_key(user_id: UUID) -> str:
    """Where the cache keeps the role and the status of an account; invalidated together with ``account_key``."""
    return f"standing:{user_id}"


def account_keys(user_id: UUID) -> tuple[str, str]:
    """The keys of whatever shows an account."""
    return account_key(user_id), standing_key(user_id)


class UserRepository(Repository[User]):
    """Rows of ``users``."""

    entity = User

    def __init__(self, session: EntitySession, discard: Callable[..., None], invalidate: Callable[..., None]) -> None:
        super().__init__(session)
        self._discard = discard
        self._invalidate = invalidate

    async def standing(self, user_id: UUID) -> Standing | None:
        """The role and the status of an account; None when there is none."""
        [rows] = await self._session.fetch_all(STANDING.given(user_id=user_id))
        return read_standing(rows)

    async def page(
        self,
        *,
        limit: int,
        after: UUID | None = None,
        status: UserStatus | None = None,
        role: UserRole | None = None,
        ids: Collection[UUID] | None = None,
    ) -> Sequence[User]:
        """A page of the accounts that were not deleted, in the order of their making."""
        check_limit(limit)
        statement = select(User).where(User.email.not_like("%@deleted.invalid")).order_by(User.id).limit(limit)
        if after is not None:
            statement = statement.where(User.id > after)
        if status is not None:
            statement = statement.where(User.status == status)
        if role is not None:
            statement = statement.where(User.role == role)
        if ids is not None:
            statement = statement.where(User.id.in_(ids))
        return await self._session.find(statement)

    async def note_attempt(self, email: str, locked_until: datetime | None) -> Credentials | None:
        """Count an attempt to log in, and return what it is compared with; the same statement for unknown addresses."""
        statement = (
            update(User)
            .where(self._condition("email", email))
            .values(
                failed_login_count=User.failed_login_count + 1,
                locked_until=func.greatest(User.locked_until, locked_until),
                updated_at=User.updated_at,
            )
            .returning(User.id.label("user_id"), User.password_hash)
        )
        row = (await self._session.change(statement)).mappings().one_or_none()
        return None if row is None else Credentials(**row)

    async def take_back_attempt(self, email: str, locked_until: datetime | None) -> None:
        """Count an attempt no more, and end the waiting if it began with it; the same statement for all addresses."""
        statement = (
            update(User)
            .where(self._condition("email", email))
            .values(
                failed_login_count=func.greatest(User.failed_login_count - 1, 0),
                locked_until=func.nullif(User.locked_until, locked_until),
                updated_at=User.updated_at,
            )
        )
        await self._session.change(statement)

    async def record_login(self, user: User, *, ip_address: str | None, user_agent: str | None) -> None:
        """Count a login that succeeded; the failures before it are forgotten. The account itself does not change."""
        self._invalidate(*account_keys(user.id))
        columns = (User.login_count, User.failed_login_count, User.last_login_at, User.locked_until)
        statement = (
            update(User)
            .where(User.id == user.id)
            .values(
                login_count=User.login_count + 1,
                failed_login_count=0,
                locked_until=None,
                last_login_at=func.now(),
                last_login_ip=ip_address,
                last_login_user_agent=user_agent,
                updated_at=User.updated_at,
            )
            .returning(*columns)
        )
        row = (await self._session.change(statement)).one()
        self._session.take_over(User, user.id, dict(zip((c.key for c in columns), row, strict=True)))

    async def forget_failures(self, user_id: UUID) -> None:
        """Set the count of failed logins back, and end the waiting that it caused."""
        values = {"failed_login_count": 0, "locked_until": None, "updated_at": User.updated_at}
        await self._session.change(update(User).where(User.id == user_id).values(values))

    async def secret(self, user_id: UUID, name: SecretColumn) -> str | None:
        """A stored hash, which entities are loaded without."""
        statement = select(self._column(name)).where(User.id == user_id)
        found: str | None = (await self._session.execute(statement)).scalar_one_or_none()
        return found

    async def lock_admins(self) -> frozenset[UUID]:
        """The active administrators; nobody else can change which these are until the transaction ends."""
        statement = (
            select(User.id)
            .where(_IS_ADMIN, User.status == UserStatus.ACTIVE)
            .order_by(User.id)
            .with_for_update(key_share=True)
        )
        return frozenset((await self._session.execute(statement)).scalars())

    @override
    async def delete(self, entity: User) -> None:
        """Delete the account: its personal data, sessions, projects and files go, the id stays for the audit trail.

        Raises:
            NotFoundError: the row does not exist.
        """
        self._invalidate(*account_keys(entity.id))
        # First: an archive that is being finished is either seen here, or finds its row gone and is removed.
        archives = delete(Export).where(Export.user_id == entity.id).returning(Export.storage_key)
        self._discard(*(key for key in (await self._session.execute(archives)).scalars() if key is not None))
        self._discard(*(await stored_files_of(self._session, Project.user_id == entity.id)))
        own_files = select(StoredFile.key).where(StoredFile.owner_id == entity.id)
        self._discard(*((await self._session.execute(own_files)).scalars()))
        await self._session.change(delete(FileReference).where(FileReference.owner_id == entity.id))
        await self._session.change(delete(Project).where(Project.user_id == entity.id))
        await self._session.change(delete(ApiKey).where(ApiKey.user_id == entity.id))
        await self._session.change(delete(SecondFactor).where(SecondFactor.user_id == entity.id))
        await self._session.change(delete(recovery_codes).where(recovery_codes.c.user_id == entity.id))
        await self._session.change(delete(Budget).where(Budget.user_id == entity.id))
        await self._session.change(delete(DesignSystem).where(DesignSystem.user_id == entity.id))
        await self._session.change(delete(Mail).where(Mail.user_id == entity.id))
        await self._session.change(delete(Session).where(Session.user_id == entity.id))
        await self._session.change(delete(UserIdentity).where(UserIdentity.user_id == entity.id))
        result = await self._session.change(update(User).where(User.id == entity.id).values(_nobody(entity)))
        if result.rowcount == 0:
            raise self._not_found(entity.id)
        self._session.forget(entity)

    @override
    def _stored_form(self, name: str, value: Any) -> Any:
        value = super()._stored_form(name, value)
        return _spelled(value) if name == "email" else value


def _spelled(email: Any) -> Any:
    """The spelling that is stored; what is not an address is looked for as it is, and not found."""
    try:
        return normalize_email(email) if isinstance(email, str) else email
    except InvalidValueError:
        return email


def _nobody(user: User) -> dict[str, Any]:
    """The values of an erased account."""
    kept = {"id", "role", "auth_provider", "login_count", "created_at"}
    empty = {column.key: None for column in User.__table__.columns if column.nullable and column.key not in kept}
    return empty | {
        "email": erased_email(user.id),
        "first_name": "Deleted",
        "last_name": "account",
        "status": UserStatus.INACTIVE,
        "email_verified": False,
        "preferences": {},
        "metadata_": {},
        "updated_at": func.now(),
    }


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


# The snapshot says which transactions the answer knows of; see ``services.sessions.watermark``.
_FIND_ACCOUNT = NamedQuery(
    "user_identities.find_account",
    """
SELECT users.id, users.role, users.status,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_postmaster_start_time()::text
FROM user_identities JOIN users ON users.id = user_identities.user_id
WHERE user_identities.issuer = %s AND user_identities.subject = %s
""",
)


def subject_key(issuer: str, subject: str) -> str:
    """Where the cache keeps whose an identity is."""
    return f"subject:{hashlib.sha256(f'{issuer} {subject}'.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class IdentifiedAccount:
    """The account of an identity, and what the database knew when it said so: see ``FoundSession``."""

    user_id: UUID
    role: UserRole
    status: UserStatus
    as_of: int
    server: str


class UserIdentityRepository(Repository[UserIdentity]):
    """Rows of ``user_identities``."""

    entity = UserIdentity

    def __init__(self, session: EntitySession, invalidate: Callable[..., None]) -> None:
        super().__init__(session)
        self._invalidate = invalidate

    async def find_account(self, issuer: str, subject: str) -> IdentifiedAccount | None:
        """The account of an identity, in whatever state it is."""
        row = await self._session.fetch_one(_FIND_ACCOUNT, (issuer, subject))
        if row is None:
            return None
        user_id, role, status, as_of, server = row
        return IdentifiedAccount(user_id, UserRole(role), UserStatus(status), as_of, server)

    async def remove(self, user_id: UUID, issuer: str | None = None) -> int:
        """Remove the identities of an account, or the one of an issuer; how many."""
        statement = delete(UserIdentity).where(UserIdentity.user_id == user_id)
        if issuer is not None:
            statement = statement.where(UserIdentity.issuer == issuer)
        removed = (await self._session.change(statement.returning(UserIdentity.issuer, UserIdentity.subject))).all()
        self._invalidate(*(subject_key(row.issuer, row.subject) for row in removed))
        return len(removed)
