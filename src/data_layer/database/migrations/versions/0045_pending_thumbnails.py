"""Thumbnails are made after an image was stored: its row says that they are to be."""

from __future__ import annotations

from alembic import op

revision = "0045"
down_revision = "0044"

COLUMN = "thumbnails_pending boolean DEFAULT false NOT NULL"
INDEX = "ix_stored_files_thumbnails_pending"


def upgrade() -> None:
    """Add the column, false everywhere, and its index, which holds nothing; files can be used meanwhile.

    Processes of the version before make thumbnails before they store a row, and leave the column as it is.
    """
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE stored_files ADD COLUMN IF NOT EXISTS {COLUMN}")
        # One that was interrupted leaves an index behind that is not valid.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {INDEX} ON stored_files (updated_at, id) WHERE thumbnails_pending"
        )


def downgrade() -> None:
    """Drop it: images that still have no thumbnails keep none, and are shown themselves instead."""
    op.execute("ALTER TABLE stored_files DROP COLUMN IF EXISTS thumbnails_pending")
