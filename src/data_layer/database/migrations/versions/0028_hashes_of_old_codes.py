"""Codes that were stored before have hashes as well, and are found by them.

Each batch is a transaction of its own, and the index is built while the table is written: nobody waits longer than a
batch takes. What was filled stays so when the migration is interrupted, and it goes on from there.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0028"
down_revision = "0027"

BATCH = 200

# Writing the code as it is has the trigger compute its hashes.
FILL = """
WITH batch AS MATERIALIZED (
    SELECT id FROM generated_codes WHERE id > CAST(:after AS uuid) ORDER BY id LIMIT :batch
), filled AS (
    UPDATE generated_codes SET code = code
    WHERE id IN (SELECT id FROM batch) AND code_hash IS NULL AND lease_until IS NULL
)
SELECT max(id::text) FROM batch
"""
# The same for who runs the SQL by hand.
FILL_BY_HAND = """
DO $body$
DECLARE
    last uuid := '00000000-0000-0000-0000-000000000000';
    batch uuid[];
BEGIN
    LOOP
        batch := ARRAY(SELECT id FROM generated_codes WHERE id > last ORDER BY id LIMIT 200);
        EXIT WHEN batch = '{}';
        last := batch[cardinality(batch)];
        UPDATE generated_codes SET code = code
        WHERE id = ANY(batch) AND code_hash IS NULL AND lease_until IS NULL;
        COMMIT;
    END LOOP;
END
$body$
"""
# One that was interrupted leaves an index behind that is not valid.
INDEX = (
    "DROP INDEX CONCURRENTLY IF EXISTS ix_generated_codes_project_id_trimmed_hash",
    """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_generated_codes_project_id_trimmed_hash
ON generated_codes (project_id, trimmed_hash) WHERE trimmed_hash IS NOT NULL
""",
)
VALIDATE = "ALTER TABLE generations VALIDATE CONSTRAINT ck_generations_lineage"


def upgrade() -> None:
    """Fill the hashes in batches, and add the index."""
    context = op.get_context()
    with context.autocommit_block():
        if context.as_sql:
            op.execute(FILL_BY_HAND)
        else:
            connection = op.get_bind()
            after: str | None = "00000000-0000-0000-0000-000000000000"
            while after is not None:
                after = connection.execute(text(FILL), {"after": after, "batch": BATCH}).scalar()
        for statement in INDEX:
            op.execute(statement)
    op.execute(VALIDATE)


def downgrade() -> None:
    """Drop the index."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_generated_codes_project_id_trimmed_hash")
