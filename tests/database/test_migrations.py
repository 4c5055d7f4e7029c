"""What migrations do to a database: forwards, backwards, with rows in it, and when they fail."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import psycopg
import pytest

from data_layer.database.address import DatabaseAddress
from data_layer.database.migrations import Revision, known_revisions
from data_layer.database.migrations.execution import MigrationEvent, MigrationProgress
from data_layer.database.migrator import Migrator
from data_layer.database.schema_check import SchemaStatus
from data_layer.entities import Entity
from data_layer.entities.code_body import CodePacker
from data_layer.errors import DatabasePermissionError, InvalidValueError, MigrationError, SchemaBehindError

from .migration_helpers import (
    EVERY_VERSION,
    HEAD,
    NEXT,
    REVISIONS,
    create_from_models,
    migrated_database,
    new_database,
    new_role,
    query,
    server,
    tables,
    with_next_revision,
)

ROWS_OF_THE_FIRST_REVISION = """
INSERT INTO users (id, email, first_name, last_name, preferences)
    VALUES ('00000000-0000-7000-8000-000000000001', 'Ada@example.com', 'Ada', 'Example', '{"theme": "dark"}');
INSERT INTO projects (id, user_id, name, tags) VALUES
    ('00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000001', 'Shop', '["red"]');
INSERT INTO generated_codes (id, project_id, code, provider, model, generation_id, variant_index) VALUES
    ('00000000-0000-7000-8000-000000000003', '00000000-0000-7000-8000-000000000002', '<p>1</p>', 'claude', 'm',
     '00000000-0000-7000-8000-000000000009', 0),
    ('00000000-0000-7000-8000-000000000004', '00000000-0000-7000-8000-000000000002', '<p>2</p>', 'claude', 'm',
     '00000000-0000-7000-8000-000000000009', 1);
INSERT INTO generated_images (id, project_id, prompt, provider, model, size) VALUES
    ('00000000-0000-7000-8000-000000000005', '00000000-0000-7000-8000-000000000002', 'a', 'dalle3', 'm', '1024x1024');
INSERT INTO sessions (id, session_id, user_id, expires_at) VALUES
    ('00000000-0000-7000-8000-000000000006', 'hash', '00000000-0000-7000-8000-000000000001', now());
INSERT INTO audit_logs (id, user_id, action, category, description) VALUES
    ('00000000-0000-7000-8000-000000000007', '00000000-0000-7000-8000-000000000001', 'user_login', 'security', 'x')
"""
READ_ROWS = """
SELECT lower(email), preferences->>'theme', projects.name, count(code), array_agg(code ORDER BY version, variant_index),
    (SELECT prompt FROM generated_images), (SELECT session_id FROM sessions), (SELECT description FROM audit_logs)
