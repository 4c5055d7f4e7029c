"""Projects that were deleted before migration 0022 count as deleted since their last change; an index finds the trash.

Others read and write meanwhile. Databases that ran an early form of migration 0022 have both already.
"""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"

# When they were deleted is not known: the last change is the nearest that is.
FILL = "UPDATE projects SET deleted_at = updated_at WHERE status = 'deleted' AND deleted_at IS NULL"
# What an attempt that was interrupted leaves behind has the name of the index, and serves nobody.
DROP_INVALID = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('ix_projects_deleted_at') AND NOT indisvalid) THEN
        DROP INDEX ix_projects_deleted_at;
    END IF;
END
$$
"""
CREATE = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_projects_deleted_at ON projects (deleted_at) WHERE deleted_at IS NOT NULL
"""


def upgrade() -> None:
    """Fill the column and create the index; repeating either is harmless."""
    op.execute(FILL)
    with op.get_context().autocommit_block():
        op.execute(DROP_INVALID)
        op.execute(CREATE)


def downgrade() -> None:
    """Drop the index. The times are right for the version before, too."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_projects_deleted_at")
