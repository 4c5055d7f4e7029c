"""Counters of failed logins, and an index that finds the few accounts with more rights than a user's."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

LOGIN_ATTEMPTS = """
CREATE TABLE login_attempts (
    account uuid NOT NULL,
    network uuid NOT NULL,
    level double precision NOT NULL DEFAULT 0,
    leveled_at timestamptz NOT NULL DEFAULT now(),
    blocked_until timestamptz,
    last_succeeded_at timestamptz,
    CONSTRAINT pk_login_attempts PRIMARY KEY (account, network)
)
"""

ROLE_INDEX = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ix_users_role_id ON users (role, id) WHERE role <> 'user'
"""


def upgrade() -> None:
    """Create both. The index holds a handful of rows; making it reads the table once."""
    op.execute(LOGIN_ATTEMPTS)
    op.execute(ROLE_INDEX)


def downgrade() -> None:
    """Drop both. Who is waiting after failed logins need not wait any longer."""
    op.execute("-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX ix_users_role_id")
    op.execute("DROP TABLE login_attempts")
