"""Whether files can be kept in a folder of this machine."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from data_layer.config import Environment
from data_layer.services.doctor.checks import Check, Verdict, failed, nothing_yet, ok, warning
from data_layer.services.doctor.figures import readable_size
from data_layer.storage.local.inspection import FolderFacts, read_folder, try_to_write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from data_layer.config import Settings

_FOR_OTHERS = 0o077
_FEW_INODES = 10_000
_LITTLE_SPACE = 0.1
_FORGETFUL = {"tmpfs": "is in memory", "ramfs": "is in memory", "overlay": "goes with its container"}
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs"})
_DURABLE_WHERE = frozenset({Environment.STAGING, Environment.PRODUCTION})


def folder_checks(settings: Settings, part: str) -> list[Check]:
    """The checks of LOCAL_STORAGE_PATH; each blocks in a thread, because a mount can hang."""
    root = settings.local_storage_path.absolute()

    def check(name: str, look: Callable[[], Verdict | Sequence[Verdict]], *needs: str) -> Check:
        async def look_in_thread() -> Verdict | Sequence[Verdict]:
            return await asyncio.to_thread(look)

        return Check(part, name, look_in_thread, needs)

    return [
        check("server", lambda: _judge_folder(root)),
        check("rights", lambda: _judge_rights(root, read_folder(root)), "server"),
        check("file_system", lambda: _judge_file_system(settings, read_folder(root)), "server"),
        check("space", lambda: _judge_space(root, read_folder(root)), "server"),
        check("writes", lambda: _judge_writes(root), "server"),
    ]


def _judge_folder(root: Path) -> Verdict:
    try:
        read_folder(root)
    except FileNotFoundError:
        existing = next(place for place in root.parents if place.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            return failed(f"there is no folder {root}, and it cannot be made in {existing}", "make it, for this user")
        return nothing_yet(
            f"there is no folder {root} yet; the next start makes it (if it was there: is its disk gone?)"
        )
    except NotADirectoryError:
        return failed(f"{root} is no folder", "name another one in LOCAL_STORAGE_PATH")
    except PermissionError:
        return failed(f"this user may not open the folder {root}", "give it to the user that runs the service")
    return ok(f"the folder {root}")


def _judge_rights(root: Path, facts: FolderFacts) -> Verdict:
    if facts.mode & _FOR_OTHERS:
        return warning(f"others may look into {root} (its mode is {facts.mode:04o})", f"chmod 700 {root}")
    if not facts.is_own:
        return warning(f"{root} belongs to another user", "give it to the user that runs the service")
    return ok("only its owner may look into it")


def _judge_file_system(settings: Settings, facts: FolderFacts) -> list[Verdict]:
    found = []
    kind = facts.file_system or "of a kind that this system does not tell"
    if kind in _FORGETFUL and settings.environment in _DURABLE_WHERE:
        found.append(
            warning(
                f"the file system is {kind}, which {_FORGETFUL[kind]}: files are lost with it",
                "mount a volume there, or use S3 or Azure",
            )
        )
    if kind in _REMOTE:
        found.append(
            warning(
                f"the file system is {kind}: its locks and its durability depend on how it is mounted",
                "use S3 or Azure where several machines need the files",
            )
        )
    if not facts.is_one_disk:
        found.append(
            failed(
                "the folder .storage in it is on another file system: a file cannot be put in place in one step",
                "mount one file system for the whole folder",
            )
        )
    return found or [ok(f"the file system is {kind}")]


def _judge_space(root: Path, facts: FolderFacts) -> list[Verdict]:
    found = []
    if facts.free_size < _LITTLE_SPACE * facts.total_size:
        left = f"{readable_size(facts.free_size)} of {readable_size(facts.total_size)}"
        found.append(warning(f"the disk of {root} has {left} left", "make room, or move the files to S3 or Azure"))
    if facts.inodes is not None and facts.inodes < _FEW_INODES:
        found.append(warning(f"the disk of {root} takes only {facts.inodes} more files", "remove small files there"))
    return found or [ok(f"{readable_size(facts.free_size)} are free")]


def _judge_writes(root: Path) -> Verdict:
    try:
        keeps_attributes = try_to_write(root)
    except OSError as error:
        return failed(
            f"no file can be written in {root}: {error.strerror}",
            "see who owns it, whether its disk is full, and whether it is mounted read-only",
        )
    beside = "with the file" if keeps_attributes else "in a second file, as this file system has no extended attributes"
    return ok(f"a tiny file could be written and removed; metadata is kept {beside}")
