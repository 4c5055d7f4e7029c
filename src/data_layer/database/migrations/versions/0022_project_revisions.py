"""Projects have a revision, and know when they were deleted and which status they return to.

A trigger keeps all of it, so processes of the version before keep it too.
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"

ADD = """
ALTER TABLE projects
    ADD COLUMN revision integer NOT NULL DEFAULT 1,
    ADD COLUMN deleted_at timestamptz,
    ADD COLUMN status_before_archive text,
    ADD COLUMN status_before_delete text
"""
TRACK_PROJECT = """
CREATE OR REPLACE FUNCTION track_project() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status = 'deleted' THEN
            NEW.deleted_at := now();
        END IF;
        RETURN NEW;
    END IF;
    IF (NEW.name, NEW.description, NEW.status, NEW.type, NEW.original_image, NEW.instructions, NEW.settings, NEW.tags,
        NEW.is_public, NEW.is_favorite, NEW.metadata)
        IS DISTINCT FROM
        (OLD.name, OLD.description, OLD.status, OLD.type, OLD.original_image, OLD.instructions, OLD.settings, OLD.tags,
        OLD.is_public, OLD.is_favorite, OLD.metadata)
    THEN
        NEW.revision := OLD.revision + 1;
    END IF;
    IF NEW.status = OLD.status THEN
        RETURN NEW;
    END IF;
    IF NEW.status = 'deleted' THEN
        NEW.deleted_at := now();
        NEW.status_before_delete := OLD.status;
        RETURN NEW;
    END IF;
    NEW.deleted_at := NULL;
    NEW.status_before_delete := NULL;
    IF NEW.status <> 'archived' THEN
        NEW.status_before_archive := NULL;
    ELSIF OLD.status <> 'deleted' THEN
        NEW.status_before_archive := OLD.status;
    END IF;
    RETURN NEW;
END
$body$
"""
TRIGGER = """
CREATE TRIGGER track_project BEFORE INSERT OR UPDATE OF name, description, status, type, original_image, instructions,
    settings, tags, is_public, is_favorite, metadata
    ON projects FOR EACH ROW EXECUTE FUNCTION track_project()
"""


def upgrade() -> None:
    """Add the columns and the trigger; the table is locked for an instant. Migration 0030 does the rest."""
    for statement in (ADD, TRACK_PROJECT, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Drop the trigger and the columns."""
    op.execute("DROP TRIGGER track_project ON projects")
    op.execute("DROP FUNCTION track_project()")
    op.execute(
        "ALTER TABLE projects DROP COLUMN revision, DROP COLUMN deleted_at, DROP COLUMN status_before_archive, "
        "DROP COLUMN status_before_delete"
    )