FROM users JOIN projects ON user_id = users.id JOIN generated_codes ON project_id = projects.id
WHERE search_vector @@ to_tsquery('english', 'shop & red') GROUP BY users.id, projects.id
"""
ROWS = [("ada@example.com", "dark", "Shop", 2, ["<p>1</p>", "<p>2</p>"], "a", "hash", "x")]


@pytest.fixture
def address() -> DatabaseAddress:
    return new_database()


@pytest.mark.parametrize("version", EVERY_VERSION)
def test_migrations_and_models_make_the_same_database(version: int) -> None:
    migrated, created = new_database(version), new_database(version)
    assert Migrator(migrated).migrate() == tuple(revision.identifier for revision in known_revisions())
    create_from_models(created)

    dump = server(version).dump(migrated.name)

    assert dump == server(version).dump(created.name)
    assert sum("CREATE TABLE" in line for line in dump) == len(Entity.metadata.tables) + 1  # The default partition.


@pytest.mark.parametrize("version", EVERY_VERSION)
def test_undoing_every_migration_leaves_nothing(version: int) -> None:
    address, untouched = new_database(version), new_database(version)
    migrator = Migrator(address)
    migrator.migrate()
    migrator.rollback(len(known_revisions()))

    assert server(version).dump(address.name) == server(version).dump(untouched.name)
    assert tables(address) == set()
    assert migrator.current().state is SchemaStatus.EMPTY
    assert migrator.rollback() == ()
    assert migrator.migrate()


# Every one of them is stopped at by the test that undoes each.
@pytest.mark.parametrize("revision", known_revisions()[::8], ids=lambda revision: revision.identifier)
def test_an_old_database_keeps_its_rows(address: DatabaseAddress, revision: Revision) -> None:
    migrator = Migrator(address)
    migrator.migrate("0001")
    query(address, ROWS_OF_THE_FIRST_REVISION)
    migrator.migrate(revision.identifier)
    assert migrator.current().revision == revision.identifier

    migrator.migrate()

    assert migrator.check().agrees
    assert query(address, READ_ROWS) == ROWS


def test_json_of_the_wrong_shape_is_emptied_and_then_refused(address: DatabaseAddress) -> None:
    migrator = Migrator(address)
    migrator.migrate("0005")
    query(address, ROWS_OF_THE_FIRST_REVISION)
    spoilt = "preferences = 'null'; UPDATE projects SET settings = '5', metadata = '[]', tags = '[\"red\", 1]'"
    query(address, f"UPDATE users SET {spoilt}; UPDATE sessions SET session_data = 'null'")

    migrator.migrate()

    columns = "preferences, settings, projects.metadata, tags, session_data, users.metadata"
    stored = query(address, f"SELECT {columns} FROM users, projects, sessions")
    assert stored == [({}, {}, {}, [], {}, {})]
    unchecked = "SELECT conname FROM pg_constraint WHERE conname LIKE 'ck_%' AND NOT convalidated"
    assert query(address, unchecked) == []
    with pytest.raises(psycopg.errors.CheckViolation):
        query(address, "UPDATE users SET preferences = 'null'")


def test_each_migration_can_be_undone_and_repeated_with_rows(address: DatabaseAddress) -> None:
    migrator = Migrator(address)
    migrator.migrate("0001")
    query(address, ROWS_OF_THE_FIRST_REVISION)
    for revision in known_revisions()[1:]:
        migrator.migrate(revision.identifier)
        assert migrator.rollback() == (revision.identifier,)
        migrator.migrate(revision.identifier)

    assert query(address, READ_ROWS) == ROWS


def test_rows_survive_the_next_migration_and_its_undoing(tmp_path: Path) -> None:
    address = migrated_database()
    query(address, ROWS_OF_THE_FIRST_REVISION)
    add = "op.execute(\"ALTER TABLE users ADD COLUMN nickname text NOT NULL DEFAULT 'none'\")"
    versions = with_next_revision(tmp_path, add, 'op.execute("ALTER TABLE users DROP COLUMN nickname")')
    newer = Migrator(address, versions=versions)
    with pytest.raises(SchemaBehindError, match=rf"{HEAD}.*{NEXT}.*data-layer db migrate"):
        newer.require_current()

    assert newer.migrate() == (NEXT,)
    assert query(address, "SELECT nickname FROM users") == [("none",)]
    assert query(address, READ_ROWS) == ROWS
    assert newer.rollback(1) == (NEXT,)
    assert query(address, READ_ROWS) == ROWS
    assert Migrator(address).check().agrees


def test_progress_names_each_migration(address: DatabaseAddress, tmp_path: Path) -> None:
    reports: list[MigrationProgress] = []
    versions = with_next_revision(tmp_path, "pass")
    migrator = Migrator(address, versions=versions)

    migrator.migrate(on_progress=reports.append)
    migrator.rollback(2, on_progress=reports.append)

    seen = [(report.event, report.revision and report.revision.identifier, report.number) for report in reports]
    events = (MigrationEvent.STARTED, MigrationEvent.FINISHED)
    forwards, backwards = [*REVISIONS, NEXT], [NEXT, HEAD]
    assert seen == [
        (event, revision, number)
        for order in (forwards, backwards)
        for number, revision in enumerate(order, 1)
        for event in events
    ]
    assert {report.total for report in reports} == {len(forwards), len(backwards)}


def test_a_target_is_reached_and_not_passed(address: DatabaseAddress, tmp_path: Path) -> None:
    migrator = Migrator(address, versions=with_next_revision(tmp_path, "pass"))
    migrator.migrate(HEAD)

    assert (migrator.current().state, migrator.current().pending) == (SchemaStatus.BEHIND, (NEXT,))
    assert migrator.migrate(HEAD) == ()
    assert migrator.migrate() == (NEXT,)
    assert migrator.migrate(HEAD) == ()
    with pytest.raises(MigrationError, match=r"no migration 'seven'.*0001"):
        migrator.migrate("seven")
    with pytest.raises(InvalidValueError):
        migrator.rollback(0)


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ('op.execute("SELECT 1 / 0")', "division by zero"),
        ('op.execute("CREATE UNIQUE INDEX double ON users (first_name)")', "could not create unique index"),
        ('raise RuntimeError("no such plan")', "no such plan"),
    ],
)
def test_a_failed_migration_changes_nothing_and_says_which(tmp_path: Path, statement: str, cause: str) -> None:
    address = migrated_database()
    for number in (1, 2):
        query(
            address,
            f"INSERT INTO users (id, email, first_name, last_name) VALUES (gen_random_uuid(), '{number}', 'Eve', 'E')",
        )
    versions = with_next_revision(tmp_path, f'op.execute("CREATE TABLE half_done (id int)")\n{statement}')
    migrator = Migrator(address, versions=versions)

    with pytest.raises(MigrationError, match=rf"{NEXT} \(next\) failed and changed nothing: {cause}") as caught:
        migrator.migrate()

    assert "Eve" not in str(caught.value)
    assert "half_done" not in tables(address)
    assert migrator.current().revision == HEAD
    assert Migrator(address).check().agrees


def test_a_user_who_may_not_create_tables_is_told_so(address: DatabaseAddress) -> None:
    mine = server(18).address(address.name, new_role())
    with pytest.raises(DatabasePermissionError, match=r"0001.*permission denied for schema public"):
        Migrator(mine).migrate()
    assert tables(address) == set()


def test_tables_go_to_the_schema_that_the_search_path_names(address: DatabaseAddress) -> None:
    query(address, "CREATE SCHEMA apart")
    query(address, f"ALTER DATABASE {address.name} SET search_path = apart")
    migrator = Migrator(address)
    migrator.migrate()

    assert tables(address) == set()
    assert migrator.check().agrees
    assert query(address, "SELECT count(*) FROM apart.users") == [(0,)]


def test_a_database_that_cannot_hold_every_text_is_refused() -> None:
    server(18).run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(MigrationError, match=r"LATIN1.*data-layer db create"):
        Migrator(server(18).address("latin")).migrate()


CODES_BEFORE_GENERATIONS = """
INSERT INTO users (id, email, first_name, last_name)
    VALUES ('00000000-0000-7000-8000-000000000001', 'ada@example.com', 'Ada', 'Example');
