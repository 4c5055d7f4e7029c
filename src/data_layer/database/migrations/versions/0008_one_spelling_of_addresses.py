"""E-mail addresses have one spelling, which Python computes, and are compared byte for byte.

Until now the index compared ``lower(email)``, whose result depends on the collation of the database. Processes of the
version before find accounts as well, only without an index.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict

import idna
from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"

LOCK = "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"
# Everything else is spelled right already.
SUSPECTS = """email COLLATE "C" ~ '[A-Z]|[^!-~]' OR email LIKE '%xn--%'"""
DROP = "-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX uq_users_email"
CREATE = "-- squawk-ignore require-concurrent-index-creation\nCREATE UNIQUE INDEX uq_users_email ON users (email)"
CREATE_AS_BEFORE = CREATE.replace("(email)", "(lower(email))")
MOST_SHOWN = 10
# For operators who run the SQL by hand: addresses in ASCII. Others are rare, and the unique index reports equal ones.
REFUSE_COLLISIONS = """
DO $body$
DECLARE
    found text;
BEGIN
    SELECT string_agg(ids, '; ') INTO found FROM (
        SELECT string_agg(id::text, ', ' ORDER BY id) AS ids FROM users
        GROUP BY lower(email COLLATE "C") HAVING count(*) > 1 LIMIT 10
    ) AS collisions;
    IF found IS NOT NULL THEN
        RAISE unique_violation USING MESSAGE = 'accounts share an e-mail address: ' || found;
    END IF;
END
$body$
"""
LOWER = """UPDATE users SET email = lower(email COLLATE "C") WHERE email COLLATE "C" ~ '[A-Z]'"""


def upgrade() -> None:
    """Spell the addresses, if no two accounts share one; the table takes no changes meanwhile, and can be read."""
    op.execute(LOCK)
    if op.get_context().as_sql:
        op.execute(REFUSE_COLLISIONS)
        op.execute(DROP)
        op.execute(LOWER)
    else:
        changes = _changes()
        op.execute(DROP)
        for user_id, email in changes.items():
            op.get_bind().execute(
                text("UPDATE users SET email = :email WHERE id = :id"), {"email": email, "id": user_id}
            )
    op.execute(CREATE)


def downgrade() -> None:
    """Compare in lower case again; the addresses stay as they are."""
    op.execute(DROP)
    op.execute(CREATE_AS_BEFORE)


def _changes() -> dict[object, str]:
    """The new spelling of each address that has another one."""
    connection = op.get_bind()
    changes = {
        row.id: _spelled(row.email)
        for row in connection.execute(text(f"SELECT id, email FROM users WHERE {SUSPECTS}"))  # noqa: S608  (no values)
    }
    accounts = defaultdict(set)
    for user_id, email in changes.items():
        accounts[email].add(user_id)
    others = connection.execute(
        text("SELECT id, email FROM users WHERE email = ANY(:emails)"), {"emails": list(accounts)}
    )
    for row in others:
        if row.id not in changes:
            accounts[row.email].add(row.id)
    shared = [", ".join(sorted(map(str, ids))) for ids in accounts.values() if len(ids) > 1]
    if shared:
        raise ValueError(
            f"accounts share an e-mail address: {'; '.join(sorted(shared)[:MOST_SHOWN])} ({len(shared)} addresses); "
            "give all but one of each another address, or delete them, and migrate again"
        )
    return changes


def _spelled(address: str) -> str:
    """``entities.columns.normalize_email`` as it was when this migration was written."""
    address = unicodedata.normalize("NFC", address.strip())
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", address):
        return address
    local, _, domain = address.rpartition("@")
    try:
        domain = idna.decode(idna.encode(domain, uts46=True))
    except (idna.IDNAError, UnicodeError):
        domain = domain.lower()
    return unicodedata.normalize("NFC", f"{local.lower()}@{domain}")
