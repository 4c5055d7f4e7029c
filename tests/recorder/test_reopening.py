"""Projects come back into a page in a real browser, which knows nothing of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from data_layer import DataLayer
from data_layer.schemas.projects import ProjectDraft
from tests.needs_debian import find_program

from .backend import PNG, Backend, edit, request
from .conftest import messages, serving, until, variants_of

pytestmark = pytest.mark.needs_debian

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
_MODULES = {
    "react": "react/cjs/react.production.min.js",
    "react-dom": "react-dom/cjs/react-dom.production.min.js",
    "react-dom/client": "react-dom/client.js",
    "scheduler": "scheduler/cjs/scheduler.production.min.js",
    "zustand": "zustand/index.js",
    "zustand/vanilla": "zustand/vanilla.js",
    "use-sync-external-store/shim/with-selector": (
        "use-sync-external-store/cjs/use-sync-external-store-shim/with-selector.production.js"
    ),
    "use-sync-external-store/shim": "use-sync-external-store/cjs/use-sync-external-store-shim.production.js",
}


def build_page(folder: Path) -> Path:
    """A build such as that of Vite: an index.html with one module script."""
    source = Path(__file__).with_name("page")
    packages = Path(sys.prefix) / "react_page/node_modules"
    assert packages.exists(), f"run: sh tools/install_npm.sh {sys.executable} react_page"
    modules = {name: (packages / path).read_text() for name, path in _MODULES.items()}
    modules["app"] = (source / "app.js").read_text()
    defined = ",".join(f'"{name}":function(require,module,exports){{{text}\n}}' for name, text in modules.items())
    (folder / "assets").mkdir(parents=True)
    (folder / "assets/app.js").write_text(
        f"const process={{env:{{NODE_ENV:'production'}}}},defined={{{defined}}},loaded={{}};"
        "const load=(name)=>{name=name.replace(/\\.js$/,'');if(!loaded[name]){const made=loaded[name]={exports:{}};"
        "defined[name](load,made,made.exports);}return loaded[name].exports;};load('app');"
    )
    (folder / "index.html").write_text((source / "index.html").read_text())
    return folder


@asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    program = find_program("chromium")
    assert program is not None
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=_FLAGS)
        try:
            context = await browser.new_context()
            page = await context.new_page()
            await page.add_init_script(
                "localStorage.setItem('setting', JSON.stringify({generatedCodeConfig: 'bootstrap'}))"
            )
            yield page
        finally:
            await browser.close()


async def test_a_project_is_opened_with_all_its_versions_and_edited_further(
    data: DataLayer, backend: Backend, tmp_path: Path
) -> None:
    async with serving(data, backend, frontend=build_page(tmp_path / "dist")) as served, browser_page() as page:
        backend.play = lambda stage: stage.complete("<p>a</p>", "<p>b</p>")
        await served.ask(request("A shop"))
        [[create]] = await served.settled()
        actor = await served.person()
        await data.generations.select(actor, create.id, 1)
        backend.play = lambda stage: stage.complete("<p>b1</p>", "")
        await served.ask(edit("<p>b</p>", ["<p>a</p>", "<p>b</p>"], "Make it blue"))
        [[_, edited]] = await served.settled(2)
        await page.goto(served.url)
        await page.click("#my-projects-link")
        await page.click("button.open")
        await page.wait_for_selector("html[data-opened-project]")
        state: dict[str, Any] = await page.evaluate("window.pageState")
        project = state["project"]
        root, child = (project["commits"][str(each.id)] for each in (create, edited))
        assert (state["app"]["appState"], project["head"]) == ("CODE_READY", str(edited.id))
        assert (root["type"], root["parentHash"], root["selectedVariantIndex"]) == ("ai_create", None, 1)
        assert (child["type"], child["parentHash"]) == ("ai_edit", str(create.id))
        assert [(each["code"], each["status"]) for each in child["variants"]] == [
            ("<p>b1</p>", "complete"),
            ("", "error"),
        ]
        assert child["variants"][1]["errorMessage"] == "variant 1 failed"
        # Only there can another variant be chosen, and only there nothing warns of an older version.
        assert (root["isCommitted"], child["isCommitted"]) == (True, False)
        assert project["latestCommitHash"] == project["head"]
        await page.evaluate("pageState.project.updateSelectedVariantIndex(pageState.project.head, 0)")
        assert root["inputs"] == {"text": "A shop", "images": [PNG], "videos": []}
        assert project["referenceImages"] == [PNG]
        turns = child["variants"][0]["history"]
        assert [(turn["role"], turn["text"]) for turn in turns] == [
            ("user", "A shop"),
            ("assistant", "<p>b</p>"),
            ("user", "Make it blue"),
            ("assistant", "<p>b1</p>"),
        ]
        assert [project["assetsById"][each]["dataUrl"] for each in turns[0]["imageAssetIds"]] == [PNG]
        backend.play = lambda stage: stage.complete("<p>b2</p>")
        await page.click("#edit")
        [[_, _, further]] = await served.settled(3)
        assert further.variants[0].parent_id == variants_of(edited)[0].id
        assert further.prompt == "Edited here"
        assert further.variants[0].code_stack == "html_tailwind"  # And not what the settings of this browser say.
        assert backend.received[-1]["history"][0]["images"] == [PNG]


@pytest.mark.slow
async def test_a_page_that_is_not_known_gets_the_latest_code_by_its_import(
    data: DataLayer, backend: Backend, tmp_path: Path
) -> None:
    async with serving(data, backend, frontend=build_page(tmp_path / "dist")) as served, browser_page() as page:
        backend.play = lambda stage: stage.complete("<p>first</p>", "<p>second</p>")
        await served.ask(request())
        [[create]] = await served.settled()
        await page.clock.install()
        await page.goto(f"{served.url}/?unknown#open-project={create.project_id}")
        await page.wait_for_selector("#my-projects-link")

        async def is_imported() -> bool:
            await page.clock.run_for(20_000)
            return bool(await page.evaluate("window.imported"))

        await until(is_imported)
        assert await page.evaluate("window.imported") == {"code": "<p>first</p>", "stack": "html_tailwind"}
        await page.wait_for_selector("#my-projects-note")
        assert "only the latest code was imported" in await page.inner_text("#my-projects-note")
        assert page.url == f"{served.url}/?unknown"


@pytest.mark.slow
async def test_a_page_that_was_lost_gets_its_first_version_when_it_is_done(
    data: DataLayer, backend: Backend, tmp_path: Path
) -> None:
    goes_on = asyncio.Event()
    backend.play = lambda stage: stage.complete_after(goes_on)
    async with serving(data, backend, frontend=build_page(tmp_path / "dist")) as served, browser_page() as page:
        async with served.connect() as websocket:
            await websocket.send(json.dumps(request()))
            await anext(messages(websocket))
        await until(served.trees)
        [[create]] = await served.trees()
        await page.goto(f"{served.url}/#open-project={create.project_id}")
        await page.wait_for_selector("#my-projects-note")
        assert "still being made" in await page.inner_text("#my-projects-note")
        goes_on.set()
        await page.wait_for_selector("html[data-opened-project]")
        [commit] = (await page.evaluate("window.pageState.project.commits")).values()
        assert [(each["code"], each["status"]) for each in commit["variants"]] == [("<p>half</p>", "complete")]
        assert await page.query_selector("#my-projects-note") is None
        empty = await data.projects.create(await served.person(), ProjectDraft(name="Nothing"))
        await page.goto("about:blank")
        await page.goto(f"{served.url}/#open-project={empty.id}")
        await page.wait_for_selector("#my-projects-note")
        assert "Nothing was made" in await page.inner_text("#my-projects-note")
        assert await page.evaluate("window.pageState.app.appState") == "INITIAL"


@pytest.mark.slow
async def test_the_list_searches_deletes_and_restores(data: DataLayer, backend: Backend, tmp_path: Path) -> None:
    async with serving(data, backend, frontend=build_page(tmp_path / "dist")) as served, browser_page() as page:
        backend.play = lambda stage: stage.complete("<p>a</p>")
        for prompt in ("A bakery", "<img src=x onerror=alert(1)>"):
            await served.ask(request(prompt))
        await served.settled(2)
        await page.goto(f"{served.url}/my-projects")
        await page.wait_for_selector("#list>li:nth-child(2)")
        assert "<img src=x onerror=alert(1)>" in await page.inner_text("#list")
        await page.fill("input[name=q]", "bakery")
        await page.press("input[name=q]", "Enter")
        await page.wait_for_selector("#list>li:only-child")
        await page.click("button:text-is('Versions')")
        await page.wait_for_selector("ul.tree")
        assert "A bakery (completed)" in await page.inner_text("ul.tree")
        await page.click("button:text-is('Share')")
        shared = await page.input_value("input[aria-label='Link to share']")
        async with served.client() as client:
            assert (await client.get(shared)).text == "<p>a</p>"
        await page.click("button:text-is('Delete')")
        await page.click("button:text-is('Undo')")
        await page.wait_for_selector("#list>li:nth-child(2)")
        assert len(await served.trees()) == 2
        [[bakery], _] = await served.trees()
        async with served.client() as client:
            console = await client.get(f"/console/projects/{bakery.project_id}")
        assert f'href="/#open-project={bakery.project_id}"' in console.text
        await page.goto("about:blank")
        await page.goto(f"{served.url}/#open-project={bakery.project_id}")
        await page.wait_for_selector("html[data-opened-project]")
