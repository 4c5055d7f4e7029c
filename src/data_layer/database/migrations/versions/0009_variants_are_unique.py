"""A generation has each variant once."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"

REFUSE_DUPLICATES = """
DO $body$
DECLARE
    found text;
BEGIN
    SELECT string_agg(ids, '; ') INTO found FROM (
        SELECT string_agg(id::text, ', ' ORDER BY id) AS ids FROM generated_codes
        GROUP BY generation_id, variant_index HAVING count(*) > 1 LIMIT 10
    ) AS duplicates;
    IF found IS NOT NULL THEN
        RAISE unique_violation USING
            MESSAGE = 'codes share a generation_id and variant_index; give each an index of its own: ' || found;
    END IF;
END
$body$
"""
INDEX = """
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX uq_generated_codes_generation_id_variant_index ON generated_codes (generation_id, variant_index)
"""


def upgrade() -> None:
    """Refuse duplicates by name, or else make the index; codes can be read meanwhile, and not added."""
    op.execute("LOCK TABLE generated_codes IN SHARE MODE")
    op.execute(REFUSE_DUPLICATES)
    op.execute(INDEX)


def downgrade() -> None:
    """Drop the index."""
    op.execute(
        "-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX uq_generated_codes_generation_id_variant_index"
    )
