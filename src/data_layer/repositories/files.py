"""The ``stored_files`` and ``file_references`` tables: who refers to which object of the storage."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Uuid,
    any_,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, insert
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningInsert
from uuid_utils.compat import uuid7

from data_layer.database.entity_session import Answer, EntitySession
from data_layer.database.statements import CompiledStatement, NamedQuery, named
from data_layer.entities import FileReference, StoredFile
from data_layer.entities.enums import FileState
from data_layer.errors import NotFoundError
from data_layer.repositories import saved_files
from data_layer.repositories.numbered_rows import Values
from data_layer.repositories.repository import AppendRepository, check_limit, is_any
from data_layer.repositories.saved_files import NewObject, SavedFile
from data_layer.schemas.files import Attachment, FileView


def has_state(entity: Any, state: FileState) -> ColumnElement[bool]:
    """The condition written out, not as a parameter: only so PostgreSQL sees in every plan which partial index fits."""
    condition: ColumnElement[bool] = entity.state == literal_column(f"'{state.value}'")
    return condition


_IS_ORIGINAL = has_state(StoredFile, FileState.STORED) & StoredFile.parent_id.is_(None)
_Thumbnail = aliased(StoredFile)
_THUMBNAILS = (
    select(
        func.coalesce(
            func.jsonb_agg(
                aggregate_order_by(
                    func.jsonb_build_object(
                        *("key", _Thumbnail.key, "width", _Thumbnail.width),
                        *("height", _Thumbnail.height, "size", _Thumbnail.size),
                    ),
                    _Thumbnail.width,
                )
            ),
            func.jsonb_build_array(),
        )
    )
    .where(_Thumbnail.parent_id == StoredFile.id, has_state(_Thumbnail, FileState.STORED))
    .correlate(StoredFile)
    .scalar_subquery()
)
_VIEW = select(
    *(FileReference.id, FileReference.owner_id, FileReference.file_name, FileReference.expires_at),
    *(FileReference.project_id, FileReference.code_id, FileReference.image_id, FileReference.created_at),
    func.coalesce(FileReference.public_name, FileReference.asset_name).label("public_name"),
    *(FileReference.address_hash, FileReference.earlier_names),
    *(StoredFile.key, StoredFile.backend, StoredFile.state, StoredFile.content_type, StoredFile.encoding),
    *(StoredFile.original_size.label("size"), StoredFile.size.label("stored_size"), StoredFile.sha256),
    *(StoredFile.image_format, StoredFile.width, StoredFile.height, StoredFile.frame_count),
    *(StoredFile.dominant_color, StoredFile.reference_count, _THUMBNAILS.label("thumbnails")),
    StoredFile.thumbnails_pending,
).join(StoredFile, StoredFile.id == FileReference.file_id)
_IS_ALIVE = FileReference.expires_at.is_(None) | (FileReference.expires_at > func.now())


_VIEW_BY_ID = CompiledStatement(
    "file_references.view", lambda: _VIEW.where(FileReference.id == bindparam("file_id"), _IS_ALIVE)
)
_VIEW_BY_PUBLIC_NAME = CompiledStatement(
    "file_references.public_view",
    lambda: _VIEW.where(
        (FileReference.public_name == bindparam("public_name"))
        | (FileReference.asset_name == bindparam("public_name")),
        has_state(StoredFile, FileState.STORED),
    ),
)
_VIEWS_BY_ID = CompiledStatement(
    "file_references.views",
    lambda: _VIEW.add_columns(StoredFile.id.label("object_id")).where(
        FileReference.id == any_(bindparam("file_ids", type_=ARRAY(Uuid()))), _IS_ALIVE
    ),
)
_VIEWED = _VIEW.selected_columns.keys()

_STORED = ("id", "owner_id", "backend", "key", "content_type", "encoding", "size", "original_size", "sha256")
_RECORDED = (*_STORED, "width", "height", "frame_count", "image_format", "dominant_color", "thumbnails_pending")


def _find_same(*, is_owned: bool) -> Select[Any]:
    owner = StoredFile.owner_id == bindparam("owner_id") if is_owned else StoredFile.owner_id.is_(None)
    return select(StoredFile.id).where(
        owner,
        StoredFile.sha256 == bindparam("sha256"),
        StoredFile.content_type == bindparam("content_type"),
        _IS_ORIGINAL,
    )


_FIND_SAME_OF_OWNER = CompiledStatement("stored_files.find_same", lambda: _find_same(is_owned=True))
_FIND_SAME_OF_SYSTEM = CompiledStatement("stored_files.find_same", lambda: _find_same(is_owned=False))


def _record() -> ReturningInsert[UUID, str]:
    return (
        insert(cast("Table", StoredFile.__table__))
        .values(state=FileState.STORED, reference_count=0, **{name: bindparam(f"given_{name}") for name in _RECORDED})
        .on_conflict_do_update(
            index_elements=["owner_id", "sha256", "content_type"],
            index_where=_IS_ORIGINAL,
            set_={"updated_at": func.now()},
        )
        .returning(StoredFile.id, StoredFile.key)
    )


_RECORD = CompiledStatement("stored_files.record", _record)


class PageImage(NamedTuple):
    """An image that pages of a project show."""

    address_hash: str
    asset_name: str
    earlier_names: Sequence[str]


# Images that pages of other projects show, by the ends of their permanent addresses or, of the same person, by whatever
# their codes name; and published ones of other people. What is being removed is left out, because the
# trigger would refuse it. The name of a file is its owner's business.
_HOLD = NamedQuery(
    "file_references.hold_images",
    """
