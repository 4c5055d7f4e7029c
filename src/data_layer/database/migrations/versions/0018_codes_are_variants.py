"""Each code is a variant of a generation: those that were stored before get theirs, and their versions its number.

From here on a code that is added without its generation, as older processes do, makes it.
"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"

# A generation belongs to one project. Codes of several projects that shared an id get one for each.
SEPARATE = """
WITH shared AS MATERIALIZED (
    SELECT generation_id, project_id, gen_random_uuid() AS own_id FROM (
        SELECT
            generation_id, project_id,
            row_number() OVER (PARTITION BY generation_id ORDER BY min(version), project_id) AS place
        FROM generated_codes GROUP BY generation_id, project_id
    ) AS places WHERE place > 1
)
UPDATE generated_codes SET generation_id = own_id FROM shared
WHERE generated_codes.generation_id = shared.generation_id AND generated_codes.project_id = shared.project_id
"""
FILL = """
INSERT INTO generations (
    id, project_id, number, generation_type, input_mode, prompt, correlation_id, selected_variant,
    started_at, ended_at, created_at, updated_at
)
SELECT
    generation_id, project_id, row_number() OVER (PARTITION BY project_id ORDER BY min(version)),
    (array_agg(generation_type ORDER BY variant_index))[1],
    CASE WHEN bool_or(input_image_url IS NOT NULL) THEN 'image' ELSE 'text' END,
    (array_agg(original_prompt ORDER BY variant_index))[1],
    (array_agg(correlation_id ORDER BY variant_index))[1],
    min(variant_index), min(created_at),
    CASE WHEN bool_and(status IN ('completed', 'failed', 'cancelled')) THEN max(updated_at) END,
    min(created_at), max(updated_at)
FROM generated_codes GROUP BY generation_id, project_id
"""
NUMBER = """
UPDATE generated_codes SET version = number FROM generations
WHERE generations.id = generation_id AND version <> number
"""
COUNT = """
UPDATE projects SET generation_count = numbers.last FROM (
    SELECT projects.id, coalesce(max(number), 0) AS last
    FROM projects LEFT JOIN generations ON generations.project_id = projects.id GROUP BY projects.id
) AS numbers
WHERE projects.id = numbers.id AND generation_count <> numbers.last
"""
INDEXES = (
    """
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX uq_generated_codes_project_id_version_variant_index
ON generated_codes (project_id, version, variant_index)
""",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ix_generated_codes_lease_until ON generated_codes (lease_until) WHERE lease_until IS NOT NULL
""",
)
REFERENCE = """
-- squawk-ignore adding-foreign-key-constraint, constraint-missing-not-valid
ALTER TABLE generated_codes ADD CONSTRAINT fk_generated_codes_generation_id
FOREIGN KEY (generation_id) REFERENCES generations (id) ON DELETE CASCADE
"""

NUMBER_GENERATION = """
CREATE FUNCTION number_generation() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    UPDATE projects
    SET generation_count = generation_count + 1, last_generated_at = now(), updated_at = now()
    WHERE id = NEW.project_id
    RETURNING generation_count INTO NEW.number;
    IF NOT FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = 'project_id names no project',
            CONSTRAINT = 'fk_generations_project_id', TABLE = 'generations', COLUMN = 'project_id';
    END IF;
    RETURN NEW;
END
$body$
"""
NUMBER_CODE_VERSION = """
CREATE OR REPLACE FUNCTION number_code_version() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    generation_project uuid;
BEGIN
    IF NEW.parent_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM generated_codes WHERE id = NEW.parent_id AND project_id = NEW.project_id
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = 'parent_id names no version of the same project',
            CONSTRAINT = 'generated_codes_parent_in_project', TABLE = 'generated_codes', COLUMN = 'parent_id';
    END IF;
    IF NEW.generation_id IS NULL THEN
        NEW.version := 0;  -- The column's rule refuses the row.
        RETURN NEW;
    END IF;
    SELECT number, project_id INTO NEW.version, generation_project FROM generations WHERE id = NEW.generation_id;
    IF NOT FOUND THEN
        PERFORM FROM projects WHERE id = NEW.project_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RAISE foreign_key_violation USING
                MESSAGE = 'project_id names no project',
                CONSTRAINT = 'fk_generated_codes_project_id', TABLE = 'generated_codes', COLUMN = 'project_id';
        END IF;
        SELECT number, project_id INTO NEW.version, generation_project FROM generations WHERE id = NEW.generation_id;
        IF NOT FOUND THEN
            INSERT INTO generations (
                id, project_id, generation_type, input_mode, prompt, correlation_id, selected_variant,
                started_at, ended_at, created_at, updated_at
            ) VALUES (
                NEW.generation_id, NEW.project_id, NEW.generation_type,
                CASE WHEN NEW.input_image_url IS NULL THEN 'text' ELSE 'image' END, NEW.original_prompt,
                NEW.correlation_id, NEW.variant_index, NEW.created_at,
                CASE WHEN NEW.status IN ('completed', 'failed', 'cancelled') THEN NEW.updated_at END,
                NEW.created_at, NEW.created_at
            )
            RETURNING number, project_id INTO NEW.version, generation_project;
        END IF;
    END IF;
    IF generation_project <> NEW.project_id THEN
        RAISE foreign_key_violation USING
            MESSAGE = 'generation_id names no generation of the same project',
            CONSTRAINT = 'generated_codes_generation_in_project', TABLE = 'generated_codes', COLUMN = 'generation_id';
    END IF;
    RETURN NEW;
END
$body$
"""
TRIGGER = """
CREATE TRIGGER number_generation BEFORE INSERT ON generations
FOR EACH ROW EXECUTE FUNCTION number_generation()
"""

OLD_NUMBER_CODE_VERSION = """
CREATE OR REPLACE FUNCTION number_code_version() RETURNS trigger LANGUAGE plpgsql AS $body$
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
NUMBER_AGAIN = """
UPDATE generated_codes SET version = place FROM (
    SELECT id, row_number() OVER (PARTITION BY project_id ORDER BY version, variant_index, id) AS place
    FROM generated_codes
) AS places
WHERE generated_codes.id = places.id AND version <> place
"""
COUNT_AGAIN = """
UPDATE projects SET generation_count = codes.number FROM (
    SELECT projects.id, count(generated_codes.id) AS number
    FROM projects LEFT JOIN generated_codes ON generated_codes.project_id = projects.id GROUP BY projects.id
) AS codes
WHERE projects.id = codes.id AND generation_count <> codes.number
"""
LOCK = "LOCK TABLE projects, generated_codes IN SHARE ROW EXCLUSIVE MODE"


def upgrade() -> None:
    """Fill the table. Projects and codes can be read meanwhile; who writes them waits."""
    op.execute(LOCK)
    for statement in (SEPARATE, FILL, NUMBER, COUNT, *INDEXES, REFERENCE):
        op.execute(statement)
    for statement in (NUMBER_GENERATION, NUMBER_CODE_VERSION, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Number every code again, and forget the generations."""
    op.execute(LOCK)
    op.execute("ALTER TABLE generated_codes DROP CONSTRAINT fk_generated_codes_generation_id")
    for name in ("uq_generated_codes_project_id_version_variant_index", "ix_generated_codes_lease_until"):
        op.execute(f"-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX {name}")
    op.execute("DROP TRIGGER number_generation ON generations")
    op.execute("DROP FUNCTION number_generation()")
    for statement in (OLD_NUMBER_CODE_VERSION, NUMBER_AGAIN, COUNT_AGAIN, "DELETE FROM generations"):
        op.execute(statement)
