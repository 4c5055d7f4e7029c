"""deploy/aws/policy.json, judged by moto's imitation of IAM: enough for files, and for nothing else.

moto does not know whether HeadBucket and the removal of several objects in one request are allowed. AWS has no rights
of their own for them (they are ListBucket and DeleteObject), so these are asked for one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import httpx
import pytest

from data_layer import Settings
from data_layer.errors import StoragePermissionError
from data_layer.storage.selection import make_object_storage
from data_layer.testing.storage_servers import MotoServer

from .support import DEPLOY

BUCKET = "screenshots-production"
POLICY = (DEPLOY / "aws" / "policy.json").read_text()


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with MotoServer() as server:
        server.make_bucket(BUCKET)
        server.make_bucket("of-others")
        yield server


@pytest.fixture(scope="module")
def key(server: MotoServer) -> dict[str, str]:
    """The key of a user who has this policy and nothing else."""
    iam = boto3.client(
        "iam",
        endpoint_url=server.address,
        region_name="us-east-1",
        aws_access_key_id="administrator",
        aws_secret_access_key="any",
    )
    iam.create_user(UserName="data-layer")
    iam.put_user_policy(UserName="data-layer", PolicyName="files", PolicyDocument=POLICY)
    made = iam.create_access_key(UserName="data-layer")["AccessKey"]
    # From now on moto asks for rights.
    httpx.post(f"{server.address}/moto-api/reset-auth", content=b"0", timeout=60).raise_for_status()
    return {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}


def _settings(server: MotoServer, key: dict[str, str], bucket: str) -> Settings:
    values: dict[str, Any] = {"aws_s3_bucket": bucket, "aws_endpoint_url": server.address} | key
    return Settings(_env_file=None, environment="testing", storage_backend="s3", **values)


async def test_the_policy_is_enough_for_files(server: MotoServer, key: dict[str, str]) -> None:
    storage = make_object_storage(_settings(server, key, BUCKET).storage)
    try:
        await storage.initialize()
        await storage.upload(b"small", "images/small.png", "image/png")
        await storage.upload(b"large" * 3_000_000, "images/large.png", "image/png")  # In parts.
        assert await storage.download("images/small.png") == b"small"
        assert (await storage.stat("images/large.png")).size == 15_000_000
        await storage.copy("images/small.png", "images/copy.png")
        assert {file.key async for file in storage.list("images/")} >= {"images/copy.png", "images/large.png"}
    finally:
        await storage.close()
    client = boto3.client("s3", endpoint_url=server.address, region_name="us-east-1", **key)
    client.delete_object(Bucket=BUCKET, Key="images/small.png")
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="images/broken.png")["UploadId"]
    assert [one["UploadId"] for one in client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == [upload]
    client.abort_multipart_upload(Bucket=BUCKET, Key="images/broken.png", UploadId=upload)


async def test_the_policy_opens_no_other_bucket(server: MotoServer, key: dict[str, str]) -> None:
    storage = make_object_storage(_settings(server, key, "of-others").storage)
    try:
        with pytest.raises(StoragePermissionError):
            await storage.initialize()
    finally:
        await storage.close()
    client = boto3.client("s3", endpoint_url=server.address, region_name="us-east-1", **key)
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.put_object(Bucket="of-others", Key="images/small.png", Body=b"small")


def test_the_policy_changes_no_bucket(server: MotoServer, key: dict[str, str]) -> None:
    client = boto3.client("s3", endpoint_url=server.address, region_name="us-east-1", **key)
    changes: tuple[Callable[[], object], ...] = (
        lambda: client.create_bucket(Bucket="mine"),
        lambda: client.delete_bucket(Bucket=BUCKET),
        lambda: client.put_bucket_acl(Bucket=BUCKET, ACL="public-read"),
        lambda: client.put_bucket_policy(Bucket=BUCKET, Policy="{}"),
    )
    for change in changes:
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            change()
