from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from data_layer import DataLayer, Settings
from data_layer.entities.enums import GenerationStatus
from data_layer.recorder.application import RecorderOptions, recorded
from data_layer.recorder.people import LOCAL_EMAIL
from data_layer.recorder.projects import open_address
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.generations import TreeCode, TreeGeneration, TreeVariant
from data_layer.server.faces import whole_application
from data_layer.server.http_server import HttpServer
from tests.service.support import NO_AUTHORITIES

from .backend import Backend

LARGEST = 64 * 2**20
PATIENCE = 30.0


class Recorded:
    """The application with its memory, on a port."""

    def __init__(self, data: DataLayer, port: int) -> None:
        self.data = data
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def connect(self, **headers: str) -> connect:
        return connect(
            f"ws://127.0.0.1:{self.port}/generate-code", max_size=None, additional_headers=headers, proxy=None
        )

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=headers, verify=NO_AUTHORITIES, timeout=PATIENCE)

    async def ask(self, sent: dict[str, Any]) -> list[dict[str, Any]]:
        """Send a request, and return everything that the page received."""
        async with self.connect() as websocket:
            await websocket.send(json.dumps(sent))
            return [message async for message in messages(websocket)]

    async def person(self) -> Actor:
        account = await self.data.accounts.find(SYSTEM, LOCAL_EMAIL)
        return Actor.user(account.id, account.role)

    async def trees(self, actor: Actor | None = None) -> list[list[TreeGeneration]]:
        """All projects with their generations and codes, oldest first."""
        actor = actor or await self.person()
        page = await self.data.projects.list(actor)
        trees = []
        for project in page.projects[::-1]:
            opened = await self.data.generations.tree(actor, project.id, code=TreeCode.ALL)
            trees.append([each async for each in opened.generations][::-1])
        return sorted((tree for tree in trees if tree), key=lambda tree: tree[0].started_at)

    async def settled(self, number: int = 1, actor: Actor | None = None) -> list[list[TreeGeneration]]:
        """The same once so many generations have ended."""
        found: list[list[TreeGeneration]] = []

        async def is_settled() -> bool:
            found[:] = await self.trees(actor)
            generations = [each for tree in found for each in tree]
            return len(generations) == number and all(is_over(each) for each in generations)

        await until(is_settled)
        return found


def is_over(generation: TreeGeneration) -> bool:
    running = {GenerationStatus.PENDING, GenerationStatus.PROCESSING}
    return not any(variant.status in running for variant in generation.variants)


def variants_of(generation: TreeGeneration) -> list[TreeVariant]:
    return sorted(generation.variants, key=lambda each: each.variant_index)


def ends(generation: TreeGeneration) -> list[tuple[str, str]]:
    """The status and the code of each variant."""
    return [(variant.status.value, variant.code or "") for variant in variants_of(generation)]


async def messages(websocket: ClientConnection) -> AsyncIterator[dict[str, Any]]:
    """What a page receives until the connection ends."""
    try:
        async for message in websocket:
            yield json.loads(message)
    except ConnectionClosed:
        pass


async def until(condition: Callable[[], Any]) -> None:
    """Return when a condition, which may be awaited, holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(data: DataLayer, backend: Backend, **options: Any) -> AsyncIterator[Recorded]:
    chosen = RecorderOptions(**options)
    async with recorded(data, whole_application(data, open_address), backend.application, chosen) as application:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = HttpServer(application, listener, finish_seconds=2, largest_message=LARGEST)
        server.start()
        try:
            yield Recorded(data, port)
        finally:
            await server.close()


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.replaced(data_folder=tmp_path / "data")


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
async def served(data: DataLayer, backend: Backend) -> AsyncIterator[Recorded]:
    async with serving(data, backend) as served:
        yield served