WITH project AS (
    SELECT id, user_id FROM projects WHERE id = %s
), wanted AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::uuid[], %s::text[]) AS wanted (address_hash, name, id, random)
), found AS (
    SELECT wanted.*, file_id, extension, CASE WHEN owner_id = user_id THEN file_name END AS file_name
    FROM project, wanted, LATERAL (
        SELECT files.file_id, files.owner_id, files.file_name, substring(shown_as FROM '[.][a-z0-9]+$') AS extension
        FROM (
            SELECT *, asset_name AS shown_as FROM file_references
            WHERE asset_name = wanted.name AND project_id IS DISTINCT FROM project.id
            UNION ALL
            SELECT *, public_name FROM file_references
            WHERE public_name = wanted.name AND owner_id IS DISTINCT FROM user_id
            UNION ALL
            SELECT *, asset_name FROM file_references
            WHERE address_hash = wanted.address_hash AND owner_id = user_id AND project_id IS DISTINCT FROM project.id
            UNION ALL
            SELECT *, asset_name FROM file_references
            WHERE earlier_names ? wanted.name AND earlier_names <> '[]' AND owner_id = user_id
        ) AS files
        JOIN stored_files ON stored_files.id = files.file_id AND state = 'stored'
        ORDER BY files.id LIMIT 1
    ) AS one
    WHERE NOT EXISTS (
        SELECT FROM file_references AS own
        WHERE own.project_id = project.id AND (own.asset_name = wanted.name OR own.earlier_names ? wanted.name)
    )
), stored AS (
    SELECT id FROM stored_files WHERE id IN (SELECT file_id FROM found) AND state = 'stored'
    ORDER BY id FOR NO KEY UPDATE
)
INSERT INTO file_references (id, file_id, owner_id, file_name, project_id, address_hash, asset_name)
SELECT found.id, file_id, user_id, file_name, project.id, address_hash, random || extension
FROM project, found JOIN stored ON stored.id = file_id
ON CONFLICT (address_hash, project_id) WHERE address_hash IS NOT NULL DO NOTHING
""",
)


_PROJECTS_SHOWING = NamedQuery(
    "file_references.projects_showing",
    """
