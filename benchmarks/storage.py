"""``make bench-storage``: storing and reading files on S3, Azure and the local disk, against named peers in one run.

Peers, on the same servers in the same run:

- obstore: the library below ours, used plainly, without hash and metadata; and the same with the hash that we compute;
- boto3 in threads and s3fs on S3, azure-storage-blob.aio on Azure, each as its documentation shows;
- a bare durable write on the local disk: write, fsync, rename, fsync of the folder, in 32 threads; and the same with
  the SHA-256 that we compute in addition.

Files of 200 KB and 20 MB are stored under changing keys and read, with one worker and with 32, and 256 MiB are streamed
in and out. Rounds of the candidates alternate, so that a disturbance meets all of them; the median round counts. The
servers are rclone (S3), moto (S3) and Azurite, on this machine, so at 20 MB they are the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import obstore
from measuring import Figures, measure_each, median
from obstore.store import AzureStore, S3Store
from rich.console import Console
from rich.table import Table

from data_layer.storage import AzureLocation, AzureStorage, LocalStorage, S3Location, S3Storage, StorageBackend
from data_layer.testing.storage_servers import AzuriteServer, MotoServer, RcloneServer

# Peers are imported where they are measured, so that --only local needs none of them.
if TYPE_CHECKING:
    from azure.storage.blob.aio import BlobServiceClient
    from s3fs import S3FileSystem

Operation = Callable[[int, int], Awaitable[None]]

"""What one worker does, told the worker's number and how often it was done before."""

KEYS = 64
Cases = tuple[tuple[str, int, int], ...]
CASES: Cases = (("200 KB", 200_000, 1), ("200 KB", 200_000, 32), ("20 MB", 20_000_000, 1), ("20 MB", 20_000_000, 32))
THREADS = 32
MEBIBYTE = 1024 * 1024
STREAM = 256 * MEBIBYTE
CHUNK = random.Random(1).randbytes(MEBIBYTE)  # noqa: S311  (no secret)
BUCKET = "benchmark"
console = Console(stderr=True)


async def nothing_to_settle() -> None:
    """Most candidates are done with it when it is measured."""


class Peer(Protocol):
    """One way to store and read files."""

    name: str

    async def put(self, key: str, content: bytes) -> None: ...

    async def get(self, key: str) -> int: ...


class Streaming(Peer, Protocol):
    """One that can do it in flat memory."""

    async def put_stream(self, key: str, size: int) -> None: ...

    async def get_stream(self, key: str) -> int: ...


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // len(CHUNK)):
        yield CHUNK


class Ours:
    name = "data layer"

    def __init__(self, storage: StorageBackend) -> None:
        self._storage = storage

    async def put(self, key: str, content: bytes) -> None:
        await self._storage.upload(content, key, "image/png")

    async def get(self, key: str) -> int:
        return len(await self._storage.download(key))

    async def put_stream(self, key: str, size: int) -> None:
        await self._storage.upload(chunks(size), key, "video/mp4")

    async def get_stream(self, key: str) -> int:
        async with self._storage.open(key) as file:
            return sum([len(chunk) async for chunk in file.chunks])


class Obstore:
    name = "obstore"

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(self, key: str, content: bytes) -> None:
        await obstore.put_async(self._store, key, content)

    async def get(self, key: str) -> int:
        return len(bytes(await (await obstore.get_async(self._store, key)).bytes_async()))

    async def put_stream(self, key: str, size: int) -> None:
        await obstore.put_async(self._store, key, chunks(size))

    async def get_stream(self, key: str) -> int:
        return sum([len(chunk) async for chunk in await obstore.get_async(self._store, key)])


class ObstoreHashed(Obstore):
    name = "obstore with SHA-256"

    async def put(self, key: str, content: bytes) -> None:
        attributes = {"Content-Type": "image/png", "sha256": hashlib.sha256(content).hexdigest()}
        await obstore.put_async(self._store, key, content, attributes=attributes)

    async def put_stream(self, key: str, size: int) -> None:
        async def hashed() -> AsyncIterator[bytes]:
            digest = hashlib.sha256()
            async for chunk in chunks(size):
                digest.update(chunk)
                yield chunk

        await obstore.put_async(self._store, key, hashed())


