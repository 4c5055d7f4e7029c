"""Design systems, and the audit actions of design systems, shares and budgets.

Entries with the new actions are written only by this version, so its predecessor goes on meanwhile. That the entries so
far fit the longer list is checked by the next migration, because that reads the table, under a weaker lock.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

OLD_ACTIONS = """
user_login user_logout user_register user_update_profile user_change_password user_delete_account
user_verify_email user_reset_password project_create project_update project_delete project_archive
project_restore project_share project_clone code_generate code_update code_delete code_copy code_download
code_rate image_generate image_delete image_download image_rate session_create session_extend session_revoke
session_expire security_login_failed security_account_locked security_account_unlocked
security_suspicious_activity security_data_export security_privacy_settings admin_user_create admin_user_update
admin_user_delete admin_user_suspend admin_user_unsuspend admin_system_config admin_data_export
admin_bulk_action system_startup system_shutdown system_error system_maintenance system_backup system_restore
"""
NEW_ACTIONS = "project_unshare design_create design_update design_delete admin_budget_update"
# In the order of the enumeration, which the check constraint of the models has, too.
AFTER = {
    "project_unshare": "project_share",
    "design_create": "image_rate",
    "design_update": "design_create",
    "design_delete": "design_update",
    "admin_budget_update": "admin_data_export",
}

CREATE = """
CREATE TABLE design_systems (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    name varchar(255) NOT NULL,
    content text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_design_systems PRIMARY KEY (id),
    CONSTRAINT fk_design_systems_user_id FOREIGN KEY (user_id) REFERENCES users (id)
)
"""
INDEX = "CREATE INDEX ix_design_systems_user_id_id ON design_systems (user_id, id)"


def all_actions() -> list[str]:
    """The old actions with the new ones among them."""
    actions = OLD_ACTIONS.split()
    for action in NEW_ACTIONS.split():
        actions.insert(actions.index(AFTER[action]) + 1, action)
    return actions


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
    """Create the table, and allow the actions."""
    op.execute(CREATE)
    op.execute(INDEX)
    replace_rule(all_actions())


def downgrade() -> None:
    """Drop the table; entries with the new actions stay."""
    replace_rule(OLD_ACTIONS.split())
    op.execute("DROP TABLE design_systems")
