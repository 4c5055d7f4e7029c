"""Keys of requests that need no login: their scope is a hash of the request, in place of a person's id."""

from __future__ import annotations

from alembic import op

revision = "0049"
down_revision = "0048"

DROP = """
-- squawk-ignore ban-drop-constraint
ALTER TABLE idempotency_keys DROP CONSTRAINT IF EXISTS fk_idempotency_keys_user_id
"""
# The table holds the requests of one day.
ADD = """
-- squawk-ignore adding-foreign-key-constraint,constraint-missing-not-valid
ALTER TABLE idempotency_keys ADD CONSTRAINT fk_idempotency_keys_user_id
    FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
"""


def upgrade() -> None:
    """Take away the foreign key. Nothing depends on it: accounts are erased, their rows in ``users`` stay."""
    op.execute(DROP)


def downgrade() -> None:
    """Forget requests without a login, and bring the foreign key back."""
    op.execute("DELETE FROM idempotency_keys WHERE NOT EXISTS (SELECT FROM users WHERE users.id = user_id)")
    op.execute(ADD)
