"""Answers that are made while they are sent end what makes them, whenever their client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.web.downloads import GeneratedResponse, download
from tests.descriptors import opened_below
from tests.file_content import noise
from tests.support import make_user

OLD, NEW = "2.3", "2.4"
"""Versions of ASGI: only in the new one a server says with an error of ``send`` that a client has gone."""


class Held:
    """Whether something is held."""

    def __init__(self) -> None:
        self.is_held = True

    async def pieces(self) -> AsyncGenerator[bytes]:
        try:
            for number in range(10):
                yield b"%d" % number
                await asyncio.sleep(0)
        finally:
            self.is_held = False


async def send_to(response: GeneratedResponse, version: str, most: int) -> list[bytes]:
    """Send an answer to a client that leaves after so many messages; what it has received."""
    received: list[bytes] = []
    has_left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if len(received) == most:
            has_left.set()
            if version == NEW:
                raise OSError
            await asyncio.Event().wait()
        received.append(message.get("body", b"head"))

    try:
        await response({"type": "http", "asgi": {"spec_version": version}}, receive, send)
    except ClientDisconnect:
        assert version == NEW
    return received


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("most", [0, 1, 2, 5, 99])
async def test_a_client_that_leaves_ends_the_generator(version: str, most: int) -> None:
    held = Held()
    response = await download(held.pieces(), name="a.txt", media_type="text/plain")
    received = await send_to(response, version, most)
    assert not held.is_held
    whole = [b"head", *(b"%d" % number for number in range(10)), b""]
    assert received == whole[:most]


@pytest.mark.parametrize("is_begun", [True, False])
async def test_without_a_body_it_ends_at_once(*, is_begun: bool) -> None:
    held = Held()
    pieces = held.pieces()
    first = await anext(pieces) if is_begun else b""
    response = GeneratedResponse(pieces, first=first)
    await response.leave_out_body()
    assert await send_to(response, NEW, 99) == [b"head", b""]
    assert not (is_begun and held.is_held)


async def test_a_client_that_leaves_closes_the_file(migrated: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    async with DataLayer(migrated.replaced(local_storage_path=folder)) as data:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
        file = await data.files.save(noise(1000, 1000), owner_id=user.id)
        public = await data.files.publish(file.id, owner_id=user.id)
        app = create_app(data)
        before, opened = opened_below(folder), list[list[Path]]()

        async def send(message: Any) -> None:
            if message.get("body"):
                opened.append(opened_below(folder))
                raise OSError

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/a/{public.name}",
            "raw_path": b"",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [(b"host", b"service")],
            "server": ("service", 80),
            "client": ("127.0.0.1", 1),
            "asgi": {"version": "3.0", "spec_version": NEW},
        }
        with pytest.raises(ClientDisconnect) as left:
            await app(scope, receive, send)
        assert [path for path in opened[0] if path not in before] == [folder / file.key]
        assert opened_below(folder) == before, left
