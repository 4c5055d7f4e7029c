"""Batches become smaller where many contents arrive at once, so that all of them together stay in bounds."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from data_layer.storage.content import BATCH_SIZE, BATCHES, BatchBudget, batches
from data_layer.storage.port import HashedBytes
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import receive

CHUNK = bytes(16 * 1024)
MANY = 1000
ALLOWED = 128 * 1024 * 1024
"""Bytes that the batches of so many clients may hold together."""


@pytest.fixture
async def threads() -> AsyncIterator[FileThreads]:
    threads = FileThreads(2)
    yield threads
    await threads.close()


async def stream(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // len(CHUNK)):
        yield CHUNK


@pytest.fixture
def many_others() -> Iterator[None]:
    """So many others that read at the same time."""
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(BATCHES.reading())
        yield


async def first_batch(threads: FileThreads) -> int:
    source = batches(stream(4 * BATCH_SIZE), threads)
    batch = await anext(source)
    await source.aclose()
    return sum(map(len, batch))


async def test_one_reader_has_large_batches(threads: FileThreads) -> None:
    assert await first_batch(threads) == BATCH_SIZE
    assert BATCHES.batch_size == BATCH_SIZE, "nobody reads any more"


@pytest.mark.usefixtures("many_others")
async def test_many_readers_have_small_batches(threads: FileThreads) -> None:
    assert await first_batch(threads) == 64 * 1024


def test_batches_that_are_all_nearly_full_stay_in_bounds() -> None:
    """Each begins when fewer read than at the end, and is never sent on."""
    budget = BatchBudget()
    held = 0
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(budget.reading())
            held += budget.batch_size
    assert held < ALLOWED


@pytest.mark.usefixtures("many_others")
async def test_a_small_file_waits_on_disk_where_many_arrive(threads: FileThreads) -> None:
    async with receive(stream(128 * 1024), BATCH_SIZE, threads) as received:
        assert not received.is_in_memory
        assert received.read() == bytes(128 * 1024)


async def test_a_small_file_waits_in_memory_otherwise(threads: FileThreads) -> None:
    async with receive(stream(128 * 1024), BATCH_SIZE, threads) as received:
        assert isinstance(received.to_upload(), HashedBytes)
        assert received.read() == bytes(128 * 1024)
        assert received.sha256 == hashlib.sha256(bytes(128 * 1024)).hexdigest()
