"""S3 and Azure when their servers fail, refuse, are slow or gone; what is sent to them; what is made there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from data_layer.errors import (
    FileChangedInStorageError,
    FileNotFoundInStorageError,
    NotSupportedByStorageError,
    PublicStorageError,
    StorageError,
    StorageMissingError,
    StoragePermissionError,
    StorageUnavailableError,
)
from data_layer.settings.azure_location import EMULATOR_ACCOUNT, EMULATOR_KEY
from data_layer.storage import AzureLocation, AzureStorage, Limits, S3Location, S3Storage, StorageBackend
from data_layer.storage.signing.s3 import S3Credentials
from data_layer.testing.storage_servers import AzuriteServer, MotoServer, RcloneServer

from .proxy import Proxy

MEBIBYTE = 1024 * 1024
PATIENT = Limits(connect_timeout=10, timeout=15, retries=2, retry_timeout=5)
HASTY = Limits(connect_timeout=1, timeout=1, retries=2, retry_timeout=5)
"""For a server that does not answer."""


@pytest.fixture
def bucket() -> str:
    return f"test-{uuid.uuid4()}"


@asynccontextmanager
async def opened(storage: StorageBackend) -> AsyncIterator[StorageBackend]:
    await storage.initialize()
    try:
        yield storage
    finally:
        await storage.close()


def s3(server: Any, bucket: str, address: str | None = None, *, limits: Limits = PATIENT, **place: Any) -> S3Storage:
    values = {"credentials": server.credentials, **place}
    return S3Storage(
        S3Location(bucket, endpoint=address or server.address, **values), max_file_size=100 * MEBIBYTE, limits=limits
    )


def azure(
    server: AzuriteServer, container: str, address: str | None = None, *, limits: Limits = PATIENT
) -> AzureStorage:
    text = server.connection_string.replace(server.address, address or server.address)
    place = AzureLocation.of_connection_string(text, container)
    return AzureStorage(place, max_file_size=100 * MEBIBYTE, limits=limits)


def every_operation(storage: StorageBackend) -> list[Any]:
    return [
        storage.upload(b"x", "a", "text/plain"),
        storage.upload(b"x" * 10 * MEBIBYTE, "a", "text/plain"),
        storage.download("a"),
        storage.stat("a"),
        storage.exists("a"),
        storage.delete("a"),
        storage.delete_many(["a", "b"]),
        storage.copy("a", "b"),
        storage.check(),
        storage.statistics(),
    ]


async def test_a_killed_server_and_its_return(bucket: str) -> None:
    with RcloneServer() as server:
        server.make_bucket(bucket)
        async with opened(s3(server, bucket)) as storage:
            await storage.upload(b"kept", "a", "text/plain")
            server.kill()
            for operation in every_operation(storage):
                with pytest.raises(StorageUnavailableError, match=r"connection was refused|connection broke"):
                    await operation
            server.start()
            assert await storage.download("a") == b"kept"
            await storage.check()


async def test_opening_while_the_server_is_gone(bucket: str) -> None:
    with RcloneServer() as server:
        server.make_bucket(bucket)
        server.kill()
        async with opened(s3(server, bucket)) as storage:
            with pytest.raises(StorageUnavailableError):
                await storage.check()
            server.start()
            await storage.check()


@pytest.mark.slow
async def test_a_server_that_does_not_answer(rclone_server: RcloneServer, bucket: str) -> None:
    rclone_server.make_bucket(bucket)
    async with (
        Proxy(rclone_server.port) as proxy,
        opened(s3(rclone_server, bucket, proxy.address, limits=HASTY)) as storage,
    ):
        await storage.upload(b"kept", "a", "text/plain")
        proxy.mute()
        for operation in (storage.upload(b"x", "a", "text/plain"), storage.stat("a"), storage.download("a")):
            begun = time.monotonic()
            with pytest.raises(StorageUnavailableError, match="did not answer in time"):
                await operation
            assert time.monotonic() - begun < 30
        proxy.unmute()
        assert await _read_again(storage) in {b"kept", b"x"}, "the upload may arrive late, but whole"


@pytest.mark.parametrize("kind", ["s3", "azure"])
async def test_a_connection_that_was_forgotten_while_idle_is_not_used(
    request: pytest.FixtureRequest, bucket: str, kind: str
) -> None:
    limits = Limits(timeout=15, retries=0, idle_timeout=0.3)
    server: Any = request.getfixturevalue("rclone_server" if kind == "s3" else "azurite_server")
    server.make_bucket(bucket)
    connect: Any = s3 if kind == "s3" else azure
    async with Proxy(server.port) as proxy, opened(connect(server, bucket, proxy.address, limits=limits)) as storage:
        await storage.upload(b"x", "a", "text/plain")
        proxy.forget()
        await asyncio.sleep(1)
        async with asyncio.timeout(10):
            assert await storage.download("a") == b"x"


async def _read_again(storage: StorageBackend) -> bytes:
    """A connection from the time of silence may break once more."""
    for _ in range(5):
        with suppress(StorageUnavailableError):
            return await storage.download("a")
    return await storage.download("a")


@pytest.mark.parametrize("kind", ["s3", "azure"])
async def test_connections_cut_in_the_middle(request: pytest.FixtureRequest, bucket: str, kind: str) -> None:
    """Whatever is cut, and wherever: the old file or the new one, whole."""
    server: Any = request.getfixturevalue("moto_server" if kind == "s3" else "azurite_server")
    server.make_bucket(bucket)
    connect: Any = s3 if kind == "s3" else azure
    old, new = b"o" * 300_000, b"n" * (9 * MEBIBYTE)
    async with Proxy(server.port) as proxy, opened(connect(server, bucket, proxy.address)) as storage:
        for cut_after in (0, 100, 5_000, 200_000, 5 * MEBIBYTE, 8 * MEBIBYTE + 700_000):
            await storage.upload(old, "a", "text/plain")
            proxy.cut_after(cut_after)
            with suppress(StorageUnavailableError):
                await storage.upload(new, "a", "image/png")
            proxy.cut_after(None)
            content = await storage.download("a")
            assert content in {old, new}
            assert (await storage.stat("a")).content_type == ("text/plain" if content == old else "image/png")


async def test_a_download_that_is_cut_goes_on_or_fails(rclone_server: RcloneServer, bucket: str) -> None:
    rclone_server.make_bucket(bucket)
    content = bytes(range(256)) * 20_000
    async with Proxy(rclone_server.port) as proxy, opened(s3(rclone_server, bucket, proxy.address)) as storage:
        await storage.upload(content, "a", "text/plain")
        for cut_after in (500, 2_000_000):
            proxy.cut_after(cut_after)
            try:
                assert await storage.download("a") == content
            except StorageUnavailableError:
                proxy.cut_after(None)
            assert await storage.download("a") == content


async def test_wrong_credentials_and_nothing_secret_in_the_errors(
    rclone_server: RcloneServer, azurite_server: AzuriteServer, bucket: str
) -> None:
    rclone_server.make_bucket(bucket)
    azurite_server.make_bucket(bucket)
    other = S3Credentials(rclone_server.credentials.access_key_id, "hidden-hidden-hidden")
    sas = generate_container_sas(EMULATOR_ACCOUNT, bucket, EMULATOR_KEY, permission="r", expiry="2100-01-01T00:00:00Z")
    place = AzureLocation(bucket, EMULATOR_ACCOUNT, f"{azurite_server.address}/{EMULATOR_ACCOUNT}", sas=sas)
    for storage in (
        s3(rclone_server, bucket, credentials=other),
        AzureStorage(place, max_file_size=1, limits=PATIENT),
    ):
        with pytest.raises(StoragePermissionError, match="credentials") as caught:
            await storage.initialize()
        shown = "".join(traceback.format_exception(caught.value))
        for secret in ("hidden-hidden", sas.partition("sig=")[2], "X-Amz-Signature", "sig="):
            assert secret not in shown


async def test_a_missing_bucket_is_no_missing_file(
    moto_server: MotoServer, azurite_server: AzuriteServer, bucket: str
) -> None:
    for storage in (s3(moto_server, bucket), azure(azurite_server, bucket)):
        with pytest.raises(StorageMissingError, match="storage init"):
            await storage.initialize()


async def test_a_shared_access_signature_is_enough(azurite_server: AzuriteServer, bucket: str) -> None:
    azurite_server.make_bucket(bucket)
    permission = ContainerSasPermissions(read=True, write=True, delete=True, list=True, create=True)
    sas = generate_container_sas(
        EMULATOR_ACCOUNT, bucket, EMULATOR_KEY, permission=permission, expiry="2100-01-01T00:00:00Z"
    )
    text = f"BlobEndpoint={azurite_server.address}/{EMULATOR_ACCOUNT};SharedAccessSignature={sas}"
    place = AzureLocation.of_connection_string(text, bucket)
    async with opened(AzureStorage(place, max_file_size=100)) as storage:
        await storage.upload(b"x", "a", "text/plain")
        await storage.copy("a", "b")
        await storage.delete("a")
        await storage.delete_many(["a", "b"])
        with pytest.raises(FileNotFoundInStorageError) as caught:
            await storage.download("b")
        assert "sig" not in str(caught.value)
        with pytest.raises(NotSupportedByStorageError, match="AccountKey"):
            await storage.signed_url("a", expires_in=timedelta(minutes=1))


@pytest.mark.parametrize(
    ("encryption", "key", "expected"),
    [
        ("sse-s3", None, {"ServerSideEncryption": "AES256"}),
        ("sse-kms", "arn:aws:kms:us-east-1:1:key/k", {"SSEKMSKeyId": "arn:aws:kms:us-east-1:1:key/k"}),
    ],
)
async def test_encryption_is_asked_for(
    moto_server: MotoServer, bucket: str, encryption: Any, key: str | None, expected: dict[str, str]
) -> None:
    storage = s3(moto_server, bucket, encryption=encryption, kms_key_id=key)
    await storage.create()
    async with opened(storage):
        await storage.upload(b"x", "small", "text/plain")
        await storage.upload(b"x" * 9 * MEBIBYTE, "large", "text/plain")
        await storage.copy("small", "copy")
        for name in ("small", "large", "copy"):
            head = moto_server.client.head_object(Bucket=bucket, Key=name)
            assert head.items() >= expected.items(), name
        signed = await storage.signed_url("a", method="PUT", expires_in=timedelta(minutes=1))
        assert signed.headers["x-amz-server-side-encryption"]
    rules = moto_server.client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] in {"AES256", "aws:kms"}


async def test_a_new_bucket_is_private(moto_server: MotoServer, bucket: str) -> None:
    await s3(moto_server, bucket).create()
    block = moto_server.client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}


async def test_a_bucket_in_another_region(moto_server: MotoServer, bucket: str) -> None:
    await s3(moto_server, bucket, region="eu-central-1").create()
    assert moto_server.client.get_bucket_location(Bucket=bucket)["LocationConstraint"] == "eu-central-1"


async def test_a_public_bucket_is_refused_unless_it_is_meant(moto_server: MotoServer, bucket: str) -> None:
    moto_server.client.create_bucket(Bucket=bucket, ACL="public-read")
    storage = s3(moto_server, bucket)
    with pytest.raises(PublicStorageError, match="--allow-public"):
        await storage.create()
    await storage.create(allow_public=True)
    moto_server.client.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration=dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        ),
    )
    await storage.create()


async def test_a_container_is_made_private_and_a_public_one_refused(azurite_server: AzuriteServer, bucket: str) -> None:
    storage = azure(azurite_server, bucket)
    await storage.create()
    container = azurite_server.client.get_container_client(bucket)
    assert container.get_container_properties().public_access is None
    container.set_container_access_policy({}, public_access="blob")
    with pytest.raises(PublicStorageError, match="--allow-public"):
        await storage.create()
    await storage.create(allow_public=True)


async def test_creating_where_it_is_not_allowed_or_not_reached(azurite_server: AzuriteServer, bucket: str) -> None:
    nowhere = S3Location(bucket, endpoint="http://127.0.0.1:9", credentials=S3Credentials("id", "hidden-secret"))
    place = AzureLocation(bucket, EMULATOR_ACCOUNT, f"{azurite_server.address}/{EMULATOR_ACCOUNT}", account_key="aGlk")
    once = Limits(connect_timeout=10, timeout=15, retries=0)
    with pytest.raises(StorageUnavailableError):
        await S3Storage(nowhere, max_file_size=1, limits=once).create()
    with pytest.raises(StoragePermissionError):
        await AzureStorage(place, max_file_size=1, limits=once).create()


PROGRAM = """
import asyncio, sys
from data_layer.storage import S3Location, S3Storage
from data_layer.storage.signing.s3 import S3Credentials

