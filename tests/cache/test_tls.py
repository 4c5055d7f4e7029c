"""Only the certificate of the right host from the right authority is accepted."""

from __future__ import annotations

import asyncio
from asyncio.trsock import TransportSocket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from data_layer.cache import Cache
from data_layer.cache.address import ServerAddress
from data_layer.cache.wire.connection import Connection, Connector
from data_layer.config import Settings
from data_layer.errors import CacheError, CacheUnavailableError
from data_layer.testing.redis_server import RedisServer, TlsFiles

pytestmark = pytest.mark.needs_debian


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem", folder / "authority.pem")
    certificate.cert_chain_pems[0].write_to_path(files.certificate)
    certificate.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.authority)
    return files


@pytest.fixture(scope="module")
def server(files: TlsFiles) -> Iterator[RedisServer]:
    with RedisServer("/usr/bin/redis-server", tls=files, username="alice", password="secret") as started:
        yield started


async def check(server: RedisServer, **settings: object) -> None:
    options: dict[str, Any] = {"redis_username": "alice", "redis_password": "secret", "redis_tls": True, **settings}
    async with Cache(Settings(redis_port=server.port, **options).redis) as cache:
        await cache.check()
        await cache.set("key", "x" * 100_000, 60)
        assert await cache.get("key") == "x" * 100_000


async def test_the_right_authority_is_trusted(server: RedisServer, files: TlsFiles) -> None:
    await check(server, redis_host="localhost", redis_tls_ca=files.authority)


async def test_a_url_is_secured_in_the_same_way(server: RedisServer, files: TlsFiles) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    ways: tuple[dict[str, Any], ...] = ({}, {"redis_tls": True})
    for tls in ways:  # The scheme says it already.
        async with Cache(Settings(redis_url=url, redis_tls_ca=files.authority, **tls).redis) as cache:
            await cache.check()
            await cache.client.ping()
    async with Cache(Settings(redis_url=url).redis) as cache:
        with pytest.raises(CacheUnavailableError, match="certificate"):
            await cache.check()


async def test_another_authority_is_refused(server: RedisServer, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(CacheUnavailableError, match="REDIS_TLS_CA"):
        await check(server, redis_host="localhost", redis_tls_ca=other)


async def test_the_systems_authorities_do_not_know_it(server: RedisServer) -> None:
    with pytest.raises(CacheUnavailableError, match="not trusted"):
        await check(server, redis_host="localhost")


async def test_an_authority_of_ones_own_replaces_the_systems(
    server: RedisServer, files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))
    await check(server, redis_host="localhost")
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(CacheUnavailableError, match="not trusted"):
        await check(server, redis_host="localhost", redis_tls_ca=other)


async def test_the_certificate_of_another_host_is_refused(server: RedisServer, files: TlsFiles) -> None:
    with pytest.raises(CacheUnavailableError, match=r"not valid for '127\.0\.0\.1'"):
        await check(server, redis_host="127.0.0.1", redis_tls_ca=files.authority)


async def test_speaking_without_encryption_fails(server: RedisServer) -> None:
    with pytest.raises(CacheError):
        await check(server, redis_host="localhost", redis_tls=False)


async def test_encryption_that_the_server_lacks_fails() -> None:
    with RedisServer() as plain:
        async with Cache(Settings(redis_connect_timeout=500).redis, plain.url.replace("redis", "rediss", 1)) as cache:
            with pytest.raises(CacheUnavailableError):
                await cache.check()


def test_who_gives_up_at_the_end_of_the_handshake_leaves_no_connection(
    server: RedisServer, files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection_made = Connection.connection_made
    sockets: list[TransportSocket] = []

    def give_up(line: Connection, transport: asyncio.BaseTransport) -> None:
        connection_made(line, transport)
        sockets.append(transport.get_extra_info("socket"))
        opening.cancel()

    monkeypatch.setattr(Connection, "connection_made", give_up)
    settings = Settings(redis_connect_timeout=20_000, redis_tls=True, redis_tls_ca=files.authority)
    with asyncio.Runner() as runner:
        opener = Connector(settings.redis, tls=True).open(ServerAddress("localhost", server.port, tls=True))
        opening = runner.get_loop().create_task(opener)
        with pytest.raises(asyncio.CancelledError):
            runner.get_loop().run_until_complete(opening)
        # Before the loop has heard anything more from the server.
        assert [socket.fileno() for socket in sockets] == [-1]
