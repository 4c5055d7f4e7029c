"""Identities of any OpenID Connect issuer, and accounts whose changes every process hears of without a session.

The rule for where accounts come from is checked for those that exist outside of the transaction, so everything before
can be repeated.
"""

from __future__ import annotations

from alembic import op

revision = "0036"
down_revision = "0035"

IDENTITIES = """
CREATE TABLE IF NOT EXISTS user_identities (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    issuer varchar(255) NOT NULL,
    subject varchar(255) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_user_identities PRIMARY KEY (id),
    CONSTRAINT fk_user_identities_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
)
"""
INDEXES = (
    "CREATE UNIQUE INDEX IF NOT EXISTS uq_user_identities_issuer_subject ON user_identities (issuer, subject)",
    "CREATE UNIQUE INDEX IF NOT EXISTS uq_user_identities_user_id_issuer ON user_identities (user_id, issuer)",
)
ANNOUNCE_USER = """
CREATE OR REPLACE FUNCTION announce_user_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF NEW.role <> OLD.role OR NEW.status <> OLD.status THEN
        INSERT INTO session_changes (session_id)
        SELECT id FROM sessions WHERE user_id = NEW.id AND status = 'active'{rest} ON CONFLICT DO NOTHING;
        NOTIFY data_layer_session_changed;
    END IF;
    RETURN NULL;
END
$body$
"""
ANNOUNCE_IDENTITY = """
CREATE OR REPLACE FUNCTION announce_identity_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO session_changes (session_id) VALUES (OLD.user_id) ON CONFLICT DO NOTHING;
    NOTIFY data_layer_session_changed;
    RETURN NULL;
END
$body$
"""
TRIGGER = """
CREATE OR REPLACE TRIGGER announce_change AFTER DELETE OR UPDATE OF issuer, subject, user_id ON user_identities
FOR EACH ROW EXECUTE FUNCTION announce_identity_change()
"""
DROP = "-- squawk-ignore ban-drop-constraint\nALTER TABLE users DROP CONSTRAINT IF EXISTS ck_users_auth_provider"
ADD = """
ALTER TABLE users ADD CONSTRAINT ck_users_auth_provider CHECK (auth_provider IN ({})) NOT VALID
"""
ADD_CHECKED = """
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE users ADD CONSTRAINT ck_users_auth_provider CHECK (auth_provider IN ({}))
"""
VALIDATE = "ALTER TABLE users VALIDATE CONSTRAINT ck_users_auth_provider"
KNOWN = "'local', 'azure_ad', 'google', 'github'"


def upgrade() -> None:
    """Create the table, which is empty. The accounts are locked for an instant; they are checked while others write."""
    announce = ANNOUNCE_USER.format(rest=" UNION ALL SELECT NEW.id\n       ")
    for statement in (IDENTITIES, *INDEXES, announce, ANNOUNCE_IDENTITY, TRIGGER):
        op.execute(statement)
    for statement in (DROP, ADD.format(f"{KNOWN}, 'oidc'")):
        op.execute(statement)
    with op.get_context().autocommit_block():
        op.execute(VALIDATE)


def downgrade() -> None:
    """Drop it: people who came by an issuer get in again by choosing a password by mail."""
    op.execute("UPDATE users SET auth_provider = 'local' WHERE auth_provider = 'oidc'")
    for statement in (DROP, ADD_CHECKED.format(KNOWN)):
        op.execute(statement)
    op.execute(ANNOUNCE_USER.format(rest=""))
    op.execute("DROP TABLE user_identities")
    op.execute("DROP FUNCTION announce_identity_change()")
