"""API keys, whose changes every process hears of, and the audit actions of ways to log in.

That the audit entries so far fit the new rule is checked by the next migration, under a weaker lock.
"""

from __future__ import annotations

from alembic import op

revision = "0039"
down_revision = "0038"

OLD_ACTIONS = """
user_login user_logout user_register user_update_profile user_change_password user_delete_account
user_verify_email user_reset_password project_create project_update project_delete project_archive
project_restore project_share project_unshare project_clone code_generate code_update code_delete code_copy
code_download code_rate image_generate image_update image_delete image_download image_rate design_create design_update
design_delete session_create session_extend session_revoke session_expire security_login_failed
security_account_locked security_account_unlocked security_suspicious_activity security_data_export
security_privacy_settings admin_user_create admin_user_update admin_user_delete admin_user_suspend
admin_user_unsuspend admin_system_config admin_data_export admin_budget_update admin_bulk_action system_startup
system_shutdown system_error system_maintenance system_backup system_restore
"""
NEW_ACTIONS = ("user_create_api_key", "user_revoke_api_key", "user_add_factor", "user_remove_factor")
TABLE = """
CREATE TABLE IF NOT EXISTS api_keys (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    name varchar(100) NOT NULL,
    prefix varchar(16) NOT NULL,
    key_hash varchar(64) NOT NULL,
    scopes jsonb NOT NULL DEFAULT '[]'::jsonb,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT uq_api_keys_key_hash UNIQUE (key_hash),
    CONSTRAINT ck_api_keys_scopes CHECK (
        jsonb_typeof(scopes) = 'array' AND NOT jsonb_path_exists(scopes, '$[*] ? (@.type() <> "string")')
    ),
    CONSTRAINT fk_api_keys_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
)
"""
INDEX = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS ix_api_keys_user_id_id ON api_keys (user_id, id)
"""
ANNOUNCE = """
CREATE OR REPLACE FUNCTION announce_api_key_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO session_changes (session_id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
    NOTIFY data_layer_session_changed;
    RETURN NULL;
END
$body$
"""
TRIGGER = """
CREATE OR REPLACE TRIGGER announce_change
AFTER DELETE OR UPDATE OF user_id, key_hash, scopes, expires_at, revoked_at ON api_keys
FOR EACH ROW EXECUTE FUNCTION announce_api_key_change()
"""


def replace_rule(actions: list[str]) -> None:
    """Replace the rule of ``action`` for what is written from now on; the table is locked for an instant."""
    listed = ", ".join(f"'{action}'" for action in actions)
    op.execute(
        # What replaces it allows more.
        "-- squawk-ignore ban-drop-constraint\n"
        "ALTER TABLE audit_logs DROP CONSTRAINT ck_audit_logs_action, "
        f"ADD CONSTRAINT ck_audit_logs_action CHECK (action IN ({listed})) NOT VALID"
    )


def upgrade() -> None:
    """Create the table, which is empty, and allow the actions."""
    for statement in (TABLE, INDEX, ANNOUNCE, TRIGGER):
        op.execute(statement)
    actions = OLD_ACTIONS.split()
    # In the order of the enumeration, which the check constraint of the models has, too.
    place = actions.index("user_reset_password") + 1
    actions[place:place] = NEW_ACTIONS
    replace_rule(actions)


def downgrade() -> None:
    """Drop it: programs with a key can no longer get in. Entries with the new actions stay."""
    replace_rule(OLD_ACTIONS.split())
    op.execute("DROP TABLE api_keys")
    op.execute("DROP FUNCTION announce_api_key_change()")
