"""What becomes of pages that take too long, of those for which nothing is free, and of too many requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import Response
from fastapi.responses import PlainTextResponse
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.console.pages import PageCall, Pages
from data_layer.server.faces import whole_application
from tests.console.conftest import LOGIN, browser, visit
from tests.support import until

TRIED = "/console/tried"


def serve(
    data: DataLayer, answering: Callable[[PageCall], Awaitable[Response]], *, takes_long: bool = False
) -> httpx.AsyncClient:
    """A browser, and one more page, as pages are declared."""
    pages = Pages(TRIED, needs_login=False)

    @pages.get(takes_long=takes_long)
    async def answer(call: PageCall) -> Response:
        return await answering(call)

    app = whole_application(data)
    app.router.routes[:0] = pages.routes
    return browser(app)


async def count(call: PageCall) -> Response:
    async with call.data.transaction() as tx:
        return PlainTextResponse(str(await tx.users.count()))


async def test_a_page_that_takes_too_long_is_cancelled_unless_it_does_by_nature(
    data: DataLayer, settings: Settings
) -> None:
    object.__setattr__(data, "settings", settings.replaced(request_deadline=0.3))

    async def sleep(call: PageCall) -> Response:
        async with call.data.transaction() as tx:
            await tx.execute(text("SELECT pg_sleep(1)"))
        return PlainTextResponse("done")

    async with serve(data, sleep) as client:
        answer = await client.get(TRIED)
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert data.database.pool_figures()["in_use"] == 0
    async with serve(data, sleep, takes_long=True) as client:
        assert (await client.get(TRIED)).text == "done"


def test_downloads_the_doctor_and_maintenance_have_no_deadline(data: DataLayer) -> None:
    routes = whole_application(data).routes
    found = {route.path for route in routes if getattr(route, "takes_long", False) and "/console" in route.path}  # type: ignore[attr-defined]
    assert found == {
        "/console/projects/{project_id}/download",
        "/console/admin/audit/export",
        "/console/admin/doctor",
        "/console/admin/files/check",
        "/console/admin/files/cleanup",
        "/console/admin/maintenance",
    }


class TestWithoutAConnection:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.replaced(
            db_max_connections=1, db_min_connections=1, db_pool_timeout=30, db_pool_queue=3, audit_flush_interval=60
        )

    async def test_pages_are_held_up_to_a_number_and_then_refused(self, data: DataLayer) -> None:
        async with serve(data, count) as client:
            async with data.transaction() as tx:
                await tx.users.count()
                held = [asyncio.create_task(client.get(TRIED)) for _ in range(3)]
                await until(lambda: data.database.waiting == 3)
                refused = await asyncio.create_task(client.get(TRIED))
                assert (refused.status_code, "Not available at the moment" in refused.text) == (503, True)
                assert int(refused.headers["retry-after"]) > 0
            assert [(await task).status_code for task in held] == [200] * 3


@pytest.mark.usefixtures("one_window")
async def test_a_person_and_an_address_have_limits_here_as_well(settings: Settings, data: DataLayer) -> None:
    del data  # Empty tables, and an empty cache.
    async with DataLayer(settings.replaced(request_limit_person=2)) as few:
        ann = await visit(few, whole_application(few), "ann")
        answers = [await ann.client.get("/console/account") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["ratelimit"].startswith('"person";r=1;')
        assert 1 <= int(answers[2].headers["retry-after"]) <= 60
        assert "Too many requests" in answers[2].text
        await ann.client.aclose()
    async with (
        DataLayer(settings.replaced(request_limit_address=1)) as few,
        browser(whole_application(few)) as nobody,
    ):
        page = await nobody.get(LOGIN)
        assert (page.status_code, (await nobody.get(LOGIN)).status_code) == (200, 429)
        script = page.text.partition('href="/console/static/')[2].partition('"')[0]
        answer = await nobody.get(f"/console/static/{script}")
        assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