INSERT INTO projects (id, user_id, name)
    SELECT id::uuid, '00000000-0000-7000-8000-000000000001', name FROM (VALUES
        ('00000000-0000-7000-8000-00000000000a', 'one'), ('00000000-0000-7000-8000-00000000000b', 'two'),
        ('00000000-0000-7000-8000-00000000000c', 'empty')) AS rows (id, name);
INSERT INTO generated_codes
    (id, project_id, code, provider, model, generation_id, variant_index, generation_type, status, original_prompt)
    SELECT gen_random_uuid(), ('00000000-0000-7000-8000-00000000000' || project)::uuid, code, 'claude', 'm',
        ('00000000-0000-7000-8000-0000000001' || generation)::uuid, variant, kind, status, 'p' || variant FROM (VALUES
        ('a', 'first 0', '01', 0, 'create', 'completed'), ('a', 'first 1', '01', 1, 'create', 'failed'),
        ('a', 'second 0', '02', 0, 'update', 'completed'), ('a', 'first 2', '01', 2, 'create', 'completed'),
        ('a', 'gone', '03', 0, 'create', 'completed'), ('a', 'third 1', '04', 1, 'update', 'pending'),
        ('b', 'shared', '02', 1, 'refine', 'completed'), ('b', 'own', '05', 0, 'create', 'completed')
    ) AS rows (project, code, generation, variant, kind, status);
