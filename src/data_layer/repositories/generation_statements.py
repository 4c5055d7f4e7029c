"""The SQL of variants that are being written: each is one statement, because a writer, its end and its loss may race.

Whatever ends a variant locks the row of its generation first, so that the last one to end sees that it is the last.
Leases are measured by the database's clock alone.
"""

# ruff: noqa: S608  (only texts of this module stand in the statements; values are passed as parameters)
from __future__ import annotations

from data_layer.database.statements import NamedQuery

_IS_RUNNING = "status IN ('pending', 'processing')"
_NOTE = "metadata = metadata || %s::jsonb"

LOCK = NamedQuery("generations.lock", "SELECT FROM generations WHERE id = %s AND project_id = %s FOR NO KEY UPDATE")

# A checkpoint whose answer was lost is repeated: then the number that it stores is there already.
CHECKPOINT = NamedQuery(
    "generated_codes.checkpoint",
    f"""
WITH saved AS (
    UPDATE generated_codes SET
        code = coalesce(%s, code), growth = coalesce(%s, growth), last_sequence = %s, status = 'processing', {_NOTE},
        lease_until = now() + make_interval(secs => %s), updated_at = now()
    WHERE id = %s AND project_id = %s AND writer = %s AND last_sequence = ANY(%s) AND {_IS_RUNNING}
    RETURNING id
), stored AS (
    INSERT INTO generation_events (id, code_id, sequence, kind, payload)
    SELECT events.id, saved.id, events.sequence, events.kind, events.payload::jsonb
    FROM saved, unnest(%s::uuid[], %s::integer[], %s::text[], %s::text[]) AS events (id, sequence, kind, payload)
    ON CONFLICT DO NOTHING
)
SELECT id FROM saved
""",
)

END = NamedQuery(
    "generated_codes.end",
    f"""
WITH ended AS (
    UPDATE generated_codes SET
        status = %s, code = coalesce(%s, code), growth = coalesce(%s, growth),
        last_sequence = coalesce(%s, last_sequence), {_NOTE},
        provider = coalesce(%s, provider), model = coalesce(%s, model), prompt_tokens = %s, completion_tokens = %s,
        total_tokens = %s, generation_time_seconds = %s, error_message = %s, error_details = %s::jsonb,
        lease_until = NULL, updated_at = now()
    WHERE id = %s AND project_id = %s
        AND (%s::text IS NULL OR (writer = %s AND last_sequence = ANY(%s))) AND {_IS_RUNNING}
    RETURNING id
), stored AS (
    INSERT INTO generation_events (id, code_id, sequence, kind, payload)
    SELECT events.id, ended.id, events.sequence, events.kind, events.payload::jsonb
    FROM ended, unnest(%s::uuid[], %s::integer[], %s::text[], %s::text[]) AS events (id, sequence, kind, payload)
    ON CONFLICT DO NOTHING
)
SELECT id FROM ended
""",
)

# The snapshot of each statement is new, so this one sees what the one before has ended.
CLOSE = NamedQuery(
    "generations.close",
    f"""
UPDATE generations SET updated_at = now(), ended_at = now()
WHERE id = %s AND project_id = %s AND ended_at IS NULL AND NOT EXISTS (
    SELECT FROM generated_codes
    WHERE generation_id = generations.id AND project_id = generations.project_id AND {_IS_RUNNING}
)
""",
)

EXPIRE = NamedQuery(
    "generated_codes.expire",
    f"""
WITH expired AS (
    UPDATE generated_codes SET status = 'failed', error_message = %s, lease_until = NULL, updated_at = now()
    WHERE generation_id = %s AND project_id = %s AND lease_until < now() AND {_IS_RUNNING}
    RETURNING id
)
SELECT coalesce(array_agg(id ORDER BY id), '{{}}') FROM expired
""",
)
FIND_EXPIRED = NamedQuery(
    "generations.find_expired",
    f"""
SELECT coalesce(array_agg(generation_id), '{{}}'), coalesce(array_agg(project_id), '{{}}') FROM (
    SELECT DISTINCT generation_id, project_id FROM (
        SELECT generation_id, project_id FROM generated_codes
        WHERE lease_until < now() AND {_IS_RUNNING} ORDER BY lease_until LIMIT %s
    ) AS variants
) AS expired
""",
)

COUNT_EXPIRED = NamedQuery(
    "generated_codes.count_expired",
    f"SELECT count(*) FROM generated_codes WHERE lease_until < now() AND {_IS_RUNNING}",
)

TAKE_OVER = NamedQuery(
    "generated_codes.take_over",
    f"""
UPDATE generated_codes SET
    writer = %s, lease_until = CASE WHEN {_IS_RUNNING} THEN now() + make_interval(secs => %s) END
WHERE generation_id = %s AND project_id = %s
""",
)

SET_GROWTH = NamedQuery("generated_codes.set_growth", "UPDATE generated_codes SET growth = %s WHERE id = %s")

STATE = NamedQuery("generated_codes.state", "SELECT status, writer, last_sequence FROM generated_codes WHERE id = %s")

STORED_SEQUENCE = NamedQuery(
    "generated_codes.stored_sequence", "SELECT last_sequence FROM generated_codes WHERE id = %s"
)

REMOVE_OLD_EVENTS = NamedQuery(
    "generation_events.remove_old",
    """
WITH removed AS (
    DELETE FROM generation_events
    WHERE id = ANY (ARRAY(SELECT id FROM generation_events WHERE id < %s ORDER BY id LIMIT %s))
    RETURNING id
)
SELECT count(*) FROM removed
""",
)
COUNT_OLD_EVENTS = NamedQuery("generation_events.count_old", "SELECT count(*) FROM generation_events WHERE id < %s")

# Numbers and parents may change without a new time: older generations that arrive late move the ones after them.
TREE_FINGERPRINT = NamedQuery(
    "generations.tree_fingerprint",
    """
SELECT encode(sha256(convert_to(concat(
    (SELECT string_agg(concat_ws('/', id, number, selected_variant, extract(epoch FROM updated_at)), ',' ORDER BY id)
     FROM generations WHERE project_id = %s),
    ';',
    (SELECT string_agg(concat_ws('/', id, version, parent_id, status, extract(epoch FROM updated_at)), ',' ORDER BY id)
     FROM generated_codes WHERE project_id = %s)
), 'UTF8')), 'hex')
""",
)
