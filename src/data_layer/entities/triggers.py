"""Rules that only the database can keep under concurrency, as functions and triggers.

A migration that changes one of them carries its own copy of the text; ``db check`` compares the database with this one.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION_RULE = "generated_codes_parent_in_project"
MOVE_RULE = "generation_status_move"


@dataclass(frozen=True, slots=True)
class Function:
    """A function in PL/pgSQL that triggers call."""

    name: str
    body: str

    @property
    def create(self) -> str:
        """The statement that creates or replaces it."""
        return f"CREATE OR REPLACE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql AS $body${self.body}$body$"


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of one table."""

    name: str
    table: str
    event: str
    function: str

    @property
    def create(self) -> str:
        """The statement that creates it."""
        return (
            f"CREATE TRIGGER {self.name} {self.event} ON {self.table} FOR EACH ROW EXECUTE FUNCTION {self.function}()"
        )


# The update of the project waits for other writers of the same project, so numbers are given in the order of commits
# and a transaction that fails leaves no gap.
NUMBER_VERSION = Function(
    "number_code_version",
    f"""
BEGIN
    IF NEW.parent_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM generated_codes WHERE id = NEW.parent_id AND project_id = NEW.project_id
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = 'parent_id names no version of the same project',
            CONSTRAINT = '{VERSION_RULE}', TABLE = 'generated_codes', COLUMN = 'parent_id';
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
""",  # noqa: S608  (the constant is ours)
)

# Two transactions may each make a legal move from what they read; only the database sees both. Several steps in one
# transaction arrive here as one, so every status that can be reached is let through.
CHECK_MOVE = Function(
    "check_generation_status_move",
    f"""
BEGIN
    IF NOT (
        NEW.status = OLD.status
        OR OLD.status = 'pending'
        OR (OLD.status = 'processing' AND NEW.status IN ('completed', 'failed', 'cancelled'))
    ) THEN
        RAISE check_violation USING
            MESSAGE = format('status may not go from %s to %s', OLD.status, NEW.status),
            CONSTRAINT = '{MOVE_RULE}', TABLE = TG_TABLE_NAME, COLUMN = 'status';
    END IF;
    RETURN NEW;
END
""",
)

# The count stands in the row that a deletion and a new reference both change, so one of them waits for the other and
# then sees it; counting the references in a query would not.
COUNT_REFERENCES = Function(
    "count_file_references",
    """
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE stored_files SET reference_count = reference_count - 1, updated_at = now() WHERE id = OLD.file_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE stored_files SET reference_count = reference_count + 1, updated_at = now()
        WHERE id = NEW.file_id AND state <> 'deleted';
        IF NOT FOUND THEN
            RAISE foreign_key_violation USING
                MESSAGE = 'file_id names no file, or one that is being deleted',
                CONSTRAINT = 'fk_file_references_file_id', TABLE = 'file_references', COLUMN = 'file_id';
        END IF;
    END IF;
    RETURN NULL;
END
""",
)

FUNCTIONS = (NUMBER_VERSION, CHECK_MOVE, COUNT_REFERENCES)
TRIGGERS = (
    Trigger("number_version", "generated_codes", "BEFORE INSERT", NUMBER_VERSION.name),
    *(
        Trigger("check_status_move", table, "BEFORE UPDATE OF status", CHECK_MOVE.name)
        for table in ("generated_codes", "generated_images")
    ),
    Trigger(
        "count_references", "file_references", "AFTER INSERT OR DELETE OR UPDATE OF file_id", COUNT_REFERENCES.name
    ),
)
