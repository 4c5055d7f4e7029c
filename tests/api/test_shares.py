"""Shares over HTTP: anybody with the link looks, and the page that it shows can do nothing to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request

from data_layer import DataLayer
from data_layer.services import rate_limits
from data_layer.web.middleware import Application
from tests.api.chromium import seen_in_chromium
from tests.api.test_projects import create, people, refused
from tests.observability.support import events, log_to_memory

__all__ = ["people"]

PAGE = "<!doctype html><p>Hello</p><script>document.title = 'ran'</script>"
Clients = dict[str, httpx.AsyncClient]


async def project_with_page(owner: httpx.AsyncClient, page: str = PAGE) -> str:
    """The address of a project that has one version."""
    project = await create(owner)
    body = {"project_id": project["id"], "models": [{"name": "m"}]}
    started = (await owner.post("/v1/generations", json=body)).json()
    ended = await owner.put(
        f"/v1/generations/{started['id']}/variants/0",
        json={"status": "completed", "code": page},
        headers={"writer-token": started["writer_token"]},
    )
    assert ended.status_code == 200, ended.text
    return f"/v1/projects/{project['id']}"


async def test_a_link_from_its_beginning_to_its_end(people: Clients) -> None:
    owner, stranger, nobody = people["owner"], people["stranger"], people["nobody"]
    project = await project_with_page(owner)
    stream = log_to_memory(log_format="json", environment="testing")
    made = await owner.post(f"{project}/shares", json={"version": 1, "expires_in": 3600})
    assert made.status_code == 201, made.text
    share, url = made.json()["share"], made.json()["url"]
    assert url == f"/s/{made.json()['token']}"

    shown = await nobody.get(url)
    assert (shown.status_code, shown.text) == (200, PAGE)
    policy = dict(each.partition(" ")[::2] for each in shown.headers["content-security-policy"].split("; "))
    assert "allow-same-origin" not in policy["sandbox"]
    assert "allow-top-navigation" not in policy["sandbox"]
    assert (policy["default-src"], policy["form-action"]) == ("'none'", "'none'")
    assert (shown.headers["referrer-policy"], shown.headers["cache-control"]) == ("no-referrer", "no-store")
    assert not {"set-cookie", "access-control-allow-origin"} & set(shown.headers)

    listed = (await owner.get(f"{project}/shares")).json()["shares"]
    assert [(each["id"], each["view_count"]) for each in listed] == [(share["id"], 1)]
    assert (await people["moderator"].get(f"{project}/shares")).json()["shares"] == listed
    token = made.json()["token"]
    assert token not in json.dumps(listed)
    for answer in (
        await stranger.get(f"{project}/shares"),
        await stranger.post(f"{project}/shares", json={}),
        await stranger.delete(f"/v1/shares/{share['id']}"),
        await owner.post(f"{project}/shares", json={"version": 9}),
    ):
        assert refused(answer) == (404, "not_found")

    fork = await stranger.post("/v1/shares/fork", json={"token": token, "name": "Mine"})
    assert (fork.status_code, fork.json()["name"]) == (201, "Mine")
    assert (await stranger.get(f"{fork.headers['location']}/versions/1")).json()["code"] == PAGE

    for _ in range(2):
        assert (await owner.delete(f"/v1/shares/{share['id']}")).status_code == 204
    unknown = f"/s/{'A' * 43}"
    answers = [await nobody.get(each) for each in (url, unknown, "/s/%00", "/s/%ff%fe", f"/s/{'x' * 5000}")]
    facts = {(answer.status_code, answer.json()["code"], answer.json()["detail"]) for answer in answers}
    assert facts == {(404, "not_found", "there is no such share")}
    html = await nobody.get(url, headers={"accept": "text/html,*/*;q=0.8"})
    assert (html.status_code, html.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert refused(await stranger.post("/v1/shares/fork", json={"token": token})) == (404, "not_found")
    # The token is the secret: no line of the log holds it.
    lines = [event for event in events(stream) if event["logger"] != "httpx"]
    assert "/s/…" in {event.get("path") for event in lines}
    assert token not in json.dumps(lines)


async def test_looking_is_limited_for_a_network(data: DataLayer, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = rate_limits.RequestLimiter(data.cache, most=2, window=60)
    assert isinstance(app, Application)
    monkeypatch.setattr(app, "people", replace(app.people, limiter=limiter))
    transport = httpx.ASGITransport(app, client=("203.0.113.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="https://service") as client:
        assert [(await client.get("/s/unknown")).status_code for _ in range(3)] == [404, 404, 429]


HOSTILE = """<!doctype html><form action="/taken" method="post"><input name="a" value="b"></form>
<iframe src="/taken"></iframe><script>
const seen = {origin: self.origin};
const attempt = (name, work) => { try { seen[name] = String(work()); } catch (error) { seen[name] = error.name; } };
attempt("cookie", () => document.cookie);
attempt("storage", () => localStorage.length);
attempt("popup", () => window.open("/taken"));
document.forms[0].submit();
(async () => {
  try { await navigator.serviceWorker.register("/taken"); seen.worker = "registered"; }
  catch (error) { seen.worker = error.name; }
  try { seen.fetched = await (await fetch("/taken", {credentials: "include"})).text(); }
  catch (error) { seen.fetched = error.name; }
  new Image().src = "/seen?" + encodeURIComponent(JSON.stringify(seen));
})();
</script>"""


@pytest.mark.needs_debian
@pytest.mark.slow
async def test_a_hostile_page_can_do_nothing_to_the_person_who_looks(
    people: Clients, app: FastAPI, tmp_path: Path
) -> None:
    taken: list[str] = []

    @app.api_route("/taken", methods=["GET", "POST"])
    async def take(request: Request) -> str:
        taken.append(str(request.headers))
        return "taken"

    project = await project_with_page(people["owner"], HOSTILE)
    url = (await people["owner"].post(f"{project}/shares", json={})).json()["url"]
    found = await seen_in_chromium(app, url, tmp_path)
    assert found == {
        "origin": "null",
        "cookie": "SecurityError",
        "storage": "SecurityError",
        "popup": "null",
        "worker": "SecurityError",
        "fetched": "TypeError",
    }
    assert taken == []
