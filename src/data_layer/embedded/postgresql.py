"""PostgreSQL under the guardian, and the account that it runs under."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_layer.durability import sync_folder
from data_layer.embedded.binaries import POSTGRESQL_MAJOR
from data_layer.embedded.folders import account_name, nobody
from data_layer.embedded.processes import exists, kill_all_in, run_program, serves, stop_stranger
from data_layer.embedded.server import START_SECONDS, Server, describe_status
from data_layer.errors import EmbeddedServerError

SAME = "same"


@dataclass(frozen=True, slots=True)
class _Candidate:
    identity: str
    description: str
    needs_ownership: bool


async def choose_identity(folder: Path, sockets: Path, postgres: Path) -> str:
    """The identity, as ``launch.py`` takes it, under which ``postgres`` can work in the folder.

    An ordinary account stays itself. Root bears the number of ``nobody`` in a user namespace, which leaves every file
    root's own; where namespaces are refused, ``nobody`` itself runs the server and is given the folder.

    Raises:
        EmbeddedServerError: neither is possible here.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return SAME
    refusals = []
    for candidate in _candidates(folder):
        place = folder.parent if candidate.needs_ownership else folder
        status, said = await run_program([str(postgres), "--version"], folder=place, identity=candidate.identity)
        if status == 0:
            if candidate.needs_ownership:
                _hand_over(folder, sockets)
            return candidate.identity
        refusals.append(f"{candidate.description}: {said.strip() or f'exit status {status}'}")
    raise EmbeddedServerError(
        f"PostgreSQL does not run as {account_name(os.geteuid())}, and nothing else is possible in {folder} "
        f"({'; '.join(refusals)}). Run this as an ordinary user with a name, or set DB_HOST to a server of your own, "
        "or move the project to a folder that other accounts may enter."
    )


def _candidates(folder: Path) -> list[_Candidate]:
    uid, gid = nobody()
    account = _Candidate(f"account:{uid}:{gid}", "as the account nobody", needs_ownership=True)
    if folder.stat().st_uid != os.geteuid():
        return [account]
    found = []
    if sys.platform == "linux":
        found.append(_Candidate(f"namespace:{uid}:{gid}", "in a user namespace", needs_ownership=False))
    if os.geteuid() == 0:
        found.append(account)
    return found


def _hand_over(folder: Path, sockets: Path) -> None:
    uid, gid = nobody()
    for top in (folder, sockets):
        os.chown(top, uid, gid)
        for parent, folders, files in os.walk(top):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)  # noqa: PTH118 (os.walk gives text)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


_INITDB = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--data-checksums"),
    # One call instead of one for each of a thousand files, which takes seconds on a busy disk.
    *(("--sync-method=syncfs",) if sys.platform == "linux" else ()),
)
_SETTINGS = (
    *("listen_addresses=", "unix_socket_permissions=0700", "port=5432"),
    *("max_connections=100", "shared_buffers=128MB", "timezone=UTC", "log_timezone=UTC", "logging_collector=off"),
)


class PostgresqlServer(Server):
    """A cluster in ``postgresql``, reached by its socket as the user ``postgres`` without a password."""

    title: ClassVar[str] = "PostgreSQL"
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]] = (
        (signal.SIGINT, 4.5),  # fast: clients are disconnected, everything is written
        (signal.SIGQUIT, 1.5),  # immediate: the next start recovers from the write-ahead log
    )

    def __init__(self, folder: Path, sockets: Path) -> None:
        super().__init__(folder, sockets)
        self._chosen_identity = SAME

    @property
    def address(self) -> str:
        """The folder of its socket, which clients take for a host."""
        return str(self.sockets)

    @property
    def _identity(self) -> str:
        return self._chosen_identity

    @property
    def _pid_file(self) -> Path:
        return self.data_folder / "postmaster.pid"

    async def _prepare(self, programs: Path) -> None:
        await self._stop_leftover()
        self._chosen_identity = await choose_identity(self.folder, self.sockets, programs / "postgres")
        if self._has_no_data():
            await self._create_cluster(programs)
        self._check_version()

    def _command(self, programs: Path) -> list[str]:
        settings = (*_SETTINGS, f"unix_socket_directories={_quoted(self.sockets)}")
        options = [option for setting in settings for option in ("-c", setting)]
        return [str(programs / "postgres"), "-D", str(self.data_folder), *options]

    async def _is_ready(self, pid: int) -> bool:
        lines = self._pid_lines()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _pid_lines(self) -> list[str]:
        with suppress(OSError):
            return self._pid_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return []

    async def _stop_leftover(self) -> None:
        """End a server that outlived its guardian, and forget one whose number another process bears by now."""
        lines = self._pid_lines()
        if lines and lines[0].isdigit():
            pid = int(lines[0])
            await stop_stranger(pid, self.data_folder, (*self.stop_steps, (signal.SIGKILL, 2)))
            # Its workers may outlive a killed server for a while, and must not meet the next one.
            await kill_all_in(self.data_folder)
            if exists(pid) and not serves(pid, self.data_folder):
                # PostgreSQL itself refuses to start while any process of this account bears the number.
                self._pid_file.unlink(missing_ok=True)
        for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (self.sockets / name).unlink(missing_ok=True)

    def _has_no_data(self) -> bool:
        return not self.data_folder.exists() or not any(self.data_folder.iterdir())

    async def _create_cluster(self, programs: Path) -> None:
        """Make the cluster beside its place and move it there, so that a kill in between leaves none or a whole one."""
        for leftover in self.folder.glob("postgresql.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        new = self.folder / f"postgresql.new-{os.getpid()}"
        try:
            await self._run_initdb(programs / "initdb", new)
            new.rename(self.data_folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        sync_folder(self.folder)

    async def _run_initdb(self, initdb: Path, new: Path) -> None:
        command = [str(initdb), f"--pgdata={new}", *_INITDB]
        try:
            status, said = await run_program(
                command, folder=self.folder, identity=self._identity, seconds=START_SECONDS
            )
        except TimeoutError:
            raise self._failure(f"could not be set up in {START_SECONDS} seconds", "") from None
        if status != 0:
            raise self._failure(f"could not be set up: initdb ended with {describe_status(status)}", said)

    def _check_version(self) -> None:
        try:
            found = (self.data_folder / "PG_VERSION").read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            raise EmbeddedServerError(
                f"{self.data_folder} is not a data folder of PostgreSQL (PG_VERSION is missing) and is not empty; "
                "put the missing files back, or move it away: the next start makes an empty one."
            ) from None
        if found != str(POSTGRESQL_MAJOR):
            raise EmbeddedServerError(
                f"{self.data_folder} was made by PostgreSQL {found}, and this is PostgreSQL {POSTGRESQL_MAJOR}, which "
                f"cannot read it. Dump it with PostgreSQL {found}, move the folder away, start, and load the dump."
            )


def _quoted(folder: Path) -> str:
    return '"' + str(folder).replace('"', '""') + '"'
