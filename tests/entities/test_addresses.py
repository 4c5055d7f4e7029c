"""One person has one address, however it is written and whatever the database thinks of letter case."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.database.migrator import Migrator
from data_layer.entities.columns import normalize_email
from data_layer.errors import DuplicateError, InvalidValueError, MigrationError
from tests.database.migration_helpers import new_database, query, server
from tests.support import make_code, make_project, make_user

SPELLINGS = [
    ("Ada@EXAMPLE.com", "ada@example.com"),
    ("  ada@example.com\n", "ada@example.com"),
    ("INFO@EXAMPLE.IN", "info@example.in"),
    ("u@BÜCHER.example", "u@bücher.example"),
    ("u@xn--bcher-kva.example", "u@bücher.example"),
    ("ANDRE\u0301@example.com", "andr\u00e9@example.com"),
    ("ÄRGER@example.com", "ärger@example.com"),
    ("a@my_host", "a@my_host"),
    ("Admin@LOCALHOST", "admin@localhost"),
]


@pytest.mark.parametrize(("written", "spelled"), SPELLINGS)
def test_there_is_one_spelling(written: str, spelled: str) -> None:
    assert normalize_email(written) == spelled
    assert make_user(email=written).email == spelled


@given(st.emails() | st.text(min_size=1).map("{}@example.com".format) | st.text(min_size=1).map("a@{}".format))
def test_a_spelling_stays_what_it_is(written: str) -> None:
    try:
        spelled = normalize_email(written)
    except InvalidValueError:
        return
    assert normalize_email(spelled) == spelled
    assert normalize_email(f" {spelled} ") == spelled


@pytest.mark.parametrize("wrong", ["", "ada", "a@b@c", "a b@example.com", "a\u200b@example.com", "@example.com", "a@"])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidValueError) as raised:
        make_user(email=wrong)
    assert raised.value.field == "email"


@pytest.mark.parametrize(
    ("version", "locale"),
    [
        pytest.param(15, "LOCALE_PROVIDER icu ICU_LOCALE 'tr' LOCALE 'C'", marks=pytest.mark.needs_debian),
        (18, "LOCALE 'C'"),
    ],
)
async def test_whatever_the_database_sorts_by(settings: Settings, version: int, locale: str) -> None:
    name = f"located_{uuid4().hex}"
    server(version).run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {locale}")
    located = server(version).address(name)
    Migrator(located).migrate()
    url = located.url.set(drivername="postgresql").render_as_string(hide_password=False)
    chosen = settings.replaced(database_url=SecretStr(url), db_host=None)
    async with DataLayer(chosen) as data:
        async with data.transaction() as tx:
            tx.add(make_user(email="INFO@Istanbul.example"))
        for spelling in ("info@istanbul.example", "Info@ISTANBUL.EXAMPLE"):
            with pytest.raises(DuplicateError) as raised:
                async with data.transaction() as tx:
                    tx.add(make_user(email=spelling))
            assert raised.value.field == "email"
            async with data.transaction() as tx:
                found = await tx.users.find_one(email=spelling)
                assert found is not None
                assert found.email == "info@istanbul.example"
                assert len(await tx.users.list(email=[spelling, "other@example.com"])) == 1


ROWS = """
INSERT INTO users (id, email, first_name, last_name) VALUES
    ('00000000-0000-7000-8000-000000000001', 'Ada@Example.com', 'A', 'B'),
    ('00000000-0000-7000-8000-000000000002', 'u@xn--bcher-kva.example', 'A', 'B'),
    ('00000000-0000-7000-8000-000000000003', 'right@example.com', 'A', 'B'),
    ('00000000-0000-7000-8000-000000000004', ' Space@example.com', 'A', 'B')
