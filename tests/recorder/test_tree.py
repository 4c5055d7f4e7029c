"""A project in the form in which its page goes on with it."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any
from uuid import UUID

from PIL import Image

from data_layer import DataLayer

from .backend import PNG, Backend, edit, request
from .conftest import Recorded, serving


async def make(served: Recorded, backend: Backend, sent: dict[str, Any], *codes: str) -> None:
    """Record a generation; without any code the application gives up."""
    backend.play = (lambda stage: stage.complete(*codes)) if codes else (lambda stage: stage.fail("no credits"))
    await served.ask(sent)


async def tree_of(served: Recorded, project_id: UUID) -> dict[str, Any]:
    async with served.client() as client:
        found: dict[str, Any] = (await client.get(f"/my-projects/tree/{project_id}")).json()
        return found


async def test_versions_come_in_the_order_in_which_they_were_made(served: Recorded, backend: Backend) -> None:
    await make(served, backend, request("root"), "<p>root</p>")
    await served.settled()
    await make(served, backend, edit("<p>root</p>", ["<p>root</p>"], "child"), "<p>child</p>")
    await served.settled(2)
    await make(served, backend, edit("<p>child</p>", ["<p>child</p>"], "grandchild"), "<p>grandchild</p>")
    await served.settled(3)
    await make(served, backend, edit("<p>root</p>", ["<p>root</p>"], "other child"), "<p>other</p>")
    [[root, *_]] = await served.settled(4)
    tree = await tree_of(served, root.project_id)
    assert [(each["inputs"]["text"], each["isCommitted"]) for each in tree["commits"]] == [
        ("root", True),
        ("child", True),
        ("grandchild", True),
        ("other child", False),
    ]
    assert tree["head"] == tree["commits"][-1]["hash"]


async def test_a_person_goes_on_with_what_has_a_page(served: Recorded, backend: Backend) -> None:
    await make(served, backend, request("root"), "", "<p>second</p>")
    await served.settled()
    sent = edit("<p>second</p>", ["", "<p>second</p>"], "failed")
    sent["prompt"]["selectedElementHtml"] = "<p>second</p>"
    await make(served, backend, sent)
    [[root, _]] = await served.settled(2)
    tree = await tree_of(served, root.project_id)
    kept, failed = tree["commits"]
    done = kept["variants"][1]
    assert (tree["head"], kept["selectedVariantIndex"]) == (kept["hash"], 1)
    assert [list(each["history"]) for each in failed["variants"]] == [[kept["hash"], done["id"], failed["hash"]]]
    assert (failed["parentHash"], failed["variants"][0]["status"]) == (kept["hash"], "error")
    assert failed["inputs"]["selectedElementHtml"] == "<p>second</p>"
    assert 0 <= done["completedAt"] - done["requestStartedAt"] < 60_000


async def test_images_and_videos_come_back_as_they_came_whatever_their_type_is_called(
    served: Recorded, backend: Backend
) -> None:
    jpeg = BytesIO()
    Image.new("RGB", (8, 8), "red").save(jpeg, "JPEG")
    film = b"\0\0\0\x14ftypqt  \0\0\0\0qt  \0\0\0\x08wide"
    called = {"image/png": jpeg.getvalue(), "video/quicktime": film}
    image, video = (f"data:{kind};base64,{base64.b64encode(content).decode()}" for kind, content in called.items())
    sent = request(inputMode="video")
    sent["prompt"] |= {"images": [PNG, image], "videos": [video]}
    await make(served, backend, sent, "<p>a</p>")
    [[root]] = await served.settled()
    tree = await tree_of(served, root.project_id)
    urls = {each["id"]: each["dataUrl"] for each in tree["assets"]}
    inputs = tree["commits"][0]["inputs"]
    assert {name: [urls[each] for each in inputs[name]] for name in ("images", "videos")} == {
        "images": [PNG, image],
        "videos": [video],
    }
    assert {each["dataUrl"]: each["type"] for each in tree["assets"]} == {PNG: "image", image: "image", video: "video"}


async def test_a_regeneration_without_its_words_is_a_sibling(served: Recorded, backend: Backend) -> None:
    """As the page sends it: it repeats the images alone."""
    await make(served, backend, request("Make it green"), "<p>a</p>")
    await served.settled()
    await make(served, backend, request(""), "<p>b</p>")
    [[first, again]] = await served.settled(2)
    assert (first.prompt, again.prompt) == ("Make it green", "")
    await make(served, backend, request("Make it red"), "<p>c</p>")
    assert len(await served.settled(3)) == 2


async def test_a_regeneration_of_a_reopened_project_is_a_sibling(data: DataLayer, backend: Backend) -> None:
    jpeg, notes = BytesIO(), Image.Exif()
    notes[0x010E] = "of a person"
    Image.new("RGB", (8, 8), "red").save(jpeg, "JPEG", exif=notes)
    sent = request()
    sent["prompt"]["images"] = [f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"]
    private = DataLayer(data.settings.replaced(image_remove_metadata="all"))
    async with private, serving(private, backend) as served:
        await make(served, backend, sent, "<p>a</p>")
        [[root]] = await served.settled()
        await private.cache.flush()  # It is years ago.
        tree = await tree_of(served, root.project_id)
        [shown] = [each["dataUrl"] for each in tree["assets"]]
        assert [shown] != sent["prompt"]["images"]
        sent["prompt"] |= {"images": [shown], "text": ""}
        await make(served, backend, sent, "<p>b</p>")
        assert len(await served.settled(2)) == 1


async def test_an_edit_of_imported_code_is_no_first_request(served: Recorded, backend: Backend) -> None:
    await make(served, backend, edit("<p>imported</p>", ["<p>imported</p>"], "Make it blue"), "<p>blue</p>")
    [[root, _]] = await served.settled(2)
    tree = await tree_of(served, root.project_id)
    assert [each["type"] for each in tree["commits"]] == ["code_create", "ai_edit"]
    assert (tree["initialPrompt"], tree["referenceImages"], tree["stack"]) == ("", [], "html_tailwind")
    sent = request("Make it blue")
    sent["prompt"]["images"] = []
    await make(served, backend, sent, "<p>new</p>")
    assert len(await served.settled(3)) == 2


async def test_what_each_version_repeats_is_sent_once(served: Recorded, backend: Backend) -> None:
    former = ""
    for number in range(4):
        code = f"<p>{number}</p>{'long ' * 1000}"
        sent = request("root") if number == 0 else edit(former, [former], "next")
        await make(served, backend, sent, code)
        trees = await served.settled(number + 1)
        former = code
    tree = await tree_of(served, trees[0][0].project_id)
    assert [len(each["variants"][0]["history"]) for each in tree["commits"]] == [2, 4, 6, 8]
    assert json.dumps(tree).count("long long") == 5 * 500  # That of the last one twice: also for their import.
    assert json.dumps(tree).count(PNG) == 1
