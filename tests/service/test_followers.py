"""Two thousand followers of server-sent events in one process, each of which costs little."""

from __future__ import annotations

import asyncio
import re
import resource
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import GenerationRequest, VariantModel
from data_layer.schemas.projects import ProjectDraft
from tests.services.accounts.support import PASSWORD, make_account

from .support import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FOLLOWERS = 2000
AT_ONCE = 50
ALLOWED = 30 * 1024
"""Bytes that each may cost (issue 15); `make bench-followers` measures 17.4 KiB."""


def own_memory(pid: int) -> int:
    """Bytes that no other process shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) * 1024 for size in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))


async def follow(port: int, request: bytes, number: int) -> list[StreamWriter]:
    """So many followers, each of which has got the code."""

    async def one() -> tuple[StreamReader, StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(request)
        await reader.readuntil(b"event: code")
        return reader, writer

    found: list[tuple[StreamReader, StreamWriter]] = []
    for _ in range(0, number, AT_ONCE):
        found += await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    assert not any(reader.at_eof() for reader, _ in found)
    return [writer for _, writer in found]


async def renew(data: DataLayer, actor: Actor, token: str) -> None:
    while True:
        await data.generations.renew(actor, token)
        await asyncio.sleep(5)


async def begin(data: DataLayer) -> tuple[str, Actor, UUID, str]:
    """A session, whose it is, a generation that runs, and the token of its writer."""
    user = await make_account(data)
    new = await data.accounts.log_in(user.email, PASSWORD)
    actor = new.session.actor
    project = await data.projects.create(actor, ProjectDraft(name="Shop"))
    started = await data.generations.start(actor, project.id, GenerationRequest(), [VariantModel()])
    return new.token.get_secret_value(), actor, started.id, started.writer_token


async def cost_of_each(service: Service, environment: dict[str, str]) -> float:
    """Bytes of memory of the service for each follower."""
    settings = Settings(
        database_url=SecretStr(environment["DATABASE_URL"]),
        redis_url=SecretStr(environment["REDIS_URL"]),
        local_storage_path=service.folder / "uploads",
        _env_file=None,
    )
    async with DataLayer(settings) as data:
        token, actor, generation, writer_token = await begin(data)
        renewing = asyncio.create_task(renew(data, actor, writer_token))
        path = f"/v1/generations/{generation}/events"
        request = f"GET {path} HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {token}\r\n\r\n".encode()
        for writer in await follow(service.port, request, AT_ONCE):  # What only the first ones cost.
            writer.close()
        before = own_memory(service.process.pid)
        writers = await follow(service.port, request, FOLLOWERS)
        each = (own_memory(service.process.pid) - before) / FOLLOWERS
        assert not renewing.done()
        renewing.cancel()
        for writer in writers:
            writer.close()
        return each


def test_a_follower_costs_less_than_30_kib(new_folder: Path, prepared: dict[str, str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FOLLOWERS + 500), hard))
    environment = prepared | {
        "LOCAL_STORAGE_PATH": str(new_folder / "uploads"),
        "HTTP_MAX_CONNECTIONS": str(FOLLOWERS + 100),
        "REQUEST_LIMIT_PERSON": "0",
        "REQUEST_LIMIT_ADDRESS": "0",
    }
    with Service(new_folder, "start", port=0, **environment) as service:
        service.wait_until_ready()
        each = asyncio.run(cost_of_each(service, environment))
        print(f"\n{each / 1024:.1f} KiB for each follower")  # noqa: T201  (shown by pytest -s)
        assert each < ALLOWED
        assert service.end() == 0, service.output
