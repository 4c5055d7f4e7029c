from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.embedded.support import assert_no_process

from .support import Service, another_database, drop_database

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the service has run once, and what it printed then."""
    folder = tmp_path_factory.mktemp("first")
    with Service(folder) as service:
        seconds = service.wait_until_ready()
        assert service.end() == 0, service.output
        output = service.output
    assert_no_process(folder)
    print(f"first start: {seconds:.1f} s")  # noqa: T201  (shown by pytest -s)
    return folder, output


@pytest.fixture
def new_folder(short_folder: Path) -> Iterator[Path]:
    """An empty folder, in which no process may be left after the test."""
    yield short_folder
    assert_no_process(short_folder, seconds=10)


@pytest.fixture
def folder(new_folder: Path, first_start: tuple[Path, str]) -> Path:
    """A folder in which the service has run once."""
    copy_folder(first_start[0], new_folder)
    return new_folder


@pytest.fixture(scope="module")
def running(first_start: tuple[Path, str]) -> Iterator[Service]:
    """A service that runs for all tests of a module, which leave it as it is."""
    with tempfile.TemporaryDirectory(prefix="dl-") as name:
        folder = Path(name)
        copy_folder(first_start[0], folder)
        with Service(folder) as service:
            service.wait_until_ready()
            yield service
            assert service.end() == 0, service.output
        assert_no_process(folder)


def copy_folder(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("output-*"))


@pytest.fixture
def own_servers(servers: tuple[str, str]) -> Iterator[dict[str, str]]:
    """Servers that the service did not start, by the variables that name them; the database does not exist yet."""
    database_url = another_database(servers[0])
    yield {"DATABASE_URL": database_url, "REDIS_URL": servers[1], "REDIS_KEY_PREFIX": "test-service"}
    drop_database(database_url)
