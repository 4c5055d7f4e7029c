"""Pages arrive once, in any order, and are in the right place of the right tree, with their images and costs."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Callable
from decimal import Decimal
from uuid import UUID

import httpx
import pytest
from PIL import Image

from data_layer import DataLayer, Settings
from data_layer.entities.enums import AuditAction, CodeStack, GenerationProvider, RequestType
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import TreeCode, TreeGeneration
from data_layer.server.faces import whole_application
from tests.conftest import empty_tables
from tests.file_content import encoded
from tests.openid.test_outage import Way
from tests.services.accounts.support import actions, trail

from .fakes import PUBLIC_URL, BackEnd, Clerk, Page, data_url, dumps, image_message, page_code

SYSTEM_MESSAGE = {"role": "system", "content": "You are …"}


def file_of(code: str) -> dict[str, str]:
    return {"role": "assistant", "content": f'<file path="index.html">\n{code.strip()}\n</file>'}


async def tree_of(data: DataLayer, user_id: str) -> tuple[UUID, list[TreeGeneration]]:
    """The one project of a person, oldest generation first."""
    owner = Actor.user(UUID(user_id), (await data.accounts.list(SYSTEM))[0].role)
    [project] = (await data.projects.list(owner)).projects
    opened = await data.generations.tree(owner, project.id, code=TreeCode.ALL)
    return project.id, [generation async for generation in opened.generations][::-1]


async def test_one_request_with_four_variants(back_end: BackEnd, ann: Page, data: DataLayer) -> None:
    images, codes = [data_url(1), data_url(2)], [page_code(f"v{index}") for index in range(4)]
    ids = await back_end.create("group-1", images, "Make it <assets>a1</assets>", codes)
    assert len(set(ids)) == 4
    assert await back_end.create("group-1", images, "Make it <assets>a1</assets>", codes) == ids, "the same again"
    [project] = await ann.projects()
    shown = await ann.call("GET", "/generations/view?page=1")
    assert {name: shown[name] for name in ("total_count", "page", "page_size", "total_pages")} == {
        "total_count": 1,
        "page": 1,
        "page_size": 24,
        "total_pages": 1,
    }
    assert set(project) == {"id", "generation_group_id", "date_created", "generations"}
    assert (project["generation_group_id"], project["date_created"][-1]) == ("group-1", "Z")
    assert [each["id"] for each in project["generations"]] == ids
    assert [each["completion"] for each in project["generations"]] == codes, "byte for byte"
    for each in project["generations"]:
        assert set(each) == {"id", "date_created", "completion", "stack", "generation_group_id"}
        assert (each["stack"], each["generation_group_id"], each["date_created"][-1]) == (
            "html_tailwind",
            "group-1",
            "Z",
        )
    project_id, [generation] = await tree_of(data, back_end.user_id)
    assert generation.prompt == "Make it"
    assert generation.generation_type is RequestType.CREATE
    assert generation.inputs["hosted"] == {
        "payment_method": "subscription",
        "is_imported_from_code": False,
        "includes_result_image": False,
        "generation_type": "create",
    }
    owner_id = UUID(back_end.user_id)
    kept = await data.files.list(owner_id=owner_id, attached_to=Attachment(project_id=project_id))
    assert {str(file.id) for file in kept} == set(generation.inputs["files"])
    assert len(kept) == 2, "each image once, although four variants brought it"
    assert all(file.expires_at is None for file in kept)
    [variant, *_] = generation.variants
    assert (variant.provider, variant.model) == (GenerationProvider.OPENAI, "gpt-5.5 (low thinking)")
    entries = await data.usage.entries(SYSTEM, user_id=owner_id)
    assert {str(entry.code_id) for entry in entries} == set(ids)
    assert {entry.cost for entry in entries} == {Decimal("0.0125")}
    assert {(entry.input_tokens, entry.output_tokens, entry.cache_read_tokens) for entry in entries} == {
        (1000, 500, 10)
    }
    received = [entry.new_values or {} for entry in await trail(data) if entry.action is AuditAction.CODE_GENERATE]
    assert sorted(index for values in received for index in values["variants"]) == [0, 1, 2, 3]
    assert {values["number"] for values in received} == {1}
    assert (await actions(data)).count("project_create") == 1


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_makes_the_true_tree(back_end: BackEnd, ann: Page, data: DataLayer, seed: int) -> None:
    """A request, two edits of different variants of it, one of which are the same, and an edit of an edit."""
    image, first = [data_url(seed)], [page_code("same"), page_code("same"), page_code("c")]
    create = [SYSTEM_MESSAGE, image_message(image, "Make it")]
    blue = [*create, file_of(first[1]), {"role": "user", "content": "Blue"}]
    red = [*create, file_of(first[2]), {"role": "user", "content": "Red"}]
    bluer = [*blue, file_of(page_code("blue 2")), {"role": "user", "content": "Bluer"}]
    edits = {"generation_type": "update", "edit_base_model": None, "edit_base_generation_type": "create"}
    stories = [
        *(("create", index, create, code, 40, {}) for index, code in enumerate(first, 1)),
        *(
            ("blue", index, blue, page_code(f"blue {index}"), 30, edits | {"edit_base_variant_index": 1})
            for index in (1, 2)
        ),
        ("red", 1, red, page_code("red"), 20, edits | {"edit_base_variant_index": 2}),
        ("bluer", 1, bluer, page_code("bluer"), 10, edits | {"edit_base_variant_index": 1}),
    ]
    # Everything comes twice, in any order, and at once.
    order = random.Random(seed).sample([*stories, *stories], 2 * len(stories))
    ids = await asyncio.gather(
        *(
            back_end.store(group, index, messages, code, duration=duration, other_info=other_info)
            for group, index, messages, code, duration, other_info in order
        )
    )
    assert len(set(ids)) == len(stories)
    _, generations = await tree_of(data, back_end.user_id)
    by_prompt = {generation.prompt: generation for generation in generations}
    assert set(by_prompt) == {"Make it", "Blue", "Red", "Bluer"}
    assert all(generation.generation_type is not RequestType.IMPORT for generation in generations), (
        "no stand-in is left"
    )
    roots = {variant.variant_index: variant.id for variant in by_prompt["Make it"].variants}
    assert {variant.parent_id for variant in by_prompt["Make it"].variants} == {None}
    assert {variant.parent_id for variant in by_prompt["Blue"].variants} == {roots[1]}, (
        "by the index, of two equal ones"
    )
    assert {variant.parent_id for variant in by_prompt["Red"].variants} == {roots[2]}
    blues = {variant.variant_index: variant.id for variant in by_prompt["Blue"].variants}
    assert {variant.parent_id for variant in by_prompt["Bluer"].variants} == {blues[1]}
    # To the page each request is a project of its own, newest first.
    groups = [project["generation_group_id"] for project in await ann.projects()]
    assert groups == ["bluer", "red", "blue", "create"]
    total = await data.usage.sums(SYSTEM, user_id=UUID(back_end.user_id))
    assert [(each.entries, each.cost) for each in total] == [(len(stories), len(stories) * Decimal("0.0125"))]


async def test_a_page_that_was_reopened(back_end: BackEnd, data: DataLayer) -> None:
    [root] = await back_end.create("first", [data_url(1)], "Make it", [page_code("a")])
    file = f'<current_file path="index.html">\n{page_code("a").strip()}\n</current_file>'
    text = f"Stack …\n\n{file}\n\n<change_request>\nGreener\n</change_request>"
    messages = [SYSTEM_MESSAGE, {"role": "user", "content": text}]
    code = {"generation_type": "update", "edit_base_variant_index": 0, "edit_base_generation_type": "code_create"}
    await back_end.store("second", 1, messages, page_code("b"), duration=1, is_imported_from_code=True, other_info=code)
    _, [first, second] = await tree_of(data, back_end.user_id)
    assert (second.prompt, [str(variant.parent_id) for variant in second.variants]) == ("Greener", [root])
    assert first.prompt == "Make it"


async def test_no_character_loses_a_page(back_end: BackEnd, ann: Page) -> None:
    for number, code in enumerate(("<p>\0</p>", "<p>\ud83d</p>", "<p>\ude00</p>", "<p>😀 \u2028</p>")):
        messages = [SYSTEM_MESSAGE, image_message([], f"Say {code}")]
        await back_end.store(f"group-{number}", 1, messages, code, llm_version="\ud800 model", duration=100 - number)
    shown = [project["generations"][0]["completion"] for project in await ann.projects()]
    assert shown == ["<p>😀 \u2028</p>", "<p>\ufffd</p>", "<p>\ufffd</p>", "<p>\u2400</p>"]


async def test_what_makes_no_sense_loses_no_page(back_end: BackEnd, ann: Page, data: DataLayer) -> None:
    odd = {
        "prompt": "no JSON",
        "duration": "long",
        "stack": "cobol",
        "input_mode": None,
        "llm_version": None,
        "llm_usage": {"llm_input_tokens": -1, "llm_cost_usd": "free"},
        "other_info": None,
        "video_data_url": "data:video/mp4;base64,!",
        "something_new": {"a": 1},
    }
    answer = await back_end.post("/generations/store", back_end.stored("odd", 1, [], page_code("odd")) | odd)
    assert answer.status_code == 200, answer.text
    [project] = await ann.projects()
    assert project["generations"][0]["completion"] == page_code("odd")
    assert project["generations"][0]["stack"] == CodeStack.HTML_TAILWIND
    damaged = [SYSTEM_MESSAGE, image_message(["data:image/png;base64,AAAA", "https://x.example/a.png"], "Make it")]
    await back_end.store("damaged", 1, damaged, page_code("damaged"))
    owner = Actor.user(UUID(back_end.user_id), (await data.accounts.list(SYSTEM))[0].role)
    page = await data.generations.shown(owner)
    [shown] = [each for each in page.generations if each.external_key == "damaged"]
    opened = await data.generations.open(owner, shown.id)
    assert (opened.inputs["missing_files"], opened.inputs["urls"]) == (1, ["https://x.example/a.png"])


async def test_only_the_back_end_stores(client: httpx.AsyncClient, ann: Page, back_end: BackEnd) -> None:
    body = json.dumps(back_end.stored("g", 1, [], page_code("a"))).encode()
    for headers in (
        {},
        {"authorization": "Bearer x"},
        {"authorization": f"bearer {back_end.headers['authorization'][7:]}x"},
    ):
        for path in ("/generations/store", "/assets/store_image_data", "/assets/store_image_url"):
            refused = await client.post(path, headers=headers, content=body)
            assert (refused.status_code, type(refused.json()["detail"])) == (401, str)
    assert (await ann.send("POST", "/generations/store", back_end.stored("g", 1, [], "x"))).status_code == 401
    for wrong, status in (({"completion": " "}, 422), ({"user_id": "nobody"}, 404), ({"generation_group_id": 1}, 422)):
        answer = await back_end.post("/generations/store", back_end.stored("g", 1, [], page_code("a")) | wrong)
        assert (answer.status_code, type(answer.json()["detail"])) == (status, str)
    assert await ann.projects() == []


async def test_a_budget_is_charged_once(back_end: BackEnd, ann: Page, data: DataLayer) -> None:
    owner_id = UUID(back_end.user_id)
    await data.usage.set_budget(SYSTEM, owner_id, Decimal(5))
    await ann.call("POST", "/credits/has_credits")
    for _ in range(2):
        await back_end.create("group", [], "Make it", [page_code("a"), page_code("b")])
    budget = await data.usage.budget(SYSTEM, user_id=owner_id)
    assert budget is not None
    assert (budget.spent, budget.reserved) == (Decimal("0.025"), Decimal("0.975")), "what is spent is not reserved"


async def test_deleting_and_rating(
    back_end: BackEnd, ann: Page, page_of: Callable[[str], Page], data: DataLayer
) -> None:
    first = await back_end.create("one", [data_url(1)], "Make it", [page_code("a"), page_code("b")])
    edit = [
        SYSTEM_MESSAGE,
        image_message([data_url(1)], "Make it"),
        file_of(page_code("a")),
        {"role": "user", "content": "Red"},
    ]
    update = {"generation_type": "update", "edit_base_variant_index": 0}
    child = await back_end.store("two", 1, edit, page_code("c"), duration=0, other_info=update)
    assert (await ann.send("POST", "/generations/feedback", {"generation_id": child, "feedback": "up"})).is_success
    rated = await data.generations.open_variant(SYSTEM, UUID(child))
    assert (rated.rating, rated.feedback) == (None, {"thumb": "up"})
    assert (
        await ann.send("POST", "/generations/feedback", {"generation_id": child, "feedback": "?"})
    ).status_code == 422
    bob = page_of("user_bob")
    assert await bob.call("POST", "/generations/delete", {"generation_ids": first}) == {
        "deleted_ids": [],
        "deleted_count": 0,
    }
    stranger = await bob.send("POST", "/generations/feedback", {"generation_id": child, "feedback": "up"})
    assert (stranger.status_code, type(stranger.json()["detail"])) == (404, str)
    wanted = [*first, "nonsense", "00000000-0000-0000-0000-000000000000"]
    deleted = await ann.call("POST", "/generations/delete", {"generation_ids": wanted})
    assert deleted == {"deleted_ids": first, "deleted_count": 2}
    assert [project["generation_group_id"] for project in await ann.projects()] == ["two"]
    _, generations = await tree_of(data, back_end.user_id)
    assert len(generations) == 2, "the edit was made from what was deleted, so its tree keeps that"
    await ann.call("POST", "/generations/delete", {"generation_ids": [child]})
    assert await ann.projects() == []
    owner = Actor.user(UUID(back_end.user_id), (await data.accounts.list(SYSTEM))[0].role)
    assert (await data.projects.list(owner)).projects == (), "nothing of it is shown any more"
    assert {"code_delete", "project_delete"} <= set(await actions(data))
    # What is made from it all the same brings it to light again, in a project of its own.
    await back_end.store("three", 1, edit, page_code("d"), duration=0, other_info=update)
    assert [project["generation_group_id"] for project in await ann.projects()] == ["three"]


async def test_pages_of_24(back_end: BackEnd, ann: Page) -> None:
    for number in range(26):
        await back_end.create(f"group-{number:02}", [], f"Page {number}", [page_code(str(number))])
    first, second = await ann.call("GET", "/generations/view?page=1"), await ann.call("GET", "/generations/view?page=2")
    assert (first["total_count"], first["total_pages"], len(first["projects"])) == (26, 2, 24)
    assert (second["page"], len(second["projects"])) == (2, 2)
    assert {each["generation_group_id"] for each in second["projects"]} == {"group-00", "group-01"}
    beyond = await ann.call("GET", "/generations/view?page=3")
    assert (beyond["projects"], beyond["total_count"]) == ([], 26)


async def test_a_database_that_is_away_holds_the_call(settings: Settings, clerk: Clerk) -> None:
    url = settings.database.database_url
    assert url is not None
    async with Way(url.get_secret_value()) as way, DataLayer(settings.replaced(database_url=way.url)) as data:
        await empty_tables(data)
        await data.cache.flush()
        transport = httpx.ASGITransport(whole_application(data))
        async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
            page = Page(client, clerk, "user_ann")
            back_end = BackEnd(client, (await page.call("POST", "/credits/has_credits"))["user_id"])
            for cut in range(3):  # While it is begun, while images are stored, while the page is.
                calls = asyncio.ensure_future(
                    back_end.create(f"cut-{cut}", [data_url(cut)], "Make it", [page_code("a"), page_code("b")])
                )
                await asyncio.sleep((0, 0.05, 0.15)[cut])
                way.close()
                await asyncio.sleep(0.5)
                if cut == 0:
                    assert not calls.done(), "held, and neither refused nor answered before it is durable"
                way.is_open = True
                ids = await calls
                assert len(set(ids)) == 2
                assert (
                    await back_end.create(f"cut-{cut}", [data_url(cut)], "Make it", [page_code("a"), page_code("b")])
                    == ids
                )
            assert len(await page.projects()) == 3


async def test_redis_is_not_needed(settings: Settings, clerk: Clerk) -> None:
    async with DataLayer(settings.replaced(redis_url="redis://127.0.0.1:1/0")) as data:
        await empty_tables(data)
        transport = httpx.ASGITransport(whole_application(data))
        async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
            page = Page(client, clerk, "user_ann")
            back_end = BackEnd(client, (await page.call("POST", "/credits/has_credits"))["user_id"])
            ids = await back_end.create("one", [data_url(1)], "Make it", [page_code("a"), page_code("b")])
            [project] = await page.projects()
            assert [each["id"] for each in project["generations"]] == ids


async def test_a_storage_that_is_away_loses_images_and_no_page(
    back_end: BackEnd, ann: Page, data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_layer.hosted.back_end._IMAGES_SECONDS", 0.3)
    folder = settings.storage.local_storage_path
    away = folder.with_name("away")
    folder.rename(away)
    folder.touch()  # A file in its place: nothing can be stored.
    await back_end.create("one", [data_url(1)], "Make it", [page_code("a")])
    folder.unlink()
    away.rename(folder)
    [project] = await ann.projects()
    assert project["generations"][0]["completion"] == page_code("a")
    _, [generation] = await tree_of(data, back_end.user_id)
    assert generation.inputs["missing_files"] == 1


@pytest.mark.slow
async def test_four_bodies_of_33_mib_at_once(back_end: BackEnd, data: DataLayer) -> None:
    """An image of 11 MB and a video of 13 MB in each of them."""
    noise = random.Random(1).randbytes(13_000_000)
    video = b"\0\0\0\x18ftypmp42" + noise
    image = Image.frombytes("RGB", (2000, 1900), noise[: 2000 * 1900 * 3])
    images = ["data:image/png;base64," + base64.b64encode(encoded(image, "PNG", compress_level=1)).decode()]
    stored = {"video_data_url": "data:video/mp4;base64," + base64.b64encode(video).decode(), "input_mode": "video"}
    messages = [SYSTEM_MESSAGE, image_message(images, "Make it")]
    bodies = [back_end.stored("large", index, messages, page_code(str(index)), **stored) for index in range(1, 5)]
    assert len(dumps(bodies[0])) > 30 * 2**20
    answers = await asyncio.gather(*(back_end.post("/generations/store", body) for body in bodies))
    assert [answer.status_code for answer in answers] == [200] * 4
    project_id, [generation] = await tree_of(data, back_end.user_id)
    assert len(generation.variants) == 4
    owner_id = UUID(back_end.user_id)
    kept = await data.files.list(owner_id=owner_id, attached_to=Attachment(project_id=project_id))
    assert {file.content_type for file in kept} == {"image/png", "video/mp4"}
    assert "missing_files" not in generation.inputs
    [film] = [file for file in kept if file.content_type == "video/mp4"]
    assert await data.files.download(film.id, owner_id=owner_id) == video


@pytest.mark.slow
async def test_the_largest_video_comes_twice_in_a_body(back_end: BackEnd, data: DataLayer) -> None:
    """20 MB in the prompt and once more by itself: more than 50 MiB in Base64."""
    content = b"\0\0\0\x18ftypmp42" + random.Random(1).randbytes(20 * 10**6)
    video = "data:video/mp4;base64," + base64.b64encode(content).decode()
    messages = [SYSTEM_MESSAGE, image_message([video], "Make it")]
    await back_end.store("one", 1, messages, page_code("a"), input_mode="video", video_data_url=video)
    project_id, [generation] = await tree_of(data, back_end.user_id)
    [file] = await data.files.list(owner_id=UUID(back_end.user_id), attached_to=Attachment(project_id=project_id))
    assert (file.size, generation.inputs["files"]) == (len(content), [str(file.id)])