DELETE FROM generated_codes WHERE code = 'gone'
"""
VARIANTS = """
SELECT projects.name, version, variant_index, code, generations.generation_type, generation_count
FROM projects JOIN generated_codes ON project_id = projects.id JOIN generations ON generations.id = generation_id
WHERE number = version AND generations.project_id = projects.id ORDER BY projects.name, version, variant_index
"""


def test_codes_become_variants_of_generations(address: DatabaseAddress) -> None:
    migrator = Migrator(address)
    migrator.migrate("0016")
    query(address, CODES_BEFORE_GENERATIONS)

    migrator.migrate()

    assert query(address, VARIANTS) == [
        *(("one", 1, index, f"first {index}", "create", 3) for index in range(3)),
        ("one", 2, 0, "second 0", "update", 3),
        ("one", 3, 1, "third 1", "update", 3),
        ("two", 1, 1, "shared", "refine", 2),
        ("two", 2, 0, "own", "create", 2),
    ]
    state = "SELECT prompt, selected_variant, ended_at IS NULL FROM generations ORDER BY project_id, number"
    assert query(address, state) == [
        *(("p0", 0, False), ("p0", 0, False), ("p1", 1, True)),
        *(("p1", 1, False), ("p0", 0, False)),
    ]
    assert query(address, "SELECT generation_count FROM projects WHERE name = 'empty'") == [(0,)]
    migrator.rollback(len([each for each in known_revisions() if each.identifier > "0016"]))
    versions = query(address, "SELECT code, version FROM generated_codes ORDER BY project_id, version")
    assert [code for code, _ in versions] == [*(f"first {n}" for n in range(3)), "second 0", "third 1", "shared", "own"]
    assert [version for _, version in versions] == [1, 2, 3, 4, 5, 1, 2]
    assert query(address, "SELECT generation_count FROM projects ORDER BY name") == [(0,), (5,), (2,)]


def test_an_older_process_goes_on_adding_codes(address: DatabaseAddress) -> None:
    """It names a generation by an id only, and knows of no table for it."""
    migrator = Migrator(address)
    migrator.migrate("0016")
    query(address, CODES_BEFORE_GENERATIONS)
    migrator.migrate()
    insert = (
        "INSERT INTO generated_codes (id, project_id, code, provider, model, generation_id, variant_index) VALUES "
        "(gen_random_uuid(), '00000000-0000-7000-8000-00000000000a', 'x', 'claude', 'm',"
        " '00000000-0000-7000-8000-0000000001{}', {}) RETURNING version"
    )
    assert query(address, insert.format("01", 3)) == [(1,)]
    assert query(address, insert.format("10", 0)) == [(4,)]
    assert query(address, insert.format("10", 1)) == [(4,)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="no generation of the same project"):
        query(address, insert.format("05", 7))
    assert query(address, "SELECT generation_count FROM projects WHERE name = 'one'") == [(4,)]


CODES_WITHOUT_HASHES = """
INSERT INTO users (id, email, first_name, last_name)
VALUES ('00000000-0000-7000-8000-000000000001', 'a@example.com', 'A', 'B');
INSERT INTO projects (id, user_id, name)
VALUES ('00000000-0000-7000-8000-00000000000a', '00000000-0000-7000-8000-000000000001', 'one');
INSERT INTO generated_codes (id, project_id, generation_id, code, provider, model, lease_until)
SELECT gen_random_uuid(), '00000000-0000-7000-8000-00000000000a', gen_random_uuid(),
    CASE n WHEN 1 THEN '' WHEN 2 THEN E' \\n' ELSE format(E' page %s \\u00a0\\n', n) END,
    'other', 'm', CASE n WHEN 3 THEN now() END
FROM generate_series(1, 450) AS n
"""
HASHES = """
SELECT code, code_hash, trimmed_hash FROM generated_codes ORDER BY id
"""


def test_codes_of_before_have_hashes(address: DatabaseAddress) -> None:
    """More than two batches; what an interrupted migration has filled is not filled again."""
    migrator = Migrator(address)
    migrator.migrate("0026")
    query(address, CODES_WITHOUT_HASHES)
    migrator.migrate("0027")
    query(address, "UPDATE generated_codes SET code = code WHERE id IN (SELECT id FROM generated_codes LIMIT 100)")
    filled = "SELECT xmin::text, id FROM generated_codes WHERE code_hash IS NOT NULL"
    before = query(address, filled)
    assert 0 < len(before) <= 100

    migrator.migrate()

    rows = query(address, HASHES)
    assert len(rows) == 450
    for code, exact, trimmed in rows:
        if not code.strip() or code.startswith(" page 3 "):
            assert (exact, trimmed) == (None, None)
        else:
            assert exact == hashlib.sha256(code.encode()).digest()
            assert trimmed == hashlib.sha256(code.strip().encode()).digest()
    assert set(before) <= set(query(address, filled))


DELETED_BEFORE = """
INSERT INTO users (id, email, first_name, last_name) VALUES
    ('00000000-0000-7000-8000-000000000001', 'ada@example.com', 'Ada', 'Example');
INSERT INTO projects (id, user_id, name, status, updated_at)
    SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', status, status, '2026-01-02T03:04:05Z'
    FROM unnest(ARRAY['active', 'archived', 'deleted']) AS status
