"""``DataLayer`` and the four functions around the one instance of the process."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from data_layer import (
    DataLayer,
    Project,
    Settings,
    check_data_layer_health,
    get_data_layer_stats,
    initialize_data_layer,
    shutdown_data_layer,
)
from data_layer.errors import (
    ConfigurationError,
    DatabaseLoginError,
    DatabaseMissingError,
    NotInitializedError,
    SchemaBehindError,
    StorageUnavailableError,
)
from data_layer.layer import open_migrator
from tests.database.migration_helpers import PASSWORD, new_role, server
from tests.embedded.support import assert_no_process, processes_of, wait_for
from tests.observability.conftest import logging_as_before  # noqa: F401  (a fixture)
from tests.observability.support import events, log_to_memory
from tests.service.support import another_database, clean_environment, drop_database
from tests.support import make_code, make_project, make_user


@pytest.fixture
async def _shut_down() -> AsyncIterator[None]:
    yield
    await shutdown_data_layer()


class TestTheInstanceOfTheProcess:
    @pytest.mark.usefixtures("_shut_down")
    async def test_ten_tasks_get_the_same_one(self, settings: Settings) -> None:
        found = await asyncio.gather(*(initialize_data_layer(settings) for _ in range(10)))
        assert all(data is found[0] for data in found)
        assert found[0].database.pool_figures()["idle"] == settings.database.db_min_connections, "it was opened once"
        assert (await check_data_layer_health()).overall is True
        statistics = await get_data_layer_stats()
        assert statistics.errors == {}
        assert statistics.database is not None
        assert statistics.cache is not None
        assert statistics.storage is not None
        await shutdown_data_layer()
        again = await initialize_data_layer(settings)
        assert again is not found[0]

    async def test_nothing_works_before_and_after(self, settings: Settings) -> None:
        await shutdown_data_layer()
        for _ in range(2):
            for function in (check_data_layer_health, get_data_layer_stats):
                with pytest.raises(NotInitializedError, match="initialize_data_layer"):
                    await function()
            await initialize_data_layer(settings)
            await asyncio.gather(shutdown_data_layer(), shutdown_data_layer())
            await shutdown_data_layer()

    @pytest.mark.usefixtures("_shut_down")
    async def test_a_failed_opening_can_be_repeated(self, settings: Settings) -> None:
        wrong = settings.replaced(database_url=SecretStr("postgresql://127.0.0.1:1/name"))
        results = await asyncio.gather(*(initialize_data_layer(wrong) for _ in range(3)), return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["DatabaseUnavailableError"] * 3
        assert (await initialize_data_layer(settings)).cache is not None

    @pytest.mark.usefixtures("_shut_down")
    async def test_a_cancelled_opening_can_be_repeated(self, settings: Settings) -> None:
        first, second = (asyncio.create_task(initialize_data_layer(settings)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).cache is not None
        with pytest.raises(asyncio.CancelledError):
            await first

    def test_another_event_loop_is_refused_while_the_first_lives(self, settings: Settings) -> None:
        with asyncio.Runner() as first:
            first.run(initialize_data_layer(settings))
            for function in (check_data_layer_health, get_data_layer_stats, shutdown_data_layer):
                with pytest.raises(NotInitializedError, match="another event loop"):
                    asyncio.run(function())
            with pytest.raises(NotInitializedError, match="another event loop"):
                asyncio.run(initialize_data_layer(settings))
            assert first.run(check_data_layer_health()).overall is True
            first.run(shutdown_data_layer())

        async def use() -> None:
            await initialize_data_layer(settings)
            assert (await check_data_layer_health()).overall is True
            await shutdown_data_layer()

        asyncio.run(use())
        asyncio.run(use())


class TestOpening:
    def test_using_it_before_it_is_open(self, settings: Settings) -> None:
        data = DataLayer(settings)
        for use in (
            lambda: data.database,
            lambda: data.cache,
            lambda: data.storage,
            lambda: data.migrator,
            lambda: data.seed,
            data.transaction,
        ):
            with pytest.raises(NotInitializedError, match="async with"):
                use()

    async def test_using_it_after_it_was_closed(self, data: DataLayer) -> None:
        await data.close()
        await data.close()
        with pytest.raises(NotInitializedError):
            data.transaction()
        with pytest.raises(NotInitializedError):
            await data.health()
        async with data:
            assert (await data.health()).overall is True, "it can be opened again"

    async def test_opening_it_twice_opens_nothing_more(self, data: DataLayer) -> None:
        database = data.database
        assert await data.open() is data
        assert data.database is database
        await data.close()
        with pytest.raises(NotInitializedError):
            data.transaction()

    async def test_a_wrong_password_leaves_nothing_open(self, short_folder: Path, tmp_path: Path) -> None:
        server(18).run("DROP DATABASE IF EXISTS locked", "CREATE DATABASE locked")
        role = new_role(f"PASSWORD '{PASSWORD}'")
        url = f"postgresql://{role}:wrong@/locked?host={server(18).folder}"
        settings = Settings(database_url=SecretStr(url), data_folder=short_folder, local_storage_path=tmp_path)
        with pytest.raises(DatabaseLoginError) as caught:
            await DataLayer(settings).open()
        assert "wrong" not in str(caught.value).replace("wrong password", "")
        assert_no_process(short_folder)
        del caught
        gc.collect()  # What was left open would warn now, and a warning fails the test.

    @pytest.mark.parametrize("prepare", [False, True])
    async def test_a_storage_that_cannot_be_used(self, settings: Settings, tmp_path: Path, *, prepare: bool) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageUnavailableError):
            await DataLayer(settings.replaced(local_storage_path=tmp_path / "file"), prepare=prepare).open()

    async def test_an_own_database_is_only_changed_when_asked_to(
        self, settings: Settings, servers: tuple[str, str]
    ) -> None:
        url = another_database(servers[0])
        settings = settings.replaced(database_url=SecretStr(url))
        try:
            with pytest.raises(DatabaseMissingError, match="data-layer db create"):
                await DataLayer(settings).open()
            async with DataLayer(settings, prepare=True) as data:
                await asyncio.to_thread(data.migrator.rollback)
            with pytest.raises(SchemaBehindError, match="data-layer db migrate"):
                await DataLayer(settings).open()
        finally:
            drop_database(url)

    @pytest.mark.slow
    async def test_an_opening_that_is_cancelled_leaves_nothing_open(self, short_folder: Path, tmp_path: Path) -> None:
        settings = Settings(data_folder=short_folder, local_storage_path=tmp_path)
        opening = asyncio.create_task(DataLayer(settings).open())
        assert await asyncio.to_thread(wait_for, lambda: processes_of(short_folder), 60)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert_no_process(short_folder)

    def test_a_start_without_migrations_does_not_load_the_tool_for_them(self, settings: Settings) -> None:
        program = """
