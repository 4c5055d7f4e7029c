"""The rules of migration 0031 hold for codes of before, and what is to be packed, or refers to a body, is found."""

from __future__ import annotations

from alembic import op

revision = "0032"
down_revision = "0031"

VALIDATE = (
    "ALTER TABLE generated_codes VALIDATE CONSTRAINT ck_generated_codes_body",
    "ALTER TABLE generated_codes VALIDATE CONSTRAINT fk_generated_codes_body",
)
# One that was interrupted leaves an index behind that is not valid.
DROP = (
    "DROP INDEX CONCURRENTLY IF EXISTS ix_generated_codes_project_id_body",
    "DROP INDEX CONCURRENTLY IF EXISTS ix_generated_codes_unpacked",
)
INDEXES = (
    """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_generated_codes_project_id_body
ON generated_codes (project_id, body) WHERE body IS NOT NULL
""",
    """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_generated_codes_unpacked
ON generated_codes (project_id, version, variant_index) WHERE lease_until IS NULL AND octet_length(code) >= 1024
""",
)


def upgrade() -> None:
    """Check all rows and add the indexes, for which no text is read; others read and write meanwhile."""
    for statement in VALIDATE:
        op.execute(statement)
    with op.get_context().autocommit_block():
        for statement in (*DROP, *INDEXES):
            op.execute(statement)


def downgrade() -> None:
    """Drop the indexes."""
    with op.get_context().autocommit_block():
        for statement in DROP:
            op.execute(statement)
