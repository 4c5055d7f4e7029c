"""Names with typing errors are found where the server has pg_trgm; everything else is the same without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import Actor
from data_layer.schemas.projects import ProjectDraft
from data_layer.testing.postgresql_server import PostgresqlServer
from tests.support import stored_actor


async def find(data: DataLayer, owner: Actor, words: str) -> list[str]:
    return [hit.project.name for hit in (await data.projects.search(owner, words)).hits]


@pytest.mark.slow
@pytest.mark.needs_debian
async def test_an_extension_that_comes_and_goes(base_settings: Settings, tmp_path: Path) -> None:
    with PostgresqlServer(Path("/usr/lib/postgresql/15/bin")) as server:
        url = server.url("test")
        settings = base_settings.model_copy(update={"database_url": url, "local_storage_path": tmp_path / "uploads"})
        async with DataLayer(settings, prepare=True) as data:
            owner, other = await stored_actor(data), await stored_actor(data)
            for person in (owner, other):
                await data.projects.create(person, ProjectDraft(name="Zwetschgenkuchen vom Blech"))
            await data.projects.create(owner, ProjectDraft(name="Dashboard"))
            for present in (False, True, False, True):
                async with data.transaction() as tx:
                    await tx.execute(
                        text("CREATE EXTENSION pg_trgm" if present else "DROP EXTENSION IF EXISTS pg_trgm")
                    )
                expected = ["Zwetschgenkuchen vom Blech"] if present else []
                assert await find(data, owner, "Zwetchgenkuchn") == expected
                assert await find(data, owner, "Dahsboard xyz") == []
                assert await find(data, owner, '"Zwetchgenkuchn"') == [], "quoted words are exact"
                assert await find(data, owner, "zwetschgen") == ["Zwetschgenkuchen vom Blech"]
