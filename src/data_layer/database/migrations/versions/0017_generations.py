"""Generations and their events: the tables and columns, which the next migration fills.

The version of a code becomes the number of its generation, so that it is no longer unique in a project.
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"

GENERATIONS = """
CREATE TABLE generations (
    id uuid NOT NULL,
    project_id uuid NOT NULL,
    number integer NOT NULL,
    generation_type text NOT NULL DEFAULT 'create',
    input_mode text NOT NULL DEFAULT 'image',
    prompt text,
    full_prompt text,
    inputs jsonb NOT NULL DEFAULT '{}'::jsonb,
    design_system text,
    wanted_parent_hash text,
    external_source varchar(64),
    external_key varchar(255),
    selected_variant integer NOT NULL DEFAULT 0,
    created_by uuid,
    correlation_id varchar(255),
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_generations PRIMARY KEY (id),
    CONSTRAINT uq_generations_project_id_number UNIQUE (project_id, number),
    CONSTRAINT fk_generations_project_id FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT fk_generations_created_by FOREIGN KEY (created_by) REFERENCES users (id),
    CONSTRAINT ck_generations_generation_type
        CHECK (generation_type IN ('create', 'update', 'refine', 'import', 'restore')),
    CONSTRAINT ck_generations_input_mode CHECK (input_mode IN ('image', 'video', 'text')),
    CONSTRAINT ck_generations_inputs CHECK (jsonb_typeof(inputs) = 'object')
)
"""

EVENTS = """
CREATE TABLE generation_events (
    id uuid NOT NULL,
    code_id uuid NOT NULL,
    sequence integer NOT NULL,
    kind varchar(50) NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_generation_events PRIMARY KEY (id),
    CONSTRAINT uq_generation_events_code_id_sequence UNIQUE (code_id, sequence),
    CONSTRAINT fk_generation_events_code_id FOREIGN KEY (code_id) REFERENCES generated_codes (id) ON DELETE CASCADE,
    CONSTRAINT ck_generation_events_payload CHECK (jsonb_typeof(payload) = 'object')
)
"""

INDEXES = (
    """
CREATE UNIQUE INDEX uq_generations_external_source_external_key ON generations (external_source, external_key)
NULLS NOT DISTINCT WHERE external_key IS NOT NULL
""",
    """
CREATE INDEX ix_generations_wanted_parent_hash ON generations (project_id, wanted_parent_hash)
WHERE wanted_parent_hash IS NOT NULL
""",
    "CREATE INDEX ix_generations_created_by ON generations (created_by) WHERE created_by IS NOT NULL",
)

COLUMNS = """
ALTER TABLE generated_codes
    ADD COLUMN lease_until timestamptz,
    ADD COLUMN writer text,
    ADD COLUMN last_sequence integer NOT NULL DEFAULT 0
"""
NO_LONGER_UNIQUE = """
-- squawk-ignore ban-drop-constraint
ALTER TABLE generated_codes DROP CONSTRAINT uq_generated_codes_project_id_version
"""


def upgrade() -> None:
    """Create them. The table of codes is locked for an instant."""
    for statement in (GENERATIONS, EVENTS, *INDEXES, COLUMNS, NO_LONGER_UNIQUE):
        op.execute(statement)


def downgrade() -> None:
    """Drop them, and what they hold."""
    op.execute("ALTER TABLE generated_codes DROP COLUMN lease_until, DROP COLUMN writer, DROP COLUMN last_sequence")
    # The migration after this one has numbered the versions again, when it was taken back.
    op.execute(
        "-- squawk-ignore constraint-missing-not-valid, disallowed-unique-constraint\n"
        "ALTER TABLE generated_codes "
        "ADD CONSTRAINT uq_generated_codes_project_id_version UNIQUE (project_id, version)"
    )
    op.execute("DROP TABLE generation_events")
    op.execute("DROP TABLE generations")
