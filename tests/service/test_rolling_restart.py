"""Replicas behind a load balancer are replaced one after the other under load: no request fails, and streams go on."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from data_layer import DataLayer, Settings
from data_layer.schemas.generation_stream import CodePatch
from data_layer.schemas.generations import GenerationRequest, VariantModel
from data_layer.schemas.projects import ProjectDraft
from data_layer.services.files.backends import UPLOADS
from tests.services.accounts.support import PASSWORD, make_account
from tests.support import until

from .load_balancer import LoadBalancer
from .support import NO_AUTHORITIES, Service

pytestmark = pytest.mark.slow

CLIENTS = 6
FOLLOWERS = 6
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


class Streams:
    """A generation that is written through the load balancer, and those who follow it there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.written = ""
        self.breaks: list[float] = []
        self.unannounced: list[str] = []

    async def begin(self, data: DataLayer) -> None:
        """Make the generation, and somebody who may read and write it."""
        user = await make_account(data)
        new = await data.accounts.log_in(user.email, PASSWORD)
        project = await data.projects.create(new.session.actor, ProjectDraft(name="Shop"))
        started = await data.generations.start(new.session.actor, project.id, GenerationRequest(), [VariantModel()])
        self._headers = {"authorization": f"Bearer {new.token.get_secret_value()}"}
        self._writer = self._headers | {"writer-token": started.writer_token}
        self._path = f"/v1/generations/{started.id}"

    async def write(self, is_over: asyncio.Event) -> None:
        """Write until it is over, and end the variant; each request has to be answered."""
        async with httpx.AsyncClient(base_url=self._url, timeout=120, verify=NO_AUTHORITIES) as client:
            for number in count(1):
                piece = f"<p>{number}</p>"
                body = {"variant": 0, "sequence": number, "pieces": [{"type": "text", "text": piece}]}
                answer = await client.post(f"{self._path}/events", json=body, headers=self._writer)
                assert answer.status_code == 200, answer.text
                self.written += piece
                if is_over.is_set():
                    break
                await asyncio.sleep(PAUSE)
            body = {"status": "completed"}
            answer = await client.put(f"{self._path}/variants/0", json=body, headers=self._writer)
            assert answer.status_code == 200, answer.text

    async def follow(self) -> str:
        """What somebody has read at the end, who connects again as often as it takes."""
        code, position, ended_at = "", "", 0.0
        async with httpx.AsyncClient(base_url=self._url, timeout=120, verify=NO_AUTHORITIES) as client:
            while True:
                headers = self._headers | ({"last-event-id": position} if position else {})
                async with client.stream("GET", f"{self._path}/events", headers=headers) as answer:
                    assert answer.status_code == 200, answer.status_code
                    if ended_at:
                        self.breaks.append(time.monotonic() - ended_at)
                    retry, last = 1000, ""
                    async for line in answer.aiter_lines():
                        name, _, value = line.partition(": ")
                        retry = int(value) if name == "retry" else retry
                        position = value if name == "id" else position
                        last = value if name == "event" else last
                        code = changed(code, last, value) if name == "data" else code
                    if last == "end":
                        return code
                    if last != "reconnect":
                        self.unannounced.append(f"after {last!r} at {position}")
                ended_at = time.monotonic()
                await asyncio.sleep(retry / 1000)


def changed(code: str, event: str, data: str) -> str:
    """The code after an event."""
    match event:
        case "code":
            return str(json.loads(data)["code"])
        case "patch":
            return CodePatch(**json.loads(data)).apply(code)
        case _:
            return code


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
            streams, is_over = Streams(balancer.url), asyncio.Event()
            await streams.begin(data)
            writing = asyncio.create_task(streams.write(is_over))
            following = [asyncio.create_task(streams.follow()) for _ in range(FOLLOWERS)]
            for number, service in enumerate(services):
                await until(partial(lambda so_far: load.done > so_far + 20, load.done), 120)
                assert await asyncio.to_thread(service.end) == 0, service.output
                balancer.answered.pop(service.url)
                services[number] = start(number, service.port)
                await until(partial(lambda url: balancer.answered[url] > 5, service.url), 240)
            is_over.set()
            await writing
            assert set(await asyncio.gather(*following)) == {streams.written}
            for client in clients:
                client.cancel()
            ends = await asyncio.gather(*clients, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        assert balancer.failures == []
        assert load.failures == []
        assert streams.unannounced == []
        assert len(streams.breaks) >= len(COMMANDS), "each restart met some of them"
        print(f"{len(streams.breaks)} streams went on elsewhere, after {max(streams.breaks):.2f} s at most")  # noqa: T201
        for service in services:
            assert service.end(times=2) == 0, service.output
