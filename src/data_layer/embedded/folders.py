"""The private folder of the embedded servers, the locks in it, and the place for its sockets."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from data_layer.errors import EmbeddedServerError, FolderInUseError

if sys.platform != "win32":
    import fcntl
    import pwd

_SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
_LONGEST_SOCKET_NAME = "/.s.PGSQL.5432"
_ALMOST_NOTHING = 1024 * 1024
_NOBODY = 65534
_FINAL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})


def prepare_folder(folder: Path) -> Path:
    """Make the folder and its parts, readable by the owner only, and return its absolute path without links.

    Raises:
        EmbeddedServerError: it cannot be made or written, is not a folder, or belongs to another account.
    """
    if sys.platform == "win32":
        raise EmbeddedServerError("embedded servers do not run on Windows; use WSL, or set DB_HOST and REDIS_HOST.")
    folder = folder.expanduser()
    if "\n" in str(folder):
        raise EmbeddedServerError(f"the path of the data folder {str(folder)!r} holds a line break; set DATA_FOLDER.")
    try:
        folder = folder.resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(folder)
        folder.chmod(0o700)
        for part in ("log", "run"):
            (folder / part).mkdir(mode=0o700, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise explain(error, folder) from error
    return folder


def _check_owner(folder: Path) -> None:
    owner = folder.stat().st_uid
    # As root without user namespaces the whole folder is handed to nobody; see identity.py.
    mine = {0, nobody()[0]} if os.geteuid() == 0 else {os.geteuid()}
    if owner not in mine:
        raise EmbeddedServerError(
            f"the data folder {folder} belongs to {account_name(owner)}, and this process runs as "
            f"{account_name(os.geteuid())}; run as its owner, or set DATA_FOLDER to another folder."
        )


def nobody() -> tuple[int, int]:
    """User and group number of the account without rights."""
    with suppress(KeyError):
        entry = pwd.getpwnam("nobody")
        return entry.pw_uid, entry.pw_gid
    return _NOBODY, _NOBODY


def account_name(uid: int) -> str:
    """The name of an account for a message, or its number where it has no name."""
    try:
        return f"account {pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return f"account number {uid}"


def explain(error: Exception, folder: Path) -> EmbeddedServerError:
    """Turn what the operating system said about the folder into an error that says what to do."""
    if isinstance(error, EmbeddedServerError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return EmbeddedServerError(_full(folder))
    if number in {errno.EEXIST, errno.ENOTDIR}:
        return EmbeddedServerError(
            f"the data folder {folder} cannot be made, because {_file_name(error, folder)} or a part of its path is a "
            "file; remove the file, or set DATA_FOLDER to another folder."
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return EmbeddedServerError(
        f"the data folder {folder} cannot be used: {reason}; "
        "give this account the right to write there, or set DATA_FOLDER to another folder."
    )


def _file_name(error: Exception, otherwise: Path) -> str:
    name = error.filename if isinstance(error, OSError) else None
    return os.fsdecode(name) if isinstance(name, str | bytes) else str(otherwise)


def disk_problem(folder: Path, said: str = "") -> str | None:
    """A message when the disk of the folder is full, as the server said or as the file system shows."""
    if "No space left on device" in said or "Disk quota exceeded" in said or _free_bytes(folder) < _ALMOST_NOTHING:
        return _full(folder)
    return None


def _full(folder: Path) -> str:
    return f"There is no space left on the disk that holds {folder}; free some, or set DATA_FOLDER to another disk."


def _free_bytes(folder: Path) -> int:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return _ALMOST_NOTHING
    blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
    return blocks * disk.f_frsize


class FileLock:
    """A lock that ends with its process, however that ends. The file may hold a note for those who find it locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock if nobody holds it; False when somebody does."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def write_note(self, note: object) -> None:
        """Leave a JSON value in the file; only the holder may."""
        text = json.dumps(note).encode()
        os.ftruncate(self.fileno(), 0)
        os.pwrite(self.fileno(), text, 0)

    def read_note(self) -> dict[str, object]:
        """What the holder wrote; empty while it has not."""
        with suppress(OSError, ValueError):
            note = json.loads(self.path.read_bytes())
            return note if isinstance(note, dict) else {}
        return {}

    def fileno(self) -> int:
        """The descriptor of the held lock: a process that inherits it holds the same lock."""
        if self._descriptor is None:
            raise ValueError(f"{self.path} is not locked")
        return self._descriptor

    def release(self) -> None:
        """Give the lock up, for this process and those that it was forked into."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.leave()

    def leave(self) -> None:
        """Close this process's part; one that inherited the lock goes on holding it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_for_service(folder: Path) -> FileLock:
    """Take the lock that only one service at a time can hold.

    Raises:
        FolderInUseError: another process holds it.
    """
    lock = FileLock(folder / "service.lock")
    if not lock.acquire():
        holder = lock.read_note().get("pid", "unknown")
        raise FolderInUseError(
            f"the data folder {folder} is in use by another service (process {holder}); stop that one, "
            "or set DATA_FOLDER to another folder."
        )
    lock.write_note({"pid": os.getpid()})
    return lock


def listen(folder: Path) -> tuple[socket.socket, Path]:
    """A listening socket for the guardian, and the private folder in which it and the servers' sockets lie.

    That is ``run`` in the folder. Where its path is too long for a socket or its file system has none, it is a folder
    of fixed name, owned by this account, among the temporary ones.

    Raises:
        EmbeddedServerError: no folder can hold the sockets.
    """
    problems = []
    for place in (folder / "run", *_temporary_places(folder)):
        if not _is_usable_path(place):
            problems.append(f"{place} is too long, holds a comma or is not UTF-8")
            continue
        try:
            if place != folder / "run":
                _make_private(place)
            return _bind(place / "guardian.sock"), place
        except OSError as error:
            if error.errno in _FINAL_ERRORS and place == folder / "run":
                raise
            problems.append(f"{place}: {error.strerror or error}")
    raise EmbeddedServerError(
        f"there is no place for the sockets of {folder} ({'; '.join(problems)}); "
        "set DATA_FOLDER to a folder with a shorter path."
    )


def _temporary_places(folder: Path) -> list[Path]:
    name = f"data-layer-{os.geteuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    parents = [Path("/tmp")]  # noqa: S108  (checked by _make_private)
    with suppress(FileNotFoundError):  # There is none that can be written.
        parents.insert(0, Path(tempfile.gettempdir()).resolve())
    return [parent / name for parent in dict.fromkeys(parents)]


def _is_usable_path(place: Path) -> bool:
    # libpq and PostgreSQL read a comma as the start of a second host; addresses are text.
    try:
        path = str(place).encode()
    except UnicodeEncodeError:
        return False
    return len(path) + len(_LONGEST_SOCKET_NAME) <= _SOCKET_PATH_LIMIT and b"," not in path


def _make_private(place: Path) -> None:
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
    details = place.lstat()
    owners = {os.geteuid(), nobody()[0]} if os.geteuid() == 0 else {os.geteuid()}
    if not stat.S_ISDIR(details.st_mode) or details.st_uid not in owners or details.st_mode & 0o077:
        raise OSError(errno.EPERM, "is not a private folder of this account; somebody else may have made it")


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
