from __future__ import annotations

from pathlib import Path

import pytest

from data_layer import DataLayer, Project, Settings, User
from data_layer.schemas.files import FileView
from tests.support import make_project, make_user

ALLOWED = ("image/png", "image/jpeg", "image/gif", "image/webp", "text/html", "image/svg+xml", "application/zip")


@pytest.fixture
def settings(migrated: Settings, tmp_path: Path) -> Settings:
    """Settings under which pages and drawings may be stored, too."""
    return migrated.replaced(
        local_storage_path=tmp_path / "uploads",
        allowed_file_types=ALLOWED,
        max_file_size=2_000_000,
        public_url="http://service",
    )


@pytest.fixture
async def owner(data: DataLayer) -> User:
    return await add_user(data)


@pytest.fixture
async def project(data: DataLayer, owner: User) -> Project:
    project = make_project(owner)
    async with data.transaction() as tx:
        tx.add(project)
    return project


async def add_user(data: DataLayer) -> User:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    return user


async def with_thumbnails(data: DataLayer, file: FileView) -> FileView:
    """The file as it is once its thumbnails were made."""
    assert await data.files.thumbnails(file.id, owner_id=file.owner_id)
    return await data.files.stat(file.id, owner_id=file.owner_id)


async def keys(data: DataLayer) -> list[str]:
    return [file.key async for file in data.storage.list()]


async def originals(data: DataLayer) -> list[str]:
    """The keys without those of thumbnails."""
    return [key for key in await keys(data) if "thumbnail" not in key]


async def rows(data: DataLayer) -> tuple[int, int]:
    """How many objects and how many files the tables hold."""
    async with data.transaction() as tx:
        return await tx.stored_files.count(), await tx.files.count()