"""
READ = "SELECT email FROM users ORDER BY id"


def test_old_addresses_are_spelled_anew() -> None:
    address = new_database()
    Migrator(address).migrate("0007")
    query(address, ROWS)
    Migrator(address).migrate()
    spelled = ["ada@example.com", "u@bücher.example", "right@example.com", "space@example.com"]
    assert [email for (email,) in query(address, READ)] == spelled


RAW = "INSERT INTO users (id, email, first_name, last_name) VALUES (gen_random_uuid(), {}, 'A', 'B') RETURNING email"


async def insert_by_hand(data: DataLayer, email: str) -> str:
    """What is stored when somebody does not use the library, or a process is of a version before."""
    async with data.transaction() as tx:
        stored = await tx.execute(text(RAW.format(":email")).bindparams(email=email))
        return str(stored.scalar_one())


@pytest.mark.parametrize(
    "written", ["Ada@Example.COM", "\tada@example.com ", "ADA@EXAMPLE.COM\r\n", "\x1cADA@example.com"]
)
async def test_the_database_spells_what_processes_of_the_version_before_write(data: DataLayer, written: str) -> None:
    assert await insert_by_hand(data, written) == "ada@example.com"
    with pytest.raises(DuplicateError):
        await insert_by_hand(data, "aDa@example.com")
    await insert_by_hand(data, "bob@example.com")
    with pytest.raises(DuplicateError):
        async with data.transaction() as tx:
            await tx.execute(text("UPDATE users SET email = 'ADA@example.com' WHERE email = 'bob@example.com'"))
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE users SET email = 'BOB@Example.com' WHERE email = 'bob@example.com'"))
        assert await tx.users.count(email="bob@example.com") == 1


LETTERS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="@"), min_size=1, max_size=30)
ADDRESSES = (
    st.emails() | st.builds("{}@{}".format, LETTERS, LETTERS) | st.text(max_size=40).map("{}@example.com".format)
)


@given(st.lists(ADDRESSES, min_size=20, max_size=100))
@settings_of_hypothesis(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_library_and_database_agree_on_the_spelling(data: DataLayer, written: list[str]) -> None:
    """Whatever the library spells the database leaves; and of ASCII it makes the same."""
    known, plain = [], []
    for each in written:
        try:
            spelled = normalize_email(each)
        except InvalidValueError:
            continue
        known.append(spelled)
        if each.isascii() and spelled.isascii() and "xn--" not in each.lower():
            plain.append((each, spelled))
    async with data.transaction() as tx:
        spell = text(
            "WITH made AS (SELECT unnest(CAST(:emails AS text[])) AS email), "
            "stored AS (INSERT INTO users (id, email, first_name, last_name) "
            "SELECT gen_random_uuid(), email, 'A', 'B' FROM made RETURNING email) SELECT email FROM stored"
        )
        for emails, expected in ((known, known), ([each for each, _ in plain], [each for _, each in plain])):
            distinct = dict(zip(expected, emails, strict=True))
            rows = await tx.execute(spell.bindparams(emails=list(distinct.values())))
            assert sorted(rows.scalars()) == sorted(distinct)
            await tx.execute(text("DELETE FROM users"))


def test_what_old_processes_stored_since_is_spelled() -> None:
    address = new_database()
    Migrator(address).migrate("0015")
    query(address, ROWS)
    Migrator(address).migrate()
    spelled = ["ada@example.com", "u@xn--bcher-kva.example", "right@example.com", "space@example.com"]
    assert [email for (email,) in query(address, READ)] == spelled


def test_accounts_that_old_processes_doubled_since_are_reported_and_nothing_is_touched() -> None:
    address = new_database()
    Migrator(address).migrate("0015")
    query(address, ROWS)
    query(address, "UPDATE users SET email = 'ada@example.com' WHERE email LIKE 'right%'")
    before = query(address, READ)
    with pytest.raises(MigrationError, match=r"000000000001, .*000000000003"):
        Migrator(address).migrate()
    assert query(address, READ) == before
    assert Migrator(address).current().revision == "0015"


def test_accounts_that_share_an_address_are_reported_and_nothing_is_touched() -> None:
    address = new_database()
    Migrator(address).migrate("0007")
    query(address, ROWS)
    query(address, "UPDATE users SET email = 'U@BÜCHER.example' WHERE first_name = 'A' AND email LIKE 'right%'")
    before = query(address, READ)
    with pytest.raises(MigrationError, match=r"000000000002, .*000000000003"):
        Migrator(address).migrate()
    assert query(address, READ) == before
    assert Migrator(address).current().revision == "0007"


def test_variants_that_stand_twice_are_reported_and_nothing_is_touched() -> None:
    address = new_database()
    Migrator(address).migrate("0008")
    query(address, ROWS)
    query(
        address,
        "INSERT INTO projects (id, user_id, name) SELECT id, id, 'P' FROM users LIMIT 1;"
        "INSERT INTO generated_codes (id, project_id, code, provider, model, generation_id, variant_index) "
        "SELECT gen_random_uuid(), p.id, 'x', 'claude', 'm', p.id, 0 FROM projects p, generate_series(1, 2)",
    )
    with pytest.raises(MigrationError, match="share a generation_id and variant_index"):
        Migrator(address).migrate()
    query(address, "UPDATE generated_codes SET variant_index = version - 1")
    Migrator(address).migrate()


async def test_a_generation_has_each_variant_once(data: DataLayer) -> None:
    user = make_user()
    project = make_project(user)
    code = make_code(project)
    async with data.transaction() as tx:
        for row in (user, project, code):
            tx.add(row)
    with pytest.raises(DuplicateError) as raised:
        async with data.transaction() as tx:
            tx.add(make_code(project, generation_id=code.generation_id))
    assert raised.value.field == "variant_index"
    async with data.transaction() as tx:
        tx.add(make_code(project, generation_id=code.generation_id, variant_index=1))
