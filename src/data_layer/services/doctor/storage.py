"""Whether files can be stored: in a folder, or in a bucket or container that only its owner can read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
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
from data_layer.schemas.doctor import Outcome, Text
from data_layer.services.doctor.checks import (
    Check,
    CheckResult,
    failed,
    joined,
    judge_difference,
    listed,
    nothing_yet,
    of_error,
    ok,
    reach,
    readable_size,
    unknown_location,
    warning,
)
from data_layer.settings.service import Environment
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
            return unknown_location(Text("the storage"))

        return [Check(part, "server", unknown)]
    if settings.storage_backend == "local":
        return folder_checks(settings, environment, part)
    return object_checks(settings, part, time_limit)


_FOR_OTHERS = 0o077
_FEW_INODES = 10_000
_LITTLE_SPACE = 0.1
_IN_MEMORY = Text("it is in memory, and files are lost with it")
_FORGETFUL = {
    "tmpfs": _IN_MEMORY,
    "ramfs": _IN_MEMORY,
    "overlay": Text("it goes with its container, and files are lost with it"),
}
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
            return failed(
                "the folder %(folder)s does not exist and cannot be made in %(parent)s",
                "make it, for this user",
                folder=str(root),
                parent=str(existing),
            )
        return nothing_yet(
            "the folder %(folder)s does not exist yet; the next start makes it (if it was there: is its disk gone?)",
            folder=str(root),
        )
    except NotADirectoryError:
        return failed("%(folder)s is not a folder", "name another one in LOCAL_STORAGE_PATH", folder=str(root))
    except PermissionError:
        return failed(
            "this user may not open the folder %(folder)s",
            "give it to the user that runs the service",
            folder=str(root),
        )
    return ok("the folder %(folder)s", folder=str(root))


def _judge_rights(root: Path, facts: FolderFacts) -> CheckResult:
    if facts.mode & _FOR_OTHERS:
        return warning(
            "others may look into %(folder)s (its mode is %(mode)s)",
            "chmod 700 %(folder)s",
            folder=str(root),
            mode=f"{facts.mode:04o}",
        )
    if not facts.is_own:
        return warning(
            "%(folder)s belongs to another user", "give it to the user that runs the service", folder=str(root)
        )
    return ok("only its owner may look into it")


def _judge_file_system(environment: Environment, facts: FolderFacts) -> list[CheckResult]:
    found = []
    kind = facts.file_system
    if kind in _FORGETFUL and environment in _DURABLE_WHERE:
        found.append(
            warning(
                "the file system is %(kind)s: %(harm)s",
                "mount a volume there, or use S3 or Azure",
                kind=kind,
                harm=_FORGETFUL[kind],
            )
        )
    if kind in _REMOTE:
        found.append(
            warning(
                "the file system is %(kind)s: its locks and its durability depend on how it is mounted",
                "use S3 or Azure where several machines need the files",
                kind=kind,
            )
        )
    if not facts.is_one_disk:
        found.append(
            failed(
                "the folder .storage in it is on another file system: a file cannot be put in place in one step",
                "mount one file system for the whole folder",
            )
        )
    if not found and kind is None:
        return [ok("this system does not report the kind of the file system")]
    return found or [ok("the file system is %(kind)s", kind=str(kind))]


def _judge_space(root: Path, facts: FolderFacts) -> list[CheckResult]:
    found = []
    if facts.free_size < _LITTLE_SPACE * facts.total_size:
        found.append(
            warning(
                "the disk of %(folder)s has %(free)s of %(total)s left",
                "make room, or move the files to S3 or Azure",
                folder=str(root),
                free=readable_size(facts.free_size),
                total=readable_size(facts.total_size),
            )
        )
    if facts.inodes is not None and facts.inodes < _FEW_INODES:
        found.append(
            warning(
                "the disk of %(folder)s takes only %(number)s more files",
                "remove small files there",
                folder=str(root),
                number=facts.inodes,
            )
        )
    return found or [ok("%(size)s are free", size=readable_size(facts.free_size))]


def _judge_writes(root: Path) -> CheckResult:
    try:
        keeps_attributes = try_to_write(root)
    except OSError as error:
        return failed(
            "no file can be written in %(folder)s: %(reason)s",
            "see who owns it, whether its disk is full, and whether it is mounted read-only",
            folder=str(root),
            reason=Text.verbatim(str(error.strerror)),
        )
    return ok(
        "a tiny file could be written and removed; metadata is kept with the file"
        if keeps_attributes
        else "a tiny file could be written and removed; metadata is kept in a second file, as this file system has no "
        "extended attributes"
    )


_RIGHTS = {"write": Text("write"), "read": Text("read"), "list": Text("list"), "delete": Text("delete")}
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
    def name(self) -> Text:
        """The bucket or container, for people."""
        if self.settings.storage_backend == "s3":
            return Text("the bucket %(bucket)s", {"bucket": str(self.settings.aws_s3_bucket)})
        place = self.settings.azure_location
        values = {"container": place.container, "account": place.account}
        return Text("the container %(container)s of %(account)s", values)


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
    return ok("%(place)s is there, and the credentials are accepted", place=target.name)


async def _judge_credentials(target: ObjectTarget) -> list[CheckResult]:
    target.trial = trial = await try_rights(target.storage)
    found = [
        replace(
            failed(
                "the credentials do not let us %(right)s: %(error)s",
                right=_RIGHTS[name],
                error=of_error(error).meaning,
            ),
            advice=of_error(error).advice,
        )
        for name, error in trial.refusals.items()
    ]
    if trial.left_behind is not None:
        found.append(
            warning(
                "the tiny file %(key)s stayed there", "remove it: data-layer storage cleanup", key=trial.left_behind
            )
        )
    return found or [ok("a tiny file could be written, read, listed and deleted")]


async def _judge_exposure(target: ObjectTarget) -> CheckResult:
    allowed = target.trial.strangers_may
    if allowed:
        return failed(
            "everybody can %(rights)s files of %(place)s without credentials",
            "block public access now (S3: Block Public Access; Azure: access level private); signed URLs go on working",
            rights=listed([_RIGHTS[each] for each in allowed]),
            place=target.name,
        )
    return ok("strangers can neither read nor list")


async def _judge_clock(target: ObjectTarget) -> CheckResult:
    if target.trial.clock_difference is None:
        return ok("the server did not report its time")
    return judge_difference(target.trial.clock_difference, target.trial.clock_uncertainty, Text("the storage"))


async def _judge_signing(target: ObjectTarget) -> CheckResult:
    storage = target.backend
    methods: tuple[SignedMethod, ...] = ("GET", "PUT")
    try:
        await storage.initialize()
        for method in methods:
            await storage.signed_url("doctor", method=method, expires_in=_SHORT)
    except (MissingExtraError, NotSupportedByStorageError) as error:
        return warning(
            "URLs cannot be signed, so files travel through the service: %(error)s",
            "see the message",
            error=Text.verbatim(str(error)),
        )
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
        return [
            ok("its settings cannot be looked at, which the service does not need (%(code)s)", code=type(error).code)
        ]
    except StorageError as error:
        advice = Text("see whether the server knows these settings")
        return [CheckResult(Outcome.WARNING, of_error(error).meaning, advice)]
    found = []
    if bucket.is_public:
        found.append(
            failed(
                "the settings of %(place)s let everybody read or list it",
                "turn on Block Public Access",
                place=target.name,
            )
        )
    if bucket.keeps_versions and not bucket.expires_versions:
        found.append(
            warning(
                "%(place)s keeps what is deleted as old versions for ever: it grows, and deleted is not gone",
                "add a lifecycle rule with NoncurrentVersionExpiration",
                place=target.name,
            )
        )
    if bucket.unknown:
        unknown = joined([Text.verbatim(each) for each in bucket.unknown])
        found.append(ok("what the server did not say, which does no harm: %(unknown)s", unknown=unknown))
    return found or [
        ok(
            "it is private; browsers may upload directly"
            if bucket.allows_browsers
            else "it is private; browsers may not upload directly (no CORS rule with PUT; only direct uploads need one)"
        )
    ]
