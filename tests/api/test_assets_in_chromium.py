"""A hostile file in a real browser, in which its viewer is logged in: nothing of it runs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from data_layer import DataLayer, Settings
from tests.api.chromium import seen_in_chromium
from tests.api.test_projects import people
from tests.api.test_variants import Clients
from tests.services.accounts.support import PASSWORD

__all__ = ["people"]

HOSTILE = """<!doctype html><form action="/taken/NAME" method="post"></form><iframe src="/taken/NAME"></iframe>
<img src="/taken/NAME"><script>
navigator.serviceWorker?.register("/taken/NAME");
fetch("/v1/sessions/current", {method: "DELETE", credentials: "include"});
document.forms[0].submit();
</script>"""
START = """<!doctype html><body><script>(async () => {
  const body = JSON.stringify({email: "owner@example.com", password: "PASSWORD", cookie: true});
  await fetch("/v1/sessions", {method: "POST", headers: {"content-type": "application/json"}, body});
  const show = async (address, patience) => {
    const frame = document.createElement("iframe");
    const shown = new Promise((done) => { frame.onload = done; setTimeout(done, patience); });
    frame.src = address;
    document.body.append(frame);
    await shown;
  };
  const found = await fetch("ASSET");
  const seen = {status: String(found.status), hostile: String((await found.text()).includes("serviceWorker"))};
  await show("ASSET", 3000);
  await show("/control", 30000);
  new Image().src = "/seen?" + encodeURIComponent(JSON.stringify(seen));
})();</script>"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.replaced(allowed_file_types=("text/html",))


@pytest.mark.needs_debian
@pytest.mark.slow
async def test_a_page_among_assets_gets_at_nothing_of_the_person_who_looks(
    data: DataLayer, people: Clients, app: FastAPI, tmp_path: Path
) -> None:
    taken: set[str] = set()
    owner_id = UUID((await people["owner"].get("/v1/accounts/me")).json()["id"])
    file = await data.files.save(HOSTILE.replace("NAME", "asset").encode(), owner_id=owner_id, file_name="a.html")
    public = await data.files.publish(file.id, owner_id=owner_id)
    start = START.replace("PASSWORD", PASSWORD).replace("ASSET", urlsplit(str(public.url)).path)

    @app.get("/start")
    async def begin() -> HTMLResponse:
        return HTMLResponse(start)

    @app.get("/control")
    async def same_without_protection() -> HTMLResponse:
        return HTMLResponse(HOSTILE.replace("NAME", "control").replace("DELETE", "GET"))

    @app.api_route("/taken/{name}", methods=["GET", "POST"])
    async def take(name: str, request: Request) -> str:
        await request.body()
        taken.add(name)
        return "taken"

    assert await seen_in_chromium(app, "/start", tmp_path) == {"status": "200", "hostile": "true"}
    assert taken == {"control"}, "the browser does all that where nothing keeps it from it"
    sessions = await people["owner"].get("/v1/sessions")
    assert len(sessions.json()["sessions"]) == 2, "the person is still logged in"
