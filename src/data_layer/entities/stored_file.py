"""The ``stored_files`` and ``file_references`` tables: every object of the storage, and who refers to it."""

from __future__ import annotations

import math
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, Timestamped, amount, choice, counter, flag, json_list, short_text
from data_layer.entities.columns import Choice
from data_layer.entities.enums import FileEncoding, FileState, StorageKind

_CAN_BE_SHARED = text("state = 'stored' AND parent_id IS NULL")


class StoredFile(Timestamped, Entity, kw_only=True):
    """One object of the storage. Identical bytes of one owner are one row, counted by ``reference_count``.

    ``size`` is what the object takes in the storage, ``original_size`` what a reader gets, and ``sha256`` that of the
    bytes that a reader gets; while the state is pending, these two are what the uploader announced. A thumbnail is a
    row of its own whose ``parent_id`` is its original; ``thumbnails_pending`` says of an original that its thumbnails
    are still to be made. An owner of None is the system.
    """

    __tablename__ = "stored_files"

    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("stored_files.id", ondelete="CASCADE"), default=None)
    owner_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"), default=None)
    backend: Mapped[StorageKind] = mapped_column(Choice(StorageKind))
    key: Mapped[str] = mapped_column(
        Text(collation="C"), unique=True, info={"length": 1024}
    )  # Sorted like the listing of a storage.
    state: Mapped[FileState] = choice(FileState.PENDING)
    content_type: Mapped[str] = mapped_column(short_text(255))
    encoding: Mapped[FileEncoding | None] = mapped_column(Choice(FileEncoding), default=None)
    size: Mapped[int] = mapped_column(BigInteger, info={"range": (0, math.inf)})
    original_size: Mapped[int] = mapped_column(BigInteger, info={"range": (0, math.inf)})
    sha256: Mapped[str | None] = mapped_column(default=None, info={"length": 64})
    width: Mapped[int | None] = amount()
    height: Mapped[int | None] = amount()
    frame_count: Mapped[int | None] = amount()
    image_format: Mapped[str | None] = mapped_column(default=None)
    dominant_color: Mapped[str | None] = mapped_column(default=None)
    thumbnails_pending: Mapped[bool] = flag()
    reference_count: Mapped[int] = counter()
    expires_at: Mapped[datetime | None] = mapped_column(default=None)

    @property
    def stored_size(self) -> int:
        """The same as ``size``, by the name that views have for it."""
        return self.size

    __table_args__ = (
        CheckConstraint("state <> 'stored' OR sha256 IS NOT NULL", name="sha256"),
        CheckConstraint("reference_count >= 0", name="reference_count"),
        Index(
            "uq_stored_files_owner_id_sha256_content_type",
            "owner_id",
            "sha256",
            "content_type",
            unique=True,
            postgresql_where=_CAN_BE_SHARED,
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_stored_files_parent_id", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
        Index(
            "ix_stored_files_unreferenced",
            "updated_at",
            postgresql_where=text("state = 'stored' AND parent_id IS NULL AND reference_count = 0"),
        ),
        Index("ix_stored_files_thumbnails_pending", "updated_at", "id", postgresql_where=text("thumbnails_pending")),
        Index("ix_stored_files_unfinished", "state", "updated_at", postgresql_where=text("state <> 'stored'")),
    )


class FileReference(Timestamped, Entity, kw_only=True):
    """One reason why an object is kept, and what callers know as a file: its id is the file's id.

    It belongs to at most one row of another table and goes with it; one that belongs to none is its owner's own. One
    that has a ``public_name`` gives an object its permanent address, so it belongs to no row and never expires. An
    image that pages of its project show has ``address_hash``, the SHA-256 of the address by which they name it, and
    ``asset_name``, the end of the permanent address that takes its place when they are shown; ``earlier_names`` are the
    ends that it had in the projects that this one is a copy of, whose pages may name it so. The trigger
    ``count_file_references`` keeps the counts, and refuses references to what is being deleted.
    """

    __tablename__ = "file_references"

    file_id: Mapped[UUID] = mapped_column(ForeignKey("stored_files.id"))
    owner_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"), default=None)
    file_name: Mapped[str | None] = mapped_column(short_text(255), default=None)
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), default=None)
    code_id: Mapped[UUID | None] = mapped_column(ForeignKey("generated_codes.id", ondelete="CASCADE"), default=None)
    image_id: Mapped[UUID | None] = mapped_column(ForeignKey("generated_images.id", ondelete="CASCADE"), default=None)
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    public_name: Mapped[str | None] = mapped_column(default=None, info={"length": 64})
    address_hash: Mapped[str | None] = mapped_column(default=None, info={"length": 64})
    asset_name: Mapped[str | None] = mapped_column(default=None, info={"length": 64})
    earlier_names: Mapped[list[str]] = json_list()

    __table_args__ = (
        CheckConstraint("num_nonnulls(project_id, code_id, image_id) <= 1", name="attachment"),
        CheckConstraint(
            "public_name IS NULL OR num_nonnulls(project_id, code_id, image_id, expires_at) = 0", name="public_name"
        ),
        Index(
            "uq_file_references_public_name",
            "public_name",
            unique=True,
            postgresql_where=text("public_name IS NOT NULL"),
        ),
        # One address for each object, however often and however much at once it is asked for.
        Index(
            "uq_file_references_public_file_id",
            "file_id",
            unique=True,
            postgresql_where=text("public_name IS NOT NULL"),
        ),
        Index(
            "uq_file_references_address_hash_project_id",
            "address_hash",
            "project_id",
            unique=True,
            postgresql_where=text("address_hash IS NOT NULL"),
        ),
        Index(
            "uq_file_references_asset_name", "asset_name", unique=True, postgresql_where=text("asset_name IS NOT NULL")
        ),
        Index(
            "ix_file_references_earlier_names",
            "earlier_names",
            postgresql_using="gin",
            postgresql_where=text("earlier_names <> '[]'"),
        ),
        Index("ix_file_references_file_id", "file_id"),
        Index("ix_file_references_owner_id_id", "owner_id", "id"),
        *(
            Index(f"ix_file_references_{column}", column, postgresql_where=text(f"{column} IS NOT NULL"))
            for column in ("project_id", "code_id", "image_id", "expires_at")
        ),
    )
