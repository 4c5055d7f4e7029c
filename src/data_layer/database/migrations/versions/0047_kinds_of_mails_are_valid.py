"""The mails so far have kinds of the list of migration 0046, too."""

from __future__ import annotations

from alembic import op

revision = "0047"
down_revision = "0046"


def upgrade() -> None:
    """Check them; mails are queued and sent meanwhile."""
    op.execute("ALTER TABLE mails VALIDATE CONSTRAINT ck_mails_kind")


def downgrade() -> None:
    """Nothing to undo."""
