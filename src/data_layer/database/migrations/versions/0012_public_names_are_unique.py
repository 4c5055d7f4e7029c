"""A public name stands for one file, and an object has one public name."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"

INDEXES = {"uq_file_references_public_name": "public_name", "uq_file_references_public_file_id": "file_id"}


def upgrade() -> None:
    """Check the rule of migration 0011, and make the indexes, which hold nothing yet; files can be read meanwhile."""
    op.execute("ALTER TABLE file_references VALIDATE CONSTRAINT ck_file_references_public_name")
    for name, column in INDEXES.items():
        op.execute(
            "-- squawk-ignore require-concurrent-index-creation\n"
            f"CREATE UNIQUE INDEX {name} ON file_references ({column}) WHERE public_name IS NOT NULL"
        )


def downgrade() -> None:
    """Drop the indexes."""
    for name in INDEXES:
        op.execute(f"-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX {name}")
