"""The process is killed in the middle; what was answered is there, and what comes again is not there twice."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import SYSTEM
from data_layer.testing.free_ports import free_port
from tests.conftest import empty_tables
from tests.service.support import NO_AUTHORITIES, Service

from .fakes import ORIGIN, PUBLIC_URL, SECRET, BackEnd, Clerk, Page, data_url
from .roads import Road, database_url, road_to_database
from .test_stories import LIMIT, Variant, check, raw_request, story

CALLER = "127.0.0.2"


async def _post_when_it_listens(back_end: BackEnd, body: object) -> httpx.Response:
    """Like a back end that is started together with us: as soon as somebody listens, ready or not."""
    while True:
        try:
            return await back_end.post("/generations/store", body)
        except httpx.ConnectError:
            await asyncio.sleep(0.05)


async def _send_until_killed(
    back_end: BackEnd, variants: list[Variant], road: Road, service: Service, size: int
) -> dict[str, set[str]]:
    """What was answered until then, by group and index."""
    ids: dict[str, set[str]] = {}

    async def send(each: Variant) -> None:
        body = back_end.stored(each.group, each.index, each.messages, each.code, **each.more)
        answer = await back_end.post("/generations/store", body)
        ids[f"{each.group}-{each.index}"] = {answer.json()["generation_id"]}

    road.after(size, service.process.kill)
    failures = await asyncio.gather(*map(send, variants), return_exceptions=True)
    assert all(failure is None or isinstance(failure, httpx.TransportError) for failure in failures)
    return ids


def environment_of(settings: Settings, clerk: Clerk, road: Road) -> dict[str, str]:
    """Of a process that reaches the database by a road."""
    url = settings.database.database_url
    assert url is not None
    assert settings.redis.redis_url is not None
    return {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": database_url(url.get_secret_value(), road),
        "REDIS_URL": settings.redis.redis_url.get_secret_value(),
        "REDIS_KEY_PREFIX": settings.redis.redis_key_prefix,
        "LOCAL_STORAGE_PATH": str(settings.storage.local_storage_path),
        "PUBLIC_URL": PUBLIC_URL,
        "SAAS_API_SECRET": SECRET,
        "CORS_ALLOWED_ORIGINS": ORIGIN,
        "OIDC_ISSUER": clerk.url,
        "OIDC_ACCEPT_BEARER": "true",
        "OIDC_ALLOWED_AZP": ORIGIN,
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", [2_000, 12_000, 40_000])
async def test_killed_while_pages_are_stored(settings: Settings, clerk: Clerk, tmp_path: Path, size: int) -> None:
    """After so many bytes to the database: between the statements of the first, of others, and of the last pages."""
    url = settings.database.database_url
    assert url is not None
    images = [data_url(1)]
    variants = story(images)
    async with DataLayer(settings) as straight, road_to_database(url.get_secret_value()) as road:
        await empty_tables(straight)
        await straight.cache.flush()
        environment = environment_of(settings, clerk, road)
        port = free_port()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=NO_AUTHORITIES, timeout=60) as client:
            page = Page(client, clerk, "user_ann")
            with Service(tmp_path, "start", port=port, **environment) as service:
                await asyncio.to_thread(service.wait_until_ready)
                back_end = BackEnd(client, (await page.call("POST", "/credits/has_credits"))["user_id"])
                user_id = UUID(back_end.user_id)
                await straight.usage.set_budget(SYSTEM, user_id, LIMIT)
                assert (await page.call("POST", "/credits/has_credits"))["status"] == "subscriber_has_credits"
                ids = await _send_until_killed(back_end, variants, road, service, size)
            answered = sum(map(len, ids.values()))
            assert answered < len(variants), "it was killed before all of it was there"
            with Service(tmp_path, "start", port=port, **environment) as service:
                for each in variants:
                    body = back_end.stored(each.group, each.index, each.messages, each.code, **each.more)
                    answer = await _post_when_it_listens(back_end, body)
                    assert answer.status_code == 200, answer.text
                    ids.setdefault(f"{each.group}-{each.index}", set()).add(answer.json()["generation_id"])
                await asyncio.to_thread(service.end)
        await check(straight, user_id, variants, images, ids)


@pytest.mark.slow
async def test_calls_wait_while_no_worker_is_ready(settings: Settings, clerk: Clerk, tmp_path: Path) -> None:
    """At the start, and after all workers were killed; probes are answered, and so are callers who ask again.

    A page is stored though its caller has gone meanwhile.
    """
    url = settings.database.database_url
    assert url is not None
    async with DataLayer(settings) as straight, road_to_database(url.get_secret_value()) as road:
        await empty_tables(straight)
        await straight.cache.flush()
        environment = environment_of(settings, clerk, road) | {"DB_CONNECT_TIMEOUT": "60"}
        port = free_port()
        transport = httpx.AsyncHTTPTransport(verify=NO_AUTHORITIES, local_address=CALLER)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=60) as client:
            page = Page(client, clerk, "user_ann")
            road.freeze()
            with Service(tmp_path, "start --workers 2", port=port, **environment) as service:
                await asyncio.to_thread(service.wait_until_it_answers)
                asked = asyncio.create_task(page.call("POST", "/credits/has_credits"))
                await refuses_others(client)
                assert not asked.done()
                road.thaw()
                back_end = BackEnd(client, (await asked)["user_id"])
                await asyncio.to_thread(service.wait_for_event, "worker_ready", 2)
                road.freeze()
                for event in service.events:
                    if event["event"] == "worker_ready":
                        os.kill(event["pid"], signal.SIGKILL)
                await asyncio.to_thread(service.wait_for_event, "worker_ended", 2)
                [page_of_one_who_left, *_] = story([])
                _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(CALLER, 0))
                writer.write(raw_request(back_end, page_of_one_who_left))
                writer.close()  # As a caller does that has waited for ten seconds.
                await writer.wait_closed()
                body = {"data_url": data_url(1), "source_type": "user_upload", "user_id": back_end.user_id}
                body["padding"] = "x" * 3 * 2**20  # More than the sockets take: it is read only by a worker.
                calls = [asyncio.create_task(back_end.post("/assets/store_image_data", body)) for _ in range(4)]
                await refuses_others(client)
                assert not any(call.done() for call in calls)
                road.thaw()
                answers = await asyncio.gather(*calls)
                await asyncio.to_thread(service.wait_for_event, "request_answered", 6)
                [stored] = await page.projects()
                assert stored["generations"][0]["completion"] == page_of_one_who_left.code
                assert await asyncio.to_thread(service.end) == 0, service.output
        assert [answer.status_code for answer in answers] == [200] * 4, answers[0].text
        assert len({answer.json()["asset_id"] for answer in answers}) == 1
        answered = [event for event in service.events if event["event"] == "request_answered"]
        assert {event["client"] for event in answered} == {CALLER}


async def refuses_others(client: httpx.AsyncClient) -> None:
    """What is asked while nothing is ready."""
    for _ in range(3):
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).json() == {"ready": False, "reason": "starting"}
        refused = await client.get("/generations/view")
        assert (refused.status_code, refused.json()["code"]) == (503, "starting"), "whose caller repeats it"
        await asyncio.sleep(0.2)
