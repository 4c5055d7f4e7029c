"""What operators see in the folder, and what happens when they put their hands in it."""

# ruff: noqa: ASYNC230, ASYNC240  (these tests have the event loop to themselves)
from __future__ import annotations

import asyncio
import gc
import os
import re
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from data_layer.errors import FileNotFoundInStorageError, InvalidStorageKeyError, StorageUnavailableError
from data_layer.storage import LocalStorage
from data_layer.storage.arguments import Description
from data_layer.storage.local.attributes import Attributes, Sidecars
from data_layer.storage.local.files import AtomicFileWriter, Destination
from data_layer.storage.local.folder import StorageFolder


def temporary_files(folder: Path) -> list[Path]:
    return list((folder / ".storage" / "temporary").iterdir())


async def test_a_file_is_there_under_its_name_with_its_bytes(storage: LocalStorage, folder: Path) -> None:
    url = await storage.upload(b"picture", "images/ä b.png", "image/png", metadata={"k": "v"})
    assert (folder / "images" / "ä b.png").read_bytes() == b"picture"
    assert url == "/v1/files/images/%C3%A4%20b.png"
    assert temporary_files(folder) == []


async def test_only_the_owner_can_read(storage: LocalStorage, folder: Path) -> None:
    before = os.umask(0)
    try:
        await storage.upload(b"x", "a/b/c", "text/plain")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


async def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    storage = LocalStorage(tmp_path, max_file_size=10)
    await storage.initialize()
    await storage.close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


async def test_nothing_is_touched_before_it_is_initialized(folder: Path) -> None:
    LocalStorage(folder, max_file_size=10).url("a")
    assert not folder.exists()


async def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = LocalStorage((tmp_path / "uploads").relative_to(tmp_path), max_file_size=10)
    monkeypatch.chdir("/")
    await storage.initialize()
    await storage.upload(b"x", "a", "text/plain")
    await storage.close()
    assert (tmp_path / "uploads" / "a").read_bytes() == b"x"


async def test_folders_that_a_deletion_leaves_empty_disappear(storage: LocalStorage, folder: Path) -> None:
    await storage.upload(b"x", "a/b/c/d", "text/plain")
    await storage.upload(b"x", "a/e", "text/plain")
    await storage.delete("a/b/c/d")
    assert not (folder / "a" / "b").exists()
    await storage.delete("a/e")
    assert not (folder / "a").exists()
    await storage.upload(b"x", "a", "text/plain")
    assert await storage.download("a") == b"x"


async def test_a_key_cannot_continue_another(storage: LocalStorage, folder: Path) -> None:
    await storage.upload(b"x", "a", "text/plain")
    await storage.upload(b"x", "b/c", "text/plain")
    for key in ("a/b", "a/b/c", "b"):
        with pytest.raises(InvalidStorageKeyError, match="something else"):
            await storage.upload(b"y", key, "text/plain")
    assert [file.key async for file in storage.list()] == ["a", "b/c"]
    assert temporary_files(folder) == []


async def test_leftovers_are_removed_when_they_are_old(storage: LocalStorage, folder: Path) -> None:
    old, young = (folder / ".storage" / "temporary" / name for name in ("old", "young"))
    for file, age in ((old, 3700), (young, 3500)):
        file.write_bytes(b"torn")
        os.utime(file, (time.time() - age,) * 2)
    await storage.upload(b"x", "a", "text/plain")
    os.utime(folder / "a", (0, 0))
    await storage.initialize()
    assert temporary_files(folder) == [young]
    assert await storage.exists("a")


async def test_nothing_is_left_after_a_deletion(storage: LocalStorage, folder: Path) -> None:
    await storage.upload(b"x", "a/b", "text/plain", metadata={"k": "v"})
    await storage.upload(b"y", "a/b", "text/plain", metadata={"k": "w"})
    await storage.delete("a/b")
    left = [path for path in folder.rglob("*") if path.is_file() and "locks" not in path.parts]
    assert left == []


