"""On which condition an upload takes place."""

from __future__ import annotations

from dataclasses import dataclass

from data_layer.errors import FileChangedInStorageError, FileExistsInStorageError, InvalidValueError, StorageError


@dataclass(frozen=True, slots=True)
class Condition:
    """Overwrite whatever is there, only create, or replace one version.

    Raises:
        InvalidValueError: two conditions that exclude each other, or no ETag.
    """

    overwrite: bool = True
    if_match: str | None = None

    def __post_init__(self) -> None:
        if self.if_match is None:
            return
        if not self.overwrite:
            raise InvalidValueError("if_match replaces a file, which overwrite=False forbids", field="if_match")
        if not self.if_match or not self.if_match.isascii() or not self.if_match.isprintable() or '"' in self.if_match:
            raise InvalidValueError(f"{self.if_match[:100]!a} is no ETag; use the one of stat()", field="if_match")

    @property
    def is_none(self) -> bool:
        """Whether everything may be overwritten."""
        return self.overwrite and self.if_match is None

    def failure(self, key: str) -> StorageError:
        """What to raise when it does not hold."""
        if self.if_match is None:
            return FileExistsInStorageError(f"There is a file under {key!r} already, which was not to be overwritten")
        return FileChangedInStorageError(
            f"The file {key!r} is not the version that was to be replaced: read it and decide again"
        )
