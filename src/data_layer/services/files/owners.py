"""Whose files a caller may see."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal
from uuid import UUID

from data_layer.errors import NotFoundError
from data_layer.schemas.files import FileView


class AnyOwner(Enum):
    """The type of ``ANY_OWNER``."""

    ANY = "any"


ANY_OWNER: Final = AnyOwner.ANY
"""For a caller that has made sure in another way that the file may be seen, such as by the project it belongs to."""

Owner = UUID | None | Literal[AnyOwner.ANY]
"""A user, the system (None), or ``ANY_OWNER``."""


def require_owner(file: FileView, owner: Owner) -> FileView:
    """The file itself, when it is the owner's.

    Raises:
        NotFoundError: it is not; that it exists is nobody else's business.
    """
    if owner is ANY_OWNER or file.owner_id == owner:
        return file
    raise NotFoundError(f"no file has the id {file.id}")
