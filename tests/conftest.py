"""What all tests share: one pair of real servers for the whole run, and a database of its own for each worker."""

from __future__ import annotations

import gc

gc.disable()  # What is imported and collected stays, so the garbage collector would look at it in vain.

import asyncio
import os
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import zxcvbn
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import LRUCache
from typing_extensions import override

from data_layer import DataLayer, Settings
from data_layer.database.migrations import VERSION_TABLE
from data_layer.embedded import EmbeddedServers
from data_layer.entities import Entity
from data_layer.services.rate_limits import RateLimiter
from tests.support import ALLOW_CHANGES, REFUSE_CHANGES

# Neither timings nor chance decide a test: each run tries the same examples, and `make fuzz` others.
hypothesis.settings.register_profile(
    "patient",
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

pytest_plugins = ["tests.needs_debian", "tests.quick", "tests.storage_servers"]

# Hundreds of processes are started: each would compile the sources again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Shells have what they run in the background ignore Ctrl-C, and that is inherited: tests send it to their processes.
signal.signal(signal.SIGINT, signal.default_int_handler)

TABLES = ", ".join(Entity.metadata.tables)
# One statement, because it is sent before most tests. TRUNCATE makes new files for every table and index: where there
# are few rows, DELETE takes a tenth of the time. The audit trail and the ledger of usage let nobody delete who does not
# switch their triggers off.
EMPTY_TABLES = text(f"""
DO $empty$
DECLARE
    name regclass;
    holds_rows boolean;
    filled regclass[] := ARRAY[]::regclass[];
BEGIN
    SET LOCAL session_replication_role = replica;
    -- As TRUNCATE does: wait for writers.
    LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE;
    FOR name IN
        SELECT oid FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) > 0
        AND relnamespace = 'public'::regnamespace AND relname <> '{VERSION_TABLE}'
    LOOP
        IF pg_relation_size(name) > {64 * 1024} THEN
            {ALLOW_CHANGES};
            TRUNCATE {TABLES};
            {REFUSE_CHANGES};
            RETURN;
        END IF;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', name) INTO holds_rows;
        IF holds_rows THEN
            filled := filled || name;
        END IF;
    END LOOP;
    IF array_to_string(filled, ' ') ~ 'audit_logs|usage_entries' THEN
        {ALLOW_CHANGES};
    END IF;
    FOREACH name IN ARRAY filled LOOP
        EXECUTE format('DELETE FROM %s', name);
    END LOOP;
    IF array_to_string(filled, ' ') ~ 'audit_logs|usage_entries' THEN
        {REFUSE_CHANGES};
    END IF;
END
$empty$
""")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, because tests often wait for a server or for time to pass."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that may take longest: with --dist=loadfile one that is begun last is waited for alone."""
    longest: dict[Path, tuple[bool, float]] = {}
    for item in items:
        timeout = item.get_closest_marker("timeout")
        takes = item.get_closest_marker("slow") is not None, float(timeout.args[0]) if timeout else 0.0
        longest[item.path] = max(takes, longest.get(item.path, takes))
    items.sort(key=lambda item: longest[item.path], reverse=True)


def pytest_collection_finish() -> None:
    """Look for garbage less often than usual: it took a fifth of the processor time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read the developer's settings nor write into the project folder."""
    names = [name.upper() for name in Settings.fields()] + ["NODE_ENV"]
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    folder = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("work"))
    yield
    os.chdir(folder)
    os.environ.update(saved)


@pytest.fixture(scope="session", autouse=True)
def _strength_is_measured_once() -> Iterator[None]:
    """zxcvbn takes milliseconds for each secret, and most tests give it those of others. Its answers never change."""

    @cache
    def measured(password: str, user_inputs: tuple[str, ...]) -> Any:
        return measure(password, user_inputs=user_inputs)

    def remembered(password: str, user_inputs: Iterable[str]) -> Any:
        return measured(password, tuple(user_inputs))

    measure = zxcvbn.zxcvbn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zxcvbn, "zxcvbn", remembered)
        yield


