"""The rules of migration 0025 hold for the rows that were stored before it."""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Check all rows; others read and write meanwhile."""
    op.execute(
        "ALTER TABLE generated_images VALIDATE CONSTRAINT ck_generated_images_provider, "
        "VALIDATE CONSTRAINT ck_generated_images_size, VALIDATE CONSTRAINT ck_generated_images_kind"
    )
    op.execute("ALTER TABLE audit_logs VALIDATE CONSTRAINT ck_audit_logs_action")


def downgrade() -> None:
    """Nothing: what was checked stays so."""
