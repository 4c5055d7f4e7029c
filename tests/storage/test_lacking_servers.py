"""Servers that resemble S3 and lack something: each feature is switched off in turn, in every way of saying so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count

import pytest

from data_layer.errors import (
    FileChangedInStorageError,
    FileExistsInStorageError,
    NotSupportedByStorageError,
    StorageError,
    StoragePermissionError,
    StorageRefusedError,
    StorageUnavailableError,
)
from data_layer.storage import Limits, ListedFile, S3Location, S3Storage
from data_layer.testing.storage_servers import MotoServer, RcloneServer

from .s3_proxy import S3Proxy

NUMBERS = count(1)
MEBIBYTE = 1024 * 1024
HASTY = Limits(connect_timeout=5, timeout=10, retries=1, retry_timeout=5)
REFUSALS = [
    (501, "NotImplemented"),
    (400, "InvalidRequest"),
    (400, "MalformedXML"),
    (403, "AccessDenied"),
    (404, "NoSuchKey"),
    (405, "MethodNotAllowed"),
    (409, "BucketAlreadyExists"),
]
ODD = [b"", b"nonsense", b"<DeleteResult/>", b"<html><body>Welcome</body></html>", b"<DeleteResult><Deleted>"]
SUB_RESOURCES = ("acl", "policyStatus", "publicAccessBlock", "versioning", "lifecycle", "cors", "encryption")


@pytest.fixture
def proxy(moto_server: MotoServer) -> Iterator[S3Proxy]:
    with S3Proxy(moto_server.port) as proxy:
        yield proxy


@pytest.fixture
def bucket() -> str:
    return f"lacking-{next(NUMBERS)}"


@asynccontextmanager
async def opened(proxy: S3Proxy, server: MotoServer | RcloneServer, bucket: str) -> AsyncIterator[S3Storage]:
    place = S3Location(bucket, server.region, proxy.address, server.credentials)
    storage = S3Storage(place, max_file_size=100 * MEBIBYTE, limits=HASTY)
    await storage.initialize()
    try:
        yield storage
    finally:
        await storage.close()


def stored(server: MotoServer, bucket: str) -> list[str]:
    return [item["Key"] for item in server.client.list_objects_v2(Bucket=bucket).get("Contents", [])]


async def remove_everything(storage: S3Storage, server: MotoServer, bucket: str) -> None:
    """In each way in which something is removed; nothing may stay, our own probes included."""
    for key in ("a", "b/c", "d", "e"):
        await storage.upload(b"x", key, "text/plain")
    await storage.delete("a")
    await storage.delete("a")
    await storage.delete_many(["b/c", "d", "gone"])
    await storage.move("e", "f")
    await storage.delete("f")
    for _ in range(3):
        await storage.check()
    server.client.put_object(Bucket=bucket, Key=".storage/probe-1", Body=b"")
    assert await storage.remove_abandoned_uploads(older_than=timedelta()) == 1
    assert stored(server, bucket) == []


@pytest.mark.parametrize(("status", "code"), REFUSALS)
async def test_without_delete_objects_each_is_deleted_by_itself(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str, status: int, code: str
) -> None:
    moto_server.make_bucket(bucket)
    proxy.refuse("delete_many", status, code)
    async with opened(proxy, moto_server, bucket) as storage:
        await remove_everything(storage, moto_server, bucket)
    assert proxy.asked["delete_many"] <= 3, "asked for once, and not each time"


@pytest.mark.parametrize("body", ODD)
async def test_an_odd_answer_to_delete_objects_is_not_believed(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str, body: bytes
) -> None:
    moto_server.make_bucket(bucket)
    proxy.answer("delete_many", 200, body)
    async with opened(proxy, moto_server, bucket) as storage:
        await remove_everything(storage, moto_server, bucket)


async def test_delete_objects_that_says_yes_and_does_nothing_is_noticed(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str
) -> None:
    moto_server.make_bucket(bucket)
    proxy.answer("delete_many", 200, b"<DeleteResult><Deleted><Key>a</Key></Deleted></DeleteResult>")
    async with opened(proxy, moto_server, bucket) as storage:
        await remove_everything(storage, moto_server, bucket)


async def test_a_server_that_deletes_many_is_asked_for_that(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str
) -> None:
    moto_server.make_bucket(bucket)
    async with opened(proxy, moto_server, bucket) as storage:
        await remove_everything(storage, moto_server, bucket)
        before = proxy.asked["delete_many"]
        await storage.delete_many([f"key-{number}" for number in range(200)])
        assert proxy.asked["delete_many"] == before + 1


@pytest.mark.parametrize("feature", ["delete_many", "delete"])
async def test_a_removal_that_is_refused_altogether_is_no_success(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str, feature: str
) -> None:
    """One probe stays at most, however often it is tried."""
    moto_server.make_bucket(bucket)
    proxy.refuse("delete_many", 403, "AccessDenied")
    proxy.refuse("delete", 403, "AccessDenied")
    async with opened(proxy, moto_server, bucket) as storage:
        await storage.upload(b"x", "a", "text/plain")
        for attempt in range(4):
            with pytest.raises(StoragePermissionError):
                await (storage.delete("a") if feature == "delete" else storage.delete_many(["a", "b"]))
            with pytest.raises(StoragePermissionError):
                await storage.check()
            assert len(stored(moto_server, bucket)) == 2, attempt
        assert await storage.exists("a")


CONDITIONS = {"create_only": {"overwrite": False}, "replace_only": {"if_match": "0" * 32}}


@pytest.mark.parametrize("feature", CONDITIONS)
@pytest.mark.parametrize("refusal", [(501, "NotImplemented"), (400, "InvalidArgument"), None])
async def test_conditions_that_a_server_does_not_know_are_refused_here(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str, feature: str, refusal: tuple[int, str] | None
) -> None:
    moto_server.make_bucket(bucket)
    if refusal is not None:
        proxy.refuse(feature, *refusal)
    else:
        proxy.ignore("if-none-match" if feature == "create_only" else "if-match")
    async with opened(proxy, moto_server, bucket) as storage:
        await storage.upload(b"old", "a", "text/plain")
        for _ in range(2):
            with pytest.raises(NotSupportedByStorageError, match="ignores the condition"):
                await storage.upload(b"new", "a", "text/plain", **CONDITIONS[feature])  # type: ignore[arg-type]
        assert await storage.download("a") == b"old"
    assert stored(moto_server, bucket) == ["a"], "no probe is left"


async def test_one_condition_is_not_proof_of_the_other(proxy: S3Proxy, moto_server: MotoServer, bucket: str) -> None:
    moto_server.make_bucket(bucket)
    proxy.ignore("if-match")
    async with opened(proxy, moto_server, bucket) as storage:
        await storage.upload(b"1", "a", "text/plain", overwrite=False)
        with pytest.raises(FileExistsInStorageError):
            await storage.upload(b"2", "a", "text/plain", overwrite=False)
        with pytest.raises(NotSupportedByStorageError):
            await storage.upload(b"2", "a", "text/plain", if_match="0" * 32)


@pytest.mark.parametrize("feature", ["copy", "parts", "write"])
@pytest.mark.parametrize("refusal", [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "Odd")])
async def test_what_is_needed_and_lacking_is_reported_as_lacking(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str, feature: str, refusal: tuple[int, str]
) -> None:
    moto_server.make_bucket(bucket)
    async with opened(proxy, moto_server, bucket) as storage:
        await storage.upload(b"x", "a", "text/plain")
        proxy.refuse(feature, *refusal)
        attempt = {
            "copy": lambda: storage.copy("a", "b"),
            "parts": lambda: storage.upload(bytes(9 * MEBIBYTE), "b", "image/png"),
            "write": storage.check,
        }[feature]()
        with pytest.raises((NotSupportedByStorageError, StorageRefusedError)) as caught:
            await attempt
        assert "may pass" not in str(caught.value)
        assert refusal[1] in str(caught.value)


async def test_an_overloaded_server_may_pass(proxy: S3Proxy, moto_server: MotoServer, bucket: str) -> None:
    moto_server.make_bucket(bucket)
    async with opened(proxy, moto_server, bucket) as storage:
        for status, code in ((503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")):
            proxy.refuse("write", status, code)
            with pytest.raises(StorageUnavailableError, match="may pass") as caught:
                await storage.check()
            assert not isinstance(caught.value, StorageRefusedError | StoragePermissionError)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((400, "<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region>"), "AWS_REGION=eu-west-1"),
        ((301, "<Code>PermanentRedirect</Code><Endpoint>x.s3.amazonaws.com</Endpoint>"), "AWS_REGION"),
        ((403, "<Code>RequestTimeTooSkewed</Code>"), "clock of this machine"),
        ((403, "<Code>ExpiredToken</Code>"), "temporary credentials have expired"),
        ((403, "<Code>SignatureDoesNotMatch</Code>"), "credentials are right"),
    ],
)
async def test_a_refusal_says_what_is_wrong(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str, answer: tuple[int, str], says: str
) -> None:
    moto_server.make_bucket(bucket)
    storage = S3Storage(
        S3Location(bucket, endpoint=proxy.address, credentials=moto_server.credentials), max_file_size=1, limits=HASTY
    )
    status, body = answer
    for feature in ("list", "write"):
        proxy.answer(feature, status, f"<Error>{body}</Error>".encode())
    with pytest.raises(StorageError, match=says) as caught:
        await storage.initialize()
    assert "may pass" not in str(caught.value)
    if "SignatureDoesNotMatch" not in body:
        assert "credentials are right" not in str(caught.value)


@pytest.mark.parametrize(("status", "code"), REFUSALS)
async def test_no_answer_to_an_optional_question_fails_the_making_of_a_bucket(
    proxy: S3Proxy, moto_server: MotoServer, bucket: str, status: int, code: str
) -> None:
    for name in SUB_RESOURCES:
        proxy.refuse(name, status, code)
    storage = S3Storage(
        S3Location(bucket, endpoint=proxy.address, credentials=moto_server.credentials, encryption="sse-s3"),
        max_file_size=1,
        limits=HASTY,
    )
    unknown = await storage.create()
    assert len(unknown) == 5
    assert all(code in line for line in unknown)
    assert stored(moto_server, bucket) == [], "the bucket was made"
    settings = await storage.describe()
    assert len(settings.unknown) == 6
    assert (settings.is_public, settings.keeps_versions) == (False, False)
    assert await storage.create() != (), "again, with what cannot be learned only"


async def test_nothing_is_unknown_where_everything_is_answered(moto_server: MotoServer, bucket: str) -> None:
    storage = S3Storage(
        S3Location(bucket, endpoint=moto_server.address, credentials=moto_server.credentials), max_file_size=1
    )
    assert list(await storage.create()) == []
    assert (await storage.describe()).unknown == ()


async def test_the_making_of_a_bucket_on_rclone(rclone_server: RcloneServer, bucket: str) -> None:
    storage = S3Storage(
        S3Location(bucket, endpoint=rclone_server.address, credentials=rclone_server.credentials), max_file_size=1
    )
    assert await storage.create()
    await storage.initialize()
    await storage.check()
    await storage.close()


LONG_LISTING = [f"key-{number:04}" for number in range(2001)]
"""Three pages."""


@pytest.fixture(scope="module")
def long_bucket(moto_server: MotoServer) -> str:
    moto_server.make_bucket("long")
    for key in LONG_LISTING:
        moto_server.client.put_object(Bucket="long", Key=key, Body=b"")
    return "long"


@pytest.mark.slow
@pytest.mark.parametrize("quirk", ["no token", "old only", "mark ignored"])
async def test_a_long_listing_is_whole_whatever_the_server_says_of_its_end(
    proxy: S3Proxy, moto_server: MotoServer, long_bucket: str, quirk: str
) -> None:
    async with opened(proxy, moto_server, long_bucket) as storage:
        if quirk == "old only":
            proxy.refuse("list", 501, "NotImplemented")
        else:
            proxy.spoil_listings(ignore_marks=quirk == "mark ignored")
        assert [file.key async for file in storage.list()] == LONG_LISTING
        assert (await storage.statistics()).file_count == len(LONG_LISTING)


ODD_KEYS = ["a//b", "a/../b", "t\tb", "/lead", "trail/", "x\x01y", "./x", ".hidden", "\uffff", "b/" * 300 + "c", "a\\b"]


async def test_odd_keys_are_named_and_counted_and_everything_else_is_listed(
    moto_server: MotoServer, bucket: str
) -> None:
    moto_server.make_bucket(bucket)
    for key in (*ODD_KEYS, "a/good", "good", "z"):
        moto_server.client.put_object(Bucket=bucket, Key=key, Body=b"12345")
    storage = S3Storage(
        S3Location(bucket, endpoint=moto_server.address, credentials=moto_server.credentials), max_file_size=9
    )
    await storage.initialize()
    odd: list[ListedFile] = []
    assert [file.key async for file in storage.list(on_unusable_key=odd.append)] == ["a/good", "good", "z"]
    assert sorted(file.key for file in odd) == sorted(ODD_KEYS)
    assert [file.key async for file in storage.list("a/")] == ["a/good"]
    statistics = await storage.statistics()
    assert (statistics.file_count, statistics.total_size) == (3, 15)
    assert statistics.unusable_count == len(ODD_KEYS)
    assert "t\\tb" in statistics.unusable_keys
    await storage.check()
    assert await storage.remove_abandoned_uploads(older_than=timedelta()) == 0
    await storage.close()


class TestAtomicConditions:
    """Neither moto nor rclone keeps conditions atomically, so the proxy does, one request for a key at a time."""

    @pytest.fixture
    def proxy(self, moto_server: MotoServer) -> Iterator[S3Proxy]:
        with S3Proxy(moto_server.port, keep_conditions=True) as proxy:
            yield proxy

    async def test_of_many_creators_one_wins(self, proxy: S3Proxy, moto_server: MotoServer, bucket: str) -> None:
        moto_server.make_bucket(bucket)
        async with opened(proxy, moto_server, bucket) as one, opened(proxy, moto_server, bucket) as other:
            for turn in range(5):
                outcomes = await asyncio.gather(
                    *(
                        (one, other)[number % 2].upload(b"%d" % number, f"a{turn}", "text/plain", overwrite=False)
                        for number in range(20)
                    ),
                    return_exceptions=True,
                )
                winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)]
                assert len(winners) == 1, outcomes
                refused = [type(outcome) for outcome in outcomes if not isinstance(outcome, str)]
                assert set(refused) == {FileExistsInStorageError}
                assert await one.download(f"a{turn}") == b"%d" % winners[0]

    async def test_counting_together_loses_nothing(self, proxy: S3Proxy, moto_server: MotoServer, bucket: str) -> None:
        moto_server.make_bucket(bucket)
        refused = 0

        async def add(storage: S3Storage) -> None:
            nonlocal refused
            while True:
                async with storage.open("count") as file:
                    value = int(b"".join([chunk async for chunk in file.chunks]))
                    etag = file.information.etag
                try:
                    await storage.upload(b"%d" % (value + 1), "count", "text/plain", if_match=etag)
                except FileChangedInStorageError:
                    refused += 1
                else:
                    return

        async with opened(proxy, moto_server, bucket) as one, opened(proxy, moto_server, bucket) as other:
            await one.upload(b"0", "count", "text/plain")
            await asyncio.gather(*(add(storage) for _ in range(15) for storage in (one, other)))
            assert await one.download("count") == b"30"
            assert refused > 0, "they met"