async def test_a_file_that_an_operator_put_there(storage: LocalStorage, folder: Path) -> None:
    (folder / "by hand").mkdir()
    (folder / "by hand" / "page.html").write_bytes(b"<p>")
    (folder / "by hand" / "page.html.gz").write_bytes(b"gz")
    (folder / "by hand" / ".DS_Store").write_bytes(b"?")
    information = await storage.stat("by hand/page.html")
    assert (information.size, information.content_type, information.sha256) == (3, "text/html", None)
    assert (await storage.stat("by hand/page.html.gz")).content_type == "application/octet-stream"
    assert await storage.download("by hand/page.html") == b"<p>"
    assert [file.key async for file in storage.list()] == ["by hand/page.html", "by hand/page.html.gz"]
    await storage.upload(b"new", "by hand/page.html", "text/css", metadata={"k": "v"})
    assert (await storage.stat("by hand/page.html")).metadata == {"k": "v"}


async def test_metadata_does_not_count_for_bytes_that_were_edited(storage: LocalStorage, folder: Path) -> None:
    await storage.upload(b"old", "a.txt", "image/png", metadata={"k": "v"})
    before = await storage.stat("a.txt")
    with (folder / "a.txt").open("r+b") as file:
        file.write(b"new")
    information = await storage.stat("a.txt")
    assert (information.sha256, information.content_type, information.metadata) == (None, "text/plain", {})
    assert information.etag != before.etag
    assert await storage.download("a.txt") == b"new"


async def test_unreadable_metadata_does_not_make_a_file_unreadable(storage: LocalStorage, folder: Path) -> None:
    for content in (b"{", b"[]", b'{"size": 1}', b'{"size":1,"modified":1,"sha256":1,"content_type":"","metadata":[]}'):
        await storage.upload(b"x", "a", "text/plain", metadata={"k": "v"})
        sidecars = list((folder / ".storage" / "metadata").rglob("*.jsonl"))
        if sidecars:
            sidecars[0].write_bytes(content)
        else:
            os.setxattr(folder / "a", "user.data_layer", content)
        assert await storage.download("a") == b"x"
        assert (await storage.stat("a")).sha256 is None


async def test_names_that_no_key_can_be_are_left_alone(storage: LocalStorage, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "back\\slash").write_bytes(b"x")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x").write_bytes(b"x")
    with open(os.fsencode(folder) + b"/\xff", "wb"):  # noqa: PTH123  (a name that is not text)
        pass
    assert [file.key async for file in storage.list()] == []
    assert (await storage.statistics()).file_count == 0
    assert not await storage.exists("pipe")
    await storage.delete("pipe")
    with pytest.raises(InvalidStorageKeyError):
        await storage.upload(b"x", "pipe/x", "text/plain")


