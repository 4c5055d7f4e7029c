"""Who may use the application, and what is answered where."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from data_layer import DataLayer
from data_layer.cli.recorder import _observer
from data_layer.errors import ConfigurationError
from data_layer.recorder.application import LOGIN_PATH
from data_layer.recorder.loading import load_application
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.web.authentication import COOKIE

from .backend import Backend, request
from .conftest import Recorded, messages, serving

PASSWORD = "a long and quiet river"
HTML = {"accept": "text/html"}


def build(folder: Path) -> Path:
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><html><head><title>Page</title></head><body></body></html>")
    (folder / "assets/app-1a2b.js").write_text("//")
    (folder.parent / "outside.txt").write_text("outside")
    return folder


async def test_page_api_and_application_share_a_port(data: DataLayer, backend: Backend, tmp_path: Path) -> None:
    async with (
        serving(data, backend, frontend=build(tmp_path / "dist")) as served,
        served.client() as client,
    ):
        assert backend.lifespan == ["started"]
        index = await client.get("/")
        assert '<script src="/my-projects/page.js"></script><title>Page</title>' in index.text
        assert (await client.get("/assets/app-1a2b.js")).headers["cache-control"].endswith("immutable")
        assert (await client.get("/editor/deep", headers=HTML)).text == index.text
        assert (await client.get("/editor/deep", headers={"accept": "application/json"})).status_code == 404
        # Paths of the page that are calls of the application too.
        for path, status in (("/evals", 422), ("/api/export", 405)):
            assert (await client.get(path, headers=HTML)).text == index.text
            assert (await client.get(path)).status_code == status
        assert (await client.get("/api/capabilities")).json() == {"capable": True}
        assert (await client.get("/livez")).json() == {"status": "alive"}
        assert (await client.get("/v1/projects")).json()["projects"] == []
        for path in ("/../outside.txt", "/%2e%2e/outside.txt", "/assets/%2e%2e/%2e%2e/outside.txt", "/assets/%00"):
            assert "outside" not in (await client.get(path, headers=HTML)).text
    assert backend.lifespan == ["started", "stopped"]


@pytest.mark.parametrize("login", [True, False])
async def test_who_starts_it_for_several_people_gets_a_code_for_the_first_account(
    data: DataLayer,
    capsys: pytest.CaptureFixture[str],
    login: bool,  # noqa: FBT001
) -> None:
    terminal = _observer(data.settings.replaced(host="0.0.0.0"), offers_code=login)  # noqa: S104
    await terminal.opened(data)
    terminal.serving(data)
    said = capsys.readouterr().out
    assert f"http://127.0.0.1:{data.settings.service.port}/my-projects" in said, "browsers keep no cookie of 0.0.0.0"
    found = re.search(r"/console/first and enter (\S+)", said)
    assert (found is not None) is login
    if found is not None:
        await data.first_administrator.claim(
            found[1], email="ada@example.com", first_name="Ada", last_name="Lee", password=PASSWORD
        )
        terminal = _observer(data.settings, offers_code=True)
        await terminal.opened(data)
        terminal.serving(data)
        assert "/console/first" not in capsys.readouterr().out


async def test_behind_a_proxy_the_application_sees_the_client(data: DataLayer, backend: Backend) -> None:
    proxied = DataLayer(data.settings.replaced(trusted_proxies=("127.0.0.1",)))
    sent = {"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"}
    async with proxied, serving(proxied, backend) as served:
        async with served.client(**sent) as client:
            await client.get("/api/capabilities")
        async with served.connect(**sent):
            pass
        assert backend.addresses == [
            (f"https://127.0.0.1:{served.port}/api/capabilities", "203.0.113.7"),
            (f"wss://127.0.0.1:{served.port}/generate-code", "203.0.113.7"),
        ]
    backend.addresses.clear()
    async with serving(data, backend) as served, served.client(**sent) as client:
        await client.get("/api/capabilities")
        assert backend.addresses == [(f"{served.url}/api/capabilities", "127.0.0.1")]


async def test_without_a_built_page_the_root_is_theirs(served: Recorded) -> None:
    async with served.client() as client:
        assert (await client.get("/")).text == "Your backend is running correctly."


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}])
async def test_pages_of_other_hosts_get_nothing_of_the_one_person(served: Recorded, headers: dict[str, str]) -> None:
    async with served.client(**headers) as client:
        assert (await client.get("/v1/projects")).status_code == 401
        for path in ("/my-projects", "/api/design-systems"):
            refused = await client.get(path)
            assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (403, False)
    with pytest.raises(InvalidStatus):
        await served.connect(**headers)


async def test_the_one_person_goes_on_after_a_log_out(served: Recorded) -> None:
    person = await served.person()
    assert person.user_id is not None
    async with served.client() as client:
        assert (await client.get("/v1/projects")).status_code == 200
        assert await served.data.sessions.revoke_all(SYSTEM, person.user_id) == 1
        answers = await asyncio.gather(*(client.get("/v1/projects") for _ in range(5)))
        assert [each.status_code for each in answers] == [200] * 5
    assert await served.data.sessions.revoke_all(SYSTEM, person.user_id) == 1  # All five share one.


async def test_one_person_needs_a_loopback_address(data: DataLayer, backend: Backend) -> None:
    public = DataLayer(data.settings.replaced(host="0.0.0.0"))  # noqa: S104
    async with public:
        with pytest.raises(ConfigurationError, match="--login"):
            async with serving(public, backend):
                pass


async def test_with_log_in_everybody_sees_their_own(data: DataLayer, backend: Backend, tmp_path: Path) -> None:
    backend.play = lambda stage: stage.complete("<p>a</p>")
    actors = []
    async with serving(data, backend, frontend=build(tmp_path / "dist"), needs_login=True) as served:
        for name in ("ada", "bob"):
            account = await data.accounts.create(
                SYSTEM, email=f"{name}@example.com", first_name=name, last_name="L", password=PASSWORD
            )
            actors.append(Actor.user(account.id, account.role))
            async with served.client() as client:
                away = await client.get("/", headers=HTML)
                assert (away.status_code, away.headers["location"]) == (303, f"{LOGIN_PATH}?next=/")
                assert 'name="next" value="/"' in (await client.get(away.headers["location"])).text
                assert (await client.get("/api/capabilities")).status_code == 401
                sent = {"email": f"{name}@example.com", "password": PASSWORD, "next": "/"}
                answer = await client.post(LOGIN_PATH, data=sent)
                assert (answer.status_code, answer.headers["location"]) == (303, "/")
                cookie = answer.headers["set-cookie"].partition(";")[0]
                assert cookie.startswith(COOKIE)
                own = {"Cookie": cookie, "Origin": served.url}
                assert (await client.get("/", headers=own | HTML)).status_code == 200
                created = await client.post(
                    "/api/design-systems", headers=own, json={"name": f" {name}'s ", "content": "c"}
                )
                assert created.status_code == 201
                assert [each["name"] for each in (await client.get("/api/design-systems", headers=own)).json()] == [
                    f"{name}'s"
                ]
            async with served.connect(**own) as websocket:
                await websocket.send(json.dumps(request(f"Of {name}")))
                assert [message async for message in messages(websocket)][-1]["type"] == "variantComplete"
            [[generation]] = await served.settled(1, actors[-1])
            assert generation.prompt == f"Of {name}"
        async with served.connect(Origin=served.url) as websocket:
            [refusal] = [message async for message in messages(websocket)]
            assert (refusal["type"], websocket.close_code) == ("error", 4332)
        with pytest.raises(InvalidStatus):
            await served.connect(Cookie=own["Cookie"], Origin="https://evil.example")
        async with served.client(Cookie=own["Cookie"], Origin="https://evil.example") as client:
            refused = await client.get("/my-projects")
            assert refused.status_code == 403
            assert "CORS_ALLOWED_ORIGINS" in refused.json()["detail"]
    assert len(backend.received) == 2


async def test_design_systems_are_answered_as_the_application_does(served: Recorded) -> None:
    path = "/api/design-systems"
    async with served.client() as client:
        created = (await client.post(path, json={"name": "Round", "content": "Blue"})).json()
        assert set(created) == {"id", "name", "content", "createdAt", "updatedAt"}
        changed = await client.patch(f"{path}/{created['id']}", json={"content": "Red"})
        assert (changed.status_code, changed.json()["name"], changed.json()["content"]) == (200, "Round", "Red")
        assert (await client.get(path)).json() == [changed.json()]
        # The page may be served by Vite; without the header its browser would not let it read.
        vite = await client.get(path, headers={"origin": "http://localhost:5173"})
        assert (vite.status_code, vite.headers["access-control-allow-origin"]) == (200, "*")
        refusals: tuple[Any, ...] = ({"name": " ", "content": ""}, {"name": 1}, [])
        for wrong in refusals:
            refused = await client.post(path, json=wrong)
            assert refused.status_code == 400
            assert isinstance(refused.json()["detail"], str)
        large = await client.post(path, json={"name": "x", "content": "x" * 2**20})
        assert (large.status_code, large.json()) == (413, {"detail": "the body may have 1048576 bytes at most"})
        for unknown in ("00000000-0000-0000-0000-000000000000", "odd"):
            assert (await client.patch(f"{path}/{unknown}", json={"name": "x"})).status_code == 404
            assert (await client.delete(f"{path}/{unknown}")).json() == {"detail": "Design system not found"}
        deleted = await client.delete(f"{path}/{created['id']}")
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert (await client.get(path)).json() == []


@pytest.mark.parametrize("name", ["main", "no.such.module:app", "json:nothing", "json:__doc__"])
def test_what_is_not_an_application_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=name.partition(":")[0]):
        load_application(name)
