"""Second factors and recovery codes."""

from __future__ import annotations

from alembic import op

revision = "0041"
down_revision = "0040"

FACTORS = """
CREATE TABLE IF NOT EXISTS second_factors (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    kind text NOT NULL,
    name varchar(100) NOT NULL,
    secret bytea NOT NULL,
    credential_id bytea,
    last_counter bigint NOT NULL DEFAULT 0,
    sign_count bigint NOT NULL DEFAULT 0,
    confirmed_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_second_factors PRIMARY KEY (id),
    CONSTRAINT ck_second_factors_kind CHECK (kind IN ('totp', 'passkey')),
    CONSTRAINT fk_second_factors_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
)
"""
CODES = """
CREATE TABLE IF NOT EXISTS recovery_codes (
    user_id uuid NOT NULL,
    code_hash varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_recovery_codes PRIMARY KEY (user_id, code_hash),
    CONSTRAINT fk_recovery_codes_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
)
"""
INDEXES = (
    (
        "-- squawk-ignore require-concurrent-index-creation\n"
        "CREATE INDEX IF NOT EXISTS ix_second_factors_user_id_id ON second_factors (user_id, id)"
    ),
    (
        "-- squawk-ignore require-concurrent-index-creation\n"
        "CREATE UNIQUE INDEX IF NOT EXISTS uq_second_factors_credential_id ON second_factors (credential_id) "
        "WHERE credential_id IS NOT NULL"
    ),
)


def upgrade() -> None:
    """Create the tables, which are empty. Processes of the version before ask nobody for a second factor."""
    for statement in (FACTORS, CODES, *INDEXES):
        op.execute(statement)


def downgrade() -> None:
    """Drop them: the password alone opens an account again."""
    op.execute("DROP TABLE recovery_codes")
    op.execute("DROP TABLE second_factors")
