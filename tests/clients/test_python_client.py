"""The Python client against a service on a line that breaks."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

import pyotp
import pytest

from clients import description, python
from data_layer.client import (
    Client,
    CodePatch,
    CodeState,
    FollowedEvent,
    LoginTokens,
    StreamedEvent,
    VariantEnded,
    Writer,
    events,
    writing,
)
from data_layer.client.events import read_events
from data_layer.client.values import GenerationRequest, StartedGeneration, VariantModel, VariantResult
from data_layer.errors import (
    ChangedMeanwhileProblemError,
    ConflictProblemError,
    LimitProblemError,
    LoginProblemError,
    NotFoundProblemError,
    RequestProblemError,
    SecondFactorRequiredError,
    ServiceProblemError,
    ServiceUnreachableError,
)
from tests.file_content import picture
from tests.services.accounts.support import PASSWORD

from .conftest import EMAIL, Fault, Line, new_client


async def started(client: Client, variants: int = 1) -> StartedGeneration:
    project = await client.projects.create(name="Shop")
    models = [VariantModel(provider="claude", name="m")] * variants
    return await client.generations.start(
        project_id=project.id, request=GenerationRequest(prompt="a shop"), models=models
    )


class Shown:
    """What somebody sees who follows."""

    def __init__(self) -> None:
        self.codes: dict[int, str] = {}
        self.kinds: list[str] = []
        self.ended: dict[int, str] = {}

    def take(self, event: FollowedEvent) -> None:
        match event:
            case CodeState():
                self.codes[event.variant] = event.code
            case CodePatch():
                self.codes[event.variant] = event.apply(self.codes[event.variant])
            case StreamedEvent():
                self.kinds.append(event.kind)
            case VariantEnded():
                self.ended[event.variant] = event.status


def test_the_generated_modules_are_those_of_the_description() -> None:
    """The description itself is compared with the service by another test."""
    for name, text in python.modules(description.committed()).items():
        written = (python.FOLDER / name).read_text(encoding="utf-8")
        assert written == text, f"{name}: run `make clients` and commit what it writes"


async def test_values_are_typed_and_changes_are_guarded(client: Client) -> None:
    project = await client.projects.create(name="Shop", tags=["a"], description="Old", file=picture("png", (64, 48)))
    assert (project.name, project.tags, project.original_image_mime_type) == ("Shop", ["a"], "image/png")
    assert isinstance(project.id, UUID)
    assert project.created_at.tzinfo is not None
    changed = await client.projects.change(project.id, name="Store", description=None, if_match=project.etag)
    assert (changed.name, changed.description, changed.tags) == ("Store", None, ["a"])
    with pytest.raises(ChangedMeanwhileProblemError) as caught:
        await client.projects.change(project.id, name="Kiosk", if_match=project.etag)
    assert (caught.value.code, caught.value.status) == ("changed_meanwhile", 412)
    assert caught.value.current is not None
    assert caught.value.current["name"] == "Store"
    with pytest.raises(RequestProblemError) as refused:
        await client.projects.create(name="x" * 10_000)
    assert set(refused.value.fields) == {"name"}
    assert refused.value.request_id
    with pytest.raises(NotFoundProblemError):
        await client.projects.get(uuid4())
    small = await client.projects.thumbnail(project.id).read()
    assert small[:4] == b"RIFF" or small[1:4] == b"PNG" or small[:2] == b"\xff\xd8"


async def test_pages_are_asked_for_when_they_are_needed(client: Client, line: Line) -> None:
    for number in range(5):
        await client.projects.create(name=f"P{number}")
    pages = client.projects.list(order="name", descending=False, limit=2)
    before = line.count("GET", "/v1/projects")
    async with aclosing(cast("AsyncIterator[object]", aiter(pages))) as each:  # type: ignore[type-var]
        await anext(each)
    assert line.count("GET", "/v1/projects") == before + 1
    assert [each.name for each in await pages.all()] == [f"P{number}" for number in range(5)]
    assert [len(page.projects) for page in [page async for page in pages.pages()]] == [2, 2, 1]
    assert (await pages.first()).next is not None
    assert await client.projects.list(status=["archived", "deleted"]).all() == []


async def test_what_may_be_repeated_is_and_changes_nothing_twice(client: Client, line: Line) -> None:
    lost = Fault("POST", "/projects", 502, is_done=True)
    line.faults = [lost, Fault("POST", "/projects", 503, headers={"retry-after": "1"})]
    began = time.monotonic()
    project = await client.projects.create(name="Shop")
    assert time.monotonic() - began >= 1
    keys = [
        headers["idempotency-key"]
        for method, path, headers in line.seen
        if path.endswith("/v1/projects") and method == "POST"
    ]
    assert (len(keys), len(set(keys))) == (3, 1)
    assert [each.id for each in await client.projects.list().all()] == [project.id]
    line.faults = [Fault("DELETE", str(project.id), 502, is_done=True)]
    await client.projects.delete(project.id)
    with pytest.raises(NotFoundProblemError):
        await client.projects.delete(project.id)
    # The file is sent again, too.
    line.faults = [Fault("POST", "/assets", 503), Fault("POST", "/assets", 502, is_done=True)]
    image = io.BytesIO(picture("png", (70, 70)))
    await client.assets.create(file=image, file_name="a.png")
    assert [each.file_name for each in await client.assets.list().all()] == ["a.png"]


async def test_a_post_without_a_key_is_never_repeated(client: Client, line: Line) -> None:
    project = await client.projects.create(name="Shop")
    line.faults = [Fault("POST", "/archive", 502, is_done=True)]
    with pytest.raises(ServiceProblemError) as caught:
        await client.projects.archive(project.id)
    assert (caught.value.status, caught.value.code) == (502, "problem_of_service")
    assert line.count("POST", "/archive") == 1
    line.faults = [Fault("PATCH", str(project.id), 503)]
    with pytest.raises(ServiceProblemError):
        await client.projects.change(project.id, name="x", if_match=project.etag)
    assert line.count("PATCH", str(project.id)) == 1


async def test_patience_ends(line: Line) -> None:
    async with new_client(line, token="x", patience=0.5) as client:
        line.faults = [Fault("GET", "/me", 429, headers={"retry-after": "900"})]
        began = time.monotonic()
        with pytest.raises(LimitProblemError) as caught:
            await client.accounts.get()
        assert (caught.value.retry_after, line.count("GET", "/me")) == (900, 1)
        assert time.monotonic() - began < 60
        line.faults = [Fault("GET", "/me", 503) for _ in range(50)]
        with pytest.raises(ServiceProblemError):
            await client.accounts.get()
        assert 1 < line.count("GET", "/me") < 20
    async with new_client(Line(line.app, "http://127.0.0.1:1"), patience=0.1) as nowhere:
        with pytest.raises(ServiceUnreachableError, match="no answer to GET /v1/accounts/me"):
            await nowhere.accounts.get()


async def test_tokens_are_renewed_once_for_all_who_wait(line: Line) -> None:
    kept: list[LoginTokens] = []
    async with new_client(line, on_tokens=kept.append) as client:
        first = await client.log_in(EMAIL, PASSWORD)
        assert PASSWORD not in repr(client)
        assert first.access_token not in repr(first)
    late = LoginTokens(first.access_token, first.refresh_token, time.time())
    async with new_client(line, tokens=late, on_tokens=kept.append) as again:
        line.faults = [Fault("POST", "/refresh", 502, is_done=True)]
        found = await asyncio.gather(*(again.accounts.get() for _ in range(5)))
        assert {each.email for each in found} == {EMAIL}
        assert again.tokens == kept[-1] != first
        assert line.count("POST", "/tokens/refresh") == 2  # The answer to the first one was lost.
        # Refused in between, such as by a server with another clock: nothing was done, so a POST goes on, too.
        line.faults = [Fault("POST", "/revoke-others", 401)]
        await again.sessions.end_others()
        assert line.count("POST", "/revoke-others") == 2
        await again.log_out()
        with pytest.raises(LoginProblemError):
            await again.accounts.get()
    async with new_client(line, token="nothing") as nobody:
        with pytest.raises(LoginProblemError):
            await nobody.accounts.get()


async def test_logging_in_with_a_second_factor(client: Client, line: Line) -> None:
    app = await client.second_factors.begin_totp(password=PASSWORD)
    totp = pyotp.parse_uri(app.uri)
    assert isinstance(totp, pyotp.TOTP)
    added = await client.second_factors.confirm_totp(app.id, code=totp.now())
    async with new_client(line) as another:
        with pytest.raises(SecondFactorRequiredError) as raised:
            await another.log_in(EMAIL, PASSWORD)
        challenge = raised.value.challenge.challenge
        with pytest.raises(LoginProblemError):
            await another.finish_log_in(challenge, code="000000")
        await another.finish_log_in(challenge, recovery_code=added.recovery_codes[0])
        assert (await another.second_factors.list_factors()).recovery_codes_left == 9


async def test_a_stream_is_followed_across_broken_connections(client: Client, line: Line) -> None:
    begun = await started(client, 2)
    line.faults = [
        Fault("GET", "/events", 0, after=2),
        Fault("GET", "/events", 503),
        Fault("GET", "/events", 0, after=3),
        Fault("POST", "/events", 502, is_done=True),
        Fault("PUT", "/variants/0", 502, is_done=True),
    ]
    shown, seen = Shown(), set[str]()
    words = [f"<p>{number} ü 🙂\u2028</p>\n" for number in range(40)]

    async def watch() -> None:
        async for event in client.generations.follow(begun.id):
            assert event.position not in seen
            seen.add(event.position)
            shown.take(event)

    watching = asyncio.create_task(watch())
    async with client.generations.write(begun) as writer:
        await writer.event(0, "thinking", {"about": "a shop"})
        for number, word in enumerate(words):
            if number == len(words) // 2:
                line.send_elsewhere()
            await writer.text(0, word)
            await asyncio.sleep(0.02)
        await writer.code(1, "<p>whole")
        ended = await writer.complete(0, result=VariantResult(prompt_tokens=7, cost="0.01"))
        await writer.fail(1, "the model refused")
    await asyncio.wait_for(watching, 60)
    assert ended.status == "completed"
    assert shown.codes == {0: "".join(words), 1: "<p>whole"}
    assert (shown.kinds, shown.ended) == (["thinking"], {0: "completed", 1: "failed"})
    assert not [fault for fault in line.faults if fault.method == "GET"]
    variant = await client.variants.get(begun.variant_ids[0])
    assert (variant.code, variant.prompt_tokens) == ("".join(words), 7)
    assert await client.variants.code(begun.variant_ids[0]) == "".join(words)
    with pytest.raises(NotFoundProblemError):
        await anext(aiter(client.generations.follow(uuid4())))


async def test_a_silent_connection_is_broken(client: Client, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SILENCE_SECONDS", 0.3)
    begun = await started(client)
    shown = Shown()

    async def watch() -> None:
        async for event in client.generations.follow(begun.id):
            shown.take(event)

    watching = asyncio.create_task(watch())
    while line.count("GET", "/events") < 3:
        await asyncio.sleep(0.05)
    async with client.generations.write(begun) as writer:
        await writer.complete(0, "<p>late")
    await asyncio.wait_for(watching, 60)
    assert (shown.codes, shown.ended) == ({0: "<p>late"}, {0: "completed"})


async def test_another_writer_takes_over(client: Client, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "RENEW_SECONDS", 0.2)
    begun = await started(client)
    old: Writer = client.generations.write(begun)
    await old.__aenter__()
    await old.text(0, "<p>one")
    await old.event(0, "thinking")
    await old.flush()
    while not line.count("PUT", "/lease"):
        await asyncio.sleep(0.05)
    state = await client.generations.take_over(begun.id)
    assert list(state.last_sequences) == [2]
    async with client.generations.resume(state) as new:
        await new.text(0, "<p>two")
        await new.complete(0)
    with pytest.raises(ConflictProblemError) as caught:
        await old.text(0, "<p>late")
        await old.flush()
    assert caught.value.code in {"generation_writer_replaced", "generation_ended"}
    with pytest.raises(ConflictProblemError):
        await old.__aexit__(None, None, None)
    assert await client.variants.code(begun.variant_ids[0]) == "<p>one<p>two"


async def test_a_writer_that_fails_ends_its_variants(client: Client) -> None:
    begun = await started(client)
    with pytest.raises(ZeroDivisionError):
        async with client.generations.write(begun) as writer:
            await writer.text(0, "<p>")
            raise ZeroDivisionError
    generation = await client.generations.get(begun.id)
    assert generation.status == "failed"
    assert [each.error_message for each in generation.variants] == ["the writer failed: ZeroDivisionError"]
    assert await client.variants.code(begun.variant_ids[0]) == "<p>"


async def test_files_are_sent_and_loaded_in_pieces(client: Client, line: Line, tmp_path: Path) -> None:
    content = picture("png", (300, 300))
    source, target = tmp_path / "shop.png", tmp_path / "again.png"
    source.write_bytes(content)
    line.faults = [Fault("POST", "/complete", 502, is_done=True)]
    asset = await client.assets.upload(source)
    assert (asset.content_type, asset.file_name) == ("image/png", "shop.png")
    await client.assets.content(asset.id).save(target)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(content).digest()
    async with client.assets.content(asset.id) as download:
        assert download.headers["content-type"] == "image/png"
        assert b"".join([piece async for piece in download]) == content
    line.faults = [Fault("GET", ".png", 0, after=0)]
    with pytest.raises(ServiceUnreachableError):
        await client.assets.content(asset.id).save(target)
    assert target.read_bytes() == content
    assert not [path for _, path, headers in line.seen if path.startswith("/v1/files/") and "PUT" in headers]


async def test_events_are_read_from_any_pieces() -> None:
    stream = ': hello\r\n\nid: 1\nevent: code\ndata: {"a": "\u2028ü"}\n\ndata: x\ndata: y\n\nid: 3\ndata: lost'.encode()

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(stream), size):
            yield stream[start : start + size]

    for size in range(1, len(stream)):
        found = [(each.id, each.name, each.data) async for each in read_events(pieces(size))]
        assert found == [("1", "code", '{"a": "\u2028ü"}'), (None, "message", "x\ny")]
