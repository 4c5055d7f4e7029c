"""On which condition an upload takes place."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_layer.errors import FileChangedInStorageError, FileExistsInStorageError, InvalidValueError, StorageError
from data_layer.storage.arguments import check_flag, check_text

_ETAG = re.compile(r"[!#-+\--~]{1,255}")  # A comma begins another one; see RFC 9110.


@dataclass(frozen=True, slots=True)
class Condition:
    """Overwrite whatever is there, only create, or replace one version.

    Raises:
        InvalidValueError: two conditions that exclude each other, or what is none.
    """

    overwrite: bool = True
    if_match: str | None = None

    def __post_init__(self) -> None:
        check_flag(self.overwrite, field="overwrite")
        if self.if_match is None:
            return
        text = check_text(self.if_match, field="if_match")
        if not self.overwrite:
            raise InvalidValueError("if_match replaces a file, which overwrite=False forbids", field="if_match")
        if not _ETAG.fullmatch(text):
            raise InvalidValueError(f"{text[:100]!a} is not an ETag; use the one of stat()", field="if_match")

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