"""
INDEX_OF_THE_TRASH = "CREATE INDEX ix_projects_deleted_at ON projects (deleted_at) WHERE deleted_at IS NOT NULL"
LEFT_BEHIND = """
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_projects_deleted_at'::regclass
"""


@pytest.mark.parametrize("left", [[], [INDEX_OF_THE_TRASH], [INDEX_OF_THE_TRASH, LEFT_BEHIND]])
def test_projects_that_were_deleted_before_it_was_kept_count_from_their_last_change(
    address: DatabaseAddress, left: list[str]
) -> None:
    migrator = Migrator(address)
    migrator.migrate("0021")
    query(address, DELETED_BEFORE)
    migrator.migrate("0022")
    for statement in left:  # An early form of this migration made the index; an attempt to make it broke off.
        query(address, statement)

    migrator.migrate()

    deleted = "SELECT name, deleted_at = updated_at, updated_at = '2026-01-02T03:04:05Z' FROM projects ORDER BY name"
    assert query(address, deleted) == [("active", None, True), ("archived", None, True), ("deleted", True, True)]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_projects_deleted_at'::regclass"
    assert query(address, valid) == [(True,)]


USED_BEFORE = """
WITH person AS (
    INSERT INTO users (id, email, first_name, last_name) SELECT gen_random_uuid(), n || '@example.com', 'A', 'B'
    FROM generate_series(1, 3) AS n RETURNING id
)
INSERT INTO usage_entries (id, user_id, key, provider, model, code_stack, outcome, input_tokens, cost, at)
SELECT gen_random_uuid(), person.id, n::text, 'p', 'm' || n % 2, CASE WHEN n % 3 = 0 THEN 'svg' END, 'completed', n, n,
    timestamptz '2026-08-01 00:00Z' + n * interval '1 hour'
FROM person, generate_series(1, 100) AS n
"""
KIND = "day, provider, model, code_stack, outcome, currency"
SUMMED = "SELECT {kind}, sum(entries), sum(input_tokens), sum(cost) FROM {table} GROUP BY {kind} ORDER BY {kind}"


def test_totals_of_before_are_those_of_the_days(address: DatabaseAddress) -> None:
    migrator = Migrator(address)
    migrator.migrate("0033")
    query(address, USED_BEFORE)
    for count, domain in ((600, "@second.example.com"), (900, "@third.example.com")):
        migrator.migrate()
        query(address, USED_BEFORE.replace("@example.com", domain))
        days, totals = (query(address, SUMMED.format(kind=KIND, table=each)) for each in ("usage_days", "usage_totals"))
        assert totals == days
        assert sum(row[6] for row in totals) == count
        migrator.rollback(len([each for each in known_revisions() if each.identifier > "0033"]))
        assert query(address, "SELECT to_regclass('usage_totals')") == [(None,)]


COPIES_OF_BEFORE = """
INSERT INTO users (id, email, first_name, last_name) VALUES
    ('00000000-0000-7000-8000-000000000001', 'ada@example.com', 'Ada', 'Example'),
    ('00000000-0000-7000-8000-000000000002', 'bob@example.com', 'Bob', 'Example');
INSERT INTO projects (id, user_id, name)
    SELECT ('00000000-0000-7000-8000-00000000001' || n)::uuid, ('00000000-0000-7000-8000-00000000000' || owner)::uuid,
        name
    FROM (VALUES (1, 1, 'original'), (2, 1, 'clone'), (3, 1, 'clone of the clone'), (4, 1, 'other'), (5, 2, 'fork'))
        AS rows (n, owner, name);
INSERT INTO generations (id, project_id, inputs)
    SELECT ('00000000-0000-7000-8000-00000000002' || n)::uuid, ('00000000-0000-7000-8000-00000000001' || n)::uuid,
        CASE n WHEN 5 THEN '{"copied_from": "share"}' ELSE '{}' END::jsonb
    FROM generate_series(1, 5) AS n;
INSERT INTO generated_codes (id, project_id, generation_id, code, provider, model)
    SELECT gen_random_uuid(), project_id, id, CASE right(id::text, 1)
        WHEN '4' THEN '<p>other</p>'
        WHEN '5' THEN '<img src="https://x.example/a/original-0123456789-_A.png#1"> /a/nobody-0123456789-_ABC.png'
        ELSE '<img src="/local-assets/a.png">'
    END, 'claude', 'm' FROM generations;
