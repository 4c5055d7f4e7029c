"""Images that pages show: the names that they had in the projects that theirs is a copy of."""

from __future__ import annotations

from alembic import op

revision = "0044"
down_revision = "0043"

COLUMN = "ALTER TABLE file_references ADD COLUMN IF NOT EXISTS earlier_names jsonb DEFAULT '[]'::jsonb NOT NULL"
RULE = "ck_file_references_earlier_names"
CHECK = (
    "jsonb_typeof(earlier_names) = 'array' AND NOT "
    """jsonb_path_exists(earlier_names, '$[*] ? (@.type() <> "string")')"""
)
INDEX = "ix_file_references_earlier_names"


def upgrade() -> None:
    """Add the column, which has its default everywhere without being written, and an index that holds nothing yet."""
    with op.get_context().autocommit_block():
        op.execute(COLUMN)
        op.execute(
            # One that was interrupted leaves the same rule behind.
            "-- squawk-ignore ban-drop-constraint\n"
            f"ALTER TABLE file_references DROP CONSTRAINT IF EXISTS {RULE}, "
            f"ADD CONSTRAINT {RULE} CHECK ({CHECK}) NOT VALID"
        )
        op.execute(f"ALTER TABLE file_references VALIDATE CONSTRAINT {RULE}")
        # One that was interrupted leaves an index behind that is not valid.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {INDEX} ON file_references USING gin (earlier_names) "
            "WHERE earlier_names <> '[]'"
        )


def downgrade() -> None:
    """Drop the column: pages of copies name images of the originals, which may be gone."""
    op.execute("ALTER TABLE file_references DROP COLUMN IF EXISTS earlier_names")
