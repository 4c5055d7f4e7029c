"""Each index of ``audit_logs`` costs every entry: those of rare values leave out the rows that hold a common one.

Entries can be written meanwhile, but for the moment in which an index of their month is built. Until the end, pages of
rare levels and categories are read without an index.
"""

from __future__ import annotations

from alembic import op

revision = "0033"
down_revision = "0032"

# What the parts are called is what PostgreSQL would call them.
INDEXES = {
    "level_id": "(level, id) WHERE level <> 'info'",
    "category_id": "(category, id) WHERE category NOT IN ('authentication', 'data_access', 'data_modification')",
    "resource_type_resource_id": "(resource_type, resource_id) WHERE resource_type IS NOT NULL",
    "correlation_id": "(correlation_id) WHERE correlation_id IS NOT NULL",
    "context": "USING gin (context jsonb_path_ops) WHERE context <> '{}'",
}
BEFORE = {name: definition.partition(" WHERE ")[0] for name, definition in INDEXES.items()}


def upgrade() -> None:
    """Replace the indexes, one partition after the other; repeating it after an interruption is harmless."""
    _replace(INDEXES)


def downgrade() -> None:
    """Replace them by indexes of all rows."""
    _replace(BEFORE)


def _replace(definitions: dict[str, str]) -> None:
    with op.get_context().autocommit_block():
        for name, definition in definitions.items():
            index = f"ix_audit_logs_{name}"
            op.execute(f"-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX IF EXISTS {index}")
            op.execute(_of_each_partition(name, definition))
            # Those of the partitions become parts of it, so nothing is built here.
            op.execute(
                "-- squawk-ignore require-concurrent-index-creation\n"
                f"CREATE INDEX IF NOT EXISTS {index} ON audit_logs {definition}"
            )


def _of_each_partition(name: str, definition: str) -> str:
    """A block that commits after each one, so that no entry waits for an index of another month."""
    text = definition.replace("'", "''")
    return f"""
DO $body$
DECLARE
    partition text;
BEGIN
    FOR partition IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'audit_logs'::regclass LOOP
        EXECUTE format('DROP INDEX IF EXISTS %I', partition || '_{name}_idx');
        EXECUTE format('CREATE INDEX %I ON %s {text}', partition || '_{name}_idx', partition);
        COMMIT;
    END LOOP;
END
$body$
"""  # noqa: S608  (of constants)