INSERT INTO stored_files (id, owner_id, backend, key, state, content_type, size, original_size, sha256) VALUES
    ('00000000-0000-7000-8000-000000000031', '00000000-0000-7000-8000-000000000001', 'local', 'a', 'stored',
     'image/png', 1, 1, repeat('a', 64));
INSERT INTO file_references (id, file_id, owner_id, project_id, address_hash, asset_name)
    SELECT ('00000000-0000-7000-8000-00000000004' || right(id::text, 1))::uuid, '00000000-0000-7000-8000-000000000031',
        user_id, id, repeat('b', 64), CASE name
            WHEN 'original' THEN 'original-0123456789-_A.png' WHEN 'clone' THEN 'clone-0123456789-_ABCD.png'
            ELSE name || '.png'
        END
    FROM projects WHERE name <> 'fork'
"""
IMAGES_OF_COPIES = """
SELECT projects.name, asset_name, earlier_names, address_hash FROM file_references
JOIN projects ON projects.id = project_id ORDER BY projects.id
"""


def test_copies_of_before_have_images_of_their_own(address: DatabaseAddress) -> None:
    """Clones know the addresses that their images had before, forks refer to what they show; twice is once."""
    migrator = Migrator(address)
    migrator.migrate("0047")
    query(address, COPIES_OF_BEFORE)
    migrator.migrate()
    rows = query(address, IMAGES_OF_COPIES)
    original, clone = "original-0123456789-_A.png", "clone-0123456789-_ABCD.png"
    assert {name: earlier for name, _, earlier, _ in rows} == {
        "original": [],
        "clone": [original],
        "clone of the clone": [clone, original],
        "other": [],
        "fork": [],
    }
    [(_, name, _, hashed)] = [row for row in rows if row[0] == "fork"]
    assert hashed == hashlib.sha256(f"/a/{original}".encode()).hexdigest()
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}\.png", name)
    assert query(address, "SELECT reference_count FROM stored_files") == [(5,)]
    assert query(address, "SELECT count(*) FROM file_references WHERE substring(id::text FROM 15 FOR 1) <> '7'") == [
        (0,)
    ]
    migrator.rollback(len([each for each in known_revisions() if each.identifier > "0047"]))
    migrator.migrate()
    assert query(address, IMAGES_OF_COPIES) == rows


MAY_PACK = "SELECT codes_packed_from > now() + interval '23 hours' FROM data_layer_schema_version"


def test_codes_of_before_are_packed_a_day_later_and_those_of_a_new_database_at_once(address: DatabaseAddress) -> None:
    migrator = Migrator(address)
    migrator.migrate("0016")
    query(address, CODES_BEFORE_GENERATIONS)
    migrator.migrate()
    assert query(address, MAY_PACK) == [(True,)]
    migrator.rollback(len([each for each in known_revisions() if each.identifier > "0030"]))
    query(address, "DELETE FROM projects")
    migrator.migrate()
    assert query(address, MAY_PACK) == [(False,)]


def test_undoing_brings_packed_codes_back_into_their_rows(address: DatabaseAddress) -> None:
    migrator = Migrator(address)
    migrator.migrate("0016")
    query(address, CODES_BEFORE_GENERATIONS)
    migrator.migrate()
    [(project,)] = query(address, "SELECT id FROM projects WHERE name = 'one'")
    packer = CodePacker({})
    for number in range(3):
        code = f"first {number}" + "".join(f"<p>{line}</p>" for line in range(500))
        body = packer.pack(code.encode())
        digest, base = f"'\\x{body.sha256.hex()}'", f"'\\x{body.base.hex()}'" if body.base else "NULL"
        values = f"'{project}', {digest}, {body.size}, 'zstd', {base}, '\\x{body.data.hex()}'"
        query(
            address,
            f"INSERT INTO code_bodies VALUES ({values}); UPDATE generated_codes SET code = NULL, body = {digest}, "
            f"body_size = {body.size} WHERE code = 'first {number}'",
        )
    assert query(address, "SELECT count(*), count(base) FROM code_bodies") == [(3, 2)]

    migrator.rollback(len([each for each in known_revisions() if each.identifier > "0030"]))

    rows = query(address, f"SELECT code FROM generated_codes WHERE project_id = '{project}'")
    assert sorted(code.partition("<")[0] for (code,) in rows) == [
        *(f"first {number}" for number in range(3)),
        *("second 0", "third 1"),
    ]
    assert sum(code.endswith("<p>499</p>") for (code,) in rows) == 3
    migrator.migrate()
    assert migrator.check().agrees
