"""The migrations as texts: one line of history, clean SQL, and names for everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from data_layer.database.address import DatabaseAddress
from data_layer.database.migrations import BASE, VERSION_TABLE, Revision, alembic_commands, known_revisions
from data_layer.database.migrator import Migrator
from data_layer.database.schema_check import SchemaStatus
from data_layer.entities import Entity

from .migration_helpers import NEXT, migrated_database, new_database, query, tables, with_next_revision

ROOT = Path(__file__).parents[2]
SQUAWK = Path(sys.executable).with_name("squawk")
STEPS = [
    pytest.param(before, after, id=after)
    for before, after in zip(
        [BASE, *(revision.identifier for revision in known_revisions())],
        [revision.identifier for revision in known_revisions()],
        strict=False,
    )
]


def squawk(sql: str, *options: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [SQUAWK, "--config", ROOT / ".squawk.toml", *options]
    return subprocess.run(command, input=sql, capture_output=True, text=True, check=False)


def test_the_history_is_one_line_and_the_files_are_named_after_it() -> None:
    scripts = ScriptDirectory.from_config(alembic_commands.configuration())
    history = [script.revision for script in scripts.walk_revisions()][::-1]

    assert history == [revision.identifier for revision in known_revisions()]
    assert history == [f"{number:04}" for number in range(1, len(history) + 1)]
    assert known_revisions()[0] == Revision("0001", "six tables")


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_the_sql_of_each_migration_passes_squawk(before: str, after: str) -> None:
    sql = alembic_commands.upgrade_sql(before, after)

    result = squawk(sql)

    assert result.returncode == 0, result.stdout
    assert "CREATE" in sql or "ALTER" in sql or "DO $body$" in sql
    assert "%%" not in sql


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_the_sql_that_undoes_each_migration_passes_squawk(before: str, after: str) -> None:
    """It drops things; that is what it is for."""
    sql = alembic_commands.downgrade_sql(after, before)

    result = squawk(sql, "--exclude=ban-drop-table,ban-drop-function,ban-drop-column,ban-drop-constraint")

    assert result.returncode == 0, result.stdout


def test_squawk_would_complain() -> None:
    assert squawk("ALTER TABLE users ADD COLUMN nickname text NOT NULL;").returncode != 0


def test_the_sql_can_be_run_by_hand() -> None:
    address = new_database()
    run_as_psql_does(address, alembic_commands.upgrade_sql(BASE, "head"))
    assert Migrator(address).check().agrees

    run_as_psql_does(address, alembic_commands.downgrade_sql("head", BASE))
    assert tables(address) == {VERSION_TABLE}
    assert Migrator(address).current().state is SchemaStatus.EMPTY


def run_as_psql_does(address: DatabaseAddress, sql: str) -> None:
    """One statement after the other: several at once would be one transaction, and an index is built outside of any."""
    folder = str(address.url.query["host"])
    with psycopg.connect(host=folder, dbname=address.name, user="postgres", autocommit=True) as connection:
        for statement in filter(str.strip, sql.split(";\n\n")):
            connection.execute(statement)


def test_alembic_itself_finds_nothing_to_do() -> None:
    address = migrated_database()
    query(address, "CREATE TABLE orders (id int)")
    engine = create_engine(address.url)
    with engine.connect() as connection:
        command.check(alembic_commands.configuration(connection=connection))
    engine.dispose()


def test_alembic_compares_everything_that_it_can() -> None:
    """The opposite of the test above, so that it cannot pass by looking at nothing."""
    address = new_database()
    engine = create_engine(address.url)
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE}
        changes = compare_metadata(MigrationContext.configure(connection, opts=options), Entity.metadata)
    engine.dispose()

    assert sum(change[0] == "add_table" for change in changes) == len(Entity.metadata.tables)


def test_every_index_and_constraint_is_named_after_its_table_and_columns() -> None:
    address = migrated_database()
    names = query(
        address,
        "SELECT conrelid::regclass::text, conname FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid <> 0 "
        "AND NOT (SELECT relispartition FROM pg_class WHERE oid = conrelid) UNION ALL "
        "SELECT indrelid::regclass::text, indexrelid::regclass::text FROM pg_index "
        "WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND NOT relispartition)",
    )
    prefixes = ("pk", "fk", "uq", "ix", "ck")
    ours = [(table, name) for table, name in names if table != VERSION_TABLE]

    assert [pair for pair in ours if not pair[1].startswith(tuple(f"{prefix}_{pair[0]}" for prefix in prefixes))] == []
    assert len(ours) > 50


def test_the_next_migration_starts_from_a_template_that_fits(tmp_path: Path) -> None:
    versions = with_next_revision(tmp_path, "pass")
    path = alembic_commands.write_migration("Add a nickname", versions)

    assert path == tmp_path / f"{int(NEXT) + 1:04}_add_a_nickname.py"
    assert known_revisions(versions)[-1] == Revision(f"{int(NEXT) + 1:04}", "add a nickname")
    for check in (["check", "--ignore=INP001"], ["format", "--check"]):
        ruff: list[str | Path] = [SQUAWK.with_name("ruff"), *check, "--config", ROOT / "pyproject.toml", path]
        result = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout

    path.write_text(path.read_text().replace('op.execute("")', 'op.execute("SELECT 1")'))
    address = new_database()
    assert Migrator(address, versions=versions).migrate() == tuple(r.identifier for r in known_revisions(versions))


def test_a_service_with_nothing_to_migrate_does_not_load_alembic() -> None:
    code = "import sys, data_layer.database.migrator; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
