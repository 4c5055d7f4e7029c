"""Bodies in gzip and zstd: answers as clients want them, streams that wait for nothing, and no bombs."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import zstandard
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse

from data_layer.web.compression import SMALLEST, CompressionMiddleware, accepted_encodings
from tests.api.test_projects import PROJECTS, create, owner, people, refused
from tests.api.test_variants import PAGE, Clients, Story, story

__all__ = ["owner", "people", "story"]

Pack = Callable[[bytes], bytes]
PACK: dict[str, Pack] = {"gzip": gzip.compress, "zstd": zstandard.compress}
UNPACK: dict[str, Pack] = {"gzip": gzip.decompress, "zstd": lambda packed: unpacker("zstd").decompress(packed)}


def unpacker(encoding: str) -> Any:
    """What decompresses a stream piece by piece."""
    return zlib.decompressobj(31) if encoding == "gzip" else zstandard.ZstdDecompressor().decompressobj()


async def sent(app: Any, path: str, method: str = "GET", **headers: str) -> tuple[dict[str, Any], list[bytes]]:
    """The head of an answer, and the bytes of each of its messages."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return requests.pop() if requests else await asyncio.get_running_loop().create_future()

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": given, "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    head = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return head | {"status": messages[0]["status"]}, [message.get("body", b"") for message in messages[1:]]


@pytest.fixture
def small() -> Any:
    """An application with answers of any kind, behind the middleware."""
    app = FastAPI()
    noise = random.Random(1).randbytes(200_000).hex()

    @app.get("/text/{size}")
    async def text(size: int) -> PlainTextResponse:
        return PlainTextResponse("x" * size, headers={"etag": '"a"'})

    @app.get("/large")
    async def large() -> PlainTextResponse:
        return PlainTextResponse(noise)

    @app.get("/pieces")
    async def pieces() -> StreamingResponse:
        async def each() -> AsyncIterator[str]:
            for start in range(0, len(noise), 70_000):
                yield noise[start : start + 70_000]

        return StreamingResponse(each(), media_type="application/json", headers={"etag": 'W/"a"'})

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def each() -> AsyncIterator[str]:
            for number in range(50):
                yield f"id: {number}\ndata: {noise[number : number + 40]}\n\n"

        return StreamingResponse(each(), media_type="text/event-stream")

    others = {
        "picture": PlainTextResponse("x" * 5000, media_type="image/png"),
        "part": PlainTextResponse("x" * 5000, headers={"accept-ranges": "bytes"}),
    }

    @app.get("/other/{name}")
    async def other(name: str) -> PlainTextResponse:
        return others[name]

    return CompressionMiddleware(app)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_answers_come_as_the_client_wants_them(small: Any, encoding: str) -> None:
    plain, [body, *_] = await sent(small, "/large")
    assert "content-encoding" not in plain
    head, pieces = await sent(small, "/large", accept_encoding=encoding)
    packed = b"".join(pieces)
    assert UNPACK[encoding](packed) == body
    assert (head["content-encoding"], head["vary"]) == (encoding, "accept-encoding")
    assert int(head["content-length"]) == len(packed) < len(body)
    head, pieces = await sent(small, "/pieces", accept_encoding=encoding)
    assert "content-length" not in head
    assert (head["etag"], unpacker(encoding).decompress(b"".join(pieces))) == ('W/"a"', body)
    for path in ("/other/picture", "/other/part", f"/text/{SMALLEST - 1}"):
        head, _ = await sent(small, path, accept_encoding=encoding)
        assert "content-encoding" not in head, path
    head, _ = await sent(small, f"/text/{SMALLEST}", accept_encoding=encoding)
    assert (head["content-encoding"], head["etag"]) == (encoding, f'"a+{encoding}"')


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_no_event_waits_for_the_next_one(small: Any, encoding: str) -> None:
    _, plain = await sent(small, "/events")
    head, pieces = await sent(small, "/events", accept_encoding=encoding)
    assert head["content-encoding"] == encoding
    reader = unpacker(encoding)
    assert [reader.decompress(piece) for piece in pieces] == plain
    assert (await sent(small, "/events", accept_encoding="zstd, gzip"))[0]["content-encoding"] == "gzip"


@pytest.mark.parametrize("sizes", [[], [0], [1, 0, 300, 300], [16 * 1024, 300_000, 5, 300_000]], ids=str)
async def test_events_are_one_whole_piece_of_gzip(sizes: list[int]) -> None:
    """With the checksum of all of them, though each is compressed alone."""
    events = [b"abcdefg" * (size // 7) + b"x" * (size % 7) for size in sizes]

    async def stream() -> AsyncIterator[bytes]:
        for event in events:
            yield event

    app = CompressionMiddleware(StreamingResponse(stream(), media_type="text/event-stream"))
    head, pieces = await sent(app, "/", accept_encoding="gzip")
    assert head["content-encoding"] == "gzip"
    packed = b"".join(pieces)
    assert gzip.decompress(packed) == b"".join(events)
    assert len(packed) < sum(sizes) / 10 + 100


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip, deflate, br, zstd", ("zstd", "gzip")),
        ("gzip", ("gzip",)),
        ("zstd;q=0.5, gzip", ("gzip", "zstd")),
        ("*", ("zstd", "gzip")),
        ("gzip;q=0, *", ("zstd",)),
        ("identity, gzip;q=0.5", ()),
        ("GZIP ; q = 1", ("gzip",)),
        ("br", ()),
        ("", ()),
        (";;,q=,gzip;q=abc", ("gzip",)),
    ],
)
def test_the_client_chooses(header: str, expected: tuple[str, ...]) -> None:
    assert accepted_encodings(header.encode()) == expected


