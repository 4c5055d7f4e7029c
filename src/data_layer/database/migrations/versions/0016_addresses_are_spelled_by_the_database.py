"""A trigger spells e-mail addresses for processes of the version before, which left capitals as they were.

It also repairs what they stored since 0008, if no two accounts share an address then.
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"

LOCK = "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"
SPELLED = r"""normalize(lower(normalize(btrim(email, E' \t\n\v\f\r\x1c\x1d\x1e\x1f'), NFC) COLLATE "C"), NFC)"""
FUNCTION = r"""
CREATE FUNCTION spell_email_address() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    NEW.email := normalize(
        lower(normalize(btrim(NEW.email, E' \t\n\v\f\r\x1c\x1d\x1e\x1f'), NFC) COLLATE "C"), NFC
    );
    RETURN NEW;
END
$body$
"""
TRIGGER = """
CREATE TRIGGER spell_address BEFORE INSERT OR UPDATE OF email ON users
FOR EACH ROW EXECUTE FUNCTION spell_email_address()
"""
REFUSE_COLLISIONS = f"""
DO $body$
DECLARE
    found text;
BEGIN
    SELECT string_agg(ids, '; ') INTO found FROM (
        SELECT string_agg(id::text, ', ' ORDER BY id) AS ids FROM users
        GROUP BY {SPELLED} HAVING count(*) > 1 LIMIT 10
    ) AS collisions;
    IF found IS NOT NULL THEN
        RAISE unique_violation USING MESSAGE = 'accounts share an e-mail address: ' || found
            || '; give all but one of each another address, or delete them, and migrate again';
    END IF;
END
$body$
"""  # noqa: S608  (no values)
SPELL = f"UPDATE users SET email = email WHERE email <> {SPELLED}"  # noqa: S608  (no values)


def upgrade() -> None:
    """Spell the addresses; the table takes no changes meanwhile, and can be read."""
    for statement in (LOCK, REFUSE_COLLISIONS, FUNCTION, TRIGGER, SPELL):
        op.execute(statement)


def downgrade() -> None:
    """Take addresses as they are written again."""
    op.execute("DROP TRIGGER spell_address ON users")
    op.execute("DROP FUNCTION spell_email_address()")
