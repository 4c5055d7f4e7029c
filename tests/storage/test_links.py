"""Symbolic links in the folder lead nowhere, no matter who put them there and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from data_layer.errors import DataLayerError, FileNotFoundInStorageError, InvalidStorageKeyError
from data_layer.storage import LocalStorage


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "inner").mkdir(parents=True)
    (folder / "secret").write_bytes(b"secret")
    (folder / "inner" / "secret").write_bytes(b"secret")
    return folder


def untouched(outside: Path) -> bool:
    files = {path.relative_to(outside).as_posix() for path in outside.rglob("*")}
    return files == {"inner", "secret", "inner/secret"} and (outside / "secret").read_bytes() == b"secret"


async def test_a_link_to_a_file_is_no_file(storage: LocalStorage, folder: Path, outside: Path) -> None:
    (folder / "link").symlink_to(outside / "secret")
    assert not await storage.exists("link")
    await storage.delete("link")
    for attempt in (storage.download("link"), storage.stat("link")):
        with pytest.raises(FileNotFoundInStorageError):
            await attempt
    assert [file.key async for file in storage.list()] == []
    await storage.upload(b"mine", "link", "text/plain")
    assert not (folder / "link").is_symlink()
    assert await storage.download("link") == b"mine"
    assert untouched(outside)


@pytest.mark.parametrize("key", ["link/secret", "link/inner/secret", "link/new", "link/new/new"])
async def test_a_link_to_a_folder_is_no_folder(storage: LocalStorage, folder: Path, outside: Path, key: str) -> None:
    (folder / "link").symlink_to(outside)
    assert not await storage.exists(key)
    await storage.delete(key)
    with pytest.raises(FileNotFoundInStorageError):
        await storage.download(key)
    with pytest.raises(InvalidStorageKeyError, match="symbolic link"):
        await storage.upload(b"mine", key, "text/plain")
    assert [file.key async for file in storage.list()] == []
    assert [file.key async for file in storage.list("link/")] == []
    assert untouched(outside)


@pytest.mark.parametrize("name", ["temporary", "metadata", "locks"])
async def test_a_link_in_our_own_folder_is_refused(
    storage: LocalStorage, folder: Path, outside: Path, name: str
) -> None:
    await storage.upload(b"x", "a", "text/plain")
    (folder / ".storage" / name).rename(folder / "moved away")
    (folder / ".storage" / name).symlink_to(outside)
    with suppress(DataLayerError):
        await storage.upload(b"mine", "a", "text/plain")
    with suppress(DataLayerError):
        await storage.delete("a")
    assert untouched(outside)


async def test_a_folder_swapped_for_a_link_during_an_upload(storage: LocalStorage, folder: Path, outside: Path) -> None:
    await storage.upload(b"old", "images/a", "text/plain")

    async def content() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        (folder / "images").rename(folder / "moved")
        (folder / "images").symlink_to(outside / "inner")

    with pytest.raises(InvalidStorageKeyError):
        await storage.upload(content(), "images/a", "image/png")
    assert untouched(outside)
    assert (folder / "moved" / "a").read_bytes() == b"old"


async def test_a_folder_swapped_all_the_time(storage: LocalStorage, folder: Path, outside: Path) -> None:
    """A racing attacker gets nothing written or read outside, whatever the timing."""
    done = asyncio.Event()

    async def attack() -> None:
        while not done.is_set():
            for step in (
                lambda: (folder / "images").rename(folder / "aside"),
                lambda: (folder / "images").symlink_to(outside),
                (folder / "images").unlink,
                lambda: (folder / "aside").rename(folder / "images"),
            ):
                with suppress(OSError):
                    step()
                await asyncio.sleep(0.0005)

    async def work(number: int) -> None:
        for _ in range(25):
            for attempt in (
                storage.upload(b"mine", f"images/{number}", "text/plain"),
                storage.download("images/secret"),
                storage.delete(f"images/{number}"),
            ):
                with suppress(DataLayerError):
                    assert await attempt != b"secret"

    await storage.upload(b"x", "images/kept", "text/plain")
    attacker = asyncio.create_task(attack())
    await asyncio.gather(*(work(number) for number in range(6)))
    done.set()
    await attacker
    assert untouched(outside)


async def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "uploads").symlink_to(tmp_path / "disk")
    storage = LocalStorage(tmp_path / "uploads", max_file_size=10)
    await storage.initialize()
    await storage.upload(b"x", "a/b", "text/plain")
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"x"
    await storage.close()