async def test_a_pipe_in_the_folder_makes_nobody_wait_for_its_writer(storage: LocalStorage, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    writer = threading.Timer(3, lambda: os.close(os.open(folder / "pipe", os.O_RDWR)))
    writer.start()
    with pytest.raises(FileNotFoundInStorageError):
        await storage.download("pipe")
    assert writer.is_alive()
    writer.cancel()


async def test_a_file_that_shrinks_under_a_reader_is_never_silently_short(storage: LocalStorage, folder: Path) -> None:
    await storage.upload(b"x" * 3_000_000, "a", "text/plain")
    async with storage.open("a") as file:
        await anext(file.chunks)
        os.truncate(folder / "a", 1_500_000)
        with pytest.raises(StorageUnavailableError, match="became shorter"):
            [chunk async for chunk in file.chunks]


async def test_chunks_cannot_be_read_after_the_file_was_closed(storage: LocalStorage) -> None:
    await storage.upload(b"x" * 3_000_000, "a", "text/plain")
    async with storage.open("a") as file:
        await anext(file.chunks)
    with pytest.raises(StorageUnavailableError):
        await anext(file.chunks)


async def test_listing_reads_one_folder_at_a_time(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        for number in range(600):
            (folder / name / f"{number:03}").touch()
    scanned = []
    real = os.scandir

    def scan(descriptor: int) -> Any:
        scanned.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr(os, "scandir", scan)
    files = storage.list()
    assert (await anext(files)).key == "a/000"
    assert len(scanned) == 2  # the root and "a"
    assert len([file async for file in files]) == 1799
    assert len(scanned) == 4


async def test_times_that_a_disk_keeps_coarsely_do_not_confuse_versions(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that keeps whole seconds: versions of one size and one second are told apart all the same."""
    real = os.utime
    second = 1_000_000_000
    monkeypatch.setattr(os, "utime", lambda fd, ns: real(fd, ns=tuple(time // second * second for time in ns)))
    for version in "abcdef":
        await storage.upload(version.encode(), "k", "text/plain", metadata={"version": version})
        assert await storage.download("k") == version.encode()
        assert (await storage.stat("k")).metadata == {"version": version}


async def test_the_event_loop_is_never_blocked(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    real, turned = os.fsync, threading.Event()

    def wait_for_the_loop(descriptor: int) -> None:
        turned.clear()
        assert turned.wait(30), "it turns while this waits"
        real(descriptor)

    monkeypatch.setattr(os, "fsync", wait_for_the_loop)
    upload = asyncio.create_task(storage.upload(b"x", "a", "text/plain"))
    while not upload.done():
        turned.set()
        await asyncio.sleep(0.005)
    await upload


async def test_an_upload_into_a_new_folder_leaves_nothing_in_memory(storage: LocalStorage) -> None:
    """An error whose cause is itself keeps all that its frames know, here the bytes, until the garbage is collected."""
    gc.collect()
    gc.disable()
    try:
        await storage.upload(b"x", "new/folder/a", "text/plain")
        assert not await storage.exists("missing/a")
        await storage.close()  # The threads have let go, too.
        assert not [kept for kept in gc.get_objects() if isinstance(kept, AtomicFileWriter | FileNotFoundError)]
    finally:
        gc.enable()


async def test_everything_is_on_the_disk_before_it_is_promised(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the machine cannot be staged here; the order of the system calls can be seen."""
    calls: list[tuple[str, str]] = []

    def name_of(descriptor: int) -> str:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return re.sub(r"[0-9a-f]{32}$", "*", os.path.relpath(path, folder))

    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        calls.append(("fsync", name_of(descriptor)))
        real_fsync(descriptor)

    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        calls.append(("rename", os.path.join(name_of(dst_dir_fd), target)))  # noqa: PTH118  (no path, but a note)
        real_rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    await storage.upload(b"x", "a/b/c", "text/plain")
    file = ("fsync", ".storage/temporary/*")
    bytes_and_name = [file, ("fsync", "."), ("fsync", "a"), ("rename", "a/b/c"), ("fsync", "a/b")]
    if len(calls) == len(bytes_and_name):
        assert calls == bytes_and_name
    else:
        assert calls[:2] == [file, ("fsync", ".storage/metadata")]
        assert [name for name, _ in calls[2:5]] == ["fsync", "rename", "fsync"]
        assert calls[2] == file
        assert all(name.startswith(".storage/metadata/") for _, name in calls[3:5])
        assert calls[5:] == bytes_and_name[1:]
    calls.clear()
    await storage.delete("a/b/c")
    assert calls[0] == ("fsync", "a/b")


async def test_a_reader_that_is_overtaken_between_file_and_sidecar_starts_again(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.upload(b"first", "a", "text/plain", metadata={"version": "first"})
    real = Sidecars.read

    def overtaken(sidecars: Sidecars, key: str) -> list[Attributes]:
        monkeypatch.setattr(Sidecars, "read", real)
        for version in (b"second", b"third"):
            destination = Destination("a", ("a",), Description("text/plain", {"version": version.decode()}))
            AtomicFileWriter(StorageFolder(folder), destination, 100).store(version)
        return real(sidecars, key)

    monkeypatch.setattr(Sidecars, "read", overtaken)
    async with storage.open("a") as file:
        content = b"".join([chunk async for chunk in file.chunks])
    assert file.information.metadata == {"version": content.decode()}
