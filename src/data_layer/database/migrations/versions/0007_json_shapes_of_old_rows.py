"""The rules of migration 0006 hold for rows that were stored before it, too."""

from __future__ import annotations

from importlib import import_module

from alembic import op

revision = "0007"
down_revision = "0006"

_added = import_module("data_layer.database.migrations.versions.0006_json_shapes")


def upgrade() -> None:
    """Empty what has another shape, which nothing could read, and check all rows. Reads and writes go on meanwhile."""
    for table in _added.OBJECTS:
        rules: dict[str, str] = _added.rules(table)
        # All columns of a row at once: it is checked as a whole.
        repaired = ", ".join(
            f"{column} = CASE WHEN {rule} THEN {column} ELSE '{'[]' if column == 'tags' else '{}'}' END"
            for column, rule in rules.items()
        )
        broken = " OR ".join(f"NOT ({rule})" for rule in rules.values())
        op.execute(f"UPDATE {table} SET {repaired} WHERE {broken}")  # noqa: S608  (names of columns only)
        for column in rules:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_{column}")


def downgrade() -> None:
    """Nothing: what was repaired stays so."""
