"""Codes know how they grew."""

from __future__ import annotations

from alembic import op

revision = "0042"
down_revision = "0041"


def upgrade() -> None:
    """Add the column. Processes of the version before leave it as it is, which readers notice."""
    op.execute("ALTER TABLE generated_codes ADD COLUMN IF NOT EXISTS growth bytea")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE generated_codes DROP COLUMN growth")
