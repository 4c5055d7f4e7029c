"""A stored object and the file that refers to it, in one statement."""

# ruff: noqa: S608  (only names of columns and their types stand in the statements; values are passed as parameters)
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from data_layer.database.entity_session import Answer, EntitySession
from data_layer.database.statements import NumberedSql
from data_layer.entities import Entity, FileReference, StoredFile
from data_layer.repositories.numbered_rows import NumberedRows, Shape, Texts, add_rows, column_list

_OBJECT = (
    *("id", "parent_id", "owner_id", "backend", "key", "state", "content_type", "encoding", "size", "original_size"),
    *("sha256", "width", "height", "frame_count", "image_format", "dominant_color", "thumbnails_pending"),
)
_REFERENCE = ("id", "owner_id", "file_name", "expires_at", "project_id", "code_id", "image_id")


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


def save(session: EntitySession, original: StoredFile, reference: FileReference) -> SavedFile:
    """Store them with the next flush, or together with the commit if nothing else is to be written.

    Where the owner has the same bytes already, the file refers to those, and the object is not stored.
    """
    parameters: Texts = []
    shapes = [_add(parameters, _OBJECT, original), _add(parameters, _REFERENCE, reference)]
    return SavedFile(session.add_statement(_statement(*shapes), parameters))


def _add(parameters: Texts, names: Sequence[str], entity: Entity) -> Shape:
    return add_rows(parameters, {name: getattr(entity, name) for name in names})


@lru_cache(maxsize=64)
def _statement(original: Shape, reference: Shape) -> NumberedSql:
    new = NumberedRows()
    return NumberedSql(
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
