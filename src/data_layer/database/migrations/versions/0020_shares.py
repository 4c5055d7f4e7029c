"""Shares: links by which anybody may read one page of a project."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"

SHARES = """
CREATE TABLE shares (
    id uuid NOT NULL,
    project_id uuid NOT NULL,
    code_id uuid,
    token_hash text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    view_count integer NOT NULL DEFAULT 0,
    last_viewed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_shares PRIMARY KEY (id),
    CONSTRAINT uq_shares_token_hash UNIQUE (token_hash),
    CONSTRAINT fk_shares_project_id FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT fk_shares_code_id FOREIGN KEY (code_id) REFERENCES generated_codes (id) ON DELETE CASCADE
)
"""
INDEXES = (
    "CREATE INDEX ix_shares_project_id_id ON shares (project_id, id)",
    "CREATE INDEX ix_shares_code_id ON shares (code_id) WHERE code_id IS NOT NULL",
)


def upgrade() -> None:
    """Create the table, which is empty."""
    for statement in (SHARES, *INDEXES):
        op.execute(statement)


def downgrade() -> None:
    """Drop it: no link works any more."""
    op.execute("DROP TABLE shares")
