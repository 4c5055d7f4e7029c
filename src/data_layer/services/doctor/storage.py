"""Whether files can be stored: in a folder, or in a bucket or container that only its owner can read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from data_layer.errors import (
    MissingExtraError,
    NotSupportedByStorageError,
    StorageError,
    StoragePermissionError,
)
from data_layer.schemas.doctor import Outcome
from data_layer.services.doctor.checks import (
    Check,
    CheckResult,
    failed,
    judge_difference,
    nothing_yet,
    of_error,
    ok,
    reach,
    readable_size,
    unknown_location,
    warning,
)
from data_layer.settings.general import Environment
from data_layer.settings.storage import StorageSettings
from data_layer.storage.local.inspection import FolderFacts, read_folder, try_to_write
from data_layer.storage.object_store.adapter import ObjectStorage
from data_layer.storage.object_store.inspection import Trial, find_place, try_rights
from data_layer.storage.object_store.s3 import S3Storage
from data_layer.storage.port import SignedMethod, StorageBackend
from data_layer.storage.selection import make_object_storage

PART = "storage"
SECOND_PART = "second_storage"


def storage_checks(
    settings: StorageSettings, environment: Environment, time_limit: float, *, part: str = PART, is_known: bool = True
) -> list[Check]:
    """The checks of the storage that the settings choose.

    Args:
        settings: which storage.
        environment: where this runs, which decides how long files must last.
        time_limit: seconds for each check.
        part: what the findings call it.
        is_known: the settings say where it is.
    """
    if not is_known:

        async def unknown() -> CheckResult:
            return unknown_location("the storage")

        return [Check(part, "server", unknown)]
    if settings.storage_backend == "local":
        return folder_checks(settings, environment, part)
    return object_checks(settings, part, time_limit)


_FOR_OTHERS = 0o077
_FEW_INODES = 10_000
_LITTLE_SPACE = 0.1
_FORGETFUL = {"tmpfs": "is in memory", "ramfs": "is in memory", "overlay": "goes with its container"}
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs"})
_DURABLE_WHERE = frozenset({Environment.STAGING, Environment.PRODUCTION})


def folder_checks(settings: StorageSettings, environment: Environment, part: str) -> list[Check]:
    """The checks of LOCAL_STORAGE_PATH; each blocks in a thread, because a mount can hang."""
    root = settings.local_storage_path.absolute()

    def check(name: str, look: Callable[[], CheckResult | Sequence[CheckResult]], *needs: str) -> Check:
        async def look_in_thread() -> CheckResult | Sequence[CheckResult]:
            return await asyncio.to_thread(look)

        return Check(part, name, look_in_thread, needs)

    return [
        check("server", lambda: _judge_folder(root)),
        check("rights", lambda: _judge_rights(root, read_folder(root)), "server"),
        check("file_system", lambda: _judge_file_system(environment, read_folder(root)), "server"),
        check("space", lambda: _judge_space(root, read_folder(root)), "server"),
        check("writes", lambda: _judge_writes(root), "server"),
    ]


def _judge_folder(root: Path) -> CheckResult:
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
        return failed(f"{root} is not a folder", "name another one in LOCAL_STORAGE_PATH")
    except PermissionError:
        return failed(f"this user may not open the folder {root}", "give it to the user that runs the service")
    return ok(f"the folder {root}")


def _judge_rights(root: Path, facts: FolderFacts) -> CheckResult:
    if facts.mode & _FOR_OTHERS:
        return warning(f"others may look into {root} (its mode is {facts.mode:04o})", f"chmod 700 {root}")
    if not facts.is_own:
        return warning(f"{root} belongs to another user", "give it to the user that runs the service")
    return ok("only its owner may look into it")


def _judge_file_system(environment: Environment, facts: FolderFacts) -> list[CheckResult]:
    found = []
    kind = facts.file_system or "of a kind that this system does not report"
    if kind in _FORGETFUL and environment in _DURABLE_WHERE:
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


def _judge_space(root: Path, facts: FolderFacts) -> list[CheckResult]:
    found = []
    if facts.free_size < _LITTLE_SPACE * facts.total_size:
        left = f"{readable_size(facts.free_size)} of {readable_size(facts.total_size)}"
        found.append(warning(f"the disk of {root} has {left} left", "make room, or move the files to S3 or Azure"))
    if facts.inodes is not None and facts.inodes < _FEW_INODES:
        found.append(warning(f"the disk of {root} takes only {facts.inodes} more files", "remove small files there"))
    return found or [ok(f"{readable_size(facts.free_size)} are free")]


def _judge_writes(root: Path) -> CheckResult:
    try:
        keeps_attributes = try_to_write(root)
    except OSError as error:
        return failed(
            f"no file can be written in {root}: {error.strerror}",
            "see who owns it, whether its disk is full, and whether it is mounted read-only",
        )
    beside = "with the file" if keeps_attributes else "in a second file, as this file system has no extended attributes"
    return ok(f"a tiny file could be written and removed; metadata is kept {beside}")


_NEEDED = ("write", "read", "list", "delete")
_SHORT = timedelta(minutes=1)


class ObjectTarget:
    """The bucket or container that is looked at, and what came of the trial with a tiny file."""

    def __init__(self, settings: StorageSettings, time_limit: float) -> None:
        self.settings = settings
        self.time_limit = time_limit
        self.trial = Trial()

    @property
    def backend(self) -> StorageBackend:
        """The storage, not open, which gives up before the check's time is over."""
        limits: dict[str, float] = {
            "storage_connect_timeout": min(self.settings.storage_connect_timeout, self.time_limit / 3),
            "storage_timeout": min(self.settings.storage_timeout, self.time_limit / 3),
            "storage_retries": 1,
        }
        return make_object_storage(self.settings.unchecked(storage_second_backend=None, **limits))

    @property
    def inner_address(self) -> str:
        """Where we reach it: neither the CDN nor the address for clients, whatever these are."""
        names = (
            *("aws_s3_cdn_url", "aws_s3_public_endpoint_url"),
            *("azure_storage_cdn_url", "azure_storage_public_endpoint_url"),
        )
        return make_object_storage(self.settings.unchecked(**dict.fromkeys((*names, "storage_second_backend")))).url(
            "doctor"
        )

    @property
    def storage(self) -> ObjectStorage:
        """The same, as what all of them have in common."""
        storage = self.backend
        if not isinstance(storage, ObjectStorage):
            raise TypeError("a folder is not a bucket")
        return storage

    @property
    def name(self) -> str:
        """The bucket or container, for people."""
        if self.settings.storage_backend == "s3":
            return f"the bucket {self.settings.aws_s3_bucket}"
        return f"the container {self.settings.azure_location.container} of {self.settings.azure_location.account}"


