"""Storages that are opened by what the machine or pod is, and not by a key in the settings."""

from __future__ import annotations

import json
import re
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trustme
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from data_layer.errors import StorageError, StorageUnavailableError
from data_layer.settings.azure_location import EMULATOR_ACCOUNT, EMULATOR_KEY, AzureLocation
from data_layer.storage import AzureStorage, Limits, S3Location, S3Storage, StorageBackend
from data_layer.testing.storage_servers import AzuriteServer, RcloneServer

HASTY = Limits(connect_timeout=2, timeout=5, retries=1, retry_timeout=5)
SOON = timedelta(minutes=5)
ROLE = "data-layer-role"
TOKEN = "token-of-the-identity"
ANSWER_HEADERS = ("content-type", "content-length", "etag", "last-modified", "content-encoding", "cache-control")


class Handler(BaseHTTPRequestHandler):
    """Answers with what the server's own ``answer`` says."""

    server: IdentityServer
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        status, headers, content = self.server.answer(self.command, self.path, dict(self.headers.items()), body)
        self.send_response_only(status)
        for name, value in ({"content-length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815  (the library's names)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


Answer = tuple[int, dict[str, str], bytes]


class IdentityServer(ThreadingHTTPServer):
    """What a cloud offers to its machines, on a port of this one."""

    daemon_threads = True
    missing: ClassVar[Answer] = (404, {}, b"")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        raise AssertionError((method, path, headers, body))


@contextmanager
def running(server: IdentityServer) -> Iterator[IdentityServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class AmazonMachine(IdentityServer):
    """The metadata of an instance (IMDSv2), and the credentials of a container."""

    def __init__(self, key_id: str, secret: str) -> None:
        super().__init__()
        expiration = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.credentials = {
            "Code": "Success",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Type": "AWS-HMAC",
            "AccessKeyId": key_id,
            "SecretAccessKey": secret,
            "Token": TOKEN,
            "Expiration": expiration,
        }

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        del body
        match method, path.rstrip("/"):
            case "PUT", "/latest/api/token":
                lifetime = "x-aws-ec2-metadata-token-ttl-seconds"
                return 200, {lifetime: {k.lower(): v for k, v in headers.items()}[lifetime]}, b"token-of-a-session"
            case "GET", "/latest/meta-data/iam/security-credentials":
                return 200, {}, ROLE.encode()
            case "GET", "/container/credentials":
                return 200, {"content-type": "application/json"}, json.dumps(self.credentials).encode()
            case "GET", place if place.endswith(ROLE):
                return 200, {"content-type": "application/json"}, json.dumps(self.credentials).encode()
        return self.missing


@pytest.fixture
def bucket() -> str:
    return f"test-{uuid.uuid4()}"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine that runs the tests opens anything."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_REGION", "us-east-1")


async def store_and_read(storage: StorageBackend, content: bytes) -> str:
    """Through the storage, and by a signed URL, which it returns."""
    await storage.upload(content, "folder/file", "text/plain")
    assert await storage.download("folder/file") == content
    url = (await storage.signed_url("folder/file", expires_in=SOON)).url
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(url)).content == content
    return url


class TestAmazon:
    @pytest.fixture
    def machine(self, rclone_server: RcloneServer) -> Iterator[AmazonMachine]:
        """Its credentials are the only ones that the server, which verifies signatures, accepts."""
        credentials = rclone_server.credentials
        machine = AmazonMachine(credentials.access_key_id, credentials.secret_access_key)
        with running(machine):
            yield machine

    @pytest.fixture(params=["instance role", "credentials of a container"])
    def role(
        self, machine: AmazonMachine, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AmazonMachine:
        if request.param == "instance role":
            monkeypatch.setenv("AWS_METADATA_ENDPOINT", machine.address)
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.address)
        else:
            (tmp_path / "token").write_text("a-token-of-kubernetes", encoding="utf-8")
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{machine.address}/container/credentials")
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        return machine

    async def test_the_role_of_the_machine(self, role: AmazonMachine, rclone_server: RcloneServer, bucket: str) -> None:
        rclone_server.make_bucket(bucket)
        storage = S3Storage(S3Location(bucket, endpoint=rclone_server.address), max_file_size=10**6, limits=HASTY)
        await storage.initialize()
        try:
            assert TOKEN in await store_and_read(storage, b"opened by a role")
            before = len(role.asked)
            for _ in range(20):
                await storage.signed_url("folder/file", expires_in=SOON)
            # The credentials are kept until they expire: a page with many pictures needs many URLs.
            assert len(role.asked) == before
        finally:
            await storage.close()

    async def test_the_web_identity_of_a_pod(
        self, rclone_server: RcloneServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        (tmp_path / "token").write_text("a-token-of-kubernetes", encoding="utf-8")
        with running(TokenService(authority.issue_cert("127.0.0.1"))) as service:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
            monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority.pem"))
            monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
            monkeypatch.setenv("AWS_ROLE_ARN", f"arn:aws:iam::123456789012:role/{ROLE}")
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.address)
            rclone_server.make_bucket(bucket)
            storage = S3Storage(S3Location(bucket, endpoint=rclone_server.address), max_file_size=10**6, limits=HASTY)
            await storage.initialize()
            try:
                assert TOKEN in await store_and_read(storage, b"opened by a pod")
            finally:
                await storage.close()

    async def test_without_any_identity_the_error_is_typed(
        self, rclone_server: RcloneServer, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with running(IdentityServer()) as nobody:
            monkeypatch.setattr(IdentityServer, "answer", lambda *_: (404, {}, b""))
            monkeypatch.setenv("AWS_METADATA_ENDPOINT", nobody.address)
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody.address)
            storage = S3Storage(S3Location(bucket, endpoint=rclone_server.address), max_file_size=10**6, limits=HASTY)
            await storage.initialize()
            try:
                with pytest.raises(StorageUnavailableError):
                    await storage.upload(b"x", "key", "text/plain")
                with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID"):
                    await storage.signed_url("key", expires_in=SOON)
            finally:
                await storage.close()


class TokenService(IdentityServer):
    """AWS's STS, which obstore asks over HTTPS only."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        super().__init__()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def address(self) -> str:
        return super().address.replace("http:", "https:")

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        del method, headers
        asked = parse_qs(urlsplit(path).query) | parse_qs(body.decode())
        assert asked["Action"] == ["AssumeRoleWithWebIdentity"]
        assert asked["WebIdentityToken"] == ["a-token-of-kubernetes"]
        expiration = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        credentials = RcloneServer.credentials
        content = f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
          <AssumeRoleWithWebIdentityResult><Credentials>
            <SessionToken>{TOKEN}</SessionToken><SecretAccessKey>{credentials.secret_access_key}</SecretAccessKey>
            <Expiration>{expiration}</Expiration><AccessKeyId>{credentials.access_key_id}</AccessKeyId>
          </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
        return 200, {"content-type": "text/xml"}, content.encode()


class AzureMachine(IdentityServer):
    """Issues tokens like the metadata service and Entra ID, and lets only them through to Azurite.

    Azurite takes tokens of Entra ID over HTTPS only, so what carries the right one goes on with a signature.
    """

    def __init__(self, azurite: AzuriteServer, container: str) -> None:
        super().__init__()
        self._azurite = azurite
        self._sas = generate_container_sas(
            EMULATOR_ACCOUNT,
            container,
            account_key=EMULATOR_KEY,
            permission=ContainerSasPermissions.from_string("racwdl"),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        place = urlsplit(path)
        given = {name.lower(): value for name, value in headers.items()}
        if place.path == "/metadata/identity/oauth2/token":
            assert given["metadata"] == "true"
            assert parse_qs(place.query)["resource"] == ["https://storage.azure.com"]
            return self._token()
        if place.path.endswith("/oauth2/v2.0/token"):
            assert parse_qs(body.decode())["client_assertion"] == ["a-token-of-kubernetes"]
            return self._token()
        if given.get("authorization") != f"Bearer {TOKEN}":
            return 401, {}, b""
        return self._forward(method, place.path, place.query, given, body)

    @staticmethod
    def _token() -> Answer:
        token = {"access_token": TOKEN, "expires_in": "3600", "token_type": "Bearer", "resource": "", "expires_on": "0"}
        token["expires_on"] = str(int((datetime.now(UTC) + timedelta(hours=1)).timestamp()))
        return 200, {"content-type": "application/json"}, json.dumps(token | {"expires_in": 3600}).encode()

    def _forward(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Answer:
        kept = {
            name: value for name, value in headers.items() if name not in {"authorization", "host", "content-length"}
        }
        if "comp=batch" in query:  # Several deletions in one request, each with its own authorization.
            assert f"Bearer {TOKEN}".encode() in body
            body = re.sub(rb"(?i)authorization: [^\r]*\r\n", b"", body)
            body = re.sub(
                rb"DELETE (\S+) HTTP", lambda found: b"DELETE %s?%s HTTP" % (found[1], self._sas.encode()), body
            )
        url = f"{self._azurite.address}{path}?{'&'.join(filter(None, [query, self._sas]))}"
        answer = httpx.request(method, url, headers=kept, content=body)
        headers = {
            name: answer.headers[name] for name in answer.headers if name in ANSWER_HEADERS or name.startswith("x-ms")
        }
        return answer.status_code, headers, b"" if method == "HEAD" else answer.content


class TestAzure:
    @pytest.fixture
    def machine(self, azurite_server: AzuriteServer, bucket: str) -> Iterator[AzureMachine]:
        azurite_server.make_bucket(bucket)
        machine = AzureMachine(azurite_server, bucket)
        with running(machine):
            yield machine

    @pytest.mark.parametrize("kind", ["managed identity", "workload identity"])
    async def test_the_identity_of_the_machine(
        self, machine: AzureMachine, bucket: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if kind == "managed identity":
            monkeypatch.setenv("AZURE_MSI_ENDPOINT", f"{machine.address}/metadata/identity/oauth2/token")
        else:
            (tmp_path / "token").write_text("a-token-of-kubernetes", encoding="utf-8")
            monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
            monkeypatch.setenv("AZURE_AUTHORITY_HOST", machine.address)
            monkeypatch.setenv("AZURE_TENANT_ID", "a-tenant")
            monkeypatch.setenv("AZURE_CLIENT_ID", "a-client")
        place = AzureLocation(bucket, EMULATOR_ACCOUNT, f"{machine.address}/{EMULATOR_ACCOUNT}")
        storage = AzureStorage(place, max_file_size=10**6, limits=HASTY)
        await storage.initialize()
        try:
            await storage.upload(b"opened by an identity", "folder/file", "text/plain")
            assert await storage.download("folder/file") == b"opened by an identity"
            assert [file.key async for file in storage.list()] == ["folder/file"]
            await storage.delete("folder/file")
            assert not await storage.exists("folder/file")
        finally:
            await storage.close()
        tokens = [asked for asked in machine.asked if asked.endswith("token")]
        assert len(tokens) == 1, "a token is kept until it expires"
