"""${message}.

Long locks hurt a running service: add indexes with ``op.get_context().autocommit_block()`` and CONCURRENTLY, add
constraints as NOT VALID and validate them in a second migration, and keep the old version of the code working.
"""

from __future__ import annotations

from alembic import op
${"import sqlalchemy as sa\n" if "sa." in (upgrades or "") + (downgrades or "") else ""}${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """${message}."""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """Undo it."""
    ${downgrades if downgrades else "raise NotImplementedError"}
