"""Refresh tokens, versions of session data, and a journal by which every process learns of ended sessions."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

DATA_VERSION = "ALTER TABLE sessions ADD COLUMN data_version integer NOT NULL DEFAULT 0"

REFRESH_TOKENS = """
CREATE TABLE refresh_tokens (
    id uuid NOT NULL,
    token_hash varchar(64) NOT NULL,
    session_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    successor_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_refresh_tokens PRIMARY KEY (id),
    CONSTRAINT uq_refresh_tokens_token_hash UNIQUE (token_hash),
    CONSTRAINT fk_refresh_tokens_session_id FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
)
"""

SESSION_CHANGES = """
CREATE TABLE session_changes (
    transaction_id bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    session_id uuid NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_session_changes PRIMARY KEY (transaction_id, session_id)
)
"""

INDEXES = (
    "CREATE INDEX ix_refresh_tokens_session_id ON refresh_tokens (session_id)",
    "CREATE INDEX ix_refresh_tokens_expires_at ON refresh_tokens (expires_at)",
)

ANNOUNCE_SESSION_CHANGE = """
CREATE FUNCTION announce_session_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF OLD.status = 'active' AND (TG_OP = 'DELETE' OR NEW.status <> 'active' OR NEW.expires_at < OLD.expires_at) THEN
        INSERT INTO session_changes (session_id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
        NOTIFY data_layer_session_changed;
    END IF;
    RETURN NULL;
END
$body$
"""

ANNOUNCE_USER_CHANGE = """
CREATE FUNCTION announce_user_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF NEW.role <> OLD.role OR NEW.status <> OLD.status THEN
        INSERT INTO session_changes (session_id)
        SELECT id FROM sessions WHERE user_id = NEW.id AND status = 'active' ON CONFLICT DO NOTHING;
        NOTIFY data_layer_session_changed;
    END IF;
    RETURN NULL;
END
$body$
"""

TRIGGERS = (
    """
CREATE TRIGGER announce_change AFTER DELETE OR UPDATE OF status, expires_at ON sessions
FOR EACH ROW EXECUTE FUNCTION announce_session_change()
""",
    """
CREATE TRIGGER announce_change AFTER UPDATE OF role, status ON users
FOR EACH ROW EXECUTE FUNCTION announce_user_change()
""",
)


def upgrade() -> None:
    """Create everything."""
    statements = (DATA_VERSION, REFRESH_TOKENS, SESSION_CHANGES, *INDEXES)
    for statement in (*statements, ANNOUNCE_SESSION_CHANGE, ANNOUNCE_USER_CHANGE, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything. Refresh tokens are lost; sessions stay."""
    op.execute("DROP TRIGGER announce_change ON users")
    op.execute("DROP TRIGGER announce_change ON sessions")
    op.execute("DROP FUNCTION announce_user_change()")
    op.execute("DROP FUNCTION announce_session_change()")
    op.execute("DROP TABLE session_changes")
    op.execute("DROP TABLE refresh_tokens")
    op.execute("ALTER TABLE sessions DROP COLUMN data_version")
