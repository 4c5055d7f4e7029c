"""The triggers that protect the audit trail hold while ``session_replication_role`` is ``replica`` too.

Processes of the version before go on making partitions whose trigger does not; maintenance enables it.
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"

# One table after the other, because partitions do not inherit the mode of triggers for statements.
CHANGE = """
DO $body$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT relid::regclass AS name, tgname FROM pg_partition_tree('audit_logs')
        JOIN pg_trigger ON tgrelid = relid AND tgname IN ('refuse_change', 'refuse_truncate') ORDER BY level
    LOOP
        EXECUTE format('ALTER TABLE %s {mode} TRIGGER %I', each.name, each.tgname);
    END LOOP;
END
$body$
"""


def upgrade() -> None:
    """Only the catalog is touched."""
    op.execute(CHANGE.format(mode="ENABLE ALWAYS"))


def downgrade() -> None:
    """Let the triggers be skipped while ``session_replication_role`` is ``replica``."""
    op.execute(CHANGE.format(mode="ENABLE"))
