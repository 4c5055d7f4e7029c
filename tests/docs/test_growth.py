"""What the page on growth says of keys, constraints and triggers is what the catalog says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psycopg
import pytest

from data_layer import Settings
from data_layer.entities import Entity
from data_layer.entities.triggers import FUNCTIONS
from tests.database.distribution import BY_PERSON, BY_PROJECT, KEYS, NEEDS_A_KEY, ON_ONE_SERVER

from .samples import SOURCE

PAGE = SOURCE / "operations" / "growth.md"

_INDEXES = """
SELECT indrelid::regclass::text, index.relname, indisprimary,
    ARRAY(SELECT attname::text FROM pg_attribute
        WHERE attrelid = indrelid AND attnum = ANY(indkey) ORDER BY array_position(indkey::int2[], attnum))
FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid
WHERE indisunique AND indrelid::regclass::text = ANY(%s) ORDER BY index.relname
"""
_FOREIGN_KEYS = """
SELECT conrelid::regclass::text, confrelid::regclass::text,
    ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY(conkey))
FROM pg_constraint WHERE contype = 'f' AND conrelid::regclass::text = ANY(%s) AND conparentid = 0 ORDER BY conname
"""
_TRIGGERS = """
SELECT proname, array_agg(DISTINCT tgrelid::regclass::text ORDER BY tgrelid::regclass::text)
FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE NOT tgisinternal AND tgparentid = 0 AND tgrelid::regclass::text = ANY(%s) GROUP BY proname ORDER BY proname
"""


class ForeignKey(NamedTuple):
    """From which columns of which table to which table."""

    table: str
    target: str
    columns: Sequence[str]


@pytest.fixture
def connection(migrated: Settings) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    url = migrated.database.database_url
    assert url is not None
    with psycopg.connect(url.get_secret_value()) as connection:
        yield connection


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the table in this section, without its head."""
    text = PAGE.read_text().partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def placed(table: str) -> tuple[str, str]:
    """Whose a table is, and the column that says so."""
    if table in ON_ONE_SERVER:
        return "one server", ""
    key = KEYS.get(table) or NEEDS_A_KEY[table]
    whose = table in BY_PROJECT or (table in NEEDS_A_KEY and key == "project_id")
    return "project" if whose else "person", key


def names(columns: Sequence[str]) -> str:
    return ", ".join(f"`{column}`" for column in columns)


def expected_rows(connection: psycopg.Connection[tuple[object, ...]]) -> list[list[str]]:
    """A row for each table, as the catalog has it."""
    tables = [*BY_PROJECT, *BY_PERSON, *NEEDS_A_KEY, *ON_ONE_SERVER]
    unique: dict[str, list[str]] = defaultdict(list)
    primary: dict[str, str] = {}
    for table, _, is_primary, columns in connection.execute(_INDEXES, [tables]).fetchall():
        key = placed(str(table))[1]
        assert isinstance(columns, list)
        if key and key not in columns:
            if is_primary:
                primary[str(table)] = names([*columns, key])
            else:
                unique[str(table)].append(" + ".join(f"`{column}`" for column in columns) or "an expression")
    kept: dict[str, list[str]] = defaultdict(list)
    lost: dict[str, list[str]] = defaultdict(list)
    for found in connection.execute(_FOREIGN_KEYS, [tables]).fetchall():
        foreign = ForeignKey(*found)  # type: ignore[arg-type]
        (whose, key), target = placed(foreign.table), placed(foreign.target)[0]
        if whose == target and key in foreign.columns:
            continue
        (kept if whose == target else lost)[foreign.table].append(names(foreign.columns))
    rows = []
    for table in sorted(tables):
        whose, key = placed(table)
        cells = [primary.get(table, ""), ", ".join(unique[table]), ", ".join(kept[table]), ", ".join(lost[table])]
        said = f"{whose}, `{key}`" if key else whose
        if table in NEEDS_A_KEY:
            said += " (new)"
        elif key and Entity.metadata.tables[table].columns[key].nullable:
            said += " or nobody"
        rows.append([f"`{table}`", said, *cells])
    return rows


def test_the_tables_are_those_of_the_catalog(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    expected = expected_rows(connection)
    as_text = "\n".join("| " + " | ".join(row) + " |" for row in expected)
    assert rows_below("Keys and constraints") == expected, f"the page should have:\n{as_text}"


def test_each_function_of_a_trigger_is_judged(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    tables = [*BY_PROJECT, *BY_PERSON, *NEEDS_A_KEY, *ON_ONE_SERVER]
    found = connection.execute(_TRIGGERS, [tables]).fetchall()
    assert {name for name, _ in found} == {function.name for function in FUNCTIONS}
    said = {row[0]: row[1] for row in rows_below("Triggers")}
    assert said == {f"`{name}`": names(on) for name, on in found}  # type: ignore[arg-type]
