"""The rule of migration 0021 holds for codes that were stored before it."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Check all rows; others read and write meanwhile."""
    op.execute("ALTER TABLE generated_codes VALIDATE CONSTRAINT ck_generated_codes_provider")


def downgrade() -> None:
    """Nothing: what was checked stays so."""
