"""What can be seen of a stored file. Sizes are in bytes."""

from __future__ import annotations

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import model_validator

from data_layer.entities.enums import FileEncoding, FileState, StorageKind
from data_layer.errors import InvalidValueError
from data_layer.schemas.base import Input, Value, View
from data_layer.schemas.statistics import FileUsage


class Attachment(Input):
    """The row that a file belongs to, and goes with: exactly one of these."""

    project_id: UUID | None = None
    code_id: UUID | None = None
    image_id: UUID | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if len([value for value in (self.project_id, self.code_id, self.image_id) if value is not None]) != 1:
            raise InvalidValueError("a file is attached to one project, code or image", field="attached_to")
        return self


class ThumbnailView(View):
    """A small WebP picture of an image, in pixels."""

    key: str
    width: int
    height: int
    size: int


class FileView(View):
    """A file as its owner knows it.

    Attributes:
        key: Its place in the storage, for columns that refer to one.
        size: What a reader gets.
        stored_size: What it takes in the storage, where texts are compressed.
        sha256: That of what a reader gets; of a pending file what was announced.
        thumbnails: The small pictures of an image that exist, smallest first.
        thumbnails_pending: Whether they are still to be made, which happens soon after the image was stored.
        reference_count: How many files share its bytes, this one included.
        expires_at: When it goes by itself, in UTC.
        public_name: The end of its permanent address, if it was published, or pages of its project show it.
        address_hash: The SHA-256 of the address by which these pages name it.
        earlier_names: The ends of the permanent addresses that it had in the projects that this one is a copy of.
    """

    id: UUID
    owner_id: UUID | None
    key: str
    backend: StorageKind
    state: FileState
    file_name: str | None
    content_type: str
    encoding: FileEncoding | None
    size: int
    stored_size: int
    sha256: str | None
    image_format: str | None
    width: int | None
    height: int | None
    frame_count: int | None
    dominant_color: str | None
    thumbnails: tuple[ThumbnailView, ...]
    thumbnails_pending: bool = False
    reference_count: int
    project_id: UUID | None
    code_id: UUID | None
    image_id: UUID | None
    expires_at: datetime | None
    public_name: str | None
    address_hash: str | None = None
    earlier_names: tuple[str, ...] = ()
    created_at: datetime


class PublicFile(Value):
    """A file with a permanent address, readable by anybody who knows it.

    Attributes:
        id: That of the file that keeps the bytes: to delete it is to take the address back.
        name: The end of the address: random, with a true file extension.
        url: The address, without a signature; absolute where PUBLIC_URL is set.
    """

    id: UUID
    name: str
    url: str


class DirectUpload(Value):
    """Permission to send a file straight to the storage. The URL is the permission: never store or log it.

    ``id`` is the file's once `complete_upload` has accepted it; ``headers`` must be sent exactly so.
    """

    id: UUID
    url: str
    method: str
    headers: dict[str, str]
    expires_at: datetime


class StorageUsage(Value):
    """What the table of files says about the storage, without listing it."""

    total: FileUsage
    by_type: tuple[FileUsage, ...]
    by_owner: tuple[FileUsage, ...]
    by_state: tuple[FileUsage, ...]
    by_backend: tuple[FileUsage, ...]
