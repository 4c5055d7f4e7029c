"""Files with a permanent address: the column and its rule, which the next migration checks for rows stored before."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

ADD = """
ALTER TABLE file_references
    ADD COLUMN public_name text,
    ADD CONSTRAINT ck_file_references_public_name
        CHECK (public_name IS NULL OR num_nonnulls(project_id, code_id, image_id, expires_at) = 0) NOT VALID
"""


def upgrade() -> None:
    """Add the column, which is null everywhere: the table is locked for an instant."""
    op.execute(ADD)


def downgrade() -> None:
    """Drop the column, and with it every permanent address."""
    op.execute("ALTER TABLE file_references DROP COLUMN public_name")
