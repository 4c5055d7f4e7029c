"""The ``projects`` table: searched by text, removed with everything below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, union
from typing_extensions import override

from data_layer.entities import FileReference, GeneratedCode, GeneratedImage, Project
from data_layer.entities.texts import check_text
from data_layer.errors import InvalidValueError
from data_layer.repositories.files import keys_attached_to
from data_layer.repositories.repository import Repository, check_limit

if TYPE_CHECKING:
    from data_layer.database.entity_session import EntitySession


class ProjectRepository(Repository[Project]):
    """Rows of ``projects``."""

    entity = Project

    def __init__(self, session: EntitySession, discard: Callable[..., None]) -> None:
        super().__init__(session)
        self._discard = discard

    async def search(self, words: str, *, user_id: UUID | None = None, limit: int = 50) -> Sequence[Project]:
        """The projects whose name, description, instructions or tags hold the words, best first.

        Args:
            words: as in a web search: all must occur, "quoted words" together, ``or`` and ``-`` work.
            user_id: only the projects of this user.
            limit: the largest number of projects, 1000 at most.

        Raises:
            InvalidValueError: for words that are not text, or a limit out of range.
        """
        if not isinstance(words, str):
            raise InvalidValueError(f"words must be text, not {type(words).__name__}", field="words")
        check_text("words", words)
        check_limit(limit)
        query = func.websearch_to_tsquery("english", words)
        statement = select(Project).where(Project.search_vector.bool_op("@@")(query))
        if user_id is not None:
            statement = statement.where(Project.user_id == user_id)
        rank = func.ts_rank(Project.search_vector, query)
        return await self._session.find(statement.order_by(rank.desc(), Project.id.desc()).limit(limit))

    @override
    async def delete(self, entity: Project) -> None:
        """Remove the project with its codes and images; its files go after the commit.

        Raises:
            NotFoundError: when it is gone already.
        """
        self._discard(*(await stored_files_of(self._session, Project.id == entity.id)))
        await super().delete(entity)


async def stored_files_of(session: EntitySession, projects: ColumnElement[bool]) -> Sequence[str]:
    """The storage keys that projects, their images and their codes refer to, in columns or by attached files."""
    statement = union(
        select(Project.original_image).where(projects),
        select(Project.thumbnail_image).where(projects),
        select(GeneratedImage.storage_key).join(Project).where(projects),
    )
    keys = {key for key in (await session.execute(statement)).scalars() if key is not None and "://" not in key}
    chosen = select(Project.id).where(projects)
    attached = or_(
        FileReference.project_id.in_(chosen),
        FileReference.image_id.in_(select(GeneratedImage.id).where(GeneratedImage.project_id.in_(chosen))),
        FileReference.code_id.in_(select(GeneratedCode.id).where(GeneratedCode.project_id.in_(chosen))),
    )
    return sorted(keys.union(await keys_attached_to(session, attached)))
