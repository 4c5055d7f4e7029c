"""Rules that only the database can keep under concurrency, as functions and triggers.

A migration that changes one of them carries its own copy of the text; ``db check`` compares the database with this one.
"""

from __future__ import annotations

from dataclasses import dataclass

from data_layer.entities.audit_log import DEFAULT_PARTITION
from data_layer.entities.columns import WHITE_SPACE

VERSION_RULE = "generated_codes_parent_in_project"
GENERATION_RULE = "generated_codes_generation_in_project"
MOVE_RULE = "generation_status_move"
SESSION_CHANNEL = "data_layer_session_changed"
"""Where PostgreSQL announces that a transaction with new rows in ``session_changes`` has been committed."""
APPEND_RULE = "audit_logs_append_only"
USAGE_RULE = "usage_entries_append_only"
_WHITE_SPACE = "E'{}'".format("".join(f"\\u{ord(character):04x}" for character in sorted(WHITE_SPACE)))
_WHITE_BYTES = "'\\x{}'".format(
    "".join(f"{ord(character):02x}" for character in sorted(WHITE_SPACE) if character.isascii())
)


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
    """A trigger of one table.

    PostgreSQL skips triggers while ``session_replication_role`` is ``replica``, which is what logical replication
    applies changes with: whatever they derive was derived by the publisher and arrives with its rows. One that derives
    nothing, but protects the table, holds there too if ``is_always``.
    """

    name: str
    table: str
    event: str
    function: str
    each: str = "ROW"
    is_always: bool = False
    rows: str = ""
    """``REFERENCING …``, of a trigger for statements."""
    condition: str = ""
    """``WHEN (…)``."""

    @property
    def create(self) -> tuple[str, ...]:
        """The statements that create it; the last one is enough if it exists and was disabled."""
        words = ("ON", self.table, self.rows, "FOR EACH", self.each, self.condition, "EXECUTE FUNCTION")
        create = f"CREATE TRIGGER {self.name} {self.event} {' '.join(filter(None, words))} {self.function}()"
        mode = "ENABLE ALWAYS" if self.is_always else "ENABLE"
        return (create, f"ALTER TABLE {self.table} {mode} TRIGGER {self.name}")

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


# The update of the project waits for other writers of the same project, so numbers are given in the order of commits
# and a transaction that fails leaves no gap.
TRACK_PROJECT = Function(
    "track_project",
    """
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
""",
)

NUMBER_GENERATION = Function(
    "number_generation",
    """
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
""",
)

# A code whose generation is not there makes it. Of two at once that name the same one, the second waits for the
# project's row and finds it then.
NUMBER_VERSION = Function(
    "number_code_version",
    f"""
DECLARE
    generation_project uuid;
BEGIN
    IF NEW.parent_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM generated_codes WHERE id = NEW.parent_id AND project_id = NEW.project_id
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = 'parent_id names no version of the same project',
            CONSTRAINT = '{VERSION_RULE}', TABLE = 'generated_codes', COLUMN = 'parent_id';
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
            CONSTRAINT = '{GENERATION_RULE}', TABLE = 'generated_codes', COLUMN = 'generation_id';
    END IF;
    RETURN NEW;
END
""",  # noqa: S608  (the constants are ours)
)

