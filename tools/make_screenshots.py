"""Make the pictures of the console in docs/_static from the example data; `make screenshots`.

The pages of the example data load libraries from a CDN, which the browser never reaches: its name leads to a server
here that answers from npm packages (see render_seed_screenshots.py).
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import io
import math
import mimetypes
import random
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from PIL import Image
from playwright.async_api import Page, async_playwright
from render_seed_screenshots import CDN_URL, DEFAULT_CACHE, PackageCache

from data_layer import DataLayer, Settings
from data_layer.entities.enums import UserRole
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.statistics import FigureSample
from data_layer.server.faces import whole_application
from data_layer.server.http_server import HttpServer

TARGET = Path(__file__).parents[1] / "docs" / "_static"
CDN = "cdn.jsdelivr.net"
COLOURS = 200
MANY = "bastian.federkiel@example.org"
PATIENCE = 8_000.0
mimetypes.add_type("text/javascript", ".mjs")


class _Packages(http.server.BaseHTTPRequestHandler):
    """Answers as the CDN would."""

    def __init__(self, cache: PackageCache, *arguments: object) -> None:
        self._cache = cache
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        match = CDN_URL.match(f"https://{CDN}{self.path}")
        file = self._cache.file(match[1], match[2]) if match else None
        self.send_response(404 if file is None else 200)
        self.send_header("access-control-allow-origin", "*")
        self.send_header("cross-origin-resource-policy", "cross-origin")
        if file is not None:
            self.send_header("content-type", mimetypes.guess_type(file.name)[0] or "application/octet-stream")
        self.end_headers()
        if file is not None:
            self.wfile.write(file.read_bytes())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def packages() -> Iterator[int]:
    """The port of a server that answers as the CDN would."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Packages, PackageCache(DEFAULT_CACHE))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(CDN).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


async def log_in(page: Page, base: str, login: tuple[str, str]) -> None:
    """Log in as a person of the example data."""
    await page.goto(f"{base}/console/login")
    await page.fill("#email", login[0])
    await page.fill("#password", login[1])
    await page.click("button.primary")
    await page.wait_for_url("**/console/projects", wait_until="commit")


async def save(page: Page, address: str, name: str) -> None:
    """Save a picture in few colours."""
    await page.goto(address, wait_until="domcontentloaded")
    await page.wait_for_timeout(PATIENCE)  # Frames load libraries, and nothing says when they have drawn.
    picture = Image.open(io.BytesIO(await page.screenshot())).convert("RGB").quantize(COLOURS)
    picture.save(TARGET / f"console-{name}.png", optimize=True)
    print(f"{name}: {(TARGET / f'console-{name}.png').stat().st_size / 1024:.0f} KiB")


async def record_half_an_hour(data: DataLayer) -> None:
    """Put samples of figures where the service has them, as invented as the example data."""
    now = datetime.now(UTC)
    chance = random.Random(7)  # noqa: S311  (no secret)
    commits, hits, samples = 40_000, 0.93, []
    for number in range(180):
        load = 3 + 2 * math.sin(number / 28) + (9 if 96 <= number < 112 else 0)  # An import, for a few minutes.
        commits += int(load * chance.uniform(30, 60))
        hits += (0.95 - hits) * 0.05 - (0.02 if load > 8 else 0) + chance.uniform(-0.004, 0.004)
        samples.append(
            FigureSample(
                taken_at=now - timedelta(seconds=10 * (179 - number)),
                process="app-1:42",
                database_size=11_000_000 + number * 3_000 + (number >= 112) * 400_000,
                connections=int(6 + load * chance.uniform(0.7, 1.3)),
                block_hit_rate=0.999 - load * chance.uniform(0, 0.0004),
                commits=commits,
                waiting_for_locks=chance.choice((1, 2)) if load > 8 and chance.random() < 0.4 else 0,
                cache_size=1_500_000 + int(load * 20_000) + number * 400,
                cache_hit_rate=hits,
                keys=40 + int(load * chance.uniform(3, 5)),
                near_size=int(60_000 + load * chance.uniform(3_000, 5_000)),
                latency_ms=round(0.3 + load * chance.uniform(0.02, 0.06), 3),
                stored_size=1_000_000 + (max(0, min(number - 96, 16))) * 15_000,
                file_count=44 + max(0, min(number - 96, 13)),
                free_size=62 * 2**30 - number * 40_000,
            )
        )
    await data.cache.set("data-layer:figure-samples", samples, ttl=1800)


async def take(data: DataLayer, base: str, login: tuple[str, str], port: int) -> None:
    """Take all pictures."""
    owner = await data.accounts.find(SYSTEM, login[0])
    shown = (await data.projects.search(Actor.user(owner.id, UserRole.ADMIN), "pricing")).hits[0].project.id
    pages = {
        "project": f"/console/projects/{shown}",
        "compare": f"/console/projects/{shown}/compare",
        "pages": f"/console/projects/{shown}/compare?view=pages&v=1&i=1",
        "replay": f"/console/projects/{shown}/replay",
        "health": "/console/admin/system",
    }
    flags = ["--no-sandbox", f"--host-resolver-rules=MAP {CDN} 127.0.0.1:{port}", "--ignore-certificate-errors"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        for scheme in ("light", "dark"):
            options = {"viewport": {"width": 1280, "height": 860}, "locale": "en-GB", "color_scheme": scheme}
            async with await browser.new_context(**options) as context:  # type: ignore[arg-type]
                page = await context.new_page()
                await log_in(page, base, login)
                wanted = pages if scheme == "light" else {"project-dark": pages["project"]}
                await record_half_an_hour(data)
                for name, path in wanted.items():
                    await save(page, f"{base}{path}", name)
        async with await browser.new_context(viewport={"width": 1280, "height": 1120}, locale="en-GB") as context:
            # Somebody with more projects, who has chosen no password.
            password = f"{login[1]}-{login[1]}"
            await data.accounts.set_password(SYSTEM, (await data.accounts.find(SYSTEM, MANY)).id, password)
            page = await context.new_page()
            await log_in(page, base, (MANY, password))
            await save(page, f"{base}/console/projects", "projects")
        await browser.close()


async def main() -> None:
    """Serve the example data from a folder that is removed afterwards, and take the pictures."""
    logins: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="dl-", ignore_cleanup_errors=True) as folder, packages() as port:
        settings = Settings(
            data_folder=Path(folder) / "data", local_storage_path=Path(folder) / "uploads", log_level="error"
        )
        async with DataLayer(settings, prepare=True) as data:
            await data.seed.load(on_login=lambda email, password: logins.append((email, password)))
            with socket.create_server(("127.0.0.1", 0)) as listener:
                server = HttpServer(whole_application(data), listener, finish_seconds=1)
                server.start()
                await take(data, f"http://127.0.0.1:{listener.getsockname()[1]}", logins[0], port)
                await server.close()


if __name__ == "__main__":
    asyncio.run(main())
