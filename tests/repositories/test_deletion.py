from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.entities import AuditLog, GeneratedImage, Project, Session, User
from data_layer.entities.enums import AuditAction, GenerationStatus, ImageProvider
from data_layer.errors import StillReferencedError
from tests.support import make_code, make_project, make_user

SECRET = "someone-very-personal"


async def test_deleting_an_account_erases_the_person_and_keeps_the_audit_trail(data: DataLayer) -> None:
    user, _ = await _person_with_everything(data)
    other, other_project = await _person_with_everything(data)
    async with data.transaction() as tx:
        await tx.users.delete(await tx.users.get(user.id))
    async with data.transaction() as tx:
        row = (await tx.execute(text("SELECT * FROM users WHERE id = :id").bindparams(id=user.id))).mappings().one()
        assert SECRET not in str(dict(row))
        assert row["status"] == "inactive"
        assert await tx.sessions.count(user_id=user.id) == 0
        assert await tx.projects.count(user_id=user.id) == 0
        assert await tx.audit.count(user_id=user.id) == 1
        assert await tx.sessions.count(user_id=other.id) == 1
        assert (await tx.projects.get(other_project.id)).name == "Project"
        assert await tx.codes.count() == 2
        assert await tx.images.count() == 1
    keys = [file.key async for file in data.storage.list()]
    assert keys == sorted([f"{other.id}/image.png", f"{other.id}/screenshot.png", f"{other.id}/thumbnail.png"])


async def test_the_address_of_a_deleted_account_is_free_again(data: DataLayer) -> None:
    user, _ = await _person_with_everything(data)
    async with data.transaction() as tx:
        await tx.users.delete(await tx.users.get(user.id))
        tx.add(make_user(email=user.email))


async def test_removing_a_project_takes_its_rows_and_files_along(data: DataLayer) -> None:
    user, project = await _person_with_everything(data)
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(project.id))
    async with data.transaction() as tx:
        assert await tx.codes.count() == await tx.images.count() == 0
        assert await tx.users.count() == await tx.sessions.count() == await tx.audit.count(user_id=user.id) == 1
    assert [file.key async for file in data.storage.list()] == []


async def test_files_stay_when_the_removal_is_rolled_back(data: DataLayer) -> None:
    _, project = await _person_with_everything(data)
    with pytest.raises(KeyError):
        async with data.transaction() as tx:
            await tx.projects.delete(await tx.projects.get(project.id))
            raise KeyError
    assert len([file async for file in data.storage.list()]) == 3


async def test_a_row_of_users_cannot_be_removed_behind_our_back(data: DataLayer) -> None:
    user, _ = await _person_with_everything(data)
    with pytest.raises(StillReferencedError):
        async with data.transaction() as tx:
            await tx.execute(text("DELETE FROM users WHERE id = :id").bindparams(id=user.id))


async def test_secrets_of_a_user_are_not_loaded_unless_asked_for(data: DataLayer) -> None:
    user = make_user(password_hash=SECRET, reset_password_token_hash=SECRET, email_verification_token_hash=SECRET)
    async with data.transaction() as tx:
        tx.add(user)
    async with data.transaction() as tx:
        for stored in (await tx.users.get(user.id), *await tx.users.list(order_by="-id")):
            assert SECRET not in str(stored.__dict__)
            assert SECRET not in repr(stored)


async def _person_with_everything(data: DataLayer) -> tuple[User, Project]:
    user = make_user(
        first_name=SECRET, display_name=SECRET, avatar=SECRET, password_hash=SECRET, azure_id=None,
        last_login_user_agent=SECRET, preferences={"a": SECRET}, metadata_={"a": SECRET},
        reset_password_token_hash=SECRET, email_verification_token_hash=SECRET,
    )  # fmt: skip
    user.email = f"{SECRET}-{user.id}@example.com"
    project = make_project(user)
    project.original_image = f"{user.id}/screenshot.png"
    project.thumbnail_image = f"{user.id}/thumbnail.png"
    first = make_code(project)
    image = GeneratedImage(
        project_id=project.id, prompt="p", provider=ImageProvider.DALLE3, model="m", size="1024x1024",
        status=GenerationStatus.COMPLETED, storage_key=f"{user.id}/image.png",
    )  # fmt: skip
    for name in ("screenshot", "thumbnail", "image"):
        await data.storage.upload(b"bytes", f"{user.id}/{name}.png", "image/png")
    session = Session(session_id=str(user.id), user_id=user.id, expires_at=datetime.now(UTC) + timedelta(hours=1))
    async with data.transaction() as tx:
        for row in (user, project, first, make_code(project, parent_id=first.id), image, session):
            tx.add(row)
        tx.add(AuditLog.user_action(AuditAction.USER_LOGIN, user.id, "Logged in"))
    return user, project
