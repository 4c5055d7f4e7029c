"""Signed URLs of local files: as RFC 9110 says, and harmless whatever was uploaded."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import hypothesis
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from werkzeug.http import parse_options_header

from data_layer import DataLayer, Settings
from data_layer.schemas.files import FileView
from data_layer.storage.validation import clean_file_name
from data_layer.web.conditions import UnsatisfiableRangeError, accepts_gzip, parse_range
from tests.file_content import PAGE, SVG, picture
from tests.support import make_user

PICTURE = picture(size=(150, 90))
HOUR = timedelta(hours=1)
IDENTITY = {"accept-encoding": "identity"}


@pytest.fixture
def settings(migrated: Settings, tmp_path: Path) -> Settings:
    allowed = ("image/png", "text/html", "image/svg+xml")
    return migrated.replaced(local_storage_path=tmp_path / "uploads", allowed_file_types=allowed)


async def save(data: DataLayer, content: bytes, **options: str) -> tuple[FileView, str]:
    """A file and its signed URL."""
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    file = await data.files.save(content, owner_id=user.id, file_name=options.get("file_name"))
    return file, str(await data.files.signed_url(file.id, owner_id=user.id, expires_in=HOUR))


async def test_a_picture_is_shown(data: DataLayer, client: httpx.AsyncClient) -> None:
    file, url = await save(data, PICTURE, file_name="a.png")
    answer = await client.get(url)
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(file.size)
    assert answer.headers["content-disposition"] == 'inline; filename="a.png"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"].startswith('"')
    directive, _, age = answer.headers["cache-control"].partition(", max-age=")
    assert directive == "private"
    assert 3000 < int(age) <= 3600
    head = await client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    # The clock goes on between the two, and both count for the limit.
    changing = {"cache-control": "", "x-request-id": "", "ratelimit": ""}
    assert {**head.headers, **changing} == {**answer.headers, **changing}


@hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=300))
@example("\u200f\u05e6\u05d9\u05dc\u05d5\u05dd \u05de\u05e1\u05da\u200e.png")
@example("截" * 90 + ".png")
@example("\U0001f600" * 300)
@example("\ud800")
@example('a"; filename=b\r\nset-cookie: c=d')
@example("x" * 10_000)
@example("../con.png")
@example("\0")
async def test_a_file_of_any_name_is_saved_listed_and_handed_out(
    data: DataLayer, client: httpx.AsyncClient, name: str
) -> None:
    file, url = await save(data, PICTURE, file_name=name)
    [listed] = await data.files.list(owner_id=file.owner_id)
    assert listed.file_name == file.file_name == clean_file_name(name)
    answer = await client.get(url)
    assert (answer.status_code, answer.content) == (200, PICTURE)
    kind, options = parse_options_header(answer.headers["content-disposition"])
    assert (kind, options.get("filename")) == ("inline", file.file_name)


@pytest.mark.parametrize("content", [PAGE, SVG, b"<html><script>alert(document.cookie)</script></html>"])
async def test_what_could_be_hostile_is_saved_and_sandboxed(
    data: DataLayer, client: httpx.AsyncClient, content: bytes
) -> None:
    file, url = await save(data, content, file_name="page.html")
    inline = await data.storage.signed_url(file.key, expires_in=HOUR, content_disposition="inline; filename=a.html")
    for address in (url, str(inline), str(await data.storage.signed_url(file.key, expires_in=HOUR))):
        answer = await client.get(address)
        assert answer.content == content
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "script-src" not in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_page_travels_compressed_to_whoever_takes_it(data: DataLayer, client: httpx.AsyncClient) -> None:
    file, url = await save(data, PAGE)
    packed = await client.send(client.build_request("GET", url, headers={"accept-encoding": "gzip"}), stream=True)
    raw = b"".join([chunk async for chunk in packed.aiter_raw()])
    assert gzip.decompress(raw) == PAGE
    assert len(raw) == file.stored_size == int(packed.headers["content-length"])
    assert packed.headers["content-encoding"] == "gzip"
    plain = await client.get(url, headers=IDENTITY)
    assert plain.content == PAGE
    assert "content-encoding" not in plain.headers
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    assert plain.headers["content-type"] == "text/html; charset=utf-8"
    assert (await client.get(url, headers={"accept-encoding": "gzip;q=0, br"})).headers.get("content-encoding") is None
    part = await client.get(url, headers=IDENTITY | {"range": "bytes=0-9"})
    assert (part.status_code, part.content) == (200, PAGE), "a part of what is not stored so is not offered"
    assert (await client.head(url, headers=IDENTITY)).content == b""


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=100-", 100, None), ("bytes=-7", -7, None),
     ("bytes=5-99999999", 5, None), ("BYTES=1-2", 1, 3), ("bytes=-99999999", 0, None)],
)  # fmt: skip
async def test_a_part(data: DataLayer, client: httpx.AsyncClient, header: str, start: int, end: int | None) -> None:
    _, url = await save(data, PICTURE)
    answer = await client.get(url, headers={"range": header})
    wanted = PICTURE[start:end]
    assert (answer.status_code, answer.content) == (206, wanted)
    first = PICTURE.index(wanted)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(PICTURE)}"
    assert answer.headers["content-length"] == str(len(wanted))


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=-0"])
async def test_a_part_that_is_not_there(data: DataLayer, client: httpx.AsyncClient, header: str) -> None:
    _, url = await save(data, PICTURE)
    answer = await client.get(url, headers={"range": header})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(PICTURE)}")


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "bytes=9-3", "bytes=-", "bytes=a-b", "lines=1-2", "", "bytes=1"])
async def test_several_parts_and_nonsense_are_answered_with_everything(
    data: DataLayer, client: httpx.AsyncClient, header: str
) -> None:
    _, url = await save(data, PICTURE)
    answer = await client.get(url, headers={"range": header})
    assert (answer.status_code, answer.content) == (200, PICTURE)


async def test_what_the_client_has_already(data: DataLayer, client: httpx.AsyncClient) -> None:
    _, url = await save(data, PICTURE)
    first = await client.get(url)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    later = format_datetime(datetime.now(UTC) + HOUR, usegmt=True)
    long_ago = format_datetime(datetime.now(UTC) - HOUR, usegmt=True)
    unchanged = [
        {"if-none-match": etag}, {"if-none-match": f'"other", W/{etag}'}, {"if-none-match": "*"},
        {"if-modified-since": modified}, {"if-modified-since": later},
    ]  # fmt: skip
    for headers in unchanged:
        for method in ("GET", "HEAD"):
            answer = await client.request(method, url, headers=headers)
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == etag
            assert "cache-control" in answer.headers
    changed = [
        {"if-none-match": '"other"'}, {"if-none-match": '"other"', "if-modified-since": later},
        {"if-modified-since": long_ago}, {"if-modified-since": "nonsense"},
    ]  # fmt: skip
    for headers in changed:
        assert (await client.get(url, headers=headers)).status_code == 200
    for condition, status in ((etag, 206), ('"other"', 200), (modified, 206), (long_ago, 200), (f"W/{etag}", 200)):
        answer = await client.get(url, headers={"range": "bytes=0-3", "if-range": condition})
        assert answer.status_code == status, condition


async def test_a_url_that_is_not_valid(data: DataLayer, client: httpx.AsyncClient) -> None:
    file, url = await save(data, PICTURE)
    address, _, query = url.partition("?")
    altered = [
        *(address, f"{address}?", f"{url}x", f"{address}/..?{query}"),
        *(url.replace("inline", "attachment"), url.replace("expires=1", "expires=2")),
        url.replace(".png", "-thumbnail-200.webp"),
    ]
    for bad in altered:
        answer = await client.get(bad)
        assert answer.status_code == 403, bad
        assert answer.json()["code"] == "signature_invalid"
    assert (await client.put(url, content=b"x")).status_code == 403
    assert (await client.delete(url)).status_code == 405
    assert await data.storage.download(file.key) == PICTURE


async def test_a_url_for_storing_is_good_for_direct_uploads_only(data: DataLayer, client: httpx.AsyncClient) -> None:
    file, _ = await save(data, PICTURE)
    signed = await data.storage.signed_url(file.key, method="PUT", expires_in=HOUR)
    assert (await client.put(signed.url, content=b"x")).status_code == 403
    assert await data.storage.download(file.key) == PICTURE


async def test_a_file_that_is_gone_or_waits_for_verification(data: DataLayer, client: httpx.AsyncClient) -> None:
    file, url = await save(data, PICTURE)
    await data.files.delete(file.id, owner_id=file.owner_id)
    await data.storage.upload(PAGE, "uploads/waiting", "text/html")
    waiting = await data.storage.signed_url("uploads/waiting", expires_in=HOUR)
    for address in (url, str(waiting)):
        answer = await client.get(address)
        assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")


async def test_thumbnails_have_urls_too(data: DataLayer, client: httpx.AsyncClient) -> None:
    file, _ = await save(data, picture(size=(1000, 1000)))
    for wanted, size in ((100, 200), (200, 200), (201, 800), (5000, 1000)):
        signed = await data.files.signed_url(file.id, owner_id=file.owner_id, expires_in=HOUR, thumbnail=wanted)
        answer = await client.get(signed.url)
        thumbnails = await data.files.thumbnails(file.id, owner_id=file.owner_id)
        small = {picture.key: picture.width for picture in thumbnails}
        key = signed.url.partition("?")[0].partition("/v1/files/")[2]
        assert small.get(key, 1000) == size
        assert answer.headers["content-type"] == ("image/png" if size == 1000 else "image/webp")
        assert answer.headers["content-disposition"] == "inline"
    saved = await data.files.signed_url(file.id, owner_id=file.owner_id, expires_in=HOUR, as_attachment=True)
    assert (await client.get(saved.url)).headers["content-disposition"] == "attachment"


async def test_a_broken_storage_tells_nothing_about_the_inside(data: DataLayer, client: httpx.AsyncClient) -> None:
    _, url = await save(data, PICTURE)
    folder = data.settings.storage.local_storage_path
    folder.rename(folder.with_name("moved"))
    answer = await client.get(url)
    assert answer.status_code in {404, 503}
    assert str(folder) not in answer.text


async def test_what_the_storage_did_is_counted(data: DataLayer, client: httpx.AsyncClient) -> None:
    file, url = await save(data, PICTURE)
    await client.get(url)
    counters = data.storage_counters
    uploads = counters.operations["upload"]
    assert counters.backend == "local"
    assert counters.bytes_in == counters.bytes_out == file.size
    assert (uploads.durations.count, uploads.errors) == (1, {})
    assert 0 < uploads.durations.sum < 60


@given(header=st.text(max_size=40), size=st.integers(1, 10_000))
def test_any_range_is_inside_the_file(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except UnsatisfiableRangeError:
        return
    assert part is None or 0 <= part[0] < part[1] <= size


@given(first=st.integers(0, 200), last=st.integers(0, 200), size=st.integers(1, 100))
def test_a_range_is_read_as_the_standard_says(first: int, last: int, size: int) -> None:
    wanted = range(size)[first : last + 1] if first <= last else None
    try:
        part = parse_range(f"bytes={first}-{last}", size)
    except UnsatisfiableRangeError:
        assert wanted is not None
        assert len(wanted) == 0
        return
    assert part == ((wanted.start, wanted.stop) if wanted is not None else None)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [(None, False), ("", False), ("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("gzip;q=0", False),
     ("*;q=0", False), ("*, gzip;q=0.0", False), ("identity", False), ("x-gzip", True)],
)  # fmt: skip
def test_who_takes_gzip(header: str | None, accepted: bool) -> None:  # noqa: FBT001
    assert accepts_gzip(header) is accepted
