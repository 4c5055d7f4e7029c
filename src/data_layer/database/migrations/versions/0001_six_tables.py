"""The six tables, their indexes, and the rules that functions and triggers keep."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

USERS = """
CREATE TABLE users (
    id uuid NOT NULL,
    email varchar(255) NOT NULL,
    first_name varchar(100) NOT NULL,
    last_name varchar(100) NOT NULL,
    display_name varchar(255),
    avatar text,
    password_hash text,
    status text NOT NULL DEFAULT 'active',
    role text NOT NULL DEFAULT 'user',
    auth_provider text NOT NULL DEFAULT 'local',
    azure_id text,
    google_id text,
    github_id text,
    email_verified boolean NOT NULL DEFAULT false,
    email_verified_at timestamptz,
    last_login_at timestamptz,
    last_login_ip inet,
    last_login_user_agent text,
    login_count integer NOT NULL DEFAULT 0,
    failed_login_count integer NOT NULL DEFAULT 0,
    locked_until timestamptz,
    password_changed_at timestamptz,
    reset_password_token_hash text,
    reset_password_expires_at timestamptz,
    email_verification_token_hash text,
    email_verification_expires_at timestamptz,
    preferences jsonb NOT NULL DEFAULT '{}'::jsonb,
    metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_users PRIMARY KEY (id),
    CONSTRAINT ck_users_status CHECK (status IN ('active', 'inactive', 'suspended', 'pending')),
    CONSTRAINT ck_users_role CHECK (role IN ('user', 'moderator', 'admin')),
    CONSTRAINT ck_users_auth_provider CHECK (auth_provider IN ('local', 'azure_ad', 'google', 'github'))
)
"""

AUDIT_LOGS = """
CREATE TABLE audit_logs (
    id uuid NOT NULL,
    user_id uuid,
    action text NOT NULL,
    level text NOT NULL DEFAULT 'info',
    category text NOT NULL,
    description varchar(255) NOT NULL,
    details text,
    resource_type varchar(100),
    resource_id varchar(255),
    old_values jsonb NOT NULL DEFAULT '{}'::jsonb,
    new_values jsonb NOT NULL DEFAULT '{}'::jsonb,
    ip_address inet,
    user_agent text,
    session_id text,
    correlation_id varchar(255),
    source text,
    context jsonb NOT NULL DEFAULT '{}'::jsonb,
    metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    is_success boolean NOT NULL DEFAULT true,
    error_message text,
    duration double precision,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_audit_logs PRIMARY KEY (id),
    CONSTRAINT fk_audit_logs_user_id FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT ck_audit_logs_action CHECK (action IN (
        'user_login', 'user_logout', 'user_register', 'user_update_profile', 'user_change_password',
        'user_delete_account', 'user_verify_email', 'user_reset_password', 'project_create', 'project_update',
        'project_delete', 'project_archive', 'project_restore', 'project_share', 'project_clone', 'code_generate',
        'code_update', 'code_delete', 'code_copy', 'code_download', 'code_rate', 'image_generate', 'image_delete',
        'image_download', 'image_rate', 'session_create', 'session_extend', 'session_revoke', 'session_expire',
        'security_login_failed', 'security_account_locked', 'security_account_unlocked',
        'security_suspicious_activity', 'security_data_export', 'security_privacy_settings', 'admin_user_create',
        'admin_user_update', 'admin_user_delete', 'admin_user_suspend', 'admin_user_unsuspend',
        'admin_system_config', 'admin_data_export', 'admin_bulk_action', 'system_startup', 'system_shutdown',
        'system_error', 'system_maintenance', 'system_backup', 'system_restore'
    )),
    CONSTRAINT ck_audit_logs_level CHECK (level IN ('info', 'warning', 'error', 'critical')),
    CONSTRAINT ck_audit_logs_category CHECK (category IN (
        'authentication', 'authorization', 'data_access', 'data_modification', 'security', 'administration',
        'system', 'compliance'
    ))
)
"""

PROJECTS = """
CREATE TABLE projects (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    name varchar(255) NOT NULL,
    description text,
    status text NOT NULL DEFAULT 'draft',
    type text NOT NULL DEFAULT 'website',
    original_image text,
    original_image_filename text,
    original_image_size bigint,
    original_image_mime_type text,
    thumbnail_image text,
    image_metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    instructions text,
    settings jsonb NOT NULL DEFAULT '{}'::jsonb,
    tags jsonb NOT NULL DEFAULT '[]'::jsonb,
    is_public boolean NOT NULL DEFAULT false,
    is_favorite boolean NOT NULL DEFAULT false,
    view_count integer NOT NULL DEFAULT 0,
    generation_count integer NOT NULL DEFAULT 0,
    last_generated_at timestamptz,
    last_viewed_at timestamptz,
    metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    search_vector tsvector GENERATED ALWAYS AS (
        setweight(to_tsvector('english', name), 'A')
        || setweight(to_tsvector('english', left(coalesce(description, ''), 100000)), 'B')
        || setweight(to_tsvector('english', left(coalesce(instructions, ''), 100000)), 'C')
        || setweight(jsonb_to_tsvector('english', tags, '["string"]'), 'D')
    ) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_projects PRIMARY KEY (id),
    CONSTRAINT fk_projects_user_id FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT ck_projects_status CHECK (status IN ('draft', 'active', 'completed', 'archived', 'deleted')),
    CONSTRAINT ck_projects_type CHECK (type IN ('website', 'mobile_app', 'component', 'prototype'))
)
"""

SESSIONS = """
CREATE TABLE sessions (
    id uuid NOT NULL,
    session_id varchar(255) NOT NULL,
    user_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'active',
    type text NOT NULL DEFAULT 'web',
    expires_at timestamptz NOT NULL,
    last_active_at timestamptz NOT NULL DEFAULT now(),
    ip_address inet,
    user_agent text,
    device_id text,
    device_type text,
    browser text,
    browser_version text,
    operating_system text,
    os_version text,
    country text,
    city text,
    timezone text,
    session_data jsonb NOT NULL DEFAULT '{}'::jsonb,
    metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    request_count integer NOT NULL DEFAULT 0,
    revoked_at timestamptz,
    revoked_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_sessions PRIMARY KEY (id),
    CONSTRAINT uq_sessions_session_id UNIQUE (session_id),
    CONSTRAINT fk_sessions_user_id FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT ck_sessions_status CHECK (status IN ('active', 'expired', 'revoked', 'invalid')),
    CONSTRAINT ck_sessions_type CHECK (type IN ('web', 'api', 'mobile', 'desktop'))
)
"""

GENERATED_CODES = """
CREATE TABLE generated_codes (
    id uuid NOT NULL,
    project_id uuid NOT NULL,
    name varchar(255),
    code text NOT NULL,
    code_stack text NOT NULL DEFAULT 'html_tailwind',
    provider text NOT NULL,
    model varchar(100) NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    generation_type text NOT NULL DEFAULT 'create',
    original_prompt text,
    revised_prompt text,
    additional_instructions text,
    input_image_url text,
    result_image_url text,
    generation_params jsonb NOT NULL DEFAULT '{}'::jsonb,
    temperature double precision,
    max_tokens integer,
    prompt_tokens integer,
    completion_tokens integer,
    total_tokens integer,
    generation_time_seconds double precision,
    error_message text,
    error_details jsonb NOT NULL DEFAULT '{}'::jsonb,
    correlation_id varchar(255),
    version integer NOT NULL,
    parent_id uuid,
    generation_id uuid NOT NULL,
    variant_index integer DEFAULT 0 NOT NULL,
    is_favorite boolean NOT NULL DEFAULT false,
    view_count integer NOT NULL DEFAULT 0,
    copy_count integer NOT NULL DEFAULT 0,
    download_count integer NOT NULL DEFAULT 0,
    rating integer,
    feedback jsonb NOT NULL DEFAULT '{}'::jsonb,
    metrics jsonb NOT NULL DEFAULT '{}'::jsonb,
    metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_generated_codes PRIMARY KEY (id),
    CONSTRAINT ck_generated_codes_rating CHECK (rating BETWEEN 1 AND 5),
    CONSTRAINT uq_generated_codes_project_id_version UNIQUE (project_id, version),
    CONSTRAINT fk_generated_codes_project_id FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT fk_generated_codes_parent_id FOREIGN KEY (parent_id) REFERENCES generated_codes (id),
    CONSTRAINT ck_generated_codes_code_stack CHECK (code_stack IN (
        'html_tailwind', 'html_css', 'react_tailwind', 'vue_tailwind', 'bootstrap', 'ionic_tailwind', 'svg'
    )),
    CONSTRAINT ck_generated_codes_provider CHECK (provider IN ('openai', 'azure_openai', 'claude', 'gemini')),
    CONSTRAINT ck_generated_codes_status CHECK (status IN (
        'pending', 'processing', 'completed', 'failed', 'cancelled'
    )),
    CONSTRAINT ck_generated_codes_generation_type CHECK (generation_type IN ('create', 'update', 'refine'))
)
"""

GENERATED_IMAGES = """
CREATE TABLE generated_images (
    id uuid NOT NULL,
    project_id uuid NOT NULL,
    name varchar(255),
    prompt text NOT NULL,
    revised_prompt text,
    provider text NOT NULL,
    model varchar(100) NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    size text NOT NULL,
    quality text,
    style text,
    seed bigint,
    image_url text,
    thumbnail_url text,
    storage_key text,
    mime_type text,
    file_size bigint,
    width integer,
    height integer,
    generation_params jsonb NOT NULL DEFAULT '{}'::jsonb,
    generation_time_seconds double precision,
    error_message text,
    error_details jsonb NOT NULL DEFAULT '{}'::jsonb,
    correlation_id varchar(255),
    is_favorite boolean NOT NULL DEFAULT false,
    view_count integer NOT NULL DEFAULT 0,
    download_count integer NOT NULL DEFAULT 0,
    rating integer,
    feedback jsonb NOT NULL DEFAULT '{}'::jsonb,
    image_metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_generated_images PRIMARY KEY (id),
    CONSTRAINT ck_generated_images_rating CHECK (rating BETWEEN 1 AND 5),
    CONSTRAINT ck_generated_images_size CHECK (
        (provider = 'dalle3' AND size IN ('1024x1024', '1792x1024', '1024x1792')) OR
        (provider = 'flux_schnell' AND size IN ('512x512', '768x768', '1024x1024', '1536x1024', '1024x1536'))
    ),
    CONSTRAINT fk_generated_images_project_id FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT ck_generated_images_provider CHECK (provider IN ('dalle3', 'flux_schnell')),
    CONSTRAINT ck_generated_images_status CHECK (status IN (
        'pending', 'processing', 'completed', 'failed', 'cancelled'
    )),
    CONSTRAINT ck_generated_images_quality CHECK (quality IN ('standard', 'hd')),
    CONSTRAINT ck_generated_images_style CHECK (style IN ('vivid', 'natural'))
)
"""

INDEXES = (
    "CREATE INDEX ix_users_preferences ON users USING gin (preferences jsonb_path_ops)",
    "CREATE UNIQUE INDEX uq_users_azure_id ON users (azure_id) WHERE azure_id IS NOT NULL",
    "CREATE UNIQUE INDEX uq_users_email ON users (lower(email))",
    "CREATE UNIQUE INDEX uq_users_github_id ON users (github_id) WHERE github_id IS NOT NULL",
    "CREATE UNIQUE INDEX uq_users_google_id ON users (google_id) WHERE google_id IS NOT NULL",
    "CREATE INDEX ix_audit_logs_action_created_at ON audit_logs (action, created_at)",
    "CREATE INDEX ix_audit_logs_context ON audit_logs USING gin (context jsonb_path_ops)",
    "CREATE INDEX ix_audit_logs_correlation_id ON audit_logs (correlation_id)",
    "CREATE INDEX ix_audit_logs_level_created_at ON audit_logs (level, created_at)",
    "CREATE INDEX ix_audit_logs_resource_type_resource_id ON audit_logs (resource_type, resource_id)",
    "CREATE INDEX ix_audit_logs_user_id_created_at ON audit_logs (user_id, created_at)",
    "CREATE INDEX ix_projects_search_vector ON projects USING gin (search_vector)",
    "CREATE INDEX ix_projects_settings ON projects USING gin (settings jsonb_path_ops)",
    "CREATE INDEX ix_projects_tags ON projects USING gin (tags jsonb_path_ops)",
    "CREATE INDEX ix_projects_user_id_status ON projects (user_id, status)",
    "CREATE INDEX ix_projects_user_id_updated_at ON projects (user_id, updated_at)",
    "CREATE INDEX ix_sessions_expires_at ON sessions (expires_at)",
    "CREATE INDEX ix_sessions_user_id_status ON sessions (user_id, status)",
    "CREATE INDEX ix_generated_codes_code_stack ON generated_codes (code_stack)",
    "CREATE INDEX ix_generated_codes_metrics ON generated_codes USING gin (metrics jsonb_path_ops)",
    "CREATE INDEX ix_generated_codes_parent_id ON generated_codes (parent_id)",
    "CREATE INDEX ix_generated_codes_project_id_created_at ON generated_codes (project_id, created_at)",
    "CREATE INDEX ix_generated_codes_provider ON generated_codes (provider)",
    "CREATE INDEX ix_generated_codes_status ON generated_codes (status)",
    "CREATE INDEX ix_generated_images_project_id ON generated_images (project_id)",
)

NUMBER_CODE_VERSION = """
CREATE FUNCTION number_code_version() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF NEW.parent_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM generated_codes WHERE id = NEW.parent_id AND project_id = NEW.project_id
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = 'parent_id names no version of the same project',
            CONSTRAINT = 'generated_codes_parent_in_project', TABLE = 'generated_codes', COLUMN = 'parent_id';
    END IF;
    UPDATE projects
    SET generation_count = generation_count + 1, last_generated_at = now(), updated_at = now()
    WHERE id = NEW.project_id
    RETURNING generation_count INTO NEW.version;
    IF NOT FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = 'project_id names no project',
            CONSTRAINT = 'fk_generated_codes_project_id', TABLE = 'generated_codes', COLUMN = 'project_id';
    END IF;
    RETURN NEW;
