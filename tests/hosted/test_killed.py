"""The process is killed in the middle; what was answered is there, and what comes again is not there twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import SYSTEM
from tests.conftest import empty_tables
from tests.service.support import NO_AUTHORITIES, Service, free_port

from .fakes import ORIGIN, PUBLIC_URL, SECRET, BackEnd, Clerk, Page, data_url
from .roads import Road, database_url, road_to_database
from .test_stories import LIMIT, Told, check, story


async def _post_when_it_listens(back_end: BackEnd, body: object) -> httpx.Response:
    """Like a back end that is started together with us: as soon as somebody listens, ready or not."""
    while True:
        try:
            return await back_end.post("/generations/store", body)
        except httpx.ConnectError:
            await asyncio.sleep(0.05)


async def _send_until_killed(
    back_end: BackEnd, told: list[Told], road: Road, service: Service, size: int
) -> dict[str, set[str]]:
    """What was answered until then, by group and index."""
    ids: dict[str, set[str]] = {}

    async def send(each: Told) -> None:
        body = back_end.stored(each.group, each.index, each.messages, each.code, **each.more)
        answer = await back_end.post("/generations/store", body)
        ids[f"{each.group}-{each.index}"] = {answer.json()["generation_id"]}

    road.after(size, service.process.kill)
    failures = await asyncio.gather(*map(send, told), return_exceptions=True)
    assert all(failure is None or isinstance(failure, httpx.TransportError) for failure in failures)
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("size", [2_000, 12_000, 40_000])
async def test_killed_while_pages_are_stored(settings: Settings, clerk: Clerk, tmp_path: Path, size: int) -> None:
    """After so many bytes to the database: between the statements of the first, of others, and of the last pages."""
    url = settings.database.database_url
    assert url is not None
    assert settings.redis.redis_url is not None
    images = [data_url(1)]
    told = story(images)
    async with DataLayer(settings) as straight, road_to_database(url.get_secret_value()) as road:
        await empty_tables(straight)
        await straight.cache.flush()
        environment = {
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
        port = free_port()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=NO_AUTHORITIES, timeout=60) as client:
            page = Page(client, clerk, "user_ann")
            with Service(tmp_path, "start", port=port, **environment) as service:
                await asyncio.to_thread(service.wait_until_ready)
                back_end = BackEnd(client, (await page.call("POST", "/credits/has_credits"))["user_id"])
                user_id = UUID(back_end.user_id)
                await straight.usage.set_budget(SYSTEM, user_id, LIMIT)
                assert (await page.call("POST", "/credits/has_credits"))["status"] == "subscriber_has_credits"
                ids = await _send_until_killed(back_end, told, road, service, size)
            answered = sum(map(len, ids.values()))
            assert answered < len(told), "it was killed before all of it was there"
            with Service(tmp_path, "start", port=port, **environment) as service:
                for each in told:
                    body = back_end.stored(each.group, each.index, each.messages, each.code, **each.more)
                    answer = await _post_when_it_listens(back_end, body)
                    assert answer.status_code == 200, answer.text
                    ids.setdefault(f"{each.group}-{each.index}", set()).add(answer.json()["generation_id"])
                await asyncio.to_thread(service.end)
        await check(straight, user_id, told, images, ids)
