"""A hostile page in a real browser, in which its viewer is logged in: it gets at nothing of the person."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from data_layer import DataLayer
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import FinishedVariant, GenerationRequest
from data_layer.web.authentication import COOKIE
from tests.api.chromium import seen_in_chromium
from tests.api.test_projects import create, people
from tests.api.test_variants import Clients
from tests.services.accounts.support import PASSWORD

__all__ = ["people"]

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

    found = await seen_in_chromium(app, "/start", tmp_path)
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
