"""Mails: a queue, so that none is lost when a process dies."""

from __future__ import annotations

from alembic import op

revision = "0037"
down_revision = "0036"

MAILS = """
CREATE TABLE mails (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    kind text NOT NULL,
    status text NOT NULL DEFAULT 'queued',
    message_id text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    finished_at timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_mails PRIMARY KEY (id),
    CONSTRAINT ck_mails_kind CHECK (kind IN ('verify_email', 'reset_password', 'address_taken')),
    CONSTRAINT ck_mails_status CHECK (status IN ('queued', 'sent', 'failed', 'dropped')),
    CONSTRAINT fk_mails_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
)
"""
INDEXES = (
    "CREATE INDEX ix_mails_next_attempt_at ON mails (next_attempt_at) WHERE status = 'queued'",
    "CREATE INDEX ix_mails_user_id_id ON mails (user_id, id)",
)


def upgrade() -> None:
    """Create the table, which is empty."""
    for statement in (MAILS, *INDEXES):
        op.execute(statement)


def downgrade() -> None:
    """Drop it: mails that wait are never sent."""
    op.execute("DROP TABLE mails")
