"""``check`` finds what was changed behind the migrations' back, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event

from data_layer.database.migrator import Migrator
from data_layer.database.schema_check import SchemaStatus
from data_layer.entities.audit_log import DEFAULT_PARTITION
from data_layer.repositories.audit_partitions import Month

from .migration_helpers import EVERY_VERSION, NEXT, migrated_database, new_database, query, server, with_next_revision

NEW_RULE = "CHECK (role IN ('user', 'moderator', 'admin', 'owner'))"
CHANGES = {
    "ALTER TABLE users ADD COLUMN nickname text": "column users.nickname is not in the models: text",
    "ALTER TABLE users DROP COLUMN avatar": "column users.avatar is missing",
    "ALTER TABLE users ALTER COLUMN avatar TYPE varchar(9)": "should be: text; but is: character varying(9)",
    "ALTER TABLE users ALTER COLUMN avatar SET NOT NULL": "should be: text; but is: text NOT NULL",
    "ALTER TABLE users ALTER COLUMN status SET DEFAULT 'pending'": "DEFAULT 'pending'::text",
    'ALTER TABLE users ALTER COLUMN first_name TYPE varchar(100) COLLATE "C"': 'COLLATE "C"',
    "DROP TRIGGER index_text ON projects": "trigger projects.index_text is missing",
    "ALTER TABLE sessions RENAME TO logins": "table sessions is missing",
    "ALTER TABLE login_attempts SET UNLOGGED": "table login_attempts should be: ; but is: unlogged",
    "ALTER TABLE users DROP CONSTRAINT ck_users_role": "constraint users.ck_users_role is missing",
    f"ALTER TABLE users DROP CONSTRAINT ck_users_role, ADD CONSTRAINT ck_users_role {NEW_RULE}": "'owner'::text",
    "ALTER TABLE generated_codes DROP CONSTRAINT fk_generated_codes_project_id, ADD CONSTRAINT "
    "fk_generated_codes_project_id FOREIGN KEY (project_id) REFERENCES projects (id)": "ON DELETE CASCADE; but is",
    "DROP INDEX uq_users_email": "index users.uq_users_email is missing",
    "DROP INDEX uq_users_email; CREATE UNIQUE INDEX uq_users_email ON users (lower(email))": "lower(email::text)",
    "DROP INDEX uq_users_azure_id; CREATE UNIQUE INDEX uq_users_azure_id ON users (azure_id)": "IS NOT NULL; but is",
    "DROP INDEX ix_projects_tags; CREATE INDEX ix_projects_tags ON projects USING gin (tags)": "jsonb_path_ops",
    "CREATE INDEX by_hand ON users (last_name)": "index users.by_hand is not in the models",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_projects_tags'::regclass": "(invalid)",
    "DROP TRIGGER number_version ON generated_codes": "trigger generated_codes.number_version is missing",
    "ALTER TABLE generated_codes DISABLE TRIGGER number_version": (
        "FUNCTION number_code_version(); ALTER TABLE generated_codes DISABLE TRIGGER number_version"
    ),
    "ALTER TABLE generated_codes ENABLE ALWAYS TRIGGER number_version": "but is: CREATE TRIGGER number_version",
    "ALTER TABLE audit_logs ENABLE TRIGGER refuse_truncate": "ENABLE ALWAYS TRIGGER refuse_truncate; but is:",
    "ALTER TABLE audit_logs ENABLE REPLICA TRIGGER refuse_truncate": "ENABLE REPLICA TRIGGER refuse_truncate",
    "CREATE TRIGGER extra BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION number_code_version()": "users.extra",
    "CREATE OR REPLACE FUNCTION number_code_version() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'": (
        "function number_code_version has another text"
    ),
    "ALTER FUNCTION number_code_version() SECURITY DEFINER": "function number_code_version has another text",
    "ALTER FUNCTION number_code_version() SET search_path = public": "function number_code_version has another text",
    "DROP FUNCTION number_code_version CASCADE": "function number_code_version is missing",
}


@pytest.mark.parametrize(("change", "found"), CHANGES.items())
def test_a_change_by_hand_is_found(change: str, found: str) -> None:
    address = migrated_database()
    query(address, change)

    report = Migrator(address).check()

    assert not report.agrees
    described = [str(difference) for difference in report.differences]
    assert any(found in line for line in described), described
    assert len(described) <= 2, described


@pytest.mark.parametrize("table", ["audit_logs", DEFAULT_PARTITION, Month.of(datetime.now(UTC)).table])
@pytest.mark.parametrize("trigger", ["refuse_change", "refuse_truncate"])
@pytest.mark.parametrize("mode", ["DISABLE", "ENABLE", "ENABLE REPLICA"])
def test_each_table_of_the_audit_trail_is_protected(table: str, trigger: str, mode: str) -> None:
    address = migrated_database()
    query(address, f"ALTER TABLE {table} {mode} TRIGGER {trigger}")

    found = {difference.name: str(difference) for difference in Migrator(address).check().differences}

    assert f"ALTER TABLE {table} {mode} TRIGGER {trigger}" in found[f"{table}.{trigger}"]


def test_a_month_without_its_trigger_is_found() -> None:
    address = migrated_database()
    query(address, f"DROP TRIGGER refuse_truncate ON {Month.of(datetime.now(UTC)).table}")

    found = [str(difference) for difference in Migrator(address).check().differences]

    assert found == [f"trigger {Month.of(datetime.now(UTC)).table}.refuse_truncate is missing"]


@pytest.mark.parametrize("version", EVERY_VERSION)
def test_an_untouched_database_agrees_and_stays_untouched(version: int) -> None:
    address = new_database(version)
    migrator = Migrator(address)
    migrator.migrate()
    before = server(version).dump(address.name)

    assert migrator.check().differences == ()
    assert migrator.check().agrees
    assert server(version).dump(address.name) == before


def test_what_others_keep_beside_our_tables_is_no_difference() -> None:
    address = migrated_database()
    query(address, "CREATE TABLE orders (id int PRIMARY KEY, user_id uuid REFERENCES users (id))")
    query(address, "CREATE VIEW names AS SELECT first_name FROM users")
    query(address, "CREATE FUNCTION number_code_version(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    query(address, "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('x')")
    query(address, "CREATE SCHEMA other; CREATE TABLE other.users (id int)")

    assert Migrator(address).check().agrees


@pytest.mark.parametrize("rows", [0, 1])
def test_a_database_in_use_agrees(rows: int) -> None:
    """Checking neither waits for those who work with the tables, nor makes them wait."""
    address = migrated_database()
    query(address, "ANALYZE")
    with server(18).connect(address.name) as busy, busy.transaction():
        busy.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        if rows:
            busy.execute(
                "INSERT INTO users (id, email, first_name, last_name) VALUES (gen_random_uuid(), 'a', 'a', 'a')"
            )
        assert Migrator(address).check().agrees


def test_a_database_that_is_behind_is_not_compared_with_newer_models(tmp_path: Path) -> None:
    address = migrated_database()
    query(address, "DROP INDEX uq_users_email")

    report = Migrator(address, versions=with_next_revision(tmp_path, "pass")).check()

    assert (report.agrees, report.state.state, report.state.pending) == (False, SchemaStatus.BEHIND, (NEXT,))
    assert report.differences == ()


def test_the_current_schema_is_cheap_to_confirm() -> None:
    address = migrated_database()
    migrator = Migrator(address)
    migrator.require_current()
    statements: list[str] = []
    event.listen(migrator._engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    migrator.require_current()

    assert statements == ["SELECT version_num FROM data_layer_schema_version"]
