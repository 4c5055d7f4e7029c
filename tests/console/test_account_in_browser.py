"""The end of an account in Chromium: everything is taken along, the account is deleted, and nobody logs in any more."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from playwright.async_api import Page, expect

from data_layer import DataLayer
from data_layer.errors import NotFoundError
from data_layer.schemas.actors import SYSTEM, Actor
from tests.services.accounts.support import PASSWORD, make_account

from .test_in_browser import NARROW, chromium, make_versions, person, served

pytestmark = [pytest.mark.needs_debian, pytest.mark.timeout(240)]


@pytest.mark.slow
async def test_a_person_takes_everything_along_and_leaves(data: DataLayer, app: FastAPI) -> None:
    ann = await make_account(data, "ann@example.com")
    owner = Actor.user(ann.id)
    project = UUID((await make_versions(data, owner, "Larkspur")).rpartition("/")[2])
    async with served(app) as base, chromium() as browser, person(browser, base, **NARROW) as visitor:
        page = visitor.page
        await visitor.log_in("ann@example.com")
        await page.get_by_role("link", name="My account").click()
        await see_what_was_taken_along(await download_everything(data, page))
        await fill_in(page, "a wrong horse")
        await expect(page.get_by_role("alert")).to_contain_text("The password or the code is not right")
        await visitor.inspect_this("a refused deletion")
        await data.projects.open(owner, project)
        await fill_in(page, PASSWORD)
        await page.wait_for_url("**/console/login?done=account_deleted")
        await expect(page.get_by_role("status")).to_contain_text("Your account is deleted")
        await visitor.go("/console/projects")
        await page.wait_for_url("**/console/login?next=*")
        await page.fill("#email", "ann@example.com")
        await page.fill("#password", PASSWORD)
        await page.click("button.primary")
        await expect(page.get_by_role("alert")).to_contain_text("do not fit together")
    with pytest.raises(NotFoundError):
        await data.projects.open(SYSTEM, project)


async def download_everything(data: DataLayer, page: Page) -> Path:
    await page.get_by_role("button", name="Make an archive").click()
    await expect(page.locator("#export").get_by_role("status")).to_contain_text("Your archive is being made")
    await data.exports.make_due()
    async with page.expect_download() as arriving:
        await page.locator("#export").get_by_role("link", name="Download").click()
    download = await arriving.value
    assert await download.failure() is None
    assert download.suggested_filename.endswith(".zip")
    return Path(await download.path())


async def see_what_was_taken_along(path: Path) -> None:
    """The whole account, and a project with all its versions, in an archive of its own."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert b"ann@example.com" in archive.read("account.json")
        (inner,) = [name for name in archive.namelist() if name.startswith("projects/") and name.endswith(".zip")]
        with zipfile.ZipFile(io.BytesIO(archive.read(inner))) as project:
            assert project.testzip() is None
            assert any(b"Larkspur" in project.read(name) for name in project.namelist() if name.endswith(".json"))
            pages = [project.read(name) for name in project.namelist() if name.endswith(".html")]
            for title in (b"Version 1", b"Version 2"):
                assert any(title in each for each in pages)


async def fill_in(page: Page, password: str) -> None:
    await page.fill("#confirm", "ann@example.com")
    await page.fill("#delete-password", password)
    await page.get_by_role("button", name="Delete for good").click()
