"""The ``users`` table: found by e-mail in any letter case, never removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, delete, func, select, text, update
from typing_extensions import override

from data_layer.entities import FileReference, Project, Session, StoredFile, User
from data_layer.entities.enums import UserStatus
from data_layer.repositories.projects import stored_files_of
from data_layer.repositories.repository import Repository

if TYPE_CHECKING:
    from data_layer.database.entity_session import EntitySession


class UserRepository(Repository[User]):
    """Rows of ``users``."""

    entity = User

    def __init__(self, session: EntitySession, discarded: list[str]) -> None:
        super().__init__(session)
        self._discarded = discarded

    @override
    async def delete(self, entity: User) -> None:
        """Delete the account: its personal data, sessions, projects and files go, the id stays for the audit trail.

        Raises:
            NotFoundError: when there is no such row.
        """
        self._discarded += await stored_files_of(self._session, Project.user_id == entity.id)
        own_files = select(StoredFile.key).where(StoredFile.owner_id == entity.id)
        self._discarded += (await self._session.execute(own_files)).scalars()
        await self._session.change(delete(FileReference).where(FileReference.owner_id == entity.id))
        await self._session.change(delete(Project).where(Project.user_id == entity.id))
        await self._session.change(delete(Session).where(Session.user_id == entity.id))
        result = await self._session.change(update(User).where(User.id == entity.id).values(_nobody(entity)))
        if result.rowcount == 0:
            raise self._not_found(entity.id)
        self._session.forget(entity)

    @override
    def _condition(self, name: str, value: Any) -> ColumnElement[bool]:
        if name == "email" and isinstance(value, str):
            return func.lower(text("users.email")) == func.lower(value)
        return super()._condition(name, value)


def _nobody(user: User) -> dict[str, Any]:
    """The values of an erased account; its address is one that can never receive mail (RFC 2606)."""
    kept = {"id", "role", "auth_provider", "login_count", "created_at"}
    empty = {column.key: None for column in User.__table__.columns if column.nullable and column.key not in kept}
    return empty | {
        "email": f"{user.id}@deleted.invalid",
        "first_name": "Deleted",
        "last_name": "account",
        "status": UserStatus.INACTIVE,
        "email_verified": False,
        "preferences": {},
        "metadata_": {},
        "updated_at": func.now(),
    }
