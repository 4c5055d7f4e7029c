"""How the tables would be distributed over several servers, and where a statement would have to go. It has no tests.

Each server would keep one hash partition of every table. Here all partitions lie in one database, and a statement goes
to one server if its plan reads one partition of each table.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

SERVERS = 4

BY_PROJECT = {
    "projects": "id",
    "generations": "project_id",
    "generated_codes": "project_id",
    "generated_images": "project_id",
    "code_bodies": "project_id",
    "shares": "project_id",
    "project_search": "project_id",
    "project_search_changes": "project_id",
}
"""What belongs to a project, and the column that holds the project's id."""

BY_PERSON = {
    "users": "id",
    "api_keys": "user_id",
    "audit_logs": "user_id",
    "budgets": "user_id",
    "design_systems": "user_id",
    "exports": "user_id",
    "file_references": "owner_id",
    "idempotency_keys": "user_id",
    "mails": "user_id",
    "recovery_codes": "user_id",
    "second_factors": "user_id",
    "sessions": "user_id",
    "stored_files": "owner_id",
    "usage_days": "user_id",
    "usage_entries": "user_id",
    "user_identities": "user_id",
}
"""What belongs to a person, and the column that holds the person's id."""

NEEDS_A_KEY = {"generation_events": "project_id", "budget_reservations": "user_id", "refresh_tokens": "user_id"}
"""What belongs to one of them only by way of another table, and the column that is missing. Not divided here."""

ON_ONE_SERVER = {
    "login_attempts": "counts for names and networks, also of people without an account",
    "session_changes": "all processes read it once a second, and NOTIFY reaches the clients of one server only",
    "usage_totals": "sums over all people",
}
"""What stays on one server that all clients know, and why."""

KEYS: Mapping[str, str] = BY_PROJECT | BY_PERSON

NAMES_NO_PERSON = {
    "api_keys.find_account": "the secret names no person; asked once, then the answer is cached",
    "projects.page": "projects lie by their id, so those of a person are on all servers; the page is cached",
    "project_search.find": "the search of a person looks through projects on all servers",
    "project_search.find_changed": "the search is brought up to date for all of a person's projects",
    "refresh_tokens.find": "the token names no person",
    "sessions.validate": "the token names no person; asked when neither the process nor Redis has the answer",
    "sessions.record_activity": "in the background, a batch for all sessions that were used",
    "shares.open": "the link names no project",
}
"""What asks all servers because the caller cannot know the key, and why that is bearable."""

BY_ID_ONLY = {
    # By the primary key: they follow when it has two columns, and `get` is given both.
    *("file_references.delete", "file_references.select", "file_references.update", "generated_codes.lock"),
    *("generated_codes.select", "generated_codes.update", "generated_images.lock", "generated_images.select"),
    *("generated_images.update", "generations.lock", "generations.select", "sessions.select", "shares.lock"),
    *("shares.update", "stored_files.delete", "stored_files.select", "stored_files.update"),
    # By an id whose project or person the caller knows or has just read.
    *("audit_logs.insert_numbered", "file_references.view", "generated_codes.growths"),
    *("generated_codes.list", "generated_codes.progress", "generated_codes.resume", "generated_codes.stored"),
    *("generated_codes.stored_sequence", "generated_codes.summaries_of", "generations.find", "generations.view"),
    *("refresh_tokens.insert", "refresh_tokens.lock_session", "sessions.end"),
    *("sessions.extend", "sessions.find", "sessions.read_data", "sessions.validate_by_id", "sessions.write_data"),
    # Joins of one project that compare ids alone.
    *("generations.find_idle_stand_in", "generations.known", "generations.link", "generations.unlink_unresolved"),
    *("generations.wanting", "project_search.page", "projects.contents", "projects.select", "shares.variant"),
    "shares.views",
    # Copies of a project, from one server to another.
    *("file_references.copy", "generated_codes.copy", "generated_images.copy", "generations.copy"),
}
"""What names a row by its own id or by that of its parent: until the key is compared too, all servers are asked."""

_CONDITIONS = ("Index Cond", "Recheck Cond", "Filter", "Join Filter", "Hash Cond", "Merge Cond")
_PART = re.compile(rf"^(.+)_([0-{SERVERS - 1}])$")
# Other joins would be faster for few rows, but do not show by which condition a partition is chosen.
_SETTINGS = ("enable_hashjoin", "enable_mergejoin", "enable_bitmapscan", "enable_seqscan")


def explain(connection: psycopg.Connection[Any], sql: str, parameters: Any) -> dict[str, Any]:
    """The plan of a statement with these values."""
    for setting in _SETTINGS:
        connection.execute(f"SET {setting} = off".encode())
    cursor = psycopg.RawCursor(connection) if re.search(r"\$\d", sql) else connection.cursor()
    [(plans,)] = cursor.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {sql}".encode(), parameters).fetchall()
    plan: dict[str, Any] = plans[0]["Plan"]
    return plan


def tables_of(plan: dict[str, Any]) -> set[str]:
    """The distributed tables that a plan reads or writes."""
    names = {str(node["Relation Name"]) for node in _nodes(plan) if "Relation Name" in node}
    return {_PART.sub(r"\1", name) for name in names} & KEYS.keys()


def asked_everywhere(plan: dict[str, Any]) -> set[str]:
    """The tables of which a plan reads several partitions, without the key from a row that it has read before."""
    parts: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    for node in _nodes(plan):
        match = _PART.match(node.get("Relation Name", ""))
        if match and match[1] in KEYS and node["Node Type"] != "ModifyTable":
            alias = re.sub(r"_\d+$", "", node["Alias"])
            found = parts[match[1], alias]  # Of several scans with the same alias each has to have the key.
            found[match[0]] = found.get(match[0], True) and _has_key(node, KEYS[match[1]])
    return {table for (table, _), found in parts.items() if len(found) > 1 and not all(found.values())}


def _has_key(node: dict[str, Any], key: str) -> bool:
    """Whether the rows have the key that is given, or that of a row that another part of the plan has read."""
    conditions = " ".join(str(node.get(name, "")) for name in _CONDITIONS)
    return bool(re.search(rf"\((?:\w+\.)?{key} = (?:(?!ANY)[^()]|\(InitPlan)|[^()] = (?:\w+\.)?{key}\)", conditions))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
