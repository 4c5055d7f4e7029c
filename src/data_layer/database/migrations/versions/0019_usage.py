"""The ledger of usage with its sums by day, and monthly budgets. Nothing that is stored changes."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"

USAGE_ENTRIES = """
CREATE TABLE usage_entries (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    key varchar(255) NOT NULL,
    project_id uuid,
    code_id uuid,
    provider varchar(100) NOT NULL,
    model varchar(100) NOT NULL,
    code_stack text,
    outcome text NOT NULL,
    input_tokens bigint DEFAULT 0 NOT NULL,
    output_tokens bigint DEFAULT 0 NOT NULL,
    cache_read_tokens bigint DEFAULT 0 NOT NULL,
    cache_write_tokens bigint DEFAULT 0 NOT NULL,
    cost numeric(14, 8) DEFAULT 0 NOT NULL,
    currency varchar(3) DEFAULT 'USD' NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_usage_entries PRIMARY KEY (id),
    CONSTRAINT ck_usage_entries_input_tokens CHECK (input_tokens BETWEEN 0 AND 1000000000000),
    CONSTRAINT ck_usage_entries_output_tokens CHECK (output_tokens BETWEEN 0 AND 1000000000000),
    CONSTRAINT ck_usage_entries_cache_read_tokens CHECK (cache_read_tokens BETWEEN 0 AND 1000000000000),
    CONSTRAINT ck_usage_entries_cache_write_tokens CHECK (cache_write_tokens BETWEEN 0 AND 1000000000000),
    CONSTRAINT ck_usage_entries_cost CHECK (cost >= 0),
    CONSTRAINT ck_usage_entries_currency CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT uq_usage_entries_user_id_key UNIQUE (user_id, key),
    CONSTRAINT fk_usage_entries_user_id FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT ck_usage_entries_code_stack CHECK (
        code_stack IN (
            'html_tailwind', 'html_css', 'react_tailwind', 'vue_tailwind', 'bootstrap', 'ionic_tailwind', 'svg'
        )
    ),
    CONSTRAINT ck_usage_entries_outcome CHECK (outcome IN ('completed', 'failed', 'cancelled'))
)
"""
USAGE_DAYS = """
CREATE TABLE usage_days (
    user_id uuid NOT NULL,
    day date NOT NULL,
    project_id uuid NOT NULL,
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
    CONSTRAINT pk_usage_days PRIMARY KEY (user_id, day, project_id, provider, model, code_stack, outcome, currency)
)
"""
BUDGETS = """
CREATE TABLE budgets (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    currency varchar(3) DEFAULT 'USD' NOT NULL,
    monthly_limit numeric(14, 8) NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_budgets PRIMARY KEY (id),
    CONSTRAINT ck_budgets_monthly_limit CHECK (monthly_limit >= 0),
    CONSTRAINT ck_budgets_currency CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT uq_budgets_user_id_currency UNIQUE (user_id, currency),
    CONSTRAINT fk_budgets_user_id FOREIGN KEY (user_id) REFERENCES users (id)
)
"""
BUDGET_RESERVATIONS = """
CREATE TABLE budget_reservations (
    id uuid NOT NULL,
    budget_id uuid NOT NULL,
    amount numeric(14, 8) NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_budget_reservations PRIMARY KEY (id),
    CONSTRAINT ck_budget_reservations_amount CHECK (amount >= 0),
    CONSTRAINT fk_budget_reservations_budget_id FOREIGN KEY (budget_id) REFERENCES budgets (id) ON DELETE CASCADE
)
"""
INDEXES = (
    "CREATE INDEX ix_usage_entries_project_id_id ON usage_entries (project_id, id) WHERE project_id IS NOT NULL",
    "CREATE INDEX ix_usage_entries_user_id_id ON usage_entries (user_id, id)",
    "CREATE INDEX ix_usage_days_day ON usage_days (day)",
    "CREATE INDEX ix_usage_days_project_id_day ON usage_days (project_id, day)",
    "CREATE INDEX ix_budget_reservations_budget_id ON budget_reservations (budget_id)",
)

ADD_USAGE = """
CREATE FUNCTION add_usage_to_days() RETURNS trigger LANGUAGE plpgsql AS $body$
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
    RETURN NULL;
END
$body$
"""
REFUSE_CHANGE = """
CREATE FUNCTION refuse_usage_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE restrict_violation USING
        MESSAGE = format('recorded usage is never changed or removed: %s of %s was refused', TG_OP, TG_TABLE_NAME),
        CONSTRAINT = 'usage_entries_append_only', TABLE = 'usage_entries';
END
$body$
"""
TRIGGERS = (
    """
CREATE TRIGGER add_to_days AFTER INSERT ON usage_entries REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION add_usage_to_days()
""",
    """
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON usage_entries
FOR EACH ROW EXECUTE FUNCTION refuse_usage_change()
""",
    """
CREATE TRIGGER refuse_change BEFORE INSERT OR DELETE OR UPDATE ON usage_days
FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_usage_change()
""",
    *(
        f"""
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION refuse_usage_change()
"""
        for table in ("usage_entries", "usage_days")
    ),
    # The sums arrive with logical replication like the entries, so nothing refuses them there.
    "ALTER TABLE usage_entries ENABLE ALWAYS TRIGGER refuse_change, ENABLE ALWAYS TRIGGER refuse_truncate",
)


def upgrade() -> None:
    """Create the tables, which are empty, and what keeps them."""
    for table in (USAGE_ENTRIES, USAGE_DAYS, BUDGETS, BUDGET_RESERVATIONS):
        op.execute(table)
    for statement in (*INDEXES, ADD_USAGE, REFUSE_CHANGE, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them, with what was recorded."""
    for table in ("budget_reservations", "budgets", "usage_days", "usage_entries"):
        op.execute(f"DROP TABLE {table}")
    for function in ("add_usage_to_days", "refuse_usage_change"):
        op.execute(f"DROP FUNCTION {function}()")
