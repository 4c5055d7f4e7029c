"""The search vector of a project is made by a trigger, from as much of its texts as a vector has room for.

It was a generated column, whose expression failed for texts that make too large a vector. Changing the expression would
rewrite the table. The vectors that are stored stay.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"

# Clients never see it: it is not selected, and writers leave it out.
DROP_EXPRESSION = """
-- squawk-ignore ban-drop-generated-expression
ALTER TABLE projects ALTER COLUMN search_vector DROP EXPRESSION
"""
FUNCTION = """
CREATE FUNCTION index_project_text() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    NEW.search_vector := setweight(to_tsvector('english', NEW.name), 'A')
        || setweight(to_tsvector('english', left(coalesce(NEW.description, ''), 40000)), 'B')
        || setweight(to_tsvector('english', left(coalesce(NEW.instructions, ''), 40000)), 'C')
        || setweight(to_tsvector('english', left(NEW.tags::text, 10000)), 'D');
    RETURN NEW;
END
$body$
"""
TRIGGER = """
CREATE TRIGGER index_text BEFORE INSERT OR UPDATE OF name, description, instructions, tags ON projects
FOR EACH ROW EXECUTE FUNCTION index_project_text()
"""
GENERATED = """
-- squawk-ignore adding-field-with-default
ALTER TABLE projects ADD COLUMN search_vector tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('english', name), 'A')
    || setweight(to_tsvector('english', left(coalesce(description, ''), 100000)), 'B')
    || setweight(to_tsvector('english', left(coalesce(instructions, ''), 100000)), 'C')
    || setweight(jsonb_to_tsvector('english', tags, '["string"]'), 'D')
) STORED
"""
INDEX = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ix_projects_search_vector ON projects USING gin (search_vector)
"""


def upgrade() -> None:
    """Make the column an ordinary one, which only touches the catalog, and fill it by a trigger from now on."""
    op.execute(DROP_EXPRESSION)
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    """Generate the column again, which rewrites the table, and fails where a vector would be too large."""
    op.execute("DROP TRIGGER index_text ON projects")
    op.execute("DROP FUNCTION index_project_text()")
    op.execute("ALTER TABLE projects DROP COLUMN search_vector")
    op.execute(GENERATED)
    op.execute(INDEX)
