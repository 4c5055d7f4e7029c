from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.embedded.support import assert_no_process
from tests.support import made_once

from .support import Service, another_database, drop_database, migrate


@pytest.fixture(scope="session")
def first_start(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, str]:
    """A folder in which the service has run once, and what it printed then."""

    def run(folder: Path) -> None:
        with Service(folder) as service:
            seconds = service.wait_until_ready()
            assert service.end() == 0, service.output
        assert_no_process(folder)
        print(f"first start: {seconds:.1f} s")  # noqa: T201  (shown by pytest -s)

    folder = made_once("first-start", run, tmp_path_factory, worker_id)
    [output] = folder.glob("output-*")
    return folder, output.read_text()


@pytest.fixture
def new_folder(short_folder: Path) -> Iterator[Path]:
    """An empty folder, in which no process may be left after the test."""
    yield short_folder
    assert_no_process(short_folder)


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


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """An empty folder for a service that runs for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="dl-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def prepared(servers: tuple[str, str]) -> Iterator[dict[str, str]]:
    """Servers that the service did not start, with a migrated database."""
    url = another_database(servers[0])
    migrate(url)
    yield {"DATABASE_URL": url, "REDIS_URL": servers[1], "REDIS_KEY_PREFIX": f"test-{urlsplit(url).path[1:]}"}
    drop_database(url)


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def own_servers(servers: tuple[str, str]) -> Iterator[dict[str, str]]:
    """Servers that the service did not start, by the variables that name them; the database does not exist yet."""
    database_url = another_database(servers[0])
    yield {"DATABASE_URL": database_url, "REDIS_URL": servers[1], "REDIS_KEY_PREFIX": "test-service"}
    drop_database(database_url)
