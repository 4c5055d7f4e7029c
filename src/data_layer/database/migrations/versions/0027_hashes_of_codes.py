"""Codes know their SHA-256, and generations their place in the tree, so that a parent is found without ids.

A trigger keeps the hashes, also for older processes. The next migration fills those of rows that are there.
"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"

COLUMNS = "ALTER TABLE generated_codes ADD COLUMN code_hash bytea, ADD COLUMN trimmed_hash bytea"
LINEAGE = """
ALTER TABLE generations
    ADD COLUMN lineage jsonb NOT NULL DEFAULT '{}'::jsonb,
    ADD CONSTRAINT ck_generations_lineage CHECK (jsonb_typeof(lineage) = 'object') NOT VALID
"""
WHITE_SPACE = (
    "E'\\u0009\\u000a\\u000b\\u000c\\u000d\\u001c\\u001d\\u001e\\u001f\\u0020\\u0085\\u00a0\\u1680"
    "\\u2000\\u2001\\u2002\\u2003\\u2004\\u2005\\u2006\\u2007\\u2008\\u2009\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff'"
)
HASH_CODE = """
CREATE FUNCTION hash_code() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    trimmed text;
BEGIN
    IF NEW.lease_until IS NOT NULL OR NEW.code IS NULL THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.code = OLD.code AND NEW.code_hash IS NOT NULL THEN
        RETURN NEW;
    END IF;
    trimmed := btrim(NEW.code, WHITE_SPACE);
    IF trimmed = '' THEN
        NEW.code_hash := NULL;
        NEW.trimmed_hash := NULL;
        RETURN NEW;
    END IF;
    NEW.code_hash := sha256(convert_to(NEW.code, 'UTF8'));
    NEW.trimmed_hash := CASE octet_length(trimmed)
        WHEN octet_length(NEW.code) THEN NEW.code_hash
        ELSE sha256(convert_to(trimmed, 'UTF8'))
    END;
    RETURN NEW;
END
$body$
""".replace("WHITE_SPACE", WHITE_SPACE)
TRIGGER = """
CREATE TRIGGER hash_code BEFORE INSERT OR UPDATE OF code, lease_until ON generated_codes
FOR EACH ROW EXECUTE FUNCTION hash_code()
"""


def upgrade() -> None:
    """Add the columns and the trigger. The tables are locked for an instant."""
    for statement in (COLUMNS, LINEAGE, HASH_CODE, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TRIGGER hash_code ON generated_codes")
    op.execute("DROP FUNCTION hash_code()")
    op.execute("ALTER TABLE generated_codes DROP COLUMN code_hash, DROP COLUMN trimmed_hash")
    op.execute("ALTER TABLE generations DROP COLUMN lineage")