@pytest.fixture(scope="session", autouse=True)
def _statements_are_compiled_once() -> Iterator[None]:
    """Each test opens an engine, and all of them compile alike: what one has compiled, the next ones use."""
    compiled = CompiledStatements(1000)

    def make(*places: Any, **options: Any) -> AsyncEngine:
        engine = create_async_engine(*places, **options)
        engine.sync_engine._compiled_cache = compiled
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_layer.database.engine.create_async_engine", make)
        yield


class CompiledStatements(LRUCache[tuple[Any, ...], Any]):
    """SQLAlchemy's cache of compiled statements, for engines that differ in their address only."""

    @override
    def get(self, key: tuple[Any, ...], default: Any = None) -> Any:
        return super().get((type(key[0]), *key[1:]), default)

    @override
    def __setitem__(self, key: tuple[Any, ...], value: Any) -> None:
        super().__setitem__((type(key[0]), *key[1:]), value)


@pytest.fixture(autouse=True)
def _no_timer_is_left() -> Iterator[None]:
    """A watchdog that outlives its test would end the process of all tests, minutes later and without a word."""
    yield
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert not [timer for timer in timers if not timer.finished.is_set()]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[tuple[str, str]]:
    """The addresses of PostgreSQL and Valkey. Parallel workers share them: the last one to leave ends them.

    TEST_DATABASE_URL and TEST_REDIS_URL name servers that run already (`make test-servers`).
    """
    given = os.environ.get("TEST_DATABASE_URL"), os.environ.get("TEST_REDIS_URL")
    if given[0] and given[1]:
        database = make_url(given[0]).set(database=f"test_{worker_id}")
        yield database.render_as_string(hide_password=False), given[1]
        return
    root = tmp_path_factory.getbasetemp()
    shared = root if worker_id == "master" else root.parent
    servers = EmbeddedServers(shared / "servers", postgresql=True, valkey=True, database_name=f"test_{worker_id}")
    with asyncio.Runner() as runner:
        addresses = runner.run(servers.start())
        assert addresses.database_url
        assert addresses.redis_url
        yield addresses.database_url, addresses.redis_url
        runner.run(servers.stop())


@pytest.fixture(scope="session")
def base_settings(servers: tuple[str, str], worker_id: str) -> Settings:
    """Settings for the shared servers."""
    database_url, redis_url = servers
    return Settings(
        environment="testing",
        database_url=database_url,
        redis_url=redis_url,
        redis_key_prefix=f"test-{worker_id}",
        bcrypt_rounds=4,
        db_min_connections=1,
        db_slow_statement=0,  # On a busy machine any may be, and tests read what is logged.
    )


@pytest.fixture(scope="session")
def migrated(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The same, after the database was made and migrated."""

    async def prepare() -> None:
        settings = base_settings.replaced(local_storage_path=tmp_path_factory.mktemp("uploads"))
        async with DataLayer(settings, prepare=True):
            pass

    asyncio.run(prepare())
    return base_settings


@pytest.fixture
def settings(migrated: Settings, tmp_path: Path) -> Settings:
    """Settings for one test: the migrated database, and a storage folder of its own."""
    return migrated.replaced(local_storage_path=tmp_path / "uploads")


@pytest.fixture
async def data(settings: Settings) -> AsyncIterator[DataLayer]:
    """An open data layer with empty tables and an empty cache."""
    async with DataLayer(settings) as data:
        await empty_tables(data)
        await data.cache.flush()
        yield data


async def empty_tables(data: DataLayer) -> None:
    """Remove all rows, of the audit trail too."""
    async with data.transaction() as tx:
        await tx.execute(EMPTY_TABLES)


@pytest.fixture
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock by which requests are counted: each minute a window ends, be it between two requests of a test."""
    stopped = partial(RateLimiter, clock=lambda: 1_000_000_000.0)
    monkeypatch.setattr("data_layer.web.rate_limits.RateLimiter", stopped)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="dl-") as folder:
        yield Path(folder)