# Only ends count: what is still written has none, and a code whose text has left the row keeps those that it had.
HASH_CODE = Function(
    "hash_code",
    f"""
DECLARE
    encoded bytea;
    trimmed bytea;
BEGIN
    IF NEW.lease_until IS NOT NULL OR NEW.code IS NULL THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.code = OLD.code AND NEW.code_hash IS NOT NULL THEN
        RETURN NEW;
    END IF;
    encoded := convert_to(NEW.code, 'UTF8');
    -- Trimming a text looks at all of its characters, trimming bytes at its ends only. A byte below 128 is a character.
    trimmed := btrim(encoded, {_WHITE_BYTES});
    IF octet_length(trimmed) > 0
        AND (get_byte(trimmed, 0) > 127 OR get_byte(trimmed, octet_length(trimmed) - 1) > 127)
    THEN
        trimmed := convert_to(btrim(NEW.code, {_WHITE_SPACE}), 'UTF8');
    END IF;
    IF octet_length(trimmed) = 0 THEN
        NEW.code_hash := NULL;
        NEW.trimmed_hash := NULL;
        RETURN NEW;
    END IF;
    NEW.code_hash := sha256(encoded);
    NEW.trimmed_hash := CASE octet_length(trimmed)
        WHEN octet_length(encoded) THEN NEW.code_hash
        ELSE sha256(trimmed)
    END;
    RETURN NEW;
END
""",
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

# Superusers are refused too: changing an entry deliberately takes disabling the trigger first.
REFUSE_AUDIT_CHANGE = Function(
    "refuse_audit_change",
    f"""
BEGIN
    RAISE restrict_violation USING
        MESSAGE = format('audit entries are never changed or removed: %s was refused', TG_OP),
        HINT = 'Whole months that are old enough are removed by: data-layer maintenance run',
        CONSTRAINT = '{APPEND_RULE}', TABLE = 'audit_logs';
END
""",
)

# Every process hears when a session ends or may do something else, also by hand in SQL. What only lengthens
# a session is not announced: no process refuses a session before it has asked the database. A user's own id stands for
# those who act without a session, such as with a token of an issuer.
ANNOUNCE_SESSION = Function(
    "announce_session_change",
    f"""
BEGIN
    IF OLD.status = 'active' AND (TG_OP = 'DELETE' OR NEW.status <> 'active' OR NEW.expires_at < OLD.expires_at) THEN
        INSERT INTO session_changes (session_id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
        NOTIFY {SESSION_CHANNEL};
    END IF;
    RETURN NULL;
END
""",  # noqa: S608  (a name of our own)
)
ANNOUNCE_USER = Function(
    "announce_user_change",
    f"""
BEGIN
    IF NEW.role <> OLD.role OR NEW.status <> OLD.status THEN
        INSERT INTO session_changes (session_id)
        SELECT id FROM sessions WHERE user_id = NEW.id AND status = 'active' UNION ALL SELECT NEW.id
        ON CONFLICT DO NOTHING;
        NOTIFY {SESSION_CHANNEL};
    END IF;
    RETURN NULL;
END
""",  # noqa: S608  (a name of our own)
)
ANNOUNCE_IDENTITY = Function(
    "announce_identity_change",
    f"""
BEGIN
    INSERT INTO session_changes (session_id) VALUES (OLD.user_id) ON CONFLICT DO NOTHING;
    NOTIFY {SESSION_CHANNEL};
    RETURN NULL;
END
""",  # noqa: S608  (a name of our own)
)

ANNOUNCE_API_KEY = Function(
    "announce_api_key_change",
    f"""
BEGIN
    INSERT INTO session_changes (session_id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
    NOTIFY {SESSION_CHANNEL};
    RETURN NULL;
END
""",  # noqa: S608  (a name of our own)
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

# A tsvector has room for 1 MiB, and a text takes ten bytes a character at most (words of one letter, in pairs that are
# joined by hyphens). So only the beginning of long texts is searched, and none is refused because of its vector.
INDEX_PROJECT = Function(
    "index_project_text",
    """
BEGIN
    NEW.search_vector := setweight(to_tsvector('english', NEW.name), 'A')
        || setweight(to_tsvector('english', left(coalesce(NEW.description, ''), 40000)), 'B')
        || setweight(to_tsvector('english', left(coalesce(NEW.instructions, ''), 40000)), 'C')
        || setweight(to_tsvector('english', left(NEW.tags::text, 10000)), 'D');
    RETURN NEW;
END
""",
)

# For writers that do not use ``normalize_email``: SQL by hand, and processes of a version that left capitals as they
# were. Only what no database sees in another way is done here: ``lower()`` of other letters depends on the collation,
# and domains in Punycode need tables that PostgreSQL has not. NFC twice: lower case may make a pair that composes.
SPELL_ADDRESS = Function(
    "spell_email_address",
    """
BEGIN
    NEW.email := normalize(
        lower(normalize(btrim(NEW.email, E' \\t\\n\\v\\f\\r\\x1c\\x1d\\x1e\\x1f'), NFC) COLLATE "C"), NFC
    );
    RETURN NEW;
END
""",
)

# The entries of one statement together, so that a bulk insert costs little; in the order of the key, so that two
# statements never wait for each other in a circle.
# Everybody adds to the totals of a day without waiting for anybody: each statement inserts rows, and every 32nd
# transaction merges those that no other one is merging. Other isolation levels could fail over that, and leave it.
ADD_USAGE = Function(
    "add_usage_to_days",
    """
BEGIN
    INSERT INTO usage_days AS days (
        user_id, day, project_id, provider, model, code_stack, outcome, currency,
        entries, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost
    )
    SELECT user_id, ("at" AT TIME ZONE 'UTC')::date, coalesce(project_id, '00000000-0000-0000-0000-000000000000'),
        provider, model, coalesce(code_stack, ''), outcome, currency,
        count(*), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(cost)
    FROM added GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
    ON CONFLICT (user_id, day, project_id, provider, model, code_stack, outcome, currency) DO UPDATE SET
        entries = days.entries + excluded.entries,
        input_tokens = days.input_tokens + excluded.input_tokens,
        output_tokens = days.output_tokens + excluded.output_tokens,
        cache_read_tokens = days.cache_read_tokens + excluded.cache_read_tokens,
        cache_write_tokens = days.cache_write_tokens + excluded.cache_write_tokens,
        cost = days.cost + excluded.cost;
    INSERT INTO usage_totals (
        day, provider, model, code_stack, outcome, currency,
        entries, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost
    )
    SELECT ("at" AT TIME ZONE 'UTC')::date, provider, model, coalesce(code_stack, ''), outcome, currency,
        count(*), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(cost)
    FROM added GROUP BY 1, 2, 3, 4, 5, 6;
    IF pg_current_xact_id()::text::bigint % 32 = 0 AND current_setting('transaction_isolation') = 'read committed' THEN
        WITH taken AS (
            SELECT id FROM usage_totals WHERE day IN (SELECT ("at" AT TIME ZONE 'UTC')::date FROM added)
            FOR UPDATE SKIP LOCKED
        ), removed AS (
            DELETE FROM usage_totals USING taken WHERE usage_totals.id = taken.id RETURNING usage_totals.*
        )
        INSERT INTO usage_totals (
            day, provider, model, code_stack, outcome, currency,
            entries, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost
        )
        SELECT day, provider, model, code_stack, outcome, currency, sum(entries), sum(input_tokens),
            sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(cost)
        FROM removed GROUP BY 1, 2, 3, 4, 5, 6;
    END IF;
    RETURN NULL;
END
""",
)
REFUSE_USAGE_CHANGE = Function(
    "refuse_usage_change",
    f"""
BEGIN
    RAISE restrict_violation USING
        MESSAGE = format('recorded usage is never changed or removed: %s of %s was refused', TG_OP, TG_TABLE_NAME),
        CONSTRAINT = '{USAGE_RULE}', TABLE = 'usage_entries';
END
""",
)

# What the search finds is derived from these rows, later (see ``project_search``).
NOTE_SEARCH_CHANGE = Function(
    "note_search_change",
    """
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
""",
)

# Assigning a code writes it into the row, so the body counts no more.
RELEASE_BODY = Function(
    "release_code_body",
    """
BEGIN
    NEW.body := NULL;
    NEW.body_size := NULL;
    RETURN NEW;
END
""",
)

FUNCTIONS = (
    NOTE_SEARCH_CHANGE,
    RELEASE_BODY,
    SPELL_ADDRESS,
    ADD_USAGE,
    REFUSE_USAGE_CHANGE,
    INDEX_PROJECT,
    TRACK_PROJECT,
    NUMBER_GENERATION,
    NUMBER_VERSION,
    HASH_CODE,
    CHECK_MOVE,
    REFUSE_AUDIT_CHANGE,
    ANNOUNCE_SESSION,
    ANNOUNCE_USER,
    ANNOUNCE_IDENTITY,
    ANNOUNCE_API_KEY,
    COUNT_REFERENCES,
)


def refuse_change(table: str) -> Trigger:
    """The trigger that protects the rows of the audit trail; partitions inherit it, with its mode."""
    return Trigger("refuse_change", table, "BEFORE DELETE OR UPDATE", REFUSE_AUDIT_CHANGE.name, is_always=True)


def refuse_truncate(table: str) -> Trigger:
    """The trigger that protects a table of the audit trail as a whole; each partition needs one."""
    return Trigger(
        "refuse_truncate", table, "BEFORE TRUNCATE", REFUSE_AUDIT_CHANGE.name, each="STATEMENT", is_always=True
    )


TRIGGERS = (
    Trigger("spell_address", "users", "BEFORE INSERT OR UPDATE OF email", SPELL_ADDRESS.name),
    Trigger(
        "index_text",
        "projects",
        "BEFORE INSERT OR UPDATE OF name, description, instructions, tags",
        INDEX_PROJECT.name,
    ),
    Trigger(
        "track_project",
        "projects",
        "BEFORE INSERT OR UPDATE OF name, description, status, type, original_image, instructions, settings, tags, "
        "is_public, is_favorite, metadata",
        TRACK_PROJECT.name,
    ),
    Trigger("number_generation", "generations", "BEFORE INSERT", NUMBER_GENERATION.name),
    Trigger("number_version", "generated_codes", "BEFORE INSERT", NUMBER_VERSION.name),
    Trigger("hash_code", "generated_codes", "BEFORE INSERT OR UPDATE OF code, lease_until", HASH_CODE.name),
    Trigger(
        "release_body",
        "generated_codes",
        "BEFORE UPDATE OF code",
        RELEASE_BODY.name,
        condition="WHEN (new.code IS NOT NULL AND old.body IS NOT NULL)",
    ),
    *(
        Trigger("check_status_move", table, "BEFORE UPDATE OF status", CHECK_MOVE.name)
        for table in ("generated_codes", "generated_images")
    ),
    refuse_change("audit_logs"),
    refuse_truncate("audit_logs"),
    refuse_truncate(DEFAULT_PARTITION),
    Trigger(
        "add_to_days",
        "usage_entries",
        "AFTER INSERT",
        ADD_USAGE.name,
        each="STATEMENT",
        rows="REFERENCING NEW TABLE AS added",
    ),
    Trigger("refuse_change", "usage_entries", "BEFORE DELETE OR UPDATE", REFUSE_USAGE_CHANGE.name, is_always=True),
    # The trigger of the entries is the only writer of the sums.
    *(
        Trigger(
            "refuse_change",
            table,
            "BEFORE INSERT OR DELETE OR UPDATE",
            REFUSE_USAGE_CHANGE.name,
            condition="WHEN (pg_trigger_depth() = 0)",
        )
        for table in ("usage_days", "usage_totals")
    ),
    Trigger(
        "refuse_truncate",
        "usage_entries",
        "BEFORE TRUNCATE",
        REFUSE_USAGE_CHANGE.name,
        each="STATEMENT",
        is_always=True,
    ),
    *(
        Trigger("refuse_truncate", table, "BEFORE TRUNCATE", REFUSE_USAGE_CHANGE.name, each="STATEMENT")
        for table in ("usage_days", "usage_totals")
    ),
    Trigger("announce_change", "sessions", "AFTER DELETE OR UPDATE OF status, expires_at", ANNOUNCE_SESSION.name),
    Trigger("announce_change", "users", "AFTER UPDATE OF role, status", ANNOUNCE_USER.name),
    Trigger(
        "announce_change",
        "user_identities",
        "AFTER DELETE OR UPDATE OF issuer, subject, user_id",
        ANNOUNCE_IDENTITY.name,
    ),
    Trigger(
        "announce_change",
        "api_keys",
        "AFTER DELETE OR UPDATE OF user_id, key_hash, scopes, expires_at, revoked_at",
        ANNOUNCE_API_KEY.name,
    ),
    Trigger(
        "count_references", "file_references", "AFTER INSERT OR DELETE OR UPDATE OF file_id", COUNT_REFERENCES.name
    ),
    Trigger(
        "note_search_change",
        "projects",
        "AFTER INSERT OR UPDATE OF name, description, instructions, tags",
        NOTE_SEARCH_CHANGE.name,
    ),
    Trigger(
        "note_search_change",
        "users",
        "AFTER UPDATE OF preferences",
        NOTE_SEARCH_CHANGE.name,
        condition="WHEN ((new.preferences -> 'language'::text) IS DISTINCT FROM (old.preferences -> 'language'::text))",
    ),
    Trigger(
        "note_search_change",
        "generations",
        "AFTER INSERT OR DELETE OR UPDATE OF prompt, selected_variant",
        NOTE_SEARCH_CHANGE.name,
    ),
    Trigger(
        "note_search_insert",
        "generated_codes",
        "AFTER INSERT",
        NOTE_SEARCH_CHANGE.name,
        condition="WHEN (new.status = 'completed'::text)",
    ),
    # A code that is packed has no text in its row, and nothing that can be found has changed.
    Trigger(
        "note_search_update",
        "generated_codes",
        "AFTER UPDATE OF status, code",
        NOTE_SEARCH_CHANGE.name,
        condition="WHEN ((new.status = 'completed'::text) <> (old.status = 'completed'::text) "
        "OR new.status = 'completed'::text AND new.code IS NOT NULL AND new.code IS DISTINCT FROM old.code)",
    ),
    Trigger(
        "note_search_delete",
        "generated_codes",
        "AFTER DELETE",
        NOTE_SEARCH_CHANGE.name,
        condition="WHEN (old.status = 'completed'::text)",
    ),
)
