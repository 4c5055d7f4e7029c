"""Exports of everything about a person, as jobs, and the mail that says that one is ready.

That the mails so far fit the new rule is checked by the next migration, under a weaker lock.
"""

from __future__ import annotations

from alembic import op

revision = "0046"
down_revision = "0045"

OLD_KINDS = ("verify_email", "reset_password", "address_taken")
TABLE = """
CREATE TABLE IF NOT EXISTS exports (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'queued',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    projects integer,
    projects_done integer NOT NULL DEFAULT 0,
    files integer,
    files_done integer NOT NULL DEFAULT 0,
    size bigint,
    storage_key text COLLATE "C",
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    expires_at timestamptz,
    CONSTRAINT pk_exports PRIMARY KEY (id),
    CONSTRAINT ck_exports_status CHECK (status IN ('queued', 'running', 'done', 'failed', 'expired')),
    CONSTRAINT ck_exports_archive CHECK (
        status <> 'done' OR (storage_key IS NOT NULL AND expires_at IS NOT NULL)
    ),
    CONSTRAINT fk_exports_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
)
"""
UNFINISHED = "WHERE status IN ('queued', 'running')"
INDEXES = (
    f"CREATE UNIQUE INDEX IF NOT EXISTS uq_exports_user_id ON exports (user_id) {UNFINISHED}",
    f"CREATE INDEX IF NOT EXISTS ix_exports_next_attempt_at ON exports (next_attempt_at) {UNFINISHED}",
    "CREATE INDEX IF NOT EXISTS ix_exports_user_id_id ON exports (user_id, id)",
    "CREATE INDEX IF NOT EXISTS ix_exports_storage_key ON exports (storage_key) WHERE storage_key IS NOT NULL",
)


def replace_rule(kinds: tuple[str, ...]) -> None:
    """Replace the rule of ``kind`` for what is written from now on; the table is locked for an instant."""
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.execute(
        # What replaces it allows more.
        "-- squawk-ignore ban-drop-constraint\n"
        "ALTER TABLE mails DROP CONSTRAINT ck_mails_kind, "
        f"ADD CONSTRAINT ck_mails_kind CHECK (kind IN ({listed})) NOT VALID"
    )


def upgrade() -> None:
    """Create the table, which is empty, and allow the mail."""
    op.execute(TABLE)
    for index in INDEXES:
        op.execute(f"-- squawk-ignore require-concurrent-index-creation\n{index}")
    replace_rule((*OLD_KINDS, "export_ready"))


def downgrade() -> None:
    """Drop it, and the mails about it; archives stay in the storage until `data-layer storage cleanup`."""
    op.execute("DELETE FROM mails WHERE kind = 'export_ready'")
    replace_rule(OLD_KINDS)
    op.execute("DROP TABLE exports")