END
$body$
"""

CHECK_GENERATION_STATUS_MOVE = """
CREATE FUNCTION check_generation_status_move() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF NOT (
        NEW.status = OLD.status
        OR OLD.status = 'pending'
        OR (OLD.status = 'processing' AND NEW.status IN ('completed', 'failed', 'cancelled'))
    ) THEN
        RAISE check_violation USING
            MESSAGE = format('status may not go from %s to %s', OLD.status, NEW.status),
            CONSTRAINT = 'generation_status_move', TABLE = TG_TABLE_NAME, COLUMN = 'status';
    END IF;
    RETURN NEW;
END
$body$
"""

TRIGGERS = (
    """
CREATE TRIGGER number_version BEFORE INSERT ON generated_codes
FOR EACH ROW EXECUTE FUNCTION number_code_version()
""",
    """
CREATE TRIGGER check_status_move BEFORE UPDATE OF status ON generated_codes
FOR EACH ROW EXECUTE FUNCTION check_generation_status_move()
""",
    """
CREATE TRIGGER check_status_move BEFORE UPDATE OF status ON generated_images
FOR EACH ROW EXECUTE FUNCTION check_generation_status_move()
""",
)


def upgrade() -> None:
    """Create everything."""
    tables = (USERS, AUDIT_LOGS, PROJECTS, SESSIONS, GENERATED_CODES, GENERATED_IMAGES)
    functions = (NUMBER_CODE_VERSION, CHECK_GENERATION_STATUS_MOVE)
    for statement in (*tables, *INDEXES, *functions, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything. All rows are lost."""
    for table in ("generated_images", "generated_codes", "sessions", "projects", "audit_logs", "users"):
        op.execute(f"DROP TABLE {table}")
    for function in ("check_generation_status_move", "number_code_version"):
        op.execute(f"DROP FUNCTION {function}()")
