"""Whether files can be kept in a bucket or container, and only by those who may."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from data_layer.errors import NotSupportedByStorageError, StorageError, StoragePermissionError
from data_layer.schemas.doctor import Outcome
from data_layer.services.doctor.checks import Check, Verdict, failed, of_error, ok, warning
from data_layer.services.doctor.clocks import judge_difference
from data_layer.services.doctor.network import reach
from data_layer.storage.object_store.adapter import ObjectStorage
from data_layer.storage.object_store.inspection import Trial, find_place, try_rights
from data_layer.storage.object_store.s3 import S3Storage
from data_layer.storage.opening import make_storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from data_layer.config import Settings
    from data_layer.storage.port import SignedMethod, StorageBackend

_NEEDED = ("write", "read", "list", "delete")
_SHORT = timedelta(minutes=1)


class ObjectPatient:
    """The bucket or container that is looked at, and what came of the trial with a tiny file."""

    def __init__(self, settings: Settings, time_limit: float) -> None:
        self.settings = settings
        self.time_limit = time_limit
        self.trial = Trial()

    @property
    def backend(self) -> StorageBackend:
        """The storage, not open, which gives up before the check's time is over."""
        limits = {
            "storage_connect_timeout": min(self.settings.storage_connect_timeout, self.time_limit / 3),
            "storage_timeout": min(self.settings.storage_timeout, self.time_limit / 3),
            "storage_retries": 1,
        }
        return make_storage(self.settings.model_copy(update=limits))

    @property
    def storage(self) -> ObjectStorage:
        """The same, as what all of them have in common."""
        storage = self.backend
        if not isinstance(storage, ObjectStorage):
            raise TypeError("a folder is no bucket")
        return storage

    @property
    def name(self) -> str:
        """The bucket or container, for people."""
        if self.settings.storage_backend == "s3":
            return f"the bucket {self.settings.aws_s3_bucket}"
        return f"the container {self.settings.azure_place.container} of {self.settings.azure_place.account}"


def object_checks(settings: Settings, part: str, time_limit: float) -> list[Check]:
    """The checks of a bucket or container, those first that others need."""
    patient = ObjectPatient(settings, time_limit)

    def check(name: str, look: Callable[[ObjectPatient], Awaitable[Verdict | list[Verdict]]], *needs: str) -> Check:
        return Check(part, name, partial(look, patient), needs)

    return [
        check("server", _reach),
        check("login", _log_in, "server"),
        check("rights", _judge_rights, "login"),
        check("public", _judge_exposure, "rights"),
        check("clock", _judge_clock, "rights"),
        check("signed_urls", _judge_signing, "server"),
        check("bucket", _judge_bucket, "login"),
    ]


async def _reach(patient: ObjectPatient) -> Verdict:
    address = urlsplit(patient.storage.url("doctor"))
    place = (address.hostname or "", address.port or (80 if address.scheme == "http" else 443))
    setting = "AWS_ENDPOINT_URL or AWS_REGION" if patient.settings.storage_backend == "s3" else "the AZURE_ setting"
    (verdict,) = await reach([place], setting, min(patient.settings.storage_connect_timeout, patient.time_limit / 2))
    return verdict


async def _log_in(patient: ObjectPatient) -> Verdict:
    await find_place(patient.storage)
    return ok(f"{patient.name} is there, and the credentials are accepted")


async def _judge_rights(patient: ObjectPatient) -> list[Verdict]:
    patient.trial = trial = await try_rights(patient.storage)
    found = [
        failed(f"the credentials do not let us {name}: {of_error(error).meaning}", of_error(error).advice)
        for name, error in trial.refusals.items()
    ]
    if trial.left_behind is not None:
        found.append(
            warning(f"the tiny file {trial.left_behind} stayed there", "remove it: data-layer storage cleanup")
        )
    return found or [ok(f"a tiny file could be made to {', '.join(_NEEDED)}")]


async def _judge_exposure(patient: ObjectPatient) -> Verdict:
    allowed = patient.trial.strangers_may
    if allowed:
        return failed(
            f"everybody can {' and '.join(allowed)} files of {patient.name} without credentials",
            "block public access now (S3: Block Public Access; Azure: access level private); signed URLs go on working",
        )
    return ok("strangers can neither read nor list")


async def _judge_clock(patient: ObjectPatient) -> Verdict:
    if patient.trial.clock_difference is None:
        return ok("the server did not tell its time")
    return judge_difference(patient.trial.clock_difference, patient.trial.clock_uncertainty, "the storage's")


async def _judge_signing(patient: ObjectPatient) -> Verdict:
    storage = patient.backend
    methods: tuple[SignedMethod, ...] = ("GET", "PUT")
    try:
        await storage.initialize()
        for method in methods:
            await storage.signed_url("doctor", method=method, expires_in=_SHORT)
    except NotSupportedByStorageError as error:
        return warning(f"URLs cannot be signed, so files travel through the service: {error}", "see the message")
    finally:
        await storage.close()
    return ok("URLs can be signed")


async def _judge_bucket(patient: ObjectPatient) -> list[Verdict]:
    storage = patient.storage
    if not isinstance(storage, S3Storage):
        return [ok("nothing further is looked at on Azure; what was uploaded in part goes by itself within a week")]
    try:
        bucket = await storage.describe()
    except (StoragePermissionError, NotSupportedByStorageError) as error:
        return [ok(f"its settings cannot be looked at, which the service does not need ({type(error).code})")]
    except StorageError as error:
        return [Verdict(Outcome.WARNING, of_error(error).meaning, "see whether the server knows these settings")]
    found = []
    if bucket.is_public:
        found.append(
            failed(f"the settings of {patient.name} let everybody read or list it", "turn on Block Public Access")
        )
    if bucket.keeps_versions and not bucket.expires_versions:
        found.append(
            warning(
                f"{patient.name} keeps what is deleted as old versions for ever: it grows, and deleted is not gone",
                "add a lifecycle rule with NoncurrentVersionExpiration",
            )
        )
    browsers = "may" if bucket.allows_browsers else "may not (no CORS rule with PUT; only direct uploads need one)"
    return found or [ok(f"it is private; browsers {browsers} upload directly")]
