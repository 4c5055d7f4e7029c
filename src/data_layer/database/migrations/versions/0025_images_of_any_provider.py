"""Images of any provider and kind, and the audit action of changing one.

Rows with the new values are written only by this version, so its predecessor goes on meanwhile. That the rows so far
fit the new rules is checked by the next migration, because that reads the tables, under a weaker lock.
"""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"

OLD_ACTIONS = """
user_login user_logout user_register user_update_profile user_change_password user_delete_account
user_verify_email user_reset_password project_create project_update project_delete project_archive
project_restore project_share project_unshare project_clone code_generate code_update code_delete code_copy
code_download code_rate image_generate image_delete image_download image_rate design_create design_update
design_delete session_create session_extend session_revoke session_expire security_login_failed
security_account_locked security_account_unlocked security_suspicious_activity security_data_export
security_privacy_settings admin_user_create admin_user_update admin_user_delete admin_user_suspend
admin_user_unsuspend admin_system_config admin_data_export admin_budget_update admin_bulk_action system_startup
system_shutdown system_error system_maintenance system_backup system_restore
"""
KNOWN_SIZES = (
    "(provider = 'dalle3' AND size IN ('1024x1024', '1792x1024', '1024x1792')) OR "
    "(provider = 'flux_schnell' AND size IN ('512x512', '768x768', '1024x1024', '1536x1024', '1024x1536'))"
)
ADD_KIND = "ALTER TABLE generated_images ADD COLUMN kind text NOT NULL DEFAULT 'generated'"
ALLOW = f"""
ALTER TABLE generated_images
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT ck_generated_images_provider,
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT ck_generated_images_size,
    ADD CONSTRAINT ck_generated_images_provider
        CHECK (provider IN ('dalle3', 'flux_schnell', 'openai', 'replicate', 'other')) NOT VALID,
    ADD CONSTRAINT ck_generated_images_size
        CHECK ({KNOWN_SIZES} OR provider IN ('openai', 'replicate', 'other')) NOT VALID,
    ADD CONSTRAINT ck_generated_images_kind
        CHECK (kind IN ('generated', 'edited', 'background_removed', 'extracted', 'uploaded')) NOT VALID
"""
# The old list has no neutral word: the images of others are called by the first of it, with a size that it makes.
RENAME = """
UPDATE generated_images SET provider = 'dalle3', size = '1024x1024' WHERE provider NOT IN ('dalle3', 'flux_schnell')
"""
FORBID = f"""
ALTER TABLE generated_images
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT ck_generated_images_provider,
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT ck_generated_images_size,
    -- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT ck_generated_images_provider CHECK (provider IN ('dalle3', 'flux_schnell')),
    -- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT ck_generated_images_size CHECK ({KNOWN_SIZES})
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
    """Allow them. Both tables are locked for an instant."""
    op.execute(ADD_KIND)
    op.execute(ALLOW)
    actions = OLD_ACTIONS.split()
    # In the order of the enumeration, which the check constraint of the models has, too.
    actions.insert(actions.index("image_generate") + 1, "image_update")
    replace_rule(actions)


def downgrade() -> None:
    """Forget kinds and new providers; entries with the new action stay."""
    replace_rule(OLD_ACTIONS.split())
    op.execute(RENAME)
    op.execute(FORBID)
    op.execute("ALTER TABLE generated_images DROP COLUMN kind")
