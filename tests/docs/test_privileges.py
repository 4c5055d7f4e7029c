"""The rights that the site says to grant are enough for everything, and for no more than it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import httpx
import psycopg
import pytest
from redis import Redis

from data_layer import AuditAction, DataLayer, Settings
from data_layer.cache import Cache
from data_layer.errors import StoragePermissionError
from data_layer.schemas.actors import SYSTEM
from data_layer.storage import Limits, S3Location, S3Storage
from data_layer.storage.signing.s3 import S3Credentials
from data_layer.testing.storage_servers import MotoServer
from tests.cli.conftest import commands_for, logging_as_before
from tests.service.support import another_database, drop_database

from .samples import SOURCE, samples_by_page

__all__ = ["logging_as_before"]

ROLES = {"data_layer_owner": "docs_owner", "data_layer_service": "docs_service"}
"""By the names on the page those that they have here, as other tests make the former too."""
PASSWORD = "…"
BUCKET = "stc-files"


# --- PostgreSQL ---


@pytest.fixture
def database_url(servers: tuple[str, str]) -> Iterator[str]:
    """The address of a database that is not there yet, on a server that does not know the two roles."""
    url = another_database(servers[0])
    yield url
    drop_database(url)
    run_sql(url, "/postgres", *(f"DROP ROLE IF EXISTS {role}" for role in ROLES.values()))


def run_sql(url: str, database: str, *statements: str) -> None:
    with psycopg.connect(urlsplit(url)._replace(path=database).geturl(), autocommit=True) as connection:
        for statement in ";".join(statements).split(";"):
            if statement.strip():
                connection.execute(statement.encode())


def renamed(statements: str, names: dict[str, str]) -> str:
    for name, new in names.items():
        statements = statements.replace(name, new)
    return statements


def login(url: str, role: str) -> str:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{quote(PASSWORD)}@{place}").geturl()


async def test_the_two_roles_of_postgresql(database_url: str, servers: tuple[str, str], tmp_path: Path) -> None:
    name = urlsplit(database_url).path
    roles, defaults, revocations = [
        renamed(sample.text, ROLES | {"screenshot_to_code": name[1:]})
        for sample in samples_by_page("sql")["how-to/postgresql"]
    ][:3]
    run_sql(database_url, "/postgres", roles)
    run_sql(database_url, name, defaults)
    owner = commands_for(login(database_url, "docs_owner"), servers[1], tmp_path / "uploads")
    await asyncio.to_thread(owner, "db", "migrate")
    run_sql(login(database_url, "docs_owner"), name, revocations)

    settings = Settings(
        environment="testing",
        database_url=login(database_url, "docs_service"),
        redis_url=servers[1],
        redis_key_prefix="roles",
        local_storage_path=tmp_path / "uploads",
        bcrypt_rounds=4,
    )
    async with DataLayer(settings) as data:
        await use_everything(data)
        for forbidden in ("UPDATE audit_logs SET description = ''", "DELETE FROM audit_logs", "CREATE TABLE mine ()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                run_sql(login(database_url, "docs_service"), name, forbidden)
    await asyncio.to_thread(owner, "maintenance", "run")
    await asyncio.to_thread(owner, "db", "check")


async def use_everything(data: DataLayer) -> None:
    user = await data.accounts.create(SYSTEM, email="ada@example.com", first_name="Ada", last_name="Example")
    new = await data.sessions.create(user.id)
    actor = (await data.sessions.validate(new.token.get_secret_value())).actor
    await data.tokens.refresh((await data.tokens.issue(new.session)).refresh_token.get_secret_value())
    file = await data.files.save(b"%PDF-1.4\n%%EOF\n", owner_id=user.id, allowed_types=["application/pdf"])
    assert await data.files.delete(file.id, owner_id=user.id)
    data.audit.record_soon(AuditAction.CODE_DOWNLOAD, "Downloaded")
    await data.audit.flush()
    assert (await data.statistics()).errors == {}
    assert (await data.health()).overall
    await data.accounts.delete(actor, user.id)


# --- Redis ---


async def test_the_user_of_redis(servers: tuple[str, str]) -> None:
    page = (SOURCE / "how-to" / "redis.md").read_text()
    [rule] = [line for line in page.splitlines() if line.startswith("ACL SETUSER")]
    with Redis.from_url(servers[1]) as administrator:
        administrator.execute_command(*rule.split())
        try:
            url = servers[1].replace("unix://", "unix://stc:PASSWORD@", 1)
            async with Cache(Settings(redis_url=url, redis_key_prefix="stc").redis) as cache:
                await use_cache(cache)
            with Redis.from_url(url) as user:
                for forbidden in (("SET", "other:key", "1"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")):
                    with pytest.raises(Exception, match=r"(?i)noperm|no permissions"):
                        user.execute_command(*forbidden)
        finally:
            administrator.execute_command("ACL", "DELUSER", "stc")


async def use_cache(cache: Cache) -> None:
    async def load() -> int:
        return 1

    await cache.check()
    await cache.set("a", {"b": 1}, ttl=60)
    assert await cache.get("a") == {"b": 1}
    assert await cache.get_or_load("loaded", load, ttl=60) == 1
    await cache.invalidate("loaded")
    await cache.increment("count", ttl=60)
    await cache.touch("count", 90)
    await cache.get_many(["a", "count"])
    async with cache.lock("lock"):
        pass
    assert [key async for key in cache.keys("a")] == ["a"]
    await cache.cleanup()
    assert (await cache.stats()).keys >= 2
    assert await cache.flush() >= 2


# --- S3 ---


async def test_the_policies_of_s3() -> None:
    files, preparation, _ = [json.loads(sample.text) for sample in samples_by_page("json")["how-to/s3"]]
    with MotoServer() as server:
        preparing, storing = (add_user(server, name, rules) for name, rules in (("a", preparation), ("b", files)))
        server.make_bucket("other")
        # From now on it looks at policies.
        await asyncio.to_thread(httpx.post, f"{server.address}/moto-api/reset-auth", content=b"0")
        async with opened(server, preparing, create=True) as storage:
            await storage.check()
        async with opened(server, storing) as storage:
            await storage.check()
            await storage.upload(b"text", "folder/a.txt", "text/plain")
            await storage.upload(bytes(20_000_000), "folder/large", "application/octet-stream")
            await storage.copy("folder/a.txt", "folder/b.txt")
            assert await storage.download("folder/b.txt") == b"text"
            assert not await storage.exists("folder/missing")
            assert len([file async for file in storage.list("folder/")]) == 3
            await storage.delete_many(["folder/a.txt", "folder/b.txt", "folder/large"])
            await storage.remove_abandoned_uploads(older_than=timedelta(hours=1))
        with pytest.raises(StoragePermissionError):
            async with opened(server, storing, bucket="other"):
                pass


@asynccontextmanager
async def opened(
    server: MotoServer, credentials: S3Credentials, *, bucket: str = BUCKET, create: bool = False
) -> AsyncIterator[S3Storage]:
    storage = S3Storage(
        S3Location(bucket, server.region, server.address, credentials),
        max_file_size=100_000_000,
        limits=Limits(retries=0),
    )
    if create:
        await storage.create()
    await storage.initialize()
    try:
        yield storage
    finally:
        await storage.close()


def add_user(server: MotoServer, name: str, policy: dict[str, Any]) -> S3Credentials:
    """The key of a new user who may do what the policy says."""
    client = boto3.client(
        "iam",
        endpoint_url=server.address,
        region_name=server.region,
        aws_access_key_id=server.credentials.access_key_id,
        aws_secret_access_key=server.credentials.secret_access_key,
    )
    client.create_user(UserName=name)
    client.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(as_moto_asks(policy)))
    key = client.create_access_key(UserName=name)["AccessKey"]
    return S3Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def as_moto_asks(policy: dict[str, Any]) -> dict[str, Any]:
    """The same rights in moto's words: HEAD of a bucket has one of its own, and that to delete is the bucket's."""
    given = {action for statement in policy["Statement"] for action in statement["Action"]}
    meant = {"s3:HeadBucket": "s3:ListBucket", "s3:DeleteObject": "s3:DeleteObject"}
    added = [asked for asked, real in meant.items() if real in given]
    statement = {"Effect": "Allow", "Action": added, "Resource": f"arn:aws:s3:::{BUCKET}"}
    return policy | {"Statement": [*policy["Statement"], statement]}