def object_checks(settings: StorageSettings, part: str, time_limit: float) -> list[Check]:
    """The checks of a bucket or container, those first that others need."""
    target = ObjectTarget(settings, time_limit)

    def check(
        name: str, look: Callable[[ObjectTarget], Awaitable[CheckResult | list[CheckResult]]], *needs: str
    ) -> Check:
        return Check(part, name, partial(look, target), needs)

    return [
        check("server", _reach),
        check("login", _log_in, "server"),
        check("rights", _judge_credentials, "login"),
        check("public", _judge_exposure, "rights"),
        check("clock", _judge_clock, "rights"),
        check("signed_urls", _judge_signing, "server"),
        check("bucket", _judge_bucket, "login"),
    ]


async def _reach(target: ObjectTarget) -> CheckResult:
    address = urlsplit(target.inner_address)
    place = (address.hostname or "", address.port or (80 if address.scheme == "http" else 443))
    setting = "AWS_ENDPOINT_URL or AWS_REGION" if target.settings.storage_backend == "s3" else "the AZURE_ setting"
    (result,) = await reach([place], setting, min(target.settings.storage_connect_timeout, target.time_limit / 2))
    return result


async def _log_in(target: ObjectTarget) -> CheckResult:
    await find_place(target.storage)
    return ok(f"{target.name} is there, and the credentials are accepted")


async def _judge_credentials(target: ObjectTarget) -> list[CheckResult]:
    target.trial = trial = await try_rights(target.storage)
    found = [
        failed(f"the credentials do not let us {name}: {of_error(error).meaning}", of_error(error).advice)
        for name, error in trial.refusals.items()
    ]
    if trial.left_behind is not None:
        found.append(
            warning(f"the tiny file {trial.left_behind} stayed there", "remove it: data-layer storage cleanup")
        )
    return found or [ok(f"a tiny file could be made to {', '.join(_NEEDED)}")]


async def _judge_exposure(target: ObjectTarget) -> CheckResult:
    allowed = target.trial.strangers_may
    if allowed:
        return failed(
            f"everybody can {' and '.join(allowed)} files of {target.name} without credentials",
            "block public access now (S3: Block Public Access; Azure: access level private); signed URLs go on working",
        )
    return ok("strangers can neither read nor list")


async def _judge_clock(target: ObjectTarget) -> CheckResult:
    if target.trial.clock_difference is None:
        return ok("the server did not report its time")
    return judge_difference(target.trial.clock_difference, target.trial.clock_uncertainty, "the storage's")


async def _judge_signing(target: ObjectTarget) -> CheckResult:
    storage = target.backend
    methods: tuple[SignedMethod, ...] = ("GET", "PUT")
    try:
        await storage.initialize()
        for method in methods:
            await storage.signed_url("doctor", method=method, expires_in=_SHORT)
    except (MissingExtraError, NotSupportedByStorageError) as error:
        return warning(f"URLs cannot be signed, so files travel through the service: {error}", "see the message")
    finally:
        await storage.close()
    return ok("URLs can be signed")


async def _judge_bucket(target: ObjectTarget) -> list[CheckResult]:
    storage = target.storage
    if not isinstance(storage, S3Storage):
        return [ok("nothing further is looked at on Azure; what was uploaded in part goes by itself within a week")]
    try:
        bucket = await storage.describe()
    except (MissingExtraError, NotSupportedByStorageError, StoragePermissionError) as error:
        return [ok(f"its settings cannot be looked at, which the service does not need ({type(error).code})")]
    except StorageError as error:
        return [CheckResult(Outcome.WARNING, of_error(error).meaning, "see whether the server knows these settings")]
    found = []
    if bucket.is_public:
        found.append(
            failed(f"the settings of {target.name} let everybody read or list it", "turn on Block Public Access")
        )
    if bucket.keeps_versions and not bucket.expires_versions:
        found.append(
            warning(
                f"{target.name} keeps what is deleted as old versions for ever: it grows, and deleted is not gone",
                "add a lifecycle rule with NoncurrentVersionExpiration",
            )
        )
    if bucket.unknown:
        found.append(ok(f"what the server did not say, which does no harm: {'; '.join(bucket.unknown)}"))
    browsers = "may" if bucket.allows_browsers else "may not (no CORS rule with PUT; only direct uploads need one)"
    return found or [ok(f"it is private; browsers {browsers} upload directly")]
