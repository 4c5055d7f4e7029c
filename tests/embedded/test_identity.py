"""PostgreSQL refuses to run as root; no permissions may change for that."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_layer.embedded import binaries
from data_layer.embedded.folders import nobody
from data_layer.embedded.postgresql import choose_identity

from .support import BOTH, UserProcess, assert_no_process, postgres_id, python_script, read, write

AS_ROOT = os.geteuid() == 0


async def test_an_ordinary_account_stays_itself_and_root_bears_another_number(folder: Path) -> None:
    identity = await choose_identity(folder, folder / "run", binaries.postgresql_binary("postgres"))
    uid, gid = nobody()
    assert identity == (f"namespace:{uid}:{gid}" if AS_ROOT else "same")


def test_a_private_parent_stays_private_and_files_stay_their_owners(new_folder: Path, used_folder: Path) -> None:
    new_folder.mkdir(mode=0o700)
    folder = shutil.copytree(used_folder, new_folder / "project" / "data")
    for expected in ([], ["kept"]):
        with UserProcess(folder, *BOTH) as user:
            addresses = user.addresses()
            if expected:
                assert read(addresses) == [expected, expected]
            write(addresses, "kept")
            assert Path(f"/proc/{postgres_id(folder)}").stat().st_uid == os.geteuid()
            user.leave()
    assert stat.S_IMODE(new_folder.stat().st_mode) == 0o700
    assert {path.lstat().st_uid for path in new_folder.rglob("*")} == {os.geteuid()}


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every account may enter, with the programs in it."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    wheel = binaries.postgresql_binary("postgres").parents[2]
    shutil.copytree(wheel / "pginstall18", place / "wheels" / wheel.name / "pginstall18", symlinks=True)
    (place / "wheels" / wheel.name / "__init__.py").touch()
    libraries = f"{wheel.name}.libs"
    if wheel.with_name(libraries).exists():  # the wheels for Linux
        shutil.copytree(wheel.with_name(libraries), place / "wheels" / libraries)
    yield place
    assert_no_process(place)
    shutil.rmtree(place)


def without_namespaces(numbers: str) -> list[str]:
    """Run a command as root of a user namespace in which no further one may be made, as in a hardened container."""
    return python_script("without_namespaces.py", numbers)


@pytest.mark.slow
def test_where_namespaces_are_refused_nobody_runs_the_server(open_place: Path) -> None:
    """Root has the account nobody; an ordinary user who plays root has not, and is told what else to do."""
    command = without_namespaces("all" if AS_ROOT else "own")
    folder = open_place / "data"
    path = os.pathsep.join([str(open_place / "wheels"), *filter(None, [os.environ.get("PYTHONPATH")])])
    for _ in range(2):
        with UserProcess(folder, *BOTH, command=command, PYTHONPATH=path) as user:
            answer = user.answer()
            if not AS_ROOT:
                assert "Run this as an ordinary user" in answer["error"]
                return
            assert "error" not in answer, answer
            process = Path(f"/proc/{postgres_id(folder)}")
            assert process.stat().st_uid == nobody()[0]
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert user.leave() == 0


def test_where_nothing_is_possible_the_remedies_are_named(new_folder: Path) -> None:
    """The folder of the tests is private, so that the account nobody cannot enter it."""
    before = stat.S_IMODE(new_folder.parent.stat().st_mode)
    with UserProcess(new_folder, *BOTH, command=without_namespaces("all" if AS_ROOT else "own")) as user:
        message = user.answer()["error"]
        assert "in a user namespace: user namespaces are refused" in message
        assert "as the account nobody: " in message
        assert "Run this as an ordinary user" in message
        assert "DB_HOST" in message
        user.process.wait(15)
    assert stat.S_IMODE(new_folder.parent.stat().st_mode) == before
