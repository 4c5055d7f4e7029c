"""Images that pages show: the address by which these name them, and the one by which they are shown."""

from __future__ import annotations

from alembic import op

revision = "0042"
down_revision = "0041"

COLUMNS = "ALTER TABLE file_references ADD COLUMN IF NOT EXISTS {}"
INDEXES = {
    "uq_file_references_project_id_address_hash": "UNIQUE {} (project_id, address_hash) WHERE address_hash IS NOT NULL",
    "uq_file_references_asset_name": "UNIQUE {} (asset_name) WHERE asset_name IS NOT NULL",
    "ix_file_references_address_hash": "{} (address_hash) WHERE address_hash IS NOT NULL",
}


def upgrade() -> None:
    """Add the columns, which are null everywhere, and the indexes, which hold nothing; files can be used meanwhile."""
    with op.get_context().autocommit_block():
        for column in ("address_hash text", "asset_name text"):
            op.execute(COLUMNS.format(column))
        for name, index in INDEXES.items():
            # One that was interrupted leaves an index behind that is not valid.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            unique, _, rest = index.partition("{}")
            op.execute(f"CREATE {unique}INDEX CONCURRENTLY IF NOT EXISTS {name} ON file_references{rest}")


def downgrade() -> None:
    """Drop the columns: pages name their images by the addresses that they had."""
    op.execute("ALTER TABLE file_references DROP COLUMN IF EXISTS address_hash, DROP COLUMN IF EXISTS asset_name")
