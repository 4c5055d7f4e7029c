"""Replicas behind a load balancer are replaced one after the other under load, and no request fails."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from data_layer import DataLayer, Settings
from data_layer.services.files.backends import UPLOADS
from tests.support import until

from .load_balancer import LoadBalancer
from .support import NO_AUTHORITIES, Service

pytestmark = pytest.mark.slow

CLIENTS = 6
PAUSE = 0.1  # Some requests are under way at every moment, and the replicas can start beside them.
COMMANDS = ("start", "start --workers 2")


class Load:
    """Clients that send files and look whether they are there; what was acknowledged must not be lost."""

    def __init__(self, url: str, folder: Path, data: DataLayer) -> None:
        self.url = url
        self._folder = folder
        self._data = data
        self.done = 0
        self.failures = list[str]()
        self._numbers = count()

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=120, verify=NO_AUTHORITIES) as client:
            while True:
                number = next(self._numbers)
                content = b"%d " % number * 500
                upload = await self._data.files.begin_upload(owner_id=None, content_type="image/png", size=len(content))
                path = upload.url.partition("?")[0]
                name = path.rpartition("/")[2]
                sent = await client.put(upload.url, content=content, headers=upload.headers)
                shown = await client.get("/openapi.json")
                stored = self._folder / UPLOADS / name
                if (sent.status_code, shown.status_code) != (201, 200) or stored.read_bytes() != content:
                    self.failures.append(f"{name}: {sent.status_code} {sent.text}, {shown.status_code}")
                self.done += 1
                await asyncio.sleep(PAUSE)


@pytest.mark.timeout(600)
async def test_a_rolling_restart_fails_no_request(new_folder: Path, prepared: dict[str, str]) -> None:
    common = prepared | {"LOCAL_STORAGE_PATH": str(new_folder / "uploads"), "SHUTDOWN_DELAY": "4"}

    def start(number: int, port: int = 0) -> Service:
        folder = new_folder / str(number)
        folder.mkdir(exist_ok=True)
        return stack.enter_context(Service(folder, COMMANDS[number], port=port, **common))

    settings = Settings(
        database_url=SecretStr(prepared["DATABASE_URL"]),
        redis_url=SecretStr(prepared["REDIS_URL"]),
        redis_key_prefix=prepared["REDIS_KEY_PREFIX"],
        local_storage_path=new_folder / "uploads",
    )
    with ExitStack() as stack:
        services = [start(number) for number in range(len(COMMANDS))]
        async with LoadBalancer([service.url for service in services]) as balancer, DataLayer(settings) as data:
            await until(lambda: all(balancer.ready.values()), 240)
            load = Load(balancer.url, new_folder / "uploads", data)
            clients = [asyncio.create_task(load.run()) for _ in range(CLIENTS)]
            for number, service in enumerate(services):
                await until(partial(lambda so_far: load.done > so_far + 20, load.done), 120)
                assert await asyncio.to_thread(service.end) == 0, service.output
                balancer.answered.pop(service.url)
                services[number] = start(number, service.port)
                await until(partial(lambda url: balancer.answered[url] > 5, service.url), 240)
            for client in clients:
                client.cancel()
            ends = await asyncio.gather(*clients, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        assert balancer.failures == []
        assert load.failures == []
        for service in services:
            assert service.end(times=2) == 0, service.output
