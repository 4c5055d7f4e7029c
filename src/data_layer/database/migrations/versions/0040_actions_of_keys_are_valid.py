"""The audit entries so far have actions of the list of migration 0039, too."""

from __future__ import annotations

from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    """Check them; entries are read and written meanwhile."""
    op.execute("ALTER TABLE audit_logs VALIDATE CONSTRAINT ck_audit_logs_action")


def downgrade() -> None:
    """Nothing to undo."""