SELECT projects.id FROM projects JOIN (
    SELECT project_id, 1 AS rank FROM file_references WHERE asset_name = ANY(%s)
    UNION ALL
    SELECT project_id, 2 FROM file_references WHERE earlier_names ?| %s::text[] AND earlier_names <> '[]'
    UNION ALL
    SELECT project_id, 3 FROM file_references WHERE address_hash = ANY(%s)
) AS shown ON shown.project_id = projects.id
WHERE user_id = %s AND status <> 'deleted'
GROUP BY projects.id ORDER BY min(rank), projects.id DESC LIMIT %s
""",
)


_KEEP_FOR_PROJECT = NamedQuery(
    "file_references.keep_for_project",
    """
WITH kept AS (
    UPDATE file_references SET project_id = %s, expires_at = NULL, updated_at = now()
    WHERE id = ANY(%s) AND (expires_at IS NULL OR expires_at > now())
    RETURNING id
)
SELECT count(*) FROM kept
""",
)


class FileRepository(AppendRepository[FileReference]):
    """Files as callers know them: references, each to one object of the storage."""

    entity = FileReference

    async def view(self, file_id: UUID) -> FileView:
        """One file, also a pending one.

        Raises:
            NotFoundError: there is none with this id, or its time is over.
        """
        row = await self._session.fetch_one(*_VIEW_BY_ID.given(file_id=file_id))
        if row is None:
            raise NotFoundError(f"no file has the id {file_id}")
        return FileView.model_validate(dict(zip(_VIEWED, row, strict=True)))

    async def public_view(self, public_name: str) -> FileView:
        """The file with a permanent address.

        Raises:
            NotFoundError: no file has this one.
        """
        row = await self._session.fetch_one(*_VIEW_BY_PUBLIC_NAME.given(public_name=public_name))
        if row is None:
            raise NotFoundError(f"no file has the public name {public_name}")
        return FileView.model_validate(dict(zip(_VIEWED, row, strict=True)))

    async def find_by_key(self, key: str, *, owner_id: UUID) -> FileView | None:
        """A file of an owner that is stored under a key; any of them where several share it."""
        condition = (StoredFile.key == key) & has_state(StoredFile, FileState.STORED)
        statement = _VIEW.where(condition, FileReference.owner_id == owner_id, _IS_ALIVE).limit(1)
        row = (await self._session.execute(statement)).mappings().one_or_none()
        return None if row is None else FileView.model_validate(dict(row))

    async def views_of(self, file_ids: Collection[UUID]) -> Mapping[UUID, tuple[FileView, UUID]]:
        """Files, also pending ones, each with the id of its object; those that are gone are left out."""
        if not file_ids:
            return {}
        [rows] = await self._session.fetch_all(_VIEWS_BY_ID.given(file_ids=list(file_ids)))
        views = [(FileView.model_validate(dict(zip(_VIEWED, row[:-1], strict=True))), row[-1]) for row in rows]
        return {view.id: (view, object_id) for view, object_id in views}

    async def publish(self, reference: FileReference) -> UUID:
        """Insert a file with a permanent address, or find the one that the same object has already; returns its id."""
        values = {name: getattr(reference, name) for name in ("id", "file_id", "owner_id", "file_name", "public_name")}
        statement = (
            insert(FileReference)
            .values(**values)
            .on_conflict_do_nothing(index_elements=["file_id"], index_where=FileReference.public_name.is_not(None))
        )
        await self._session.change(statement)
        published = await self.published(reference.file_id)
        return published or reference.id

    async def published(self, object_id: UUID) -> UUID | None:
        """The file that gives an object its permanent address."""
        statement = select(FileReference.id).where(
            FileReference.file_id == object_id, FileReference.public_name.is_not(None)
        )
        found: UUID | None = (await self._session.execute(statement)).scalar_one_or_none()
        return found

    async def name_asset(
        self, file_id: UUID, *, address_hash: str, asset_name: str, earlier_names: Sequence[str] = ()
    ) -> None:
        """Say by which addresses pages of its project name a file, and give it a permanent one.

        Raises:
            DuplicateError: the project has a file for this address.
        """
        names = {"address_hash": address_hash, "asset_name": asset_name, "earlier_names": list(earlier_names)}
        values = {**names, "updated_at": func.now()}
        await self._session.change(update(FileReference).where(FileReference.id == file_id).values(**values))

    async def assets_of(self, *project_ids: UUID) -> Mapping[UUID, Sequence[PageImage]]:
        """What pages of projects show."""
        columns = FileReference.address_hash, FileReference.asset_name, FileReference.earlier_names
        statement = select(FileReference.project_id, *columns).where(
            is_any(FileReference.project_id, project_ids), FileReference.address_hash.is_not(None)
        )
        found: defaultdict[UUID, list[PageImage]] = defaultdict(list)
        for row in await self._session.execute(named("file_references.assets", statement)):
            image = PageImage(str(row.address_hash), str(row.asset_name), row.earlier_names)
            found[cast("UUID", row.project_id)].append(image)
        return found

    async def projects_showing(
        self, owner_id: UUID, *, names: Sequence[str] = (), hashes: Sequence[str] = (), limit: int
    ) -> Sequence[UUID]:
        """Projects of a person with images that have one of these names, or had it before, or hashes, in this order."""
        values = (list(names), list(names), list(hashes), owner_id, limit)
        [rows] = await self._session.fetch_all((_PROJECTS_SHOWING, values))
        return [row[0] for row in rows]

    def hold(self, project_id: UUID, addresses: Mapping[str, str | None]) -> None:
        """Have a project refer to images of others with the next flush, where it does not know these addresses yet.

        Args:
            project_id: which one.
            addresses: the hashes of the addresses, with the ends of those that are permanent.
        """
        count = range(len(addresses))
        new = [uuid7() for _ in count], [secrets.token_urlsafe(16) for _ in count]
        self._session.add_statement(_HOLD, (project_id, list(addresses), list(addresses.values()), *new))

    async def find_asset(self, address_hash: str, *, owner_id: UUID | None = None) -> FileView | None:
        """A file that was kept for an address, of an owner or of anybody."""
        statement = _VIEW.where(FileReference.address_hash == address_hash, has_state(StoredFile, FileState.STORED))
        if owner_id is not None:
            statement = statement.where(FileReference.owner_id == owner_id)
        named_statement = named("file_references.find_asset", statement.limit(1))
        row = (await self._session.execute(named_statement)).mappings().one_or_none()
        return None if row is None else FileView.model_validate(dict(row))

    async def views(
        self,
        *,
        owner_id: UUID | None,
        attached_to: Attachment | None = None,
        limit: int = 100,
        after: UUID | None = None,
    ) -> Sequence[FileView]:
        """A page of the stored files of an owner, oldest first.

        Raises:
            InvalidValueError: for a limit out of range.
        """
        check_limit(limit)
        statement = _VIEW.where(_owner(FileReference, owner_id), _IS_ALIVE, has_state(StoredFile, FileState.STORED))
        if attached_to is not None:
            statement = statement.where(_is_attached(attached_to))
        if after is not None:
            statement = statement.where(FileReference.id > after)
        rows = (await self._session.execute(statement.order_by(FileReference.id).limit(limit))).mappings()
        return [FileView.model_validate(dict(row)) for row in rows]

    async def find_same(self, owner_id: UUID | None, sha256: str, content_type: str) -> UUID | None:
        """The object with these bytes that the owner has already."""
        statement = _FIND_SAME_OF_SYSTEM if owner_id is None else _FIND_SAME_OF_OWNER
        row = await self._session.fetch_one(
            *statement.given(owner_id=owner_id, sha256=sha256, content_type=content_type)
        )
        return None if row is None else row[0]

    async def record(self, file: NewObject) -> tuple[UUID, str]:
        """Insert an object, or find the one with the same bytes of the same owner; returns its id and key.

        The row is locked until the transaction ends, so nobody removes it before it is referred to.
        """
        values = {f"given_{name}": getattr(file, name) for name in _RECORDED}
        [row] = await self._session.run(_RECORD.given(**values))
        return cast("tuple[UUID, str]", row)

    def save(self, original: NewObject, reference: Values) -> SavedFile:
        """Insert an object and a file that refers to it, together with the commit."""
        return saved_files.save(self._session, original, reference)

    def add_object(self, file: StoredFile) -> None:
        """Insert an object that nobody else can have: a thumbnail, or a pending upload."""
        self._session.add(file)

    async def point_to(self, file_id: UUID, *, pending: UUID, stored: UUID) -> bool:
        """Let a file that was pending refer to what was stored; whether it was still pending."""
        statement = (
            update(FileReference)
            .where(FileReference.id == file_id, FileReference.file_id == pending)
            .values(file_id=stored, updated_at=func.now())
        )
        return (await self._session.change(statement)).rowcount == 1

    async def object_of(self, file_id: UUID) -> StoredFile:
        """The object that a file refers to.

        Raises:
            NotFoundError: the file does not exist.
        """
        statement = select(StoredFile).join(FileReference, FileReference.file_id == StoredFile.id)
        found = await self._session.find(statement.where(FileReference.id == file_id))
        if not found:
            raise NotFoundError(f"no file has the id {file_id}")
        return found[0]

    async def attached(self, object_id: UUID, attachment: Attachment) -> UUID | None:
        """The file with which a row refers to an object already."""
        statement = select(FileReference.id).where(FileReference.file_id == object_id, _is_attached(attachment))
        found: UUID | None = (await self._session.execute(statement.limit(1))).scalar_one_or_none()
        return found

    def keep_for_project(self, file_ids: Sequence[UUID], project_id: UUID) -> Answer:
        """Let files belong to a project with the next flush, as ``keep`` does; the answer is how many did."""
        return self._session.add_statement(_KEEP_FOR_PROJECT, (project_id, list(file_ids)))

    async def keep(self, file_id: UUID, attached_to: Attachment) -> bool:
        """Let a file that was to expire belong to a row, and go with it; whether the file was still there."""
        statement = (
            update(FileReference)
            .where(FileReference.id == file_id, _IS_ALIVE)
            .values(**attached_to.model_dump(exclude_none=True), expires_at=None, updated_at=func.now())
        )
        return (await self._session.change(statement)).rowcount == 1

    async def remove(self, *file_ids: UUID) -> Sequence[UUID]:
        """Remove files; the ids of the objects that they referred to, of which some may be referred to by others."""
        statement = delete(FileReference).where(is_any(FileReference.id, file_ids)).returning(FileReference.file_id)
        return (await self._session.execute(statement)).scalars().all()

    async def remove_attached(self, object_id: UUID, attachment: Attachment) -> int:
        """Remove the references of a row to an object; how many there were."""
        statement = delete(FileReference).where(FileReference.file_id == object_id, _is_attached(attachment))
        return (await self._session.change(statement)).rowcount

    async def count_expired(self) -> int:
        """How many files there are whose time is over."""
        statement = select(func.count()).where(FileReference.expires_at < func.now())
        return int((await self._session.execute(statement)).scalar_one())

    async def remove_expired(self, limit: int) -> Sequence[UUID]:
        """Remove files whose time is over, the oldest first; the ids of the objects that they referred to."""
        expired = (
            select(FileReference.id)
            .where(FileReference.expires_at < func.now())
            .order_by(FileReference.expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return await self.remove(*(await self._session.execute(expired)).scalars().all())


async def keys_attached_to(session: EntitySession, condition: ColumnElement[bool]) -> Sequence[str]:
    """The keys of the objects that chosen references name, for example those of one project."""
    statement = select(StoredFile.key).join(FileReference, FileReference.file_id == StoredFile.id).where(condition)
    keys: Sequence[str] = (await session.execute(statement)).scalars().all()
    return keys


def _owner(entity: type[FileReference | StoredFile], owner_id: UUID | None) -> ColumnElement[bool]:
    return entity.owner_id.is_(None) if owner_id is None else entity.owner_id == owner_id


def _is_attached(attachment: Attachment) -> ColumnElement[bool]:
    [(name, value)] = attachment.model_dump(exclude_none=True).items()
    column: Any = getattr(FileReference, name)
    condition: ColumnElement[bool] = column == value
    return condition
