"""The ``stored_files`` table, as those see it who look after the storage."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Text,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from data_layer.entities import Export, FileReference, GeneratedCode, GeneratedImage, Project, StoredFile, User
from data_layer.entities.enums import FileState, StorageKind
from data_layer.repositories.files import has_state
from data_layer.repositories.repository import ReadRepository, is_any
from data_layer.schemas.files import StorageUsage
from data_layer.schemas.statistics import FileUsage

_IS_UNREFERENCED = (
    has_state(StoredFile, FileState.STORED)
    & StoredFile.parent_id.is_(None)
    & (StoredFile.reference_count == literal_column("0"))
)
_IS_WITHOUT_THUMBNAILS = StoredFile.thumbnails_pending & has_state(StoredFile, FileState.STORED)
_COLUMNS_WITH_KEYS = (
    *(Project.original_image, Project.thumbnail_image, User.avatar, Export.storage_key),
    *(GeneratedImage.storage_key, GeneratedImage.image_url, GeneratedImage.thumbnail_url),
    *(GeneratedCode.input_image_url, GeneratedCode.result_image_url),
)
"""Every column that may hold a storage key; each may hold a URL instead."""


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """What the table says about one object of the storage."""

    id: UUID
    owner_id: UUID | None
    key: str
    backend: StorageKind
    state: FileState
    size: int
    original_size: int
    sha256: str | None
    encoding: str | None
    content_type: str

    @property
    def stored_size(self) -> int:
        """What it takes in the storage; a pending one: what was announced."""
        return self.size


class StoredFileRepository(ReadRepository[StoredFile]):
    """Objects of the storage, with any number of references."""

    entity = StoredFile

    async def page(self, *, after: str = "", backend: StorageKind | None = None, limit: int) -> Sequence[ObjectRecord]:
        """Objects in the order of their keys, in which storages list them too."""
        statement = _RECORDS.where(StoredFile.key > after).order_by(StoredFile.key).limit(limit)
        if backend is not None:
            statement = statement.where(StoredFile.backend == backend)
        return [_record(row) for row in await self._session.execute(statement)]

    async def keys_in_rows(self, *, after: str = "", limit: int) -> Sequence[str]:
        """Keys that rows of other tables hold as a text, in order, each once."""
        key = literal_column("key", Text(collation="C"))
        keys = _keys_in_rows(None).subquery("keys")
        statement = select(key).select_from(keys).where(key > after).order_by(key).limit(limit)
        return (await self._session.execute(statement)).scalars().all()

    async def used_in_rows(self, keys: Collection[str], *, owner_id: UUID | None = None) -> set[str]:
        """Which of these keys other tables hold as a text: in all rows, or in those of one owner, which is quicker."""
        return set((await self._session.execute(_keys_in_rows(keys, owner_id))).scalars()) if keys else set()

    async def records(self, keys: Collection[str]) -> dict[str, ObjectRecord]:
        """What the table says about those of these keys that it knows, in whatever state."""
        rows = await self._session.execute(_RECORDS.where(is_any(StoredFile.key, keys)))
        return {record.key: record for record in map(_record, rows)}

    async def known(self, keys: Collection[str]) -> set[str]:
        """Which of these keys the table knows, in whatever state."""
        statement = select(StoredFile.key).where(is_any(StoredFile.key, keys))
        return set((await self._session.execute(statement)).scalars())

    async def unreferenced(
        self, *, older_than: timedelta, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[StoredFile]:
        """Objects that nothing has referred to for a while, those first that have been so the longest."""
        statement = select(StoredFile).where(_IS_UNREFERENCED, StoredFile.updated_at < func.now() - older_than)
        if after is not None:
            statement = statement.where(tuple_(StoredFile.updated_at, StoredFile.id) > after)
        return await self._session.find(statement.order_by(StoredFile.updated_at, StoredFile.id).limit(limit))

    async def without_thumbnails(
        self, *, older_than: timedelta, after: tuple[datetime, UUID] | None = None, limit: int
    ) -> Sequence[StoredFile]:
        """Images whose thumbnails are still to be made after a while, the oldest first."""
        statement = select(StoredFile).where(_IS_WITHOUT_THUMBNAILS, StoredFile.updated_at <= func.now() - older_than)
        if after is not None:
            statement = statement.where(tuple_(StoredFile.updated_at, StoredFile.id) > after)
        return await self._session.find(statement.order_by(StoredFile.updated_at, StoredFile.id).limit(limit))

    async def count_without_thumbnails(self, *, older_than: timedelta) -> int:
        """How many there are of these."""
        statement = select(func.count()).where(_IS_WITHOUT_THUMBNAILS, StoredFile.updated_at <= func.now() - older_than)
        return int((await self._session.execute(statement)).scalar_one())

    async def to_make_thumbnails_of(self, key: str) -> ObjectRecord | None:
        """The image with this key; None where its thumbnails were made meanwhile, or it is gone."""
        rows = await self._session.execute(_RECORDS.where(StoredFile.key == key, _IS_WITHOUT_THUMBNAILS))
        row = rows.one_or_none()
        return None if row is None else _record(row)

    async def begin_thumbnails(self, key: str) -> None:
        """Say that thumbnails of an image are to be made, because its bytes are there again."""
        statement = (
            update(StoredFile)
            .where(StoredFile.key == key, has_state(StoredFile, FileState.STORED))
            .values(thumbnails_pending=True, updated_at=func.now())
        )
        await self._session.change(statement)

    async def end_thumbnails(self, record: ObjectRecord) -> bool:
        """Say that thumbnails of an image need not be made any more; whether it was still so.

        It is not where the image is gone, has thumbnails, or is in another backend meanwhile. The row is locked until
        the transaction ends, so a deletion sees thumbnails that are added in the same transaction.
        """
        statement = (
            update(StoredFile)
            .where(StoredFile.id == record.id, StoredFile.backend == record.backend, _IS_WITHOUT_THUMBNAILS)
            .values(thumbnails_pending=False, updated_at=StoredFile.updated_at)
        )
        return (await self._session.change(statement)).rowcount == 1

    async def abandoned(self, *, older_than: timedelta, limit: int) -> Sequence[UUID]:
        """Pending objects whose time was over a while ago."""
        statement = (
            select(StoredFile.id)
            .where(has_state(StoredFile, FileState.PENDING), StoredFile.expires_at < func.now() - older_than)
            .order_by(StoredFile.updated_at)
            .limit(limit)
        )
        return (await self._session.execute(statement)).scalars().all()

    async def half_deleted(self, *, older_than: timedelta, limit: int) -> Sequence[ObjectRecord]:
        """Objects whose removal has begun a while ago and was not finished; thumbnails before their originals.

        With the row of an original those of its thumbnails go too, and then nothing says where their bytes are.
        """
        statement = (
            _RECORDS.where(has_state(StoredFile, FileState.DELETED), StoredFile.updated_at <= func.now() - older_than)
            .order_by(StoredFile.updated_at, StoredFile.parent_id)  # Both were marked in one transaction.
            .limit(limit)
        )
        return [_record(row) for row in await self._session.execute(statement)]

    async def abandon(self, object_ids: Collection[UUID]) -> Sequence[ObjectRecord]:
        """Mark pending objects as deleted, with the files that refer to them; those that really were pending."""
        await self._session.change(
            delete(FileReference).where(
                FileReference.file_id.in_(
                    select(StoredFile.id).where(
                        is_any(StoredFile.id, object_ids), has_state(StoredFile, FileState.PENDING)
                    )
                )
            )
        )
        pending = (has_state(StoredFile, FileState.PENDING)) & (StoredFile.reference_count == 0)
        return await self._mark(is_any(StoredFile.id, object_ids) & pending)

    async def removable(self, *, ids: Collection[UUID] = (), keys: Collection[str] = ()) -> Sequence[ObjectRecord]:
        """Which of these objects nothing refers to at this moment; ``mark_deleted`` makes sure of it."""
        chosen = or_(is_any(StoredFile.id, ids), is_any(StoredFile.key, keys))
        return [_record(row) for row in await self._session.execute(_RECORDS.where(chosen, _IS_UNREFERENCED))]

    async def mark_deleted(self, object_ids: Collection[UUID]) -> Sequence[ObjectRecord]:
        """Mark objects as deleted that nothing refers to, with their thumbnails; from here on nothing can any more."""
        # The count stands in the row itself: an update that had to wait for a new reference sees it.
        originals = await self._mark(is_any(StoredFile.id, object_ids) & _IS_UNREFERENCED)
        thumbnails = is_any(StoredFile.parent_id, [original.id for original in originals])
        return [*originals, *(await self._mark(thumbnails) if originals else ())]

    async def forget(self, object_ids: Collection[UUID]) -> None:
        """Remove the rows of objects that are gone from the storage."""
        statement = delete(StoredFile).where(
            is_any(StoredFile.id, object_ids), has_state(StoredFile, FileState.DELETED)
        )
        await self._session.change(statement)

    async def not_in(self, keys: Collection[str], backend: StorageKind) -> set[str]:
        """Which of these keys do not stand for a stored object of this backend (any more)."""
        there = (StoredFile.backend == backend) & (has_state(StoredFile, FileState.STORED))
        statement = select(StoredFile.key).where(is_any(StoredFile.key, keys), there)
        return set(keys) - set((await self._session.execute(statement)).scalars())

    async def move_to(self, keys: Collection[str], *, source: StorageKind, target: StorageKind) -> int:
        """Say that objects are in another backend now; how many were still said to be in the old one."""
        statement = (
            update(StoredFile)
            .where(is_any(StoredFile.key, keys), StoredFile.backend == source, has_state(StoredFile, FileState.STORED))
            .values(backend=target, updated_at=StoredFile.updated_at)
        )
        return (await self._session.change(statement)).rowcount

    async def usage(self, *, owners: int = 20) -> StorageUsage:
        """How many objects there are and what they take: in all, and by kind. Only the largest owners are named."""
        owner = func.coalesce(cast(StoredFile.owner_id, Text), "system")
        return StorageUsage(
            total=(await self._usage(literal_column("'all'")))[0],
            by_type=await self._usage(StoredFile.content_type),
            by_owner=await self._usage(owner, limit=owners),
            by_state=await self._usage(cast(StoredFile.state, Text)),
            by_backend=await self._usage(cast(StoredFile.backend, Text)),
        )

    async def _usage(self, name: ColumnElement[Any] | InstrumentedAttribute[str], limit: int = 1000) -> Any:
        stored = func.coalesce(func.sum(StoredFile.size), 0)
        statement = select(
            name.label("name"), func.count(), func.coalesce(func.sum(StoredFile.original_size), 0), stored
        )
        if not isinstance(name, type(literal_column("x"))):
            statement = statement.group_by(name)
        rows: Sequence[Any] = (await self._session.execute(statement.order_by(stored.desc()).limit(limit))).all()
        return tuple(
            FileUsage(name=str(kind), count=count, size=int(size), stored_size=int(stored_size))
            for kind, count, size, stored_size in rows
        )

    async def _mark(self, condition: ColumnElement[bool]) -> Sequence[ObjectRecord]:
        statement = (
            update(StoredFile)
            .where(condition)
            .values(state=FileState.DELETED, updated_at=func.now())
            .returning(*_RECORD)
            .execution_options(synchronize_session=False)
        )
        return [_record(row) for row in await self._session.execute(statement)]


_RECORD = (
    *(StoredFile.id, StoredFile.owner_id, StoredFile.key, StoredFile.backend, StoredFile.state, StoredFile.size),
    *(StoredFile.original_size, StoredFile.sha256, StoredFile.encoding, StoredFile.content_type),
)
_RECORDS = select(*_RECORD)


def _record(row: Any) -> ObjectRecord:
    return ObjectRecord(*row)


def _keys_in_rows(keys: Collection[str] | None, owner_id: UUID | None = None) -> CompoundSelect[Any]:
    statements = []
    for column in _COLUMNS_WITH_KEYS:
        wanted = is_any(column, keys) if keys is not None else column.is_not(None) & column.not_like("%://%")
        statement = select(column.label("key")).where(wanted)
        statements.append(statement if owner_id is None else statement.where(_belongs_to(column.class_, owner_id)))
    return union(*statements)


def _belongs_to(entity: Any, owner_id: UUID) -> ColumnElement[bool]:
    if entity is User:
        return User.id == owner_id
    if entity in {Project, Export}:
        is_theirs: ColumnElement[bool] = entity.user_id == owner_id
        return is_theirs
    condition: ColumnElement[bool] = entity.project_id.in_(select(Project.id).where(Project.user_id == owner_id))
    return condition