async def test_a_tag_names_its_encoding(people: Clients, story: Story) -> None:
    """Of each representation another one, and all of them are known again, also in changes."""
    owner = people["owner"]
    created = await owner.post(PROJECTS, json={"name": "Long", "description": "x" * 2000})
    path = created.headers["location"]
    answers = {each: await owner.get(path, headers={"accept-encoding": each}) for each in ("gzip", "zstd", "identity")}
    tags = {each: answer.headers["etag"] for each, answer in answers.items()}
    assert tags == {"identity": '"r1"', "gzip": '"r1+gzip"', "zstd": '"r1+zstd"'}
    head = await owner.head(path, headers={"accept-encoding": "zstd"})
    assert (head.headers["etag"], head.headers["content-encoding"]) == (tags["zstd"], "zstd")
    assert "content-length" not in head.headers
    changed = await owner.patch(path, json={"name": "x"}, headers={"if-match": tags["gzip"]})
    assert changed.json()["name"] == "x"
    assert (await owner.patch(path, json={"name": "y"}, headers={"if-match": tags["zstd"]})).status_code == 412

    code = story.path(0, "code")
    assert len(PAGE) < SMALLEST
    for encoding in ("gzip", "zstd"):
        plain = (await owner.get(code, headers={"accept-encoding": "identity"})).headers["etag"]
        packed = plain[:-1] + f'+{encoding}"'
        known = await owner.get(code, headers={"accept-encoding": encoding, "if-none-match": packed})
        assert (known.status_code, known.headers["etag"]) == (304, packed)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "GZIP", "x-gzip"])
async def test_a_request_may_come_compressed(owner: httpx.AsyncClient, encoding: str) -> None:
    pack = PACK[encoding.lower().removeprefix("x-")]
    headers = {"content-type": "application/json", "content-encoding": encoding}
    body = json.dumps({"name": "Shop", "description": "é" * 20_000}).encode()
    answer = await owner.post(PROJECTS, content=pack(body), headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["description"] == "é" * 20_000

    whole = pack(b'{"name": "Shop"}')
    for damaged in (whole[:-1], whole[:5], b"x", whole + b"x", whole + whole, pack(b"{")[:-3], b"\x28\xb5\x2f\xfd"):
        answer = await owner.post(PROJECTS, content=damaged, headers=headers)
        assert refused(answer) == (400, "bad_request"), damaged
    assert (await owner.post(PROJECTS, content=pack(b"\xff"), headers=headers)).status_code in {400, 422}
    assert (await owner.post(PROJECTS, content=b"", headers=headers)).status_code == 422
    assert len((await owner.get(PROJECTS)).json()["projects"]) == 1


async def test_an_encoding_that_nobody_knows_is_refused(owner: httpx.AsyncClient) -> None:
    for encoding in ("br", "gzip, gzip", "deflate", "é", "*"):
        headers = [(b"content-encoding", encoding.encode()), (b"content-type", b"application/json")]
        answer = await owner.post(PROJECTS, content=b"{}", headers=headers)
        assert refused(answer) == (415, "unsupported_media_type"), encoding
        assert answer.headers["accept-encoding"] == "gzip, zstd"
    plain = {"content-encoding": "identity"}
    assert (await owner.post(PROJECTS, json={"name": "x"}, headers=plain)).status_code == 201


async def test_a_compressed_form_is_no_larger_than_json(owner: httpx.AsyncClient) -> None:
    """A form is written to a file while it arrives, but not while it is decompressed."""
    head = b'--cut\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    form = head + bytes(29 * 2**20) + b"\r\n--cut--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=cut", "content-encoding": "gzip"}
    answer = await owner.post("/v1/assets", content=gzip.compress(form, 1), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_bomb_does_not_go_off(owner: httpx.AsyncClient, encoding: str) -> None:
    """128 MiB of blanks in less than the limit of the body: refused, and never in memory."""
    blanks = b" " * 2**20
    packer = (
        zlib.compressobj(9, zlib.DEFLATED, 31) if encoding == "gzip" else zstandard.ZstdCompressor(19).compressobj()
    )
    bomb = b"".join(packer.compress(blanks) for _ in range(128)) + packer.flush()
    project = (await create(owner))["id"]
    tracemalloc.start()
    try:
        answer = await owner.post(
            f"/v1/projects/{project}/clone",
            content=bomb[:65_000] if encoding == "gzip" else bomb,
            headers={"content-type": "application/json", "content-encoding": encoding},
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413
    assert peak < 24 * 2**20
