"""Images that pages show: the address by which these name them, and the one by which they are shown."""

from __future__ import annotations

from alembic import op

revision = "0043"
down_revision = "0042"

COLUMNS = "ALTER TABLE file_references ADD COLUMN IF NOT EXISTS {}"
INDEXES = {
    "uq_file_references_address_hash_project_id": "(address_hash, project_id) WHERE address_hash IS NOT NULL",
    "uq_file_references_asset_name": "(asset_name) WHERE asset_name IS NOT NULL",
}


def upgrade() -> None:
    """Add the columns, which are null everywhere, and the indexes, which hold nothing; files can be used meanwhile."""
    with op.get_context().autocommit_block():
        for column in ("address_hash text", "asset_name text"):
            op.execute(COLUMNS.format(column))
        for name, index in INDEXES.items():
            # One that was interrupted leaves an index behind that is not valid.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {name} ON file_references {index}")


def downgrade() -> None:
    """Drop the columns: pages name their images by the addresses that they had."""
    op.execute("ALTER TABLE file_references DROP COLUMN IF EXISTS address_hash, DROP COLUMN IF EXISTS asset_name")
