"""Images that pages show are kept while they are alive, and pages that are opened later show them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from unittest.mock import patch

import pytest

from data_layer import DataLayer, Settings
from data_layer.errors import StorageUnavailableError
from data_layer.recorder import recorder
from data_layer.recorder.assets import WaitingAssets, named_in
from data_layer.schemas.generations import VariantEvent, WholeCode
from data_layer.services.fetching import Fetcher
from data_layer.services.files import FileService
from data_layer.services.files.sources import decode_data_url

from .backend import PNG, Backend, Stage, edit, request
from .conftest import Recorded, ends, serving, until, variants_of
from .test_outages import away

PROVIDER = "https://replicate.delivery/xyz/out-0.png?token=1"
CONTENT, _ = decode_data_url(PNG, "image")


async def fetch(_fetcher: Fetcher, url: str) -> AsyncGenerator[bytes]:
    assert url == PROVIDER
    yield CONTENT


async def test_local_assets_outlive_the_computer_that_had_them(data: DataLayer, backend: Backend) -> None:
    backend.assets["logo-1a.png"] = CONTENT
    async with serving(data, backend) as served, served.client() as client:
        code = f'<img src="{served.url}/local-assets/logo-1a.png">'
        backend.play = lambda stage: stage.complete(code)
        await served.ask(request())
        [[generation]] = await served.settled()
        assert ends(generation) == [("completed", code)]
        await until(lambda: data.pages.read_local("logo-1a.png"))
        assert (await client.get("/local-assets/logo-1a.png")).content == CONTENT
        backend.assets.clear()
    async with serving(data, Backend()) as served, served.client() as client:
        answer = await client.get("/local-assets/logo-1a.png")
        assert (answer.content, answer.headers["content-type"]) == (CONTENT, "image/png")
        assert answer.headers["x-content-type-options"] == "nosniff"
        for missing in ("other.png", "..%2Fsecret.png", "page.html"):
            assert (await client.get(f"/local-assets/{missing}")).status_code == 404


async def test_a_provider_s_image_lives_on_and_an_edit_of_what_was_handed_out_finds_its_parent(
    served: Recorded, backend: Backend
) -> None:
    code = f'<p>☃</p><img src="{PROVIDER}"><img src="https://example.com/other.png">\n'

    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "2")
        output = {"images": [{"url": PROVIDER}]}
        await stage.say("toolResult", 0, data={"name": "generate_images", "output": output, "ok": True}, eventId="t")
        await stage.say("setCode", 0, code)
        await stage.say("setCode", 1, code)
        await stage.say("variantComplete", 0)
        await stage.say("variantComplete", 1)

    backend.play = play
    actor = await served.person()
    with patch.object(Fetcher, "fetch", fetch):
        await served.ask(request())
        [[generation]] = await served.settled()

        async def is_kept() -> bool:
            files = await served.data.files.list(owner_id=actor.user_id)
            return any(each.file_name == "out-0.png" for each in files)

        await until(is_kept)
    assert [kept for _, kept in ends(generation)] == [code, code]  # To the byte.
    async with served.client() as client:
        tree = (await client.get(f"/my-projects/tree/{generation.project_id}")).json()
        shown = [each["code"] for each in tree["commits"][0]["variants"]]
        assert PROVIDER not in "".join(shown)
        assert "https://example.com/other.png" in shown[0]
        address = shown[1].split('src="')[1].split('"')[0]
        assert address.startswith(served.url)
        image = await client.get(address)
        assert (image.status_code, image.headers["content-type"]) == (200, "image/png")
    backend.play = lambda stage: stage.complete("<p>edited</p>")
    await served.ask(edit(shown[1], shown))
    [[_, edited]] = await served.settled(2)
    assert edited.variants[0].parent_id == variants_of(generation)[1].id
    await served.ask(edit(shown[1].replace("☃", "changed"), shown))
    assert len(await served.settled(4)) == 2  # It was handed out otherwise: imported code.


def test_addresses_are_found_in_whatever_a_tool_reports() -> None:
    report = {"a": [f"see {PROVIDER}, or", {"b": 'x="http://h/local-assets/n.png"'}], "n": 1}
    data = {"name": "generate_images", "output": report}
    code = "<img src='/local-assets/n.png'> http://h:7001/local-assets/m-2.webp https://example.com/other.png"
    assert named_in([VariantEvent("toolResult", {"data": data})]) == {PROVIDER, "/local-assets/n.png"}
    assert named_in([VariantEvent("toolResult", {"data": data | {"name": "edit_file"}})]) == {"/local-assets/n.png"}
    assert named_in([WholeCode(code)]) == {"/local-assets/n.png", "/local-assets/m-2.webp"}


def lists(settings: Settings) -> list[Path]:
    return list((settings.general.data_folder / "recorder/assets.waiting").glob("*"))


async def test_what_waits_to_be_kept_outlives_the_process(
    data: DataLayer, backend: Backend, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_CLOSE_SECONDS", 0.1)
    backend.assets["logo-1a.png"] = CONTENT
    backend.play = lambda stage: stage.complete('<img src="/local-assets/logo-1a.png">')
    unreachable = StorageUnavailableError("the storage cannot be reached")
    async with serving(data, backend) as served:
        with away((FileService, "save", unreachable)):
            await served.ask(request(images=[]))
            await served.settled()
            await until(lambda: lists(settings))
            await asyncio.sleep(1)  # It was tried, and waits for the next attempt.
    [waiting] = lists(settings)
    assert waiting.stat().st_mode & 0o077 == 0
    assert not await data.pages.read_local("logo-1a.png")
    waiting.with_name("odd.json").write_text("[]")
    async with serving(data, backend):
        await until(lambda: data.pages.read_local("logo-1a.png"))
        await until(lambda: [each.name for each in lists(settings)] == ["odd.rejected"])


def test_the_list_of_a_killed_process_is_taken_up_once_it_is_gone(tmp_path: Path) -> None:
    program = (
        "import sys, uuid; from pathlib import Path; from data_layer.recorder.assets import WaitingAssets;"
        "held = WaitingAssets(Path(sys.argv[1])).add(uuid.uuid4(), uuid.uuid4(), ['/local-assets/a.png'], 5.0);"
        "print('there', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        assert not WaitingAssets(tmp_path).abandoned(), "somebody works on it"
        process.kill()
    [found] = WaitingAssets(tmp_path).abandoned()
    assert (found.addresses, found.until) == (("/local-assets/a.png",), 5.0)
    assert not WaitingAssets(tmp_path).abandoned(), "it is taken up once"
    found.release()
    [again] = WaitingAssets(tmp_path).abandoned()
    again.remove()
    assert not list(tmp_path.iterdir())
