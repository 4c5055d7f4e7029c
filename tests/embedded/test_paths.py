"""Folders with unusual paths, and sockets that do not fit into them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_layer.embedded import folders
from data_layer.errors import EmbeddedServerError

from .support import LONG_NAME, both_servers, permissions, processes_of, read, valkey_only, write


@pytest.fixture
def temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, short and empty."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def long_folder(folder: Path) -> Path:
    return folder.rename(folder.with_name(LONG_NAME))


def sockets_of(temporary_folder: Path) -> list[Path]:
    return list(temporary_folder.glob("data-layer-*"))


@pytest.mark.parametrize("name", ["with space", 'Müller\'s "data"', "a%2Fb&c=d", "-rf"], ids=range(4))
async def test_any_name(folder: Path, name: str) -> None:
    other = await asyncio.to_thread(folder.rename, folder.with_name(name))
    async with both_servers(other) as addresses:
        write(addresses, "kept")
        assert {"valkey.sock", ".s.PGSQL.5432"} <= permissions(other / "run").keys()
        assert read(addresses) == [["kept"], ["kept"]]


async def test_a_line_break_is_refused(new_folder: Path) -> None:
    """PostgreSQL keeps the path in a file of lines."""
    with pytest.raises(EmbeddedServerError, match="line break"):
        await valkey_only(new_folder / "two\nlines").start()


@pytest.mark.parametrize("name", [LONG_NAME, "one,two", os.fsdecode(b"latin-\xe9")], ids=["long", "comma", "latin"])
async def test_sockets_lie_elsewhere_where_the_path_does_not_suit_them(
    folder: Path, temporary_folder: Path, name: str
) -> None:
    other = await asyncio.to_thread(folder.rename, folder.with_name(name))
    first, second = both_servers(other), valkey_only(other)
    addresses = await first.start()
    (place,) = sockets_of(temporary_folder)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert str(os.geteuid()) in place.name
    write(addresses, "kept")
    assert (await second.start()).redis_url == addresses.redis_url
    await first.stop()
    assert read(await first.start()) == [["kept"], ["kept"]]
    assert sockets_of(temporary_folder) == [place], "the same folder has the same place"
    await second.stop()
    await first.stop()
    assert not sockets_of(temporary_folder), "nothing is left behind"
    assert not processes_of(other)


@pytest.mark.usefixtures("temporary_folder")
async def test_others_find_the_sockets_though_their_temporary_folder_is_another(
    long_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = long_folder
    async with valkey_only(other) as addresses:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        async with valkey_only(other) as same:
            assert same == addresses


async def test_sockets_lie_elsewhere_where_the_file_system_has_none(
    folder: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(path: Path) -> socket.socket:
        if path.is_relative_to(folder):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path)

    real = folders._bind
    monkeypatch.setattr(folders, "_bind", bind)
    async with both_servers(folder) as addresses:
        write(addresses, "kept")
        assert sockets_of(temporary_folder)
    assert not sockets_of(temporary_folder)


@pytest.mark.usefixtures("temporary_folder")
@pytest.mark.parametrize("trap", ["link", "open", "file", "stranger"])
async def test_a_place_for_sockets_that_somebody_else_prepared_is_not_used(
    long_folder: Path, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folders._temporary_places(long_folder)[0]
    monkeypatch.setattr(folders, "_temporary_places", lambda _: [place])
    target = set_trap(trap, place)
    if trap == "stranger":
        monkeypatch.setattr("os.geteuid", lambda: 4321)
        monkeypatch.setattr(folders, "_check_owner", lambda _: None)
    with pytest.raises(EmbeddedServerError, match="not a private folder of this account"):
        await valkey_only(long_folder).start()
    assert permissions(target).keys() == {target.name}


def set_trap(trap: str, place: Path) -> Path:
    """Put something in the place; returns the folder that it might lead to."""
    target = place.with_name("target")
    target.mkdir(mode=0o700)
    if trap == "link":
        place.symlink_to(target)
    elif trap == "file":
        place.touch(mode=0o600)
    else:
        place.mkdir(mode=0o700)
        place.chmod(0o777 if trap == "open" else 0o700)
    return target


async def test_a_link_to_the_folder_is_the_folder(folder: Path) -> None:
    link = folder.with_name("link")
    await asyncio.to_thread(link.symlink_to, folder)
    async with valkey_only(folder) as addresses, valkey_only(link) as same:
        assert same == addresses


async def test_a_relative_path_means_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    async with valkey_only(Path("data")) as addresses:
        assert str(folder) in str(addresses.redis_url)
        monkeypatch.chdir("/")
