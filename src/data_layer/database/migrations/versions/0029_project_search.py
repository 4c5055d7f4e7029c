"""The index of the search over projects, and what it does not know yet: triggers note each change.

All projects of before are noted, and indexed when somebody searches, or by maintenance. Processes of the version before
change projects through the same triggers.
"""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"

INDEX_TABLE = """
CREATE TABLE project_search (
    project_id uuid NOT NULL,
    revision integer NOT NULL,
    prompts text NOT NULL,
    page_text text NOT NULL,
    vector tsvector NOT NULL,
    indexed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_project_search PRIMARY KEY (project_id),
    CONSTRAINT fk_project_search_project_id FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE
)
"""
CHANGES_TABLE = """
CREATE TABLE project_search_changes (
    project_id uuid NOT NULL,
    transaction_id bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    CONSTRAINT pk_project_search_changes PRIMARY KEY (project_id, transaction_id)
)
"""
INDEX = "CREATE INDEX ix_project_search_vector ON project_search USING gin (vector)"
NOTE_SEARCH_CHANGE = """
CREATE OR REPLACE FUNCTION note_search_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF TG_TABLE_NAME = 'projects' THEN
        INSERT INTO project_search_changes (project_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    ELSIF TG_TABLE_NAME = 'users' THEN
        INSERT INTO project_search_changes (project_id) SELECT id FROM projects WHERE user_id = NEW.id
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO project_search_changes (project_id) VALUES (coalesce(NEW.project_id, OLD.project_id))
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$body$
"""
TRIGGERS = (
    "note_search_change AFTER INSERT OR UPDATE OF name, description, instructions, tags ON projects FOR EACH ROW",
    """note_search_change AFTER UPDATE OF preferences ON users FOR EACH ROW
    WHEN (NEW.preferences -> 'language' IS DISTINCT FROM OLD.preferences -> 'language')""",
    "note_search_change AFTER INSERT OR DELETE OR UPDATE OF prompt, selected_variant ON generations FOR EACH ROW",
    "note_search_insert AFTER INSERT ON generated_codes FOR EACH ROW WHEN (NEW.status = 'completed')",
    """note_search_update AFTER UPDATE OF status, code ON generated_codes FOR EACH ROW
    WHEN ((NEW.status = 'completed') <> (OLD.status = 'completed')
    OR (NEW.status = 'completed' AND NEW.code <> '' AND NEW.code <> OLD.code))""",
    "note_search_delete AFTER DELETE ON generated_codes FOR EACH ROW WHEN (OLD.status = 'completed')",
)
NOTE_ALL = "INSERT INTO project_search_changes (project_id) SELECT id FROM projects"


def upgrade() -> None:
    """Create the tables and triggers, and note all projects."""
    for statement in (INDEX_TABLE, CHANGES_TABLE, INDEX, NOTE_SEARCH_CHANGE):
        op.execute(statement)
    for trigger in TRIGGERS:
        op.execute(f"CREATE TRIGGER {trigger} EXECUTE FUNCTION note_search_change()")
    op.execute(NOTE_ALL)


def downgrade() -> None:
    """Drop them; all of it was derived."""
    for trigger in TRIGGERS:
        table = trigger.partition(" ON ")[2].partition(" ")[0]
        op.execute(f"DROP TRIGGER {trigger.partition(' ')[0]} ON {table}")
    op.execute("DROP FUNCTION note_search_change()")
    op.execute("DROP TABLE project_search_changes")
    op.execute("DROP TABLE project_search")
