"""Audit entries by month, append-only: the table so far becomes the partition for what belongs to no month."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

INDEXES = {
    "user_id_id": "(user_id, id)",
    "action_id": "(action, id)",
    "level_id": "(level, id)",
    "category_id": "(category, id)",
    "resource_type_resource_id": "(resource_type, resource_id)",
    "correlation_id": "(correlation_id)",
    "context": "USING gin (context jsonb_path_ops)",
}
OLD_INDEXES = {
    "user_id_created_at": "(user_id, created_at)",
    "action_created_at": "(action, created_at)",
    "level_created_at": "(level, created_at)",
}
KEPT_INDEXES = ("resource_type_resource_id", "correlation_id", "context")

# Rows are not moved here: the old table is attached as it is, so this takes no longer with many rows than with none
# (but for four indexes). `data-layer maintenance run` later moves the rows to their months.
RENAMING_TABLE = "-- squawk-ignore renaming-table\nALTER TABLE"  # A table of the old name follows at once.
RENAMING_INDEX = "-- squawk-ignore renaming-object\nALTER INDEX"
RENAME = (
    f"{RENAMING_TABLE} audit_logs RENAME TO audit_logs_default",
    f"{RENAMING_INDEX} pk_audit_logs RENAME TO audit_logs_default_pkey",
    *(f"{RENAMING_INDEX} ix_audit_logs_{name} RENAME TO audit_logs_default_{name}_idx" for name in KEPT_INDEXES),
    *(f"-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX ix_audit_logs_{name}" for name in OLD_INDEXES),
)
CREATE = """
CREATE TABLE audit_logs (
    LIKE audit_logs_default INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    CONSTRAINT pk_audit_logs PRIMARY KEY (id),
    CONSTRAINT fk_audit_logs_user_id FOREIGN KEY (user_id) REFERENCES users (id)
) PARTITION BY RANGE (id)
"""
ATTACH = "ALTER TABLE audit_logs ATTACH PARTITION audit_logs_default DEFAULT"

REFUSE_AUDIT_CHANGE = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE restrict_violation USING
        MESSAGE = format('audit entries are never changed or removed: %s was refused', TG_OP),
        HINT = 'Whole months that are old enough are removed by: data-layer maintenance run',
        CONSTRAINT = 'audit_logs_append_only', TABLE = 'audit_logs';
END
$body$
"""
TRIGGERS = (
    """
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON audit_logs
FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()
""",
    *(
        f"""
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
"""
        for table in ("audit_logs", "audit_logs_default")
    ),
)

# This month and the next three; maintenance makes them where the old table has entries, which it first has to move.
CREATE_MONTHS = """
DO $body$
DECLARE
    month timestamptz;
    name text;
    low uuid;
    high uuid;
BEGIN
    IF EXISTS (SELECT FROM audit_logs_default) THEN
        RETURN;
    END IF;
    FOR offset_months IN 0..3 LOOP
        month := date_trunc('month', now(), 'UTC') + make_interval(months => offset_months);
        low := (lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
        high := (lpad(to_hex((extract(epoch FROM month + interval '1 month') * 1000)::bigint), 12, '0')
            || repeat('0', 20))::uuid;
        name := 'audit_logs_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF audit_logs FOR VALUES FROM (%L) TO (%L)', name, low, high
        );
        EXECUTE format(
            'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()', name
        );
    END LOOP;
END
$body$
"""

UNDO = (
    f"{RENAMING_TABLE} audit_logs RENAME TO audit_logs_by_month",
    f"{RENAMING_INDEX} pk_audit_logs RENAME TO pk_audit_logs_by_month",
    *(f"{RENAMING_INDEX} ix_audit_logs_{name} RENAME TO ix_audit_logs_by_month_{name}" for name in KEPT_INDEXES),
    """
CREATE TABLE audit_logs (
    LIKE audit_logs_by_month INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    CONSTRAINT pk_audit_logs PRIMARY KEY (id),
    CONSTRAINT fk_audit_logs_user_id FOREIGN KEY (user_id) REFERENCES users (id)
)
""",
    "INSERT INTO audit_logs SELECT * FROM audit_logs_by_month",
    *(
        f"CREATE INDEX ix_audit_logs_{name} ON audit_logs {definition}"
        for name, definition in {**OLD_INDEXES, **{name: INDEXES[name] for name in KEPT_INDEXES}}.items()
    ),
    "DROP TABLE audit_logs_by_month",
    "DROP FUNCTION refuse_audit_change()",
)


def upgrade() -> None:
    """Attach the old table to a new one that is divided by month, and refuse changes."""
    for statement in (*RENAME, CREATE, ATTACH):
        op.execute(statement)
    for name, definition in INDEXES.items():
        op.execute(f"CREATE INDEX ix_audit_logs_{name} ON audit_logs {definition}")
    for statement in (REFUSE_AUDIT_CHANGE, *TRIGGERS, CREATE_MONTHS):
        op.execute(statement)


def downgrade() -> None:
    """Copy all entries into one plain table."""
    for statement in UNDO:
        op.execute(statement)
