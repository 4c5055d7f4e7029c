"""The ``projects`` table: searched by text, removed with everything below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum, auto
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Select, Text, and_, any_, bindparam, func, or_, select, tuple_, union
from sqlalchemy.dialects.postgresql import ARRAY
from typing_extensions import override

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import CompiledStatement, named
from data_layer.entities import FileReference, GeneratedCode, GeneratedImage, Project
from data_layer.entities.columns import check_text
from data_layer.entities.enums import ProjectStatus
from data_layer.errors import InvalidValueError
from data_layer.repositories.files import keys_attached_to
from data_layer.repositories.repository import Repository, ViewRows, check_limit
from data_layer.repositories.standing import STANDING, Standing, read_standing
from data_layer.schemas.projects import ProjectFilter, ProjectFull, ProjectOrder, ProjectSummary

Position = tuple[str | int | datetime | None, UUID]
"""Where a page ends: what its last project is ordered by, and its id."""

_ORDERS: dict[ProjectOrder, ColumnElement[Any]] = {
    ProjectOrder.UPDATED: Project.updated_at.expression,
    ProjectOrder.CREATED: Project.created_at.expression,
    ProjectOrder.NAME: func.lower(Project.name),
    ProjectOrder.VIEWS: Project.view_count.expression,
    ProjectOrder.LAST_GENERATED: Project.last_generated_at.expression,
}
_IN_USE = Project.status != ProjectStatus.DELETED


class ProjectRepository(Repository[Project]):
    """Rows of ``projects``. Deleted ones are left out, unless a filter names ``id`` or ``status``."""

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
        statement = select(Project).where(Project.search_vector.bool_op("@@")(query), _IN_USE)
        if user_id is not None:
            statement = statement.where(Project.user_id == user_id)
        rank = func.ts_rank(Project.search_vector, query)
        return await self._session.find(statement.order_by(rank.desc(), Project.id.desc()).limit(limit))

    async def view(self, project_id: UUID) -> ProjectFull | None:
        """A project as its owner sees it, also one in the trash; None when there is none."""
        [rows] = await self._session.fetch_all(_VIEW.given(project_id=project_id))
        views = _full().read(rows)
        return views[0] if views else None

    async def page(
        self,
        user_id: UUID,
        wanted: ProjectFilter,
        order: ProjectOrder,
        *,
        is_descending: bool,
        after: Position | None,
        limit: int,
    ) -> tuple[Standing | None, Sequence[ProjectSummary]]:
        """The standing of an account, and a page of its projects with one more if another page follows.

        Those without a value come last in descending order, first in ascending.

        A project that nobody changes meanwhile is on exactly one page, whatever happens to others.

        Raises:
            InvalidValueError: for a limit out of range.
        """
        check_limit(limit)
        filters = _filters(wanted)
        start = _Start.BEGINNING if after is None else _Start.EMPTY if after[0] is None else _Start.VALUE
        statement = _page(order, start, tuple(filters), is_descending=is_descending)
        value, project_id = after or (None, None)
        place = {"after_value": value, "after_id": project_id} if after else {}
        query = statement.given(user_id=user_id, limit=limit + 1, **place, **filters)
        account, rows = await self._session.fetch_all(STANDING.given(user_id=user_id), query)
        return read_standing(account), _summaries().read(rows)

    async def remove_deleted(self, before: datetime, *, limit: int) -> Sequence[Project]:
        """Remove projects for good that were deleted before this time, files included; returns those that went."""
        statement = (
            select(Project)
            .where(Project.deleted_at < before, Project.status == ProjectStatus.DELETED)
            .order_by(Project.deleted_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        found = await self._session.find(statement)
        for project in found:
            await self.delete(project)
        return found

    async def recent(self, *, limit: int, is_deleted: bool) -> Sequence[Project]:
        """The projects of everybody that were changed last, newest first; or those that were deleted last.

        Raises:
            InvalidValueError: for a limit out of range.
        """
        check_limit(limit)
        in_trash = (Project.status == ProjectStatus.DELETED, Project.deleted_at.is_not(None))
        conditions, column = (in_trash, Project.deleted_at) if is_deleted else ((_IN_USE,), Project.updated_at)
        statement = select(Project).where(*conditions).order_by(column.desc(), Project.id.desc()).limit(limit)
        return await self._session.find(named("projects.last_changed", statement))

    async def ids_of(self, user_id: UUID) -> Sequence[UUID]:
        """The ids of all projects of a person, also of those in the trash."""
        statement = select(Project.id).where(Project.user_id == user_id)
        return (await self._session.execute(statement)).scalars().all()

    async def count_deleted(self, before: datetime) -> int:
        """How many projects were deleted before this time."""
        return await self._count(Project.deleted_at < before, Project.status == ProjectStatus.DELETED)

    async def _count(self, *conditions: ColumnElement[bool]) -> int:
        statement = select(func.count()).select_from(Project).where(*conditions)
        return int((await self._session.execute(statement)).scalar_one())

    @override
    def _conditions(self, filters: dict[str, Any]) -> Sequence[ColumnElement[bool]]:
        conditions = super()._conditions(filters)
        return conditions if filters.keys() & {"id", "status"} else [*conditions, _IN_USE]

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


def _filters(wanted: ProjectFilter) -> dict[str, Any]:
    """The conditions that a filter sets, with their values."""
    filters: dict[str, Any] = {"statuses": sorted(wanted.statuses)} if wanted.statuses else {}
    for name in ("type", "is_favorite", "is_public", "tag", "stack"):
        value = getattr(wanted, name)
        if value is not None:
            filters[name] = value
    if wanted.tag is not None:
        check_text("tag", wanted.tag)
        filters["tag"] = [wanted.tag]
    return filters


def _condition(name: str) -> ColumnElement[bool]:
    """A condition whose value is given when the statement is executed."""
    match name:
        case "statuses":
            return Project.status == any_(bindparam(name, type_=ARRAY(Text())))
        case "tag":
            return Project.tags.contains(bindparam(name, type_=Project.tags.type))
        case "stack":
            is_of = GeneratedCode.code_stack == bindparam(name, type_=GeneratedCode.code_stack.type)
            return select(GeneratedCode.id).where(GeneratedCode.project_id == Project.id, is_of).exists()
        case _:
            column = getattr(Project, name)
            condition: ColumnElement[bool] = column == bindparam(name, type_=column.type)
            return condition


class _Start(Enum):
    """Where a page begins: with the first project, or after one that has a value for the order, or has none."""

    BEGINNING = auto()
    VALUE = auto()
    EMPTY = auto()


@cache
def _page(order: ProjectOrder, start: _Start, filters: tuple[str, ...], *, is_descending: bool) -> CompiledStatement:
    return CompiledStatement("projects.page", partial(_page_query, order, start, filters, is_descending=is_descending))


def _page_query(
    order: ProjectOrder, start: _Start, filters: tuple[str, ...], *, is_descending: bool
) -> Select[tuple[Any, ...]]:
    column = _ORDERS[order]
    owner = Project.user_id == bindparam("user_id", type_=Project.user_id.type)
    query = select(*_summaries().columns).where(owner, *map(_condition, filters))
    if "statuses" not in filters:
        query = query.where(_IN_USE)
    if start is not _Start.BEGINNING:
        query = query.where(_beyond(column, order, start, is_descending=is_descending))
    if is_descending:
        query = query.order_by(column.desc().nulls_last(), Project.id.desc())
    else:
        query = query.order_by(column.asc().nulls_first(), Project.id.asc())
    return query.limit(bindparam("limit", type_=Integer()))


def _beyond(
    column: ColumnElement[Any], order: ProjectOrder, start: _Start, *, is_descending: bool
) -> ColumnElement[bool]:
    """Whether a project comes after a position. No row comparison of PostgreSQL's holds for an empty value."""
    project_id = bindparam("after_id", type_=Project.id.type)
    if start is _Start.EMPTY:
        is_next = Project.id < project_id if is_descending else Project.id > project_id
        same = and_(column.is_(None), is_next)
        return same if is_descending else or_(same, column.is_not(None))
    value: Any = bindparam("after_value", type_=column.type)
    given = func.lower(value) if order is ProjectOrder.NAME else value
    if is_descending:
        return or_(tuple_(column, Project.id) < tuple_(given, project_id), column.is_(None))
    return tuple_(column, Project.id) > tuple_(given, project_id)


@cache
def _full() -> ViewRows[ProjectFull]:
    return ViewRows(ProjectFull, Project)


_VIEW = CompiledStatement(
    "projects.view", lambda: select(*_full().columns).where(Project.id == bindparam("project_id"))
)


@cache
def _summaries() -> ViewRows[ProjectSummary]:
    return ViewRows(ProjectSummary, Project)
