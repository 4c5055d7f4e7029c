"""What becomes of requests that take too long, and of those for which the database has no connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.api.routes import Call, Routes
from data_layer.web import deadlines
from data_layer.web.deadlines import Deadline
from tests.support import until

from .test_people import client_of

SLEEPING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(55)%' "
    "AND datname = current_database() AND pid <> pg_backend_pid()"
)
Answering = Callable[[Call], Awaitable[Any]]


def serve(data: DataLayer, answering: Answering, **options: Any) -> httpx.AsyncClient:
    """A client of the application with one more route, POST /v1/tried, as routes are declared."""
    routes = Routes("/v1/tried", "tried", needs_login=False)

    @routes.post("", summary="Try it", response_model=None, **options)
    async def answer(call: Call) -> Any:
        return await answering(call)

    app = create_app(data)
    app.router.routes.extend(routes.routes)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="https://service")


def with_deadline(data: DataLayer, settings: Settings, seconds: float) -> DataLayer:
    object.__setattr__(data, "settings", settings.replaced(request_deadline=seconds))
    return data


async def sleep_in_the_database(call: Call) -> None:
    async with call.data.transaction() as tx:
        await tx.execute(text("SELECT pg_sleep(55)"))


async def test_what_takes_too_long_is_cancelled_with_what_is_below_it(data: DataLayer, settings: Settings) -> None:
    async def sleeping() -> int:
        async with data.transaction() as tx:
            return int((await tx.execute(SLEEPING)).scalar_one())

    async with serve(with_deadline(data, settings, 0.5), sleep_in_the_database) as client:
        answer = await client.post("/v1/tried")
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "cancelled after 0.5 s" in answer.json()["detail"]
    async with asyncio.timeout(30):
        while await sleeping():
            pass
    assert data.database.pool_figures()["in_use"] == 0


async def test_the_time_of_a_client_does_not_count(data: DataLayer, settings: Settings) -> None:
    """Neither that in which a body arrives, nor that in which a stream is read."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x"
            await asyncio.sleep(1)

    async def read_and_stream(call: Call) -> Response:
        read = await call.body()

        async def stream() -> AsyncIterator[bytes]:
            yield read
            await asyncio.sleep(3)
            yield b"!"

        return StreamingResponse(stream())

    async with serve(with_deadline(data, settings, 2), read_and_stream) as client:
        answer = await client.post("/v1/tried", content=body())
    assert (answer.status_code, answer.text) == (200, "xxx!")


async def test_what_takes_long_by_nature_has_no_deadline(data: DataLayer, settings: Settings) -> None:
    async def wait(_: Call) -> dict[str, bool]:
        await asyncio.sleep(0.5)
        return {"done": True}

    async with serve(with_deadline(data, settings, 0.1), wait, takes_long=True) as client:
        assert (await client.post("/v1/tried")).json() == {"done": True}
    async with serve(with_deadline(data, settings, 0), wait) as client:
        assert (await client.post("/v1/tried")).json() == {"done": True}


async def test_another_time_limit_is_not_taken_for_the_deadline(data: DataLayer) -> None:
    async def give_up(_: Call) -> None:
        raise TimeoutError

    async with serve(data, give_up) as client:
        answer = await client.post("/v1/tried")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


async def count(call: Call) -> dict[str, int]:
    async with call.data.transaction() as tx:
        return {"users": await tx.users.count()}


def may_wait(deadline: Deadline) -> float | None:
    seconds = deadline.patience().seconds
    assert seconds is not None
    return seconds()


async def test_what_has_waited_waits_for_less() -> None:
    """Otherwise a request that waits twice would meet its deadline before it is refused."""
    deadline = Deadline(3600)
    whole = may_wait(deadline) or 0
    assert 0 < whole < 3600
    async with deadline:
        deadline._run_until(asyncio.get_running_loop().time() + 60)
        assert 0 <= (may_wait(deadline) or 0) < 60
        deadline._run_until(None)  # The body is being received.
        assert may_wait(deadline) == whole
    assert may_wait(Deadline(None)) is None


