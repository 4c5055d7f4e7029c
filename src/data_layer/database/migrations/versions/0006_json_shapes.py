"""JSON columns hold objects, and tags a list of texts: for rows that are written from now on.

Rows that are stored already are repaired and checked by the next migration, because a check that reads a table may not
hold the lock that adding a constraint takes. ``audit_logs`` has no such rules: its rows could not be repaired.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

OBJECTS = {
    "users": ("preferences", "metadata"),
    "projects": ("image_metadata", "settings", "metadata"),
    "generated_codes": ("generation_params", "error_details", "feedback", "metrics", "metadata"),
    "generated_images": ("generation_params", "error_details", "feedback", "image_metadata", "metadata"),
    "sessions": ("session_data", "metadata"),
}
TAGS = """jsonb_typeof(tags) = 'array' AND NOT jsonb_path_exists(tags, '$[*] ? (@.type() <> "string")')"""


def rules(table: str) -> dict[str, str]:
    """The condition for each JSON column of a table."""
    found = {column: f"jsonb_typeof({column}) = 'object'" for column in OBJECTS[table]}
    return found | ({"tags": TAGS} if table == "projects" else {})


def upgrade() -> None:
    """Add the rules. Waits for locks of five tables, and holds them for an instant."""
    for table in OBJECTS:
        added = ", ".join(
            f"ADD CONSTRAINT ck_{table}_{column} CHECK ({rule}) NOT VALID" for column, rule in rules(table).items()
        )
        op.execute(f"ALTER TABLE {table} {added}")


def downgrade() -> None:
    """Drop them."""
    for table in OBJECTS:
        op.execute(
            f"ALTER TABLE {table} " + ", ".join(f"DROP CONSTRAINT ck_{table}_{column}" for column in rules(table))
        )
