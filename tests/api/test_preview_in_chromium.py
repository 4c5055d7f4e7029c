"""A hostile page in a real browser, in which its viewer is logged in: it gets at nothing of the person."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from urllib.parse import unquote
from uuid import UUID

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from data_layer import DataLayer
from data_layer.api.authentication import COOKIE
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import FinishedVariant, GenerationRequest
from data_layer.server.http_server import HttpServer
from tests.api.test_projects import create, people
from tests.api.test_variants import Clients
from tests.needs_debian import find_program
from tests.services.accounts.support import PASSWORD

__all__ = ["people"]

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
HOSTILE = """<!doctype html><form action="/taken" method="post"><input name="a" value="b"></form>
<iframe src="/taken"></iframe><script>
const seen = {origin: self.origin};
const attempt = (name, work) => { try { seen[name] = String(work()); } catch (error) { seen[name] = error.name; } };
attempt("cookie", () => document.cookie);
attempt("storage", () => localStorage.length);
attempt("popup", () => window.open("/taken"));
document.forms[0].submit();
const ask = async (name, work) => {
  try { seen[name] = String(await work()); } catch (error) { seen[name] = error.name; }
};
(async () => {
  await ask("worker", () => navigator.serviceWorker.register("/taken"));
  await ask("account", async () => (await fetch("/v1/accounts/me", {credentials: "include"})).text());
  await ask("logout", () => fetch("/v1/sessions/current", {method: "DELETE", credentials: "include"}));
  new Image().src = "/taken";
  new Image().src = "/seen?" + encodeURIComponent(JSON.stringify(seen));
})();
</script>"""
START = """<!doctype html><script>(async () => {
  const body = JSON.stringify({email: "owner@example.com", password: "PASSWORD", cookie: true});
  await fetch("/v1/sessions", {method: "POST", headers: {"content-type": "application/json"}, body});
  location = "/v1/variants/VARIANT/preview";
})();</script>"""


@pytest.mark.needs_debian
@pytest.mark.slow
async def test_a_page_gets_at_nothing_of_the_person_who_looks(
    data: DataLayer, people: Clients, app: FastAPI, tmp_path: Path
) -> None:
    taken: list[tuple[str, bool]] = []
    seen: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    project = UUID((await create(people["owner"]))["id"])
    recorded = await data.generations.record(SYSTEM, project, GenerationRequest(), [FinishedVariant(code=HOSTILE)])
    start = START.replace("PASSWORD", PASSWORD).replace("VARIANT", str(recorded.variant_ids[0]))

    @app.get("/start")
    async def begin() -> HTMLResponse:
        return HTMLResponse(start)

    @app.api_route("/taken", methods=["GET", "POST"])
    async def take(request: Request) -> str:
        taken.append((request.headers.get("sec-fetch-dest", request.method), COOKIE in request.cookies))
        return "taken"

    @app.get("/seen")
    async def see(request: Request) -> None:
        seen.set_result(json.loads(unquote(request.url.query)))

    program = find_program("chromium")
    assert program is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HttpServer(app, listener, finish_seconds=1)
        server.start()
        browser = await asyncio.create_subprocess_exec(
            *(program, *FLAGS, f"--user-data-dir={tmp_path}"),
            f"http://127.0.0.1:{listener.getsockname()[1]}/start",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(60):
                found = await seen
        finally:
            browser.kill()
            await browser.wait()
            await server.close()
    assert found == {
        "origin": "null",
        "cookie": "SecurityError",
        "storage": "SecurityError",
        "popup": "null",
        "worker": "SecurityError",
        "account": "TypeError",
        "logout": "TypeError",
    }
    # An image may be loaded, without the cookie; no form was sent and no frame shown. The person is still logged in.
    assert set(taken) <= {("image", False)}
    owner_id = UUID((await people["owner"].get("/v1/accounts/me")).json()["id"])
    sessions = await data.sessions.list(SYSTEM, owner_id)
    assert len(sessions) == 2