import asyncio, sys
from data_layer import DataLayer
async def main():
    async with DataLayer() as data:
        assert (await data.health()).overall
asyncio.run(main())
sys.exit("alembic was loaded" if "alembic" in sys.modules else 0)
"""
        environment = {
            "DATABASE_URL": settings.database.database_url.get_secret_value() if settings.database.database_url else "",
            "REDIS_URL": settings.redis.redis_url.get_secret_value() if settings.redis.redis_url else "",
            "LOCAL_STORAGE_PATH": str(settings.storage.local_storage_path),
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


class TestFilesOfDeletedRows:
    async def store(self, data: DataLayer) -> Project:
        user = make_user()
        project = make_project(user, original_image="originals/one.png", thumbnail_image="thumbnails/one.png")
        for key in ("originals/one.png", "thumbnails/one.png", "originals/other.png"):
            await data.storage.upload(b"content", key, "image/png")
        async with data.transaction() as tx:
            for row in (user, project, make_code(project)):
                tx.add(row)
        return project

    async def keys(self, data: DataLayer) -> set[str]:
        return {file.key async for file in data.storage.list("")}

    async def test_they_go_after_the_commit(self, data: DataLayer) -> None:
        project = await self.store(data)
        async with data.transaction() as tx:
            await tx.projects.delete(await tx.projects.get(project.id))
            assert len(await self.keys(data)) == 3, "nobody knows yet whether it will be committed"
        assert await self.keys(data) == {"originals/other.png"}

    async def test_they_stay_after_a_rollback(self, data: DataLayer) -> None:
        project = await self.store(data)
        with pytest.raises(ZeroDivisionError):
            async with data.transaction() as tx:
                await tx.projects.delete(await tx.projects.get(project.id))
                _ = 1 / 0
        assert len(await self.keys(data)) == 3
        async with data.transaction() as tx:
            assert await tx.projects.count() == 1

    async def test_a_file_that_cannot_be_removed_is_no_reason_to_fail(
        self, data: DataLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = await self.store(data)
        delete = data.storage.delete

        async def fail_once(key: str) -> None:
            if key.startswith("originals"):
                raise StorageUnavailableError("the disk is gone")
            await delete(key)

        monkeypatch.setattr(data.storage, "delete", fail_once)
        stream = log_to_memory(environment="testing")
        async with data.transaction() as tx:
            await tx.projects.delete(await tx.projects.get(project.id))
        async with data.transaction() as tx:
            assert await tx.projects.count() == 0
        assert await self.keys(data) == {"originals/one.png", "originals/other.png"}, "the others are still removed"
        warning = next(event for event in events(stream) if event["event"] == "file_removal_failed")
        assert (warning["level"], warning["key"]) == ("warning", "originals/one.png")


@pytest.mark.parametrize("prepare", [True, False])
async def test_migrations_do_not_go_through_pgbouncer(settings: Settings, prepare: bool) -> None:  # noqa: FBT001
    pooled = settings.replaced(db_pgbouncer=True)
    with pytest.raises(ConfigurationError, match="DB_DIRECT_URL"):
        if prepare:
            await DataLayer(pooled, prepare=True).open()
        else:
            async with open_migrator(pooled):
                pass
