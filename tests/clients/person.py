"""What somebody does with the client, in processes of their own: ``python -m tests.clients.person ROLE``.

Each role gets its orders as a line of JSON, and writes lines of JSON: what it has seen, and at last what it leaves.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
import time
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from data_layer.client import Client, CodePatch, CodeState, LoginTokens, VariantEnded
from data_layer.client.values import GenerationRequest, StartedGeneration, VariantModel
from data_layer.errors import LoginProblemError, NotFoundProblemError
from tests.file_content import picture
from tests.service.support import NO_AUTHORITIES

EMAIL = "ada@example.com"
PASSWORD = "correct horse battery staple of Ada"
WORDS = [f"<p>{number} ü 🙂</p>\n" for number in range(60)]
PAGE = "".join(WORDS)

Orders = dict[str, Any]


def say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def listen() -> Orders:
    line: Orders = json.loads(sys.stdin.readline())
    return line


def client_of(orders: Orders) -> Client:
    tokens = None
    if "tokens" in orders:
        tokens = LoginTokens(orders["tokens"][0], orders["tokens"][1], time.time() + 600)
    return Client(orders["url"], tokens=tokens, verify=NO_AUTHORITIES)


async def begin(orders: Orders) -> None:
    """Register, verify the address with what the mail brings, log in, upload a screenshot and start."""
    async with client_of(orders) as client:
        registered = await client.accounts.register(
            email=EMAIL, password=PASSWORD, first_name="Ada", last_name="Lovelace"
        )
        say(registered=True)
        mailed = await asyncio.to_thread(listen)
        await client.accounts.verify(token=mailed["token"], proof=registered.proof)
        tokens = await client.log_in(EMAIL, PASSWORD)
        screenshot = picture("png", (320, 200))
        project = await client.projects.create(name="Shop of Ada", file=screenshot, tags=["landing"])
        asset = await client.assets.create(file=screenshot, file_name="shop.png")
        assert await client.assets.content(asset.id).read() == screenshot
        started = await client.generations.start(
            project_id=project.id,
            request=GenerationRequest(prompt="a shop for engines", input_mode="image"),
            models=[VariantModel(provider="claude", name="claude-sonnet-4-5")],
        )
        say(
            tokens=[tokens.access_token, tokens.refresh_token],
            project=str(project.id),
            started=started.model_dump(mode="json"),
        )


async def write(orders: Orders) -> None:
    """Stream slowly, as a model does; somebody will kill this process."""
    started = StartedGeneration.model_validate(orders["started"])
    async with client_of(orders) as client, client.generations.write(started) as writer:
        for number, word in enumerate(WORDS):
            await writer.text(0, word)
            say(written=number)
            await asyncio.sleep(0.1)


async def follow(orders: Orders) -> None:
    """Look on, to the end."""
    code, positions = "", set[str]()
    async with client_of(orders) as client:
        async for event in client.generations.follow(orders["started"]["id"]):
            assert event.position not in positions
            positions.add(event.position)
            match event:
                case CodeState():
                    code = event.code
                    say(code=len(code))
                case CodePatch():
                    code = event.apply(code)
                    say(code=len(code))
                case VariantEnded():
                    say(ended=event.status)
    say(sha256=hashlib.sha256(code.encode()).hexdigest())


async def go_on(orders: Orders) -> None:
    """Continue what the dead process has left, from what the service has of it."""
    async with client_of(orders) as client:
        generation = orders["started"]["id"]
        state = await client.generations.take_over(generation)
        first = await anext(aiter(client.generations.follow(generation)))
        assert isinstance(first, CodeState)
        assert PAGE.startswith(first.code)
        rest = PAGE[len(first.code) :]
        async with client.generations.resume(state) as writer:
            for start in range(0, len(rest), 50):
                await writer.text(0, rest[start : start + 50])
            await writer.complete(0)
        say(continued=len(rest))


async def refine(orders: Orders) -> None:
    """Change it, compare, take it back, show it to somebody, find it, take everything along, and leave nothing."""
    project_id, [first] = orders["project"], orders["started"]["variant_ids"]
    async with client_of(orders) as client:
        assert await client.variants.code(first) == PAGE
        refined = await client.generations.start(
            project_id=project_id,
            request=GenerationRequest(generation_type="refine", parent_id=first, prompt="round buttons"),
            models=[VariantModel(provider="claude", name="claude-sonnet-4-5")],
        )
        async with client.generations.write(refined) as writer:
            await writer.complete(0, PAGE.replace("<p>7 ü", "<p>seven ü"))
        diff = await client.variants.diff(refined.variant_ids[0], against=first)
        assert (diff.added_lines, diff.removed_lines) == (1, 1)
        assert "+<p>seven ü 🙂</p>" in diff.unified
        restored = await client.variants.restore(first)
        version = await client.projects.version(project_id, restored.number)
        assert (restored.number, version.code) == (3, PAGE)
        tree = await client.projects.tree(project_id, code="none")
        assert [each.number for each in tree.generations] == [3, 2, 1]

        share = await client.shares.create(project_id)
        async with httpx.AsyncClient(verify=NO_AUTHORITIES) as anybody:
            address = f"{orders['url']}/s/{share.token}"
            shared = await anybody.get(address)
            assert (shared.status_code, "<p>7 ü" in shared.text) == (200, True)
            hits = await client.projects.search(q="engines").all()
            assert [str(hit.project.id) for hit in hits] == [project_id]
            usage = await client.usage.sums(by=["provider"])
            assert usage is not None
            await client.shares.revoke(share.share.id)
            assert (await anybody.get(address)).status_code == 404

        archive = await export(client)
        [pages] = [name for name in archive.namelist() if name.startswith("projects/")]
        with zipfile.ZipFile(io.BytesIO(archive.read(pages))) as exported:
            [last] = [name for name in exported.namelist() if name.startswith("codes/0003")]
            assert exported.read(last).decode() == PAGE
        assert json.loads(archive.read("account.json"))["email"] == EMAIL

        await client.accounts.delete(email=EMAIL, password=PASSWORD)
        for refused in (client.accounts.get(), client.log_in(EMAIL, PASSWORD)):
            try:
                await refused
            except (LoginProblemError, NotFoundProblemError):
                continue
            raise AssertionError("the account is still there")
        say(erased=True)


async def export(client: Client) -> zipfile.ZipFile:
    """Everything about the person, once the service has made it."""
    export = await client.exports.start()
    async with asyncio.timeout(60):
        while (export := await client.exports.get(export.id)).status != "done":
            assert export.status in {"queued", "running"}
            await asyncio.sleep(0.2)
    content = await client.exports.content(export.id).read()
    assert len(content) == export.size
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    return archive


ROLES: dict[str, Callable[[Orders], Awaitable[None]]] = {
    each.__name__: each for each in (begin, write, follow, go_on, refine)
}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](listen()))  # type: ignore[arg-type]
