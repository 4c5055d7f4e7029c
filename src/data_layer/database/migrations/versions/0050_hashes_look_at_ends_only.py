"""``hash_code`` trims the bytes at the ends of a code: trimming a text looks at all of its characters."""

from __future__ import annotations

from alembic import op

revision = "0050"
down_revision = "0049"

WHITE_SPACE = (
    r"E'\u0009\u000a\u000b\u000c\u000d\u001c\u001d\u001e\u001f\u0020\u0085\u00a0\u1680\u2000\u2001\u2002"
    r"\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff'"
)
OLD = f"""
CREATE OR REPLACE FUNCTION hash_code() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    trimmed text;
BEGIN
    IF NEW.lease_until IS NOT NULL OR NEW.code IS NULL THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.code = OLD.code AND NEW.code_hash IS NOT NULL THEN
        RETURN NEW;
    END IF;
    trimmed := btrim(NEW.code, {WHITE_SPACE});
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
"""
NEW = f"""
CREATE OR REPLACE FUNCTION hash_code() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    encoded bytea;
    trimmed bytea;
BEGIN
    IF NEW.lease_until IS NOT NULL OR NEW.code IS NULL THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.code = OLD.code AND NEW.code_hash IS NOT NULL THEN
        RETURN NEW;
    END IF;
    encoded := convert_to(NEW.code, 'UTF8');
    -- Trimming a text looks at all of its characters, trimming bytes at its ends only. A byte below 128 is a character.
    trimmed := btrim(encoded, '\\x090a0b0c0d1c1d1e1f20');
    IF octet_length(trimmed) > 0
        AND (get_byte(trimmed, 0) > 127 OR get_byte(trimmed, octet_length(trimmed) - 1) > 127)
    THEN
        trimmed := convert_to(btrim(NEW.code, {WHITE_SPACE}), 'UTF8');
    END IF;
    IF octet_length(trimmed) = 0 THEN
        NEW.code_hash := NULL;
        NEW.trimmed_hash := NULL;
        RETURN NEW;
    END IF;
    NEW.code_hash := sha256(encoded);
    NEW.trimmed_hash := CASE octet_length(trimmed)
        WHEN octet_length(encoded) THEN NEW.code_hash
        ELSE sha256(trimmed)
    END;
    RETURN NEW;
END
$body$
"""


def upgrade() -> None:
    """Replace the function. The hashes are the same."""
    op.execute(NEW)


def downgrade() -> None:
    """Bring the former function back."""
    op.execute(OLD)