class TestWithoutAConnection:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.replaced(
            db_max_connections=1,
            db_min_connections=1,
            db_pool_timeout=30,
            db_pool_queue=3,
            audit_flush_interval=60,
            request_deadline=120,
        )

    async def test_requests_are_held_up_to_a_number_and_then_refused(self, data: DataLayer) -> None:
        async with serve(data, count) as client:
            async with data.transaction() as tx:
                await tx.users.count()
                held = [asyncio.create_task(client.post("/v1/tried")) for _ in range(3)]
                await until(lambda: data.database.waiting == 3)
                refused = await asyncio.create_task(client.post("/v1/tried"))
                assert (refused.status_code, refused.json()["code"]) == (503, "database_overloaded")
                assert int(refused.headers["retry-after"]) > 0
                assert not any(task.done() for task in held)
            assert [(await task).status_code for task in held] == [200] * 3

    async def test_probes_come_first_and_what_nobody_repeats_is_refused_last(self, data: DataLayer) -> None:
        """And both before requests that came earlier."""
        finished: list[str] = []

        async def post(client: httpx.AsyncClient, kind: str) -> None:
            answer = await (client.get("/readyz") if kind == "probe" else client.post("/v1/tried"))
            assert answer.status_code == 200, answer.text
            finished.append(kind)

        async with serve(data, count) as ordinary, serve(data, count, is_shed_last=True) as last:
            async with data.transaction() as tx:
                await tx.users.count()
                tasks = []
                waiting = 0
                for kind, client, number in (("ordinary", ordinary, 3), ("last", last, 5), ("probe", ordinary, 1)):
                    tasks += [asyncio.create_task(post(client, kind)) for _ in range(number)]
                    waiting += number
                    await until(lambda waiting=waiting: data.database.waiting == waiting)  # type: ignore[misc]
            await asyncio.gather(*tasks)
        assert finished == ["probe", *["last"] * 5, *["ordinary"] * 3]

    async def test_nobody_waits_for_longer_than_allowed(self, data: DataLayer) -> None:
        short = data.settings.replaced(db_pool_timeout=0.3)
        async with DataLayer(short) as hasty, serve(hasty, count) as client, hasty.transaction() as tx:
            await tx.users.count()
            answer = await asyncio.create_task(client.post("/v1/tried"))
            assert (answer.status_code, answer.json()["code"]) == (503, "database_pool_timeout")
            assert int(answer.headers["retry-after"]) > 0

    async def test_what_nobody_repeats_is_refused_before_its_deadline(
        self, data: DataLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After most of its time, however long others wait; a tiny part of it here."""
        assert deadlines._SHARE < 1
        monkeypatch.setattr(deadlines, "_SHARE", 0.002)
        patient = data.settings.replaced(db_pool_timeout=240)
        async with (
            DataLayer(patient) as held,
            serve(held, count, is_shed_last=True) as client,
            held.transaction() as tx,
        ):
            await tx.users.count()
            answer = await asyncio.create_task(client.post("/v1/tried"))
            assert (answer.status_code, answer.json()["code"]) == (503, "database_pool_timeout")
            assert int(answer.headers["retry-after"]) > 0

    async def test_what_is_not_asked_of_the_database_is_not_held(self, data: DataLayer) -> None:
        async with client_of(data) as client, data.transaction() as tx:
            await tx.users.count()
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/v1/accounts/me")).status_code == 401

    async def test_those_who_go_leave_no_gap(self, data: DataLayer) -> None:
        """Neither does one that is let through at the moment at which it is cancelled."""
        async with serve(data, count) as client:
            for _ in range(10):
                async with data.transaction() as tx:
                    await tx.users.count()
                    tasks = [asyncio.create_task(client.post("/v1/tried")) for _ in range(3)]
                    await until(lambda: data.database.waiting == 3)
                    tasks[1].cancel()
                tasks[0].cancel()
                await asyncio.gather(*tasks[:2], return_exceptions=True)
                assert (await tasks[2]).status_code == 200
        assert data.database.pool_figures()["in_use"] == 0
        assert data.database.waiting == 0