class Boto3:
    name = "boto3 in threads"

    def __init__(self, server: RcloneServer | MotoServer, threads: ThreadPoolExecutor) -> None:
        import boto3
        import botocore.config

        self._threads = threads
        self._client = boto3.client(
            "s3",
            endpoint_url=server.address,
            region_name=server.region,
            aws_access_key_id=server.credentials.access_key_id,
            aws_secret_access_key=server.credentials.secret_access_key,
            config=botocore.config.Config(max_pool_connections=THREADS),
        )

    async def put(self, key: str, content: bytes) -> None:
        await self._run(lambda: self._client.put_object(Bucket=BUCKET, Key=key, Body=content))

    async def get(self, key: str) -> int:
        size: int = await self._run(lambda: len(self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()))
        return size

    async def _run(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class S3fs:
    name = "s3fs"

    def __init__(self, files: S3FileSystem) -> None:
        self._files = files

    async def put(self, key: str, content: bytes) -> None:
        await self._files._pipe_file(f"{BUCKET}/{key}", content)  # noqa: SLF001  (its asynchronous interface)

    async def get(self, key: str) -> int:
        return len(await self._files._cat_file(f"{BUCKET}/{key}"))  # noqa: SLF001  (its asynchronous interface)


class AzureSdk:
    name = "azure-storage-blob.aio"

    def __init__(self, service: BlobServiceClient) -> None:
        self._container = service.get_container_client(BUCKET)

    async def put(self, key: str, content: bytes) -> None:
        await self._container.upload_blob(key, content, overwrite=True)

    async def get(self, key: str) -> int:
        return len(await (await self._container.download_blob(key)).readall())


class Bare:
    name = "bare durable write"

    def __init__(self, folder: Path, threads: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._threads = threads
        (folder / "temporary").mkdir(parents=True)
        (folder / "files").mkdir()

    async def put(self, key: str, content: bytes) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._write, key, content)

    async def get(self, key: str) -> int:
        read = (self._folder / "files" / key).read_bytes
        return len(await asyncio.get_running_loop().run_in_executor(self._threads, read))

    def _write(self, key: str, content: bytes) -> None:
        temporary = self._folder / "temporary" / os.urandom(8).hex()
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / "files" / key)
        folder = os.open(self._folder / "files", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class BareHashed(Bare):
    name = "the same with SHA-256"

    def _write(self, key: str, content: bytes) -> None:
        hashlib.sha256(content).hexdigest()
        super()._write(key, content)


async def measure_numbered(operation: Operation, workers: int, seconds: float) -> Figures:
    """What is measured of an operation."""
    numbers = count()
    each = [lambda worker=worker: operation(worker, next(numbers)) for worker in range(workers)]
    return await measure_each(each, seconds)


async def compare(
    candidates: dict[str, Operation],
    workers: int,
    rounds: int,
    seconds: float,
    *,
    settle: Callable[[], Awaitable[None]] = nothing_to_settle,
) -> dict[str, Figures]:
    """What was measured of each candidate, the median of all rounds.

    Args:
        candidates: by their names.
        workers: how many do it at once.
        rounds: how often each is measured.
        seconds: how long.
        settle: waits for what a candidate has left to be done, after it was measured.
    """
    figures: dict[str, list[Figures]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, operation in candidates.items():
            measured = await measure_numbered(operation, workers, seconds if round_number else min(seconds, 0.3))
            if round_number:  # The first one warms up.
                figures[name].append(measured)
            await settle()
    return {name: median(values) for name, values in figures.items()}


async def bench(
    place: str, peers: list[Any], options: argparse.Namespace, cases: Cases = CASES
) -> list[dict[str, Any]]:
    results = []
    for label, size, workers in cases:
        content = random.Random(2).randbytes(size)  # noqa: S311  (no secret)
        for peer in peers:
            for number in range(KEYS if size < MEBIBYTE else 1):
                await peer.put(str(number), content)
        for verb in ("put", "get"):
            few = size >= MEBIBYTE
            candidates = {peer.name: operation(peer, verb, content, few=few) for peer in peers}
            figures = await compare(candidates, workers, options.rounds, options.seconds)
            results.append(result(place, f"{verb} {label}", workers, figures))
            report(results[-1])
    if cases[-1] == CASES[-1]:
        results += await bench_streams(place, [peer for peer in peers if hasattr(peer, "put_stream")], options)
    return results


def operation(peer: Peer, verb: str, content: bytes, *, few: bool) -> Operation:
    async def put(worker: int, number: int) -> None:
        # Large ones go to a key for each worker: rclone and Azure refuse parts of two uploads to one key that meet.
        await peer.put(str(worker if few else number % KEYS), content)

    async def get(_: int, number: int) -> None:
        assert await peer.get(str(0 if few else number % KEYS)) == len(content)

    return put if verb == "put" else get


async def bench_streams(place: str, peers: list[Streaming], options: argparse.Namespace) -> list[dict[str, Any]]:
    if len(peers) < 2:
        return []
    rates: dict[str, dict[str, list[float]]] = {"put": {}, "get": {}}
    for _ in range(max(options.rounds // 2, 1)):
        for peer in peers:
            started = time.perf_counter()
            await peer.put_stream("stream", STREAM)
            stored = time.perf_counter()
            assert await peer.get_stream("stream") == STREAM
            rates["put"].setdefault(peer.name, []).append(STREAM / MEBIBYTE / (stored - started))
            rates["get"].setdefault(peer.name, []).append(STREAM / MEBIBYTE / (time.perf_counter() - stored))
    results = []
    for verb, values in rates.items():
        medians = {name: statistics.median(some) for name, some in values.items()}
        what = f"{verb} a stream of 256 MiB, MiB"
        results.append({"place": place, "what": what, "workers": 1, "rates": medians, "processor": {}})
        report(results[-1])
    return results


def result(place: str, what: str, workers: int, figures: dict[str, Figures]) -> dict[str, Any]:
    """One comparison, as it is printed."""
    rates = {name: each.rate for name, each in figures.items()}
    processor = {name: each.processor for name, each in figures.items()}
    return {"place": place, "what": what, "workers": workers, "rates": rates, "processor": processor}


def report(result: dict[str, Any]) -> None:
    """Print one comparison; the first candidate is ours."""
    rates, processor = result["rates"], result["processor"]
    ours = next(iter(rates.values()))
    title = f"{result['place']}: {result['what']}, {result['workers']} worker{'s' if result['workers'] > 1 else ''}"
    table = Table(title=title, title_justify="left", box=None)
    columns = ("candidate", "per second", "data layer / candidate", *(("µs of processor",) if processor else ()))
    for column in columns:
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for name, rate in rates.items():
        used = [f"{processor[name]:,.0f}"] if processor else []
        table.add_row(name, f"{rate:,.1f}", f"{ours / rate:.2f}", *used)
    console.print(table)
    console.print()


def obstore_on(server: RcloneServer | MotoServer) -> S3Store:
    return S3Store(
        BUCKET,
        endpoint=server.address,
        region=server.region,
        access_key_id=server.credentials.access_key_id,
        secret_access_key=server.credentials.secret_access_key,
        client_options={"allow_http": True},
    )


async def bench_s3(server: RcloneServer | MotoServer, threads: ThreadPoolExecutor, options: argparse.Namespace) -> Any:
    import s3fs

    server.make_bucket(BUCKET)
    credentials = server.credentials
    storage = S3Storage(S3Location(BUCKET, server.region, server.address, credentials), max_file_size=2**30)
    files = s3fs.S3FileSystem(
        asynchronous=True,
        key=credentials.access_key_id,
        secret=credentials.secret_access_key,
        endpoint_url=server.address,
        skip_instance_cache=True,
    )
    session = await files.set_session()
    await storage.initialize()
    store = obstore_on(server)
    peers = [Ours(storage), Obstore(store), ObstoreHashed(store), Boto3(server, threads), S3fs(files)]
    try:
        return await bench(f"S3 ({type(server).__name__})", peers, options)
    finally:
        await session.close()
        await storage.close()


async def bench_azure(server: AzuriteServer, options: argparse.Namespace, cases: Cases) -> Any:
    from azure.storage.blob.aio import BlobServiceClient

    server.make_bucket(BUCKET)
    place = AzureLocation.of_connection_string(server.connection_string, BUCKET)
    storage = AzureStorage(place, max_file_size=2**30)
    store = AzureStore(
        BUCKET,
        account_name=place.account,
        account_key=place.account_key,
        endpoint=place.endpoint,
        client_options={"allow_http": True},
    )
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(BlobServiceClient.from_connection_string(server.connection_string))
        await storage.initialize()
        stack.push_async_callback(storage.close)
        return await bench(
            "Azure (Azurite)", [Ours(storage), Obstore(store), ObstoreHashed(store), AzureSdk(service)], options, cases
        )


async def bench_local(folder: Path, threads: ThreadPoolExecutor, options: argparse.Namespace) -> Any:
    storage = LocalStorage(folder / "ours", max_file_size=2**30)
    await storage.initialize()
    peers = [Ours(storage), Bare(folder / "bare", threads), BareHashed(folder / "hashed", threads)]
    try:
        return await bench("local disk", peers, options)
    finally:
        await storage.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each candidate")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    parser.add_argument("--what", default="", help="what is saved, for the other part of make bench-storage")
    parser.add_argument("--only", choices=["local", "rclone", "moto", "azure"], action="append", help="these places")
    parser.add_argument("--folder", type=Path, help="where the local files go, on the disk to measure")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on standard output")
    options = parser.parse_args()
    places = options.only or ["local", "rclone", "azure"]
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(THREADS))
        if "local" in places:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder))
            results += asyncio.run(bench_local(Path(folder), threads, options))
        for name, server_type in (("rclone", RcloneServer), ("moto", MotoServer)):
            if name in places:
                with server_type() as server:
                    results += asyncio.run(bench_s3(server, threads, options))
        if "azure" in places:
            # One for each case, because it keeps in memory for a while what was written over.
            for case in CASES:
                with AzuriteServer() as azurite:
                    results += asyncio.run(bench_azure(azurite, options, (case,)))
    if options.json:
        sys.stdout.write(f"{json.dumps(results)}\n")


if __name__ == "__main__":
    main()
