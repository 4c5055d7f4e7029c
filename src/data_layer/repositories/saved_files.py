"""A stored object and the file that refers to it, in one statement."""

# ruff: noqa: S608  (only names of columns and their types stand in the statements; values are passed as parameters)
from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from data_layer.database.entity_session import Answer, EntitySession
from data_layer.database.statements import NumberedQuery
from data_layer.entities import FileReference, StoredFile
from data_layer.entities.enums import FileEncoding, FileState, StorageKind
from data_layer.repositories.numbered_rows import NumberedRows, Shape, Texts, Values, add_rows, column_list


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """A stored object that no row names yet: the values of its row, past the ORM. `StoredFile` says what each means."""

    id: UUID
    owner_id: UUID | None
    backend: StorageKind
    key: str
    content_type: str
    encoding: FileEncoding | None
    size: int
    original_size: int
    sha256: str
    width: int | None
    height: int | None
    frame_count: int | None
    image_format: str | None
    dominant_color: str | None
    thumbnails_pending: bool
    state: FileState = FileState.STORED

    @property
    def stored_size(self) -> int:
        """The same as ``size``, by the name that views have for it."""
        return self.size


_OBJECT = tuple(field.name for field in fields(NewObject))


class SavedFile:
    """What became of a file, once its statement was sent."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    @property
    def key(self) -> str:
        """That of the object: the given one, or another one that holds the same bytes of the same owner."""
        return str(self._row[0])

    @property
    def created_at(self) -> datetime:
        """When the file was made, by the clock of the database."""
        created_at: datetime = self._row[1]
        return created_at

    @property
    def _row(self) -> tuple[object, datetime]:
        if self._answer.row is None:
            raise RuntimeError("the statement has not been sent")
        return self._answer.row[0], self._answer.row[1]


def save(session: EntitySession, original: NewObject, reference: Values) -> SavedFile:
    """Store them with the next flush, or together with the commit if nothing else is to be written.

    Where the owner has the same bytes already, the file refers to those, and the object is not stored.

    Args:
        session: of the transaction.
        original: the object.
        reference: the values of the file that refers to it.
    """
    parameters: Texts = []
    shapes = [add_rows(parameters, {name: getattr(original, name) for name in _OBJECT})]
    shapes.append(add_rows(parameters, reference))
    return SavedFile(session.add_statement(_statement(*shapes), parameters))


@lru_cache(maxsize=64)
def _statement(original: Shape, reference: Shape) -> NumberedQuery:
    new = NumberedRows()
    return NumberedQuery(
        "stored_files.save",
        f"""WITH stored AS (
    INSERT INTO stored_files ({column_list(original[0])}) SELECT new.* FROM {new.rows(StoredFile, original)}
    ON CONFLICT (owner_id, sha256, content_type) WHERE state = 'stored' AND parent_id IS NULL
    DO UPDATE SET updated_at = now()
    RETURNING id, key
), reference AS (
    INSERT INTO file_references (file_id, {column_list(reference[0])})
    SELECT stored.id, new.* FROM stored, {new.rows(FileReference, reference)}
    RETURNING created_at
) SELECT stored.key, reference.created_at FROM stored, reference""",
    )
