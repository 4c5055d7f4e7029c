"""The copy of a project brings the numbers of its generations, which its row has counted already."""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"

NUMBER_GENERATION = """
CREATE OR REPLACE FUNCTION number_generation() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    -- The copy of a project has counted its generations already, and brings their numbers.
    PERFORM FROM projects WHERE id = NEW.project_id AND NEW.number BETWEEN 1 AND generation_count;
    IF FOUND THEN
        RETURN NEW;
    END IF;
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
OLD_NUMBER_GENERATION = """
CREATE OR REPLACE FUNCTION number_generation() RETURNS trigger LANGUAGE plpgsql AS $body$
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


def upgrade() -> None:
    """Replace the function of the trigger; nothing is locked."""
    op.execute(NUMBER_GENERATION)


def downgrade() -> None:
    """Number every generation again that is inserted."""
    op.execute(OLD_NUMBER_GENERATION)
