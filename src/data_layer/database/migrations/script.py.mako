"""${message}."""

from __future__ import annotations

from alembic import op

revision = ${repr(up_revision).replace("'", '"')}
down_revision = ${repr(down_revision).replace("'", '"')}


def upgrade() -> None:
    """Make the change.

    It meets a running service of the version before. So index existing tables CONCURRENTLY, inside
    ``with op.get_context().autocommit_block()`` and in a migration of its own; add constraints as NOT VALID and
    validate them in the next migration; and drop nothing that the version before still uses.
    """
    op.execute("")


def downgrade() -> None:
    """Undo it."""
    op.execute("")
