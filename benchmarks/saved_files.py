"""Part of ``make bench-storage``: what it costs that ``data.files`` validates, hashes and records what it stores.

Stored again and again, each time with other bytes: a screenshot as PNG (1280 by 800 pixels, about 200 KB), a PDF of
200 KB and one of 20 MB. On the local disk and on S3 (rclone), with one worker and with 32. Candidates, on the same
servers in the same run:

- ``data.files.save``: validated, hashed, stored, recorded in PostgreSQL; an image is decoded. Thumbnails are
  not part of the answer: they are made, and waited for, after each round;
- the same without thumbnails;
- ``data.storage.upload``: hashed and stored, neither validated nor recorded;
- by hand: Pillow decodes the image, SHA-256, stored, one INSERT; what an application does at least, in 32 threads;
- by hand with the same rows: instead of that INSERT the statement that ours sends, into the same tables with their
  indexes and counted references, so that identical bytes are found; still without undoing what fails;
- the bare storage: obstore on S3; write, fsync, rename, fsync of the folder on the local disk.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import io
import itertools
import json
import random
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import select
from typing_extensions import override
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings
from data_layer.entities import StoredFile
from data_layer.testing.redis_server import RedisServer
from data_layer.testing.storage_servers import RcloneServer
from storage import BUCKET, THREADS, Bare, Obstore, Operation, Peer, compare, obstore_on, report, result

WORKERS = (1, 32)
PDF, PNG = "application/pdf", "image/png"
_PLACES = "these places; nothing is saved on moto and azure, which only the other part of make bench-storage knows"
_numbers = itertools.count()


def screenshot() -> bytes:
    """Large areas of one colour, as pages have, and a picture between them."""
    page = Image.new("RGB", (1280, 800), "white")
    page.paste((30, 60, 120), (0, 0, 1280, 90))
    noise = random.Random(3)  # noqa: S311  (no secret)
    picture = Image.frombytes("RGB", (320, 200), noise.randbytes(320 * 200 * 3))
    page.paste(picture, (80, 200))
    written = io.BytesIO()
    page.save(written, "PNG")
    return written.getvalue()


def another_png(content: bytes) -> bytes:
    """The same picture with another comment."""
    chunk = b"tEXt" + b"Comment\0" + str(next(_numbers)).encode()
    comment = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    header_end = 8 + 25  # The signature and IHDR, which is always first.
    return content[:header_end] + comment + content[header_end:]


def pdf(size: int) -> bytes:
    return b"%PDF-1.7\n" + random.Random(4).randbytes(size - 16).replace(b"%%EOF", b"%%eof") + b"\n%%EOF\n"  # noqa: S311


def another_pdf(content: bytes) -> bytes:
    """The same document with another comment."""
    return content[:9] + b"%" + str(next(_numbers)).encode() + b"\n" + content[9:]


@dataclass(frozen=True)
class Case:
    what: str
    content_type: str
    content: bytes
    vary: Callable[[bytes], bytes]

    def another(self) -> bytes:
        """Never the same bytes, because those would be stored once only."""
        return self.vary(self.content)


CASES = (
    Case("a screenshot of 200 KB", PNG, screenshot(), another_png),
    Case("a PDF of 200 KB", PDF, pdf(200_000), another_pdf),
    Case("a PDF of 20 MB", PDF, pdf(20_000_000), another_pdf),
)


class ByHand:
    """Decode, hash, store and insert a row.

    Left out: limits, polyglots, duplicates, thumbnails, and what happens when one of the steps fails.
    """

    def __init__(self, storage: Peer, pool: psycopg_pool.AsyncConnectionPool, threads: ThreadPoolExecutor) -> None:
        self._storage = storage
        self._pool = pool
        self._threads = threads

    async def save(self, content: bytes, content_type: str) -> None:
        key = uuid7().hex
        sha256 = await asyncio.get_running_loop().run_in_executor(self._threads, self._look, content, content_type)
        await self._storage.put(key, content)
        async with self._pool.connection() as connection:
            await self._record(connection, key, content_type, len(content), sha256)

    async def _record(
        self, connection: psycopg.AsyncConnection[Any], key: str, content_type: str, size: int, sha256: str
    ) -> None:
        await connection.execute(
            "INSERT INTO by_hand (key, content_type, size, sha256) VALUES (%s, %s, %s, %s)",
            (key, content_type, size, sha256),
        )

    @staticmethod
    def _look(content: bytes, content_type: str) -> str:
        if content_type == PNG:
            Image.open(io.BytesIO(content)).load()
        return hashlib.sha256(content).hexdigest()


class ByHandWithSameRows(ByHand):
    """Also find identical bytes and count references, as the tables of the data layer do."""

    @override
    async def _record(
        self, connection: psycopg.AsyncConnection[Any], key: str, content_type: str, size: int, sha256: str
    ) -> None:
        await connection.execute(SAME_ROWS, (uuid7(), key, content_type, size, size, sha256, uuid7()))


SAME_ROWS = """
WITH stored AS (
    INSERT INTO stored_files (id, backend, key, content_type, size, original_size, sha256, state)
    VALUES (%s, 'local', %s, %s, %s, %s, %s, 'stored')
    ON CONFLICT (owner_id, sha256, content_type) WHERE state = 'stored' AND parent_id IS NULL
    DO UPDATE SET updated_at = now()
    RETURNING id
) INSERT INTO file_references (id, file_id) SELECT %s, stored.id FROM stored
"""


async def open_pool(stack: AsyncExitStack, data: DataLayer) -> psycopg_pool.AsyncConnectionPool:
    url = data.database.address.url.set(drivername="postgresql").render_as_string(hide_password=False)
    pool = psycopg_pool.AsyncConnectionPool(url, min_size=20, max_size=20, open=False, kwargs={"autocommit": True})
    await stack.enter_async_context(pool)
    async with pool.connection() as connection:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS by_hand (key text PRIMARY KEY, content_type text, size bigint, sha256 text, "
            "created_at timestamptz DEFAULT now())"
        )
    return pool


def operations(
    case: Case, data: DataLayer, plain: DataLayer, by_hand: dict[str, ByHand], bare: Peer
) -> dict[str, Operation]:
    async def save(_worker: int, _number: int) -> None:
        await data.files.save(case.another(), owner_id=None, content_type=case.content_type)

    async def save_plainly(_worker: int, _number: int) -> None:
        await plain.files.save(case.another(), owner_id=None, content_type=case.content_type)

    async def upload(_worker: int, _number: int) -> None:
        await data.storage.upload(case.another(), f"uploaded/{uuid7().hex}", case.content_type)

    async def save_by_hand(peer: ByHand, _worker: int, _number: int) -> None:
        await peer.save(case.another(), case.content_type)

    async def store(_worker: int, _number: int) -> None:
        await bare.put(uuid7().hex, case.another())

    without = {"the same without thumbnails": save_plainly} if case.content_type == PNG else {}
    return {
        "data.files.save": save,
        **without,
        "data.storage.upload": upload,
        **{name: partial(save_by_hand, peer) for name, peer in by_hand.items()},
        bare.name: store,
    }


async def until_thumbnails_are_made(data: DataLayer) -> None:
    waiting = select(StoredFile.id).where(StoredFile.thumbnails_pending).limit(1)
    while True:
        async with data.transaction() as tx:
            if (await tx.execute(waiting)).first() is None:
                return
        await asyncio.sleep(0.05)


async def bench(
    place: str, settings: Settings, bare: Peer, threads: ThreadPoolExecutor, options: argparse.Namespace
) -> list[dict[str, Any]]:
    results = []
    async with AsyncExitStack() as stack:
        data = await stack.enter_async_context(DataLayer(settings, prepare=True))
        without_thumbnails = settings.replaced(image_thumbnail_sizes=())
        plain = await stack.enter_async_context(DataLayer(without_thumbnails, prepare=True))
        pool = await open_pool(stack, data)
        by_hand = {
            f"by hand, {bare.name}": ByHand(bare, pool, threads),
            "by hand with the same rows": ByHandWithSameRows(bare, pool, threads),
        }
        gc.freeze()  # As a process that serves does, or looking at all that is imported is part of every candidate.
        for case in (case for case in CASES if options.what in case.what):
            for workers in WORKERS:
                candidates = operations(case, data, plain, by_hand, bare)
                settle = partial(until_thumbnails_are_made, data)
                figures = await compare(candidates, workers, options.rounds, options.seconds, settle=settle)
                results.append(result(place, f"save {case.what}", workers, figures))
                report(results[-1])
    return results


def bench_local(
    settings: Settings, folder: Path, threads: ThreadPoolExecutor, options: argparse.Namespace
) -> list[dict[str, Any]]:
    return asyncio.run(bench("local disk", settings, Bare(folder / "bare", threads), threads, options))


def bench_s3(settings: Settings, threads: ThreadPoolExecutor, options: argparse.Namespace) -> list[dict[str, Any]]:
    with RcloneServer() as server:
        server.make_bucket(BUCKET)
        bare = Obstore(obstore_on(server))
        on_s3 = settings.replaced(
            storage_backend="s3",
            aws_s3_bucket=BUCKET,
            aws_region=server.region,
            aws_endpoint_url=server.address,
            aws_access_key_id=server.credentials.access_key_id,
            aws_secret_access_key=SecretStr(server.credentials.secret_access_key),
        )
        return asyncio.run(bench("S3 (rclone)", on_s3, bare, threads, options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each candidate")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    parser.add_argument("--what", default="", help="part of what is saved, such as PDF")
    parser.add_argument("--only", choices=["local", "rclone", "moto", "azure"], action="append", help=_PLACES)
    parser.add_argument("--folder", type=Path, help="where the local files go, on the disk to measure")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on standard output")
    options = parser.parse_args()
    places = options.only or ["local", "rclone"]
    results: list[dict[str, Any]] = []
    with (
        ThreadPoolExecutor(THREADS) as threads,
        tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder,
        RedisServer() as redis,
    ):
        settings = Settings(
            data_folder=Path(folder) / "servers",
            local_storage_path=Path(folder) / "uploads",
            redis_url=redis.url,
            allowed_file_types=[PNG, PDF],
            db_max_connections=20,
            log_level="error",
        )
        if "local" in places:
            results += bench_local(settings, Path(folder), threads, options)
        if "rclone" in places:
            results += bench_s3(settings, threads, options)
    if options.json:
        sys.stdout.write(f"{json.dumps(results)}\n")


if __name__ == "__main__":
    main()
