"""What is recorded of a connection, however it ends; messages pass as if nobody listened."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import nullcontext, redirect_stdout
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from sqlalchemy import text
from websockets.asyncio.client import ClientConnection

from data_layer import DataLayer
from data_layer.entities.enums import AuditAction, GenerationStatus, InputMode, RequestType
from data_layer.recorder import run
from data_layer.recorder.protocol import CANCELLED, parse_usage
from data_layer.recorder.usage import printed_usage_is_heard
from data_layer.schemas.audit import AuditFilter
from data_layer.schemas.files import Attachment
from data_layer.schemas.generation_stream import StreamedEvent, VariantEnded

from .backend import SECRETS, Backend, Stage, edit, request
from .conftest import Recorded, ends, messages, serving, until, variants_of
from .test_outages import database_away

PAGES = ["<p>one</p>", "<p>two ☃</p>", "<p>three</p>", "<p>four</p>"]


async def test_everything_of_a_create_is_recorded_and_passes_unchanged(served: Recorded, backend: Backend) -> None:
    async def play(stage: Stage) -> None:
        await stage.say("toolStart", 0, data={"name": "create_file", "input": {"path": "index.html"}}, eventId="t")
        await stage.complete(*PAGES)

    backend.play = play
    received = await served.ask(request("A shop", designSystem="Round buttons"))
    assert [each["value"] for each in received if each["type"] == "setCode" and each["variantIndex"] == 1][-1] == PAGES[
        1
    ]
    [[generation]] = await served.settled()
    assert ends(generation) == [("completed", page) for page in PAGES]
    assert (generation.generation_type, generation.input_mode) == (RequestType.CREATE, InputMode.IMAGE)
    actor = await served.person()
    full = await served.data.generations.open(actor, generation.id)
    assert (full.prompt, full.design_system) == ("A shop", "Round buttons")
    [image] = full.inputs["images"]
    [file] = await served.data.files.list(
        owner_id=actor.user_id, attached_to=Attachment(project_id=generation.project_id)
    )
    assert file.file_name == f"{image['sha256']}.png"
    assert full.inputs["options"]["codeGenerationModel"] == "claude-4-5-sonnet"
    events = [each async for each in served.data.generations.follow(actor, generation.id)]
    recorded = [(each.variant, each.kind, each.payload) for each in events if isinstance(each, StreamedEvent)]
    assert (2, "thinking", {"value": "Let me see.", "eventId": "think-2"}) in recorded
    assert any(kind == "toolStart" and variant == 0 for variant, kind, _ in recorded)


async def test_no_secret_is_stored_or_logged(
    served: Recorded, backend: Backend, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    leaked = " ".join(SECRETS.values())

    async def play(stage: Stage) -> None:
        await stage.say("toolResult", 0, data={"name": "edit_image", "output": [leaked], "ok": False}, eventId="t")
        await stage.say("status", 1, leaked)
        await stage.complete("<p>done</p>", "")
        await stage.fail(f"Illegal header value b'Bearer {leaked}'")

    backend.play = play
    received = await served.ask(request())
    assert leaked in received[-1]["value"]
    [[generation]] = await served.settled()
    assert [each.error_message for each in generation.variants] == [None, "variant 1 failed"]
    backend.play = lambda stage: stage.fail(f"Illegal header value b'Bearer {leaked}'")
    await served.ask(request())
    await served.settled(2)
    assert backend.received[0]["anthropicApiKey"] == SECRETS["anthropicApiKey"]
    await served.data.audit.flush()
    async with served.data.transaction() as tx:
        tables = await tx.execute(text("SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'public'"))
        # Their rows: SQLAlchemy shortens long values in what it shows of a result.
        rows = [row for name in tables.scalars() for row in await tx.execute(text(f"SELECT t::text FROM {name} AS t"))]
    stored = "\n".join(row for (row,) in rows)
    assert "A shop" in stored
    assert "Bearer [removed] [removed] " in stored
    ours = [record.getMessage() for record in caplog.records if record.name != "websockets.client"]
    logged = "".join([*ours, *capfd.readouterr()])
    for secret in (*SECRETS.values(), "secret-8"):
        assert secret not in stored
        assert secret not in logged


async def test_variants_end_as_the_application_says(served: Recorded, backend: Backend) -> None:
    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "4")
        await stage.say("setCode", 0, "<p>whole</p>")
        await stage.say("setCode", 1, "<p>par")
        await stage.say("variantComplete", 0)
        await stage.say("variantError", 1, "no more credits")
        await stage.say("variantComplete", 2)
        await stage.say("setCode", 3, "<p>cut")
        await stage.fail("the model is gone")

    backend.play = play
    await served.ask(request())
    [[generation]] = await served.settled()
    assert ends(generation) == [
        ("completed", "<p>whole</p>"),
        ("failed", "<p>par"),
        ("failed", ""),
        ("failed", "<p>cut"),
    ]
    assert [each.error_message for each in variants_of(generation)] == [
        None,
        "no more credits",
        "the model is gone",
        "the model is gone",
    ]


async def test_an_error_before_anything_else_is_one_failed_variant(served: Recorded, backend: Backend) -> None:
    backend.play = lambda stage: stage.fail("no API key")
    await served.ask(request())
    [[generation]] = await served.settled()
    assert [each.error_message for each in generation.variants] == ["no API key"]


async def test_cancelling_stops_the_application_and_keeps_what_there_is(served: Recorded, backend: Backend) -> None:
    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "2")
        await stage.say("setCode", 0, "<p>ready</p>")
        await stage.say("variantComplete", 0)
        await stage.say("setCode", 1, "<p>half")
        try:
            await asyncio.Event().wait()
        finally:
            await stage.say("variantError", 1, "it was stopped")
            await stage.say("error", None, "it was stopped")

    backend.play = play
    async with served.connect() as websocket:
        await websocket.send(json.dumps(request()))
        async for message in messages(websocket):
            if message.get("value") == "<p>half":
                break
        await websocket.close(CANCELLED)
    await asyncio.wait_for(backend.was_cancelled.wait(), 10)
    [[generation]] = await served.settled()
    assert ends(generation) == [("completed", "<p>ready</p>"), ("cancelled", "<p>half")]


async def test_a_lost_page_leaves_the_application_running_and_it_can_be_followed(
    served: Recorded, backend: Backend
) -> None:
    goes_on = asyncio.Event()
    backend.play = lambda stage: stage.complete_after(goes_on)
    async with served.connect() as websocket:
        await websocket.send(json.dumps(request()))
        async for message in messages(websocket):
            if message["type"] == "setCode":
                break
        websocket.transport.abort()
    actor = await served.person()
    await until(served.trees)
    [[generation]] = await served.trees()
    goes_on.set()
    end = [each async for each in served.data.generations.follow(actor, generation.id)][-1]
    assert isinstance(end, VariantEnded)
    assert end.status is GenerationStatus.COMPLETED
    [[generation]] = await served.settled()
    assert ends(generation) == [("completed", "<p>half</p>")]
    assert not backend.was_cancelled.is_set()


async def test_an_application_that_crashes_fails_its_variants(served: Recorded, backend: Backend) -> None:
    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "1")
        await stage.say("setCode", 0, "<p>par")
        raise ZeroDivisionError

    backend.play = play
    await served.ask(request())
    [[generation]] = await served.settled()
    assert ends(generation) == [("failed", "<p>par")]
    assert generation.variants[0].error_message == "the application failed: ZeroDivisionError"


async def test_edits_find_their_variant_and_a_regeneration_is_a_sibling(served: Recorded, backend: Backend) -> None:
    backend.play = lambda stage: stage.complete("<p>same</p>", "<p>b</p>")
    await served.ask(request("First"))
    await served.settled()
    await served.ask(request("Second"))  # The same codes in another project.
    await served.settled(2)
    backend.play = lambda stage: stage.complete("<p>edited</p>", "<p>b2</p>")
    history = [
        {"role": "user", "text": "First"},
        {"role": "assistant", "text": "<p>same</p>"},
        {"role": "user", "text": "Make it blue"},
    ]
    await served.ask(edit("<p>same</p>", ["<p>same</p>", "<p>b</p>"], history=history))
    await served.ask(edit("<p>same</p>", ["<p>same</p>", "<p>b</p>"], history=history))
    await served.ask(edit("<p>b2</p>", ["<p>edited</p>", "<p>b2</p>"], "Now red"))
    await served.settled(5)
    await served.ask(request("First"))
    first, second = await served.settled(6)
    assert [len(first), len(second)] == [5, 1]
    root, one, again, deeper, regenerated = first
    same = variants_of(root)[0].id
    assert {variant.parent_id for variant in (*one.variants, *again.variants)} == {same}
    [changed] = [each for each in (one, again) if variants_of(each)[1].id == variants_of(deeper)[0].parent_id]
    assert {variant.parent_id for variant in deeper.variants} == {variants_of(changed)[1].id}
    assert (root.selected_variant, changed.selected_variant) == (0, 1), "what is edited is what goes on"
    assert {variant.parent_id for variant in regenerated.variants} == {None}
    assert second[0].prompt == "Second"


async def test_imported_code_becomes_a_root(served: Recorded, backend: Backend) -> None:
    backend.play = lambda stage: stage.complete("<p>edited</p>")
    await served.ask(edit("<p>from elsewhere</p>\n", ["<p>from elsewhere</p>\n"]))
    [[root, edited]] = await served.settled(2)
    assert root.generation_type is RequestType.IMPORT
    assert ends(root) == [("completed", "<p>from elsewhere</p>\n")]
    assert edited.variants[0].parent_id == root.variants[0].id


async def test_an_edit_that_comes_at_once_finds_a_variant_that_is_not_stored_yet(
    served: Recorded, backend: Backend
) -> None:
    goes_on = asyncio.Event()

    async def slowly(stage: Stage) -> None:
        await stage.say("variantCount", 0, "2")
        await stage.say("setCode", 0, "<p>quick</p>")
        await stage.say("variantComplete", 0)
        await goes_on.wait()

    backend.play = slowly
    async with served.connect() as websocket:
        await websocket.send(json.dumps(request()))
        async for message in messages(websocket):
            if message["type"] == "variantComplete":
                break
        backend.play = lambda stage: stage.complete("<p>edited</p>")
        await served.ask(edit("<p>quick</p>", ["<p>quick</p>", ""]))
        goes_on.set()
        assert [each async for each in messages(websocket)] == []
    [[create, edited]] = await served.settled(2)
    assert edited.variants[0].parent_id == variants_of(create)[0].id


async def test_what_is_not_the_protocol_disturbs_nobody(served: Recorded, backend: Backend) -> None:
    async def play(stage: Stage) -> None:
        for odd in ({"type": "future", "value": "x"}, {"type": "setCode"}, {"type": "chunk", "variantIndex": "zero"}):
            await stage._websocket.send_text(json.dumps(odd))
        await stage._websocket.send_text("not JSON")
        await stage._websocket.send_bytes(b"\xff\xfe")
        await stage.say("setCode", 99, "<p>nobody</p>")
        await stage.say("chunk", 0, "<p>in ")
        await stage.say("chunk", 0, "\ud800\0pieces</p>")
        await stage.say("variantCount", 0, "many")
        await stage.say("variantComplete", 0)

    backend.play = play
    async with served.connect() as websocket:
        await websocket.send(json.dumps(request("Lone \ud800 half", generatedCodeConfig="of tomorrow", history="odd")))
        received = [each async for each in websocket]
    assert received[3:5] == ["not JSON", b"\xff\xfe"]
    [[generation]] = await served.settled()
    assert ends(generation) == [("completed", "<p>in \ufffd␀pieces</p>")]
    assert generation.prompt == "Lone \ufffd half"


async def test_what_was_recorded_stands_in_the_audit_trail(served: Recorded, backend: Backend) -> None:
    backend.play = lambda stage: stage.complete("<p>one</p>", "")
    await served.ask(request())
    await served.settled()
    actor = await served.person()
    page = await served.data.audit.list(actor, AuditFilter(user_id=actor.user_id))
    actions = [entry.action for entry in page.entries]
    expected = {AuditAction.PROJECT_CREATE: 1, AuditAction.CODE_GENERATE: 1, AuditAction.CODE_UPDATE: 2}
    assert {action: actions.count(action) for action in expected} == expected


@pytest.mark.parametrize("is_away", [False, True], ids=["at once", "after an outage"])
async def test_what_variants_have_used_is_in_the_ledger(
    data: DataLayer,
    backend: Backend,
    is_away: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.2)

    async def play(stage: Stage) -> None:
        await stage.say("variantCount", 0, "4")

        async def variant(index: int) -> None:
            await stage.say("status", index, "Thinking")
            await asyncio.sleep(0)
            await stage.say("setCode", index, f"<p>{index}</p>")
            print(  # noqa: T201  (as the application does)
                f"[TOKEN USAGE] provider=gemini model=gemini-3-flash | input=100{index} output=50 "
                f"cache_read=200 cache_write=0 total=1700 cost=$0.002{index}"
            )
            if index < 3:
                await stage.say("variantComplete" if index else "variantError", index, "no more")
            else:
                await asyncio.Event().wait()

        print("[TOKEN USAGE] of nobody")  # noqa: T201
        await asyncio.gather(*(variant(index) for index in range(4)))

    backend.play = play
    async with serving(data, backend) as served:  # Here, because pytest exchanges standard output between fixtures.
        actor = await served.person()
        with database_away(served.data) if is_away else nullcontext():
            async with served.connect() as websocket:
                await websocket.send(json.dumps(request()))
                assert len([message async for message in firsts(websocket, 12)]) == 12
                if not is_away:
                    await until(served.trees)
                await websocket.close(CANCELLED)
            await backend.was_cancelled.wait()
            if is_away:
                await until(lambda: any((served.data.settings.general.data_folder / "recorder").glob("*/record.json")))
        [[generation]] = await served.settled()
        assert [each.status for each in variants_of(generation)] == ["failed", "completed", "completed", "cancelled"]
        assert {each.model for each in variants_of(generation)} <= {"gemini-3-flash", "unknown"}

        async def entries() -> dict[object, object]:
            found = await served.data.usage.entries(actor, user_id=actor.user_id)
            assert {each.model for each in found} <= {"gemini-3-flash"}
            return {each.code_id: (each.cost, each.input_tokens, each.output_tokens, each.outcome) for each in found}

        expected = {
            each.id: (Decimal(f"0.002{index}"), 1000 + index, 50, each.status)
            for index, each in enumerate(variants_of(generation))
        }
        assert await entries() == expected


async def firsts(websocket: ClientConnection, number: int) -> AsyncIterator[dict[str, Any]]:
    """So many messages."""
    async for message in messages(websocket):
        yield message
        number -= 1
        if not number:
            return


def test_what_is_printed_passes_on_and_may_be_no_usage() -> None:
    lines = ("[TOKEN USAGE]", "[TOKEN USAGE] provider=x model=y | total=a", "[TOKEN USAGE] provider=x | input=1")
    with redirect_stdout(StringIO()) as printed, printed_usage_is_heard():
        for line in lines:
            assert parse_usage(line) is None
            print(line, flush=True)  # noqa: T201
    assert printed.getvalue().splitlines() == list(lines)
    used = parse_usage("a [TOKEN USAGE] provider=openai model=gpt-5.5 (low thinking) | input=1 output=2")
    assert used is not None
    assert (used.prompt_tokens, used.completion_tokens, used.cost) == (1, 2, None)
    assert used.model is not None
    assert (used.model.name, used.model.provider) == ("gpt-5.5 (low thinking)", "openai")
