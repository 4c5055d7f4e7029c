"""From the first mail to the last byte: a person, a service and a model, each in processes of their own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.source import PROJECT
from tests.mail_server import mail_server, token_of
from tests.service.conftest import new_folder, prepared
from tests.service.support import Service
from tests.support import until

from .person import EMAIL, PAGE

__all__ = ["new_folder", "prepared"]

pytestmark = pytest.mark.slow


class Role:
    """A process that plays a role of ``person``."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: dict[str, Any] = {}

    def order(self, **orders: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(orders).encode() + b"\n")

    async def listen(self, name: str) -> Any:
        """What it says of something; its own words if it ends before."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            self.said |= said
            if name in said:
                return said[name]
        _, errors = await self.process.communicate()
        pytest.fail(errors.decode(), pytrace=False)


@asynccontextmanager
async def role(name: str, **orders: Any) -> AsyncIterator[Role]:
    command = [sys.executable, "-m", "tests.clients.person", name]
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    played = Role(process)
    played.order(**orders)
    try:
        yield played
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.timeout(300)
async def test_somebody_registers_makes_a_page_and_leaves(new_folder: Path, prepared: dict[str, str]) -> None:
    async with mail_server() as mails:
        settings = prepared | {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(mails.port),
            "SMTP_TLS": "none",
            "MAIL_FROM": "Screenshots <no-reply@example.com>",
            "BCRYPT_ROUNDS": "4",
            "LOCAL_STORAGE_PATH": str(new_folder / "uploads"),
        }
        with Service(new_folder, "start", port=0, **settings) as service:
            await asyncio.to_thread(service.wait_until_ready)
            async with role("begin", url=service.url) as person:
                await person.listen("registered")
                await until(lambda: bool(mails.received), 60)
                assert mails.receivers == [EMAIL]
                person.order(token=token_of(mails.received[0]))
                started = await person.listen("started")
            orders = {"url": service.url, "started": started} | {
                name: person.said[name] for name in ("tokens", "project")
            }

            async with role("follow", **orders) as follower, role("write", **orders) as model:
                while await follower.listen("code") < len(PAGE) // 6:
                    pass
                model.process.kill()
                await model.process.wait()
                async with role("go_on", **orders) as other_model:
                    assert 0 < await other_model.listen("continued") < len(PAGE)
                assert await follower.listen("ended") == "completed"
                assert await follower.listen("sha256") == hashlib.sha256(PAGE.encode()).hexdigest()

            async with role("refine", **orders) as person:
                assert await person.listen("erased")
            assert await asyncio.to_thread(service.end) == 0, service.output
