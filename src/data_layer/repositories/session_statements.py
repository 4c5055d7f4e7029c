"""The SQL of sessions: what is on the way of every request, or must be right under concurrency, as plain statements.

All times are those of the database's clock. Rows are locked in the order of their ids, after the row of their user
where one is locked, so that nothing waits in a circle.
"""

# ruff: noqa: S608  (only texts of this package stand in the statements; values are passed as parameters)
from __future__ import annotations

from data_layer.database.statements import NamedQuery

LIVE = "sessions.status = 'active' AND sessions.expires_at > now()"

# The snapshot says which transactions the answer knows of; see ``services.sessions.watermark``.
_AS_OF = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_postmaster_start_time()::text"
_FIND = f"""
SELECT sessions.id, sessions.user_id, users.role, sessions.type, sessions.created_at, sessions.expires_at,
    extract(epoch FROM sessions.expires_at)::float8, extract(epoch FROM sessions.expires_at - now())::float8, {_AS_OF}
FROM sessions JOIN users ON users.id = sessions.user_id
WHERE {LIVE} AND users.status = 'active' AND"""
FIND_BY_HASH = NamedQuery("sessions.validate", f"{_FIND} sessions.session_id = ANY(%s)")
FIND_BY_ID = NamedQuery("sessions.validate_by_id", f"{_FIND} sessions.id = %s")

LOCK_ACTIVE_USER = NamedQuery(
    "users.lock_active", "SELECT role FROM users WHERE id = %s AND status = 'active' FOR NO KEY UPDATE"
)
LOCK_USER = NamedQuery("users.lock", "SELECT role FROM users WHERE id = %s FOR NO KEY UPDATE")

INSERTED = (
    *("id", "session_id", "user_id", "type", "ip_address", "user_agent", "device_id", "device_type", "browser"),
    *("browser_version", "operating_system", "os_version", "country", "city", "timezone"),
)
# Nothing is inserted for an account that may not log in.
INSERT = NamedQuery(
    "sessions.insert",
    f"""
INSERT INTO sessions ({", ".join(INSERTED)}, created_at, updated_at, last_active_at, expires_at)
SELECT {", ".join("%s" for _ in INSERTED)}, now(), now(), now(), now() + make_interval(secs => %s)
FROM users WHERE users.id = %s AND users.status = 'active'
RETURNING created_at, expires_at
""",
)


def _end(name: str, condition: str) -> NamedQuery:
    return NamedQuery(
        name,
        f"""
WITH ending AS (
    SELECT id, user_id FROM sessions WHERE {LIVE} AND {condition} ORDER BY id FOR NO KEY UPDATE
), ended AS (
    UPDATE sessions SET status = 'revoked', revoked_at = now(), revoked_reason = %s, updated_at = now()
    FROM ending WHERE sessions.id = ending.id AND sessions.user_id = ending.user_id
    RETURNING sessions.id, sessions.session_id, sessions.user_id
)
SELECT coalesce(array_agg(id), '{{}}'), coalesce(array_agg(session_id), '{{}}'), coalesce(array_agg(user_id), '{{}}')
FROM ended
""",
    )


END_ONE = _end("sessions.end", "sessions.id = %s")
END_OF_USER = _end("sessions.end_of_user", "sessions.user_id = %s AND sessions.id IS DISTINCT FROM %s")
END_SOME = _end("sessions.end_some", f"sessions.id IN (SELECT id FROM sessions WHERE {LIVE} LIMIT %s)")
END_SURPLUS = _end(
    "sessions.end_surplus",
    f"sessions.user_id = %s AND sessions.id IN (SELECT id FROM sessions WHERE {LIVE} AND user_id = %s "
    "ORDER BY last_active_at DESC, id DESC OFFSET %s)",
)

# The expiry is an indexed column, so it moves only when that is worth a new entry in the index.
RECORD_ACTIVITY = NamedQuery(
    "sessions.record_activity",
    f"""
WITH active AS (
    SELECT sessions.id, requests, now() - make_interval(secs => age) AS at,
        least(now() - make_interval(secs => age) + make_interval(secs => %s),
              sessions.created_at + make_interval(secs => %s)) AS until
    FROM sessions JOIN unnest(%s::uuid[], %s::integer[], %s::float8[]) AS seen (id, requests, age)
        ON seen.id = sessions.id
    WHERE {LIVE} ORDER BY sessions.id FOR NO KEY UPDATE OF sessions
)
UPDATE sessions SET request_count = request_count + active.requests,
    last_active_at = greatest(last_active_at, active.at),
    expires_at = CASE WHEN active.until > expires_at + make_interval(secs => %s) THEN active.until ELSE expires_at END
FROM active WHERE sessions.id = active.id
RETURNING sessions.expires_at
""",
)

EXTEND = NamedQuery(
    "sessions.extend",
    f"""
UPDATE sessions SET updated_at = now(), expires_at = greatest(
    expires_at, least(now() + make_interval(secs => %s), created_at + make_interval(secs => %s)))
WHERE id = %s AND {LIVE} RETURNING expires_at
""",
)

READ_DATA = NamedQuery(
    "sessions.read_data", f"SELECT session_data, data_version FROM sessions WHERE id = %s AND {LIVE}"
)
WRITE_DATA = NamedQuery(
    "sessions.write_data",
    f"""
UPDATE sessions SET session_data = %s::jsonb, data_version = data_version + 1, updated_at = now()
WHERE id = %s AND data_version = %s AND {LIVE} RETURNING data_version
""",
)
