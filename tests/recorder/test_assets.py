"""Images that pages show are kept while they are alive, and pages that are opened later show them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from unittest.mock import patch

from data_layer import DataLayer
from data_layer.recorder.assets import named_in
from data_layer.schemas.generations import VariantEvent, WholeCode
from data_layer.services.fetching import Fetcher
from data_layer.services.files.sources import decode_data_url

from .backend import PNG, Backend, Stage, edit, request
from .conftest import Recorded, ends, serving, until, variants_of

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
