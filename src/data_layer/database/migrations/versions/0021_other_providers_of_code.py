"""Code may come from a provider that the list does not know: ``other``; and from OpenRouter."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"

DROP = "-- squawk-ignore ban-drop-constraint\nALTER TABLE generated_codes DROP CONSTRAINT ck_generated_codes_provider"
ADD = """
ALTER TABLE generated_codes ADD CONSTRAINT ck_generated_codes_provider CHECK (provider IN ({})) NOT VALID
"""
ADD_CHECKED = """
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE generated_codes ADD CONSTRAINT ck_generated_codes_provider CHECK (provider IN ({}))
"""
KNOWN = "'openai', 'azure_openai', 'claude', 'gemini'"


def upgrade() -> None:
    """Allow it. The table is locked for an instant; a later migration checks the rows."""
    for statement in (DROP, ADD.format(f"{KNOWN}, 'openrouter', 'other'")):
        op.execute(statement)


def downgrade() -> None:
    """Forget the new ones. The old list has no neutral word: they are called by the first of it."""
    op.execute("UPDATE generated_codes SET provider = 'openai' WHERE provider IN ('openrouter', 'other')")
    for statement in (DROP, ADD_CHECKED.format(KNOWN)):
        op.execute(statement)
