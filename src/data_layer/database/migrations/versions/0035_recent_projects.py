"""The projects of everybody that were changed last are found by an index; others read and write meanwhile."""

from __future__ import annotations

from alembic import op

revision = "0035"
down_revision = "0034"

# One that was interrupted leaves an index behind that is not valid.
DROP = "DROP INDEX CONCURRENTLY IF EXISTS ix_projects_updated_at_id"
CREATE = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_projects_updated_at_id ON projects (updated_at, id)
"""


def upgrade() -> None:
    """Create the index."""
    with op.get_context().autocommit_block():
        op.execute(DROP)
        op.execute(CREATE)


def downgrade() -> None:
    """Drop the index."""
    with op.get_context().autocommit_block():
        op.execute(DROP)
