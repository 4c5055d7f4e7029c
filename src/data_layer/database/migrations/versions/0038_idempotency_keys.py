"""Requests that are carried out once: their keys, and how they were answered."""

from __future__ import annotations

from alembic import op

revision = "0038"
down_revision = "0037"

TABLE = """
CREATE TABLE IF NOT EXISTS idempotency_keys (
    user_id uuid NOT NULL,
    key uuid NOT NULL,
    attempt uuid NOT NULL,
    lease_until timestamptz,
    fingerprint bytea,
    answer bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (user_id, key),
    CONSTRAINT ck_idempotency_keys_answered CHECK (
        (lease_until IS NULL) = (fingerprint IS NOT NULL) AND (lease_until IS NULL) = (answer IS NOT NULL)
    ),
    CONSTRAINT fk_idempotency_keys_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
)
"""
INDEX = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS ix_idempotency_keys_created_at ON idempotency_keys (created_at)
"""


def upgrade() -> None:
    """Create the table, which is empty."""
    op.execute(TABLE)
    op.execute(INDEX)


def downgrade() -> None:
    """Drop it. A request that is repeated is carried out a second time then."""
    op.execute("DROP TABLE IF EXISTS idempotency_keys")