async def main():
    place = S3Location(sys.argv[2], endpoint=sys.argv[1], credentials=S3Credentials("a", "b"))
    storage = S3Storage(place, max_file_size=2**30)
    await storage.initialize()
    async def endless():
        for _ in range(20):
            yield b"x" * 1024 * 1024
        print("begun", flush=True)
        await asyncio.sleep(100)
        yield b""
    await storage.upload(endless(), "a", "video/mp4")

asyncio.run(main())
"""


async def test_what_a_killed_process_leaves_is_removed(moto_server: MotoServer, bucket: str) -> None:
    moto_server.make_bucket(bucket)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, moto_server.address, bucket, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    process.kill()
    await process.wait()
    moto_server.client.put_object(Bucket=bucket, Key=".storage/probe-1", Body=b"")
    async with opened(s3(moto_server, bucket)) as storage:
        assert [file.key async for file in storage.list()] == []
        assert moto_server.client.list_multipart_uploads(Bucket=bucket)["Uploads"]
        assert await storage.remove_abandoned_uploads(older_than=timedelta(days=365 * 100)) == 0
        assert await storage.remove_abandoned_uploads(older_than=timedelta()) == 2
    assert not moto_server.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


async def test_credentials_of_the_machine(
    moto_server: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys in the settings, those that the machine offers are used, and they sign too."""
    moto_server.make_bucket(bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROM_THE_MACHINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    async with opened(s3(moto_server, bucket, credentials=None)) as storage:
        await storage.upload(b"x", "a", "text/plain")
        assert "FROM_THE_MACHINE" in (await storage.signed_url("a", expires_in=timedelta(minutes=1))).url


async def test_all_errors_are_typed_and_short(moto_server: MotoServer, bucket: str) -> None:
    moto_server.make_bucket(bucket)
    async with opened(s3(moto_server, bucket)) as storage:
        moto_server.client.delete_bucket(Bucket=bucket)
        results = await asyncio.gather(*every_operation(storage), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        assert len(errors) >= 6
        for error in errors:
            assert isinstance(error, StorageError)
            assert "\n" not in str(error)
            assert moto_server.address not in str(error)


async def test_of_uploads_in_parts_to_one_key_one_wins_and_the_others_hear_of_it(
    azurite_server: AzuriteServer, bucket: str
) -> None:
    """Azure discards the parts of all other uploads to a blob when one of them ends."""
    azurite_server.make_bucket(bucket)
    contents = [bytes([number]) * (9 * MEBIBYTE) for number in range(4)]
    async with opened(azure(azurite_server, bucket)) as storage:
        uploads = (storage.upload(content, "same", "image/png") for content in contents)
        outcomes = await asyncio.gather(*uploads, return_exceptions=True)
        refused = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        assert len(refused) < len(contents)
        assert {type(outcome) for outcome in refused} <= {FileChangedInStorageError}
        assert await storage.download("same") in contents


@pytest.mark.parametrize("kind", ["s3", "azure"])
async def test_urls_lead_to_the_address_for_clients_and_nothing_else_does(
    request: pytest.FixtureRequest, bucket: str, kind: str
) -> None:
    """The server behind the proxy verifies the signature, which binds the host of S3."""
    server: Any = request.getfixturevalue("rclone_server" if kind == "s3" else "azurite_server")
    server.make_bucket(bucket)
    async with Proxy(server.port) as proxy, httpx.AsyncClient() as http:
        if kind == "s3":
            s3 = S3Location(
                bucket, endpoint=server.address, credentials=server.credentials, public_endpoint=proxy.address
            )
            storage: S3Storage | AzureStorage = S3Storage(s3, max_file_size=1000)
        else:
            place = AzureLocation.of_connection_string(server.connection_string, bucket)
            public = place.endpoint.replace(server.address, proxy.address)
            storage = AzureStorage(replace(place, public_endpoint=public), max_file_size=1000)
        proxy.mute()
        await storage.initialize()
        await storage.upload(b"page", "a/ä b", "text/plain")
        assert [file.key async for file in storage.list()] == ["a/ä b"]
        proxy.unmute()
        assert storage.url("a").startswith(proxy.address)
        signed = await storage.signed_url("a/ä b", expires_in=timedelta(minutes=1))
        assert signed.url.startswith(proxy.address)
        assert (await http.get(signed.url)).content == b"page"
        sent = await storage.signed_url("b", method="PUT", expires_in=timedelta(minutes=1), content_type="text/plain")
        assert sent.url.startswith(proxy.address)
        assert (await http.put(sent.url, content=b"sent", headers=dict(sent.headers))).status_code < 300
        assert await storage.download("b") == b"sent"
        await storage.close()
