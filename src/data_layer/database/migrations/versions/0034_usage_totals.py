"""Sums of usage by day over everybody, so that a month of a large ledger is added up from a few hundred rows.

Nobody records usage while the sums of before are added up: about a second for a million rows of ``usage_days``.
"""

from __future__ import annotations

from alembic import op

revision = "0034"
down_revision = "0033"

USAGE_TOTALS = """
CREATE TABLE usage_totals (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    day date NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    code_stack text NOT NULL,
    outcome text NOT NULL,
    currency text NOT NULL,
    entries bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    cost numeric(24, 8) NOT NULL,
    CONSTRAINT pk_usage_totals PRIMARY KEY (id)
)
"""
INDEX = "CREATE INDEX ix_usage_totals_day ON usage_totals (day)"
LOCK = "LOCK TABLE usage_entries IN SHARE ROW EXCLUSIVE MODE"
FILL = """
INSERT INTO usage_totals (
    day, provider, model, code_stack, outcome, currency,
    entries, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost
)
SELECT day, provider, model, code_stack, outcome, currency, sum(entries), sum(input_tokens),
    sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(cost)
FROM usage_days GROUP BY 1, 2, 3, 4, 5, 6
"""
ADD_TO_DAYS = """
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
        cost = days.cost + excluded.cost;"""
ADD_USAGE = f"""
CREATE OR REPLACE FUNCTION add_usage_to_days() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN{ADD_TO_DAYS}
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
$body$
"""  # noqa: S608  (of constants)
ADD_USAGE_BEFORE = f"""
CREATE OR REPLACE FUNCTION add_usage_to_days() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN{ADD_TO_DAYS}
    RETURN NULL;
END
$body$
"""
TRIGGERS = (
    """
CREATE TRIGGER refuse_change BEFORE INSERT OR DELETE OR UPDATE ON usage_totals
FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_usage_change()
""",
    """
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON usage_totals
FOR EACH STATEMENT EXECUTE FUNCTION refuse_usage_change()
""",
)


def upgrade() -> None:
    """Create the table, and fill it from the sums by day, to which nobody adds meanwhile."""
    op.execute(USAGE_TOTALS)
    op.execute(INDEX)
    op.execute(LOCK)
    op.execute(FILL)
    op.execute(ADD_USAGE)
    for statement in TRIGGERS:
        op.execute(statement)


def downgrade() -> None:
    """Add up days alone again."""
    op.execute(ADD_USAGE_BEFORE)
    op.execute("DROP TABLE usage_totals")
