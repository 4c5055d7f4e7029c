"""A page in a real browser, which reports what its script has seen."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from urllib.parse import unquote

from fastapi import FastAPI, Request

from data_layer.server.http_server import HttpServer
from tests.needs_debian import find_program

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")


async def seen_in_chromium(app: FastAPI, path: str, folder: Path) -> dict[str, str]:
    """Open a page of the application in Chromium, and return what it reports to ``/seen`` as JSON in the query."""
    seen: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    @app.get("/seen")
    async def see(request: Request) -> None:
        seen.set_result(json.loads(unquote(request.url.query)))

    program = find_program("chromium")
    assert program is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HttpServer(app, listener, finish_seconds=1)
        server.start()
        browser = await asyncio.create_subprocess_exec(
            *(program, *_FLAGS, f"--user-data-dir={folder}"),
            f"http://127.0.0.1:{listener.getsockname()[1]}{path}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(60):
                return await seen
        finally:
            browser.kill()
            await browser.wait()
            await server.close()
