"""Memory of the service while everything that unfolds is uploaded to it at once over HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.storage.validation.bombs import bombs

from .support import NO_AUTHORITIES, Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALLOWED = 512
"""MiB that the service may hold with default settings, whatever is uploaded (deploy/README.md)."""

EACH = 2
"""How many of each are uploaded at the same time, one directly and one through the application."""

UPLOADING = (sys.executable, str(Path(__file__).with_name("uploading_service.py")))
TYPES = ("png", "jpeg", "gif", "webp")


def content_type(name: str) -> str:
    """What a bomb is announced as."""
    return f"image/{next((kind for kind in TYPES if kind in name), 'png')}"


def peak(pid: int) -> int:
    """MiB of memory that a process has held at most."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


async def send_directly(client: httpx.AsyncClient, name: str, content: bytes) -> dict[str, Any]:
    announced: dict[str, str | int] = {"content_type": content_type(name), "size": len(content)}
    upload = (await client.post("/uploads", params=announced)).raise_for_status().json()
    sent = await client.put(upload["url"], content=content, headers=upload["headers"])
    assert sent.status_code == 201, sent.text
    ended: dict[str, Any] = (await client.post(f"/uploads/{upload['id']}")).raise_for_status().json()
    return ended


async def send_through_the_application(client: httpx.AsyncClient, name: str, content: bytes) -> dict[str, Any]:
    ended = await client.post("/files", params={"content_type": content_type(name)}, content=content)
    saved: dict[str, Any] = ended.raise_for_status().json()
    return saved


async def probe(service: Service, seconds: list[float]) -> None:
    """Ask for /livez without a pause, and note how long each answer takes."""
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(base_url=service.url, timeout=60, verify=NO_AUTHORITIES) as client:
        while True:
            begun = loop.time()
            (await client.get("/livez")).raise_for_status()
            seconds.append(loop.time() - begun)
            await asyncio.sleep(0.02)


async def upload_everything(service: Service) -> tuple[dict[str, list[Any]], list[float]]:
    """Send so many of each bomb at once; what became of them, and how long each probe took meanwhile."""
    ways = (send_directly, send_through_the_application)
    limits = httpx.Limits(max_connections=None)
    timeout = httpx.Timeout(300)
    answered: list[float] = []
    async with httpx.AsyncClient(base_url=service.url, timeout=timeout, limits=limits, verify=NO_AUTHORITIES) as client:
        probing = asyncio.create_task(probe(service, answered))
        sent = [
            (name, ways[number % len(ways)](client, name, content))
            for number in range(EACH)
            for name, content in bombs().items()
        ]
        ended = await asyncio.gather(*(each for _, each in sent))
        assert not probing.done(), probing.exception()
        probing.cancel()
    found: dict[str, list[Any]] = {}
    for (name, _), end in zip(sent, ended, strict=True):
        found.setdefault(name, []).append(end)
    return found, answered


@pytest.fixture(scope="module")
def uploads(module_folder: Path, prepared: dict[str, str]) -> Iterator[dict[str, Any]]:
    with Service(module_folder, "start", before=UPLOADING, port=0, **prepared) as service:
        service.wait_until_ready()
        before = peak(service.process.pid)
        found, answered = asyncio.run(upload_everything(service))
        after = peak(service.process.pid)
        assert service.get("/health").json()["overall"] is True
        objects = service.get("/objects").json()
        assert service.end() == 0, service.output
        print(f"\n{before} -> {after} MiB; {len(answered)} probes, slowest {max(answered):.2f} s")  # noqa: T201
        yield {"before": before, "after": after, "found": found, "answered": answered, "objects": objects}


def test_it_stays_below_its_limit_of_memory(uploads: dict[str, Any]) -> None:
    assert uploads["after"] < ALLOWED, uploads
    assert uploads["after"] - uploads["before"] > 100, "nothing was decoded"


def test_the_garbage_collector_spares_what_was_there_at_the_start(uploads: dict[str, Any]) -> None:
    """Else each look at everything stops all requests for a fifth of a second."""
    assert uploads["objects"]["spared"] > 2 * uploads["objects"]["looked_at"]


def test_probes_are_answered_meanwhile(uploads: dict[str, Any]) -> None:
    assert len(uploads["answered"]) > 10, uploads["answered"]


def test_nothing_that_is_no_image_is_stored(uploads: dict[str, Any]) -> None:
    assert all("refused" in end for end in uploads["found"]["json"])
