"""What obstore cannot do on S3, done with boto3: making buckets, keeping them private, ending broken uploads."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from data_layer.errors import (
    PublicStorageError,
    StorageMissingError,
    StoragePermissionError,
    StorageUnavailableError,
)
from data_layer.extras import require_extra
from data_layer.observability.log import get_log
from data_layer.storage.signing.s3 import S3Credentials

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from data_layer.storage.object_store.limits import Limits
    from data_layer.storage.object_store.s3_place import S3Place

_MISSING = frozenset({"404", "NoSuchBucket", "NotFound"})
_REFUSED = frozenset(
    {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
)
_NOT_THERE = frozenset({"501", "NotImplemented", "MethodNotAllowed", "Unimplemented", "XNotImplemented"})
_EVERYBODY = "http://acs.amazonaws.com/groups/global/"
_NOTHING_PUBLIC = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}

_logger = get_log(__name__)


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """How a bucket is set up.

    Attributes:
        is_public: Its settings let everybody read or list it.
        keeps_versions: What is overwritten or deleted stays as an old version.
        expires_versions: A rule removes old versions after a while.
        aborts_uploads: A rule removes the parts of broken uploads after a while.
        allows_browsers: Pages of other origins may send files to it (CORS), which direct uploads from browsers need.
    """

    is_public: bool
    keeps_versions: bool
    expires_versions: bool
    aborts_uploads: bool
    allows_browsers: bool


class S3Administration:
    """Blocking calls, for a thread of their own. Those that only operators make have a client each."""

    def __init__(self, place: S3Place, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        self._identity: Any = None

    def create(self, *, allow_public: bool) -> None:
        """Make the bucket if it is missing, and see that it is private."""
        client = self._client()
        with self._translated("make"):
            try:
                client.head_bucket(Bucket=self._place.bucket)
                is_new = False
            except client.exceptions.ClientError as error:
                if _code(error) not in _MISSING:
                    raise
                self._make(client)
                is_new = True
        if is_new and not allow_public:
            self._try(client, client.put_public_access_block, PublicAccessBlockConfiguration=_NOTHING_PUBLIC)
        if is_new:
            self._encrypt_by_default(client)
        if not allow_public and self._is_public(client):
            raise PublicStorageError(
                f"The bucket {self._place.bucket!r} can be read by everybody: block its public access, or say "
                "--allow-public if this is meant"
            )

    def describe(self) -> BucketSettings:
        """How the bucket is set up; nothing is changed.

        Raises:
            StoragePermissionError: the credentials do not allow to look.
            MissingExtraError: boto3 is not installed.
        """
        client = self._client()
        versioning = self._try(client, client.get_bucket_versioning) or {}
        rules = (self._try(client, client.get_bucket_lifecycle_configuration) or {}).get("Rules", [])
        rules = [rule for rule in rules if rule.get("Status") == "Enabled"]
        cors = (self._try(client, client.get_bucket_cors) or {}).get("CORSRules", [])
        return BucketSettings(
            is_public=self._is_public(client),
            keeps_versions=versioning.get("Status") == "Enabled",
            expires_versions=any("NoncurrentVersionExpiration" in rule for rule in rules),
            aborts_uploads=any("AbortIncompleteMultipartUpload" in rule for rule in rules),
            allows_browsers=any("PUT" in rule.get("AllowedMethods", []) for rule in cors),
        )

    def abort_uploads(self, older_than: timedelta) -> int:
        """End the uploads in parts that were begun before; returns how many."""
        client = self._client()
        limit = datetime.now(UTC) - older_than
        aborted = 0
        with self._translated("list the broken uploads of"):
            try:
                for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=self._place.bucket):
                    for upload in page.get("Uploads", []):
                        if upload["Initiated"] <= limit:
                            self._abort(client, upload)
                            aborted += 1
            except client.exceptions.ClientError as error:
                if _code(error) == "NoSuchUpload":  # What rclone says where there never was one.
                    return aborted
                if _code(error) not in _NOT_THERE:
                    raise
                _logger.warning("abandoned_uploads_unknown", reason="the server cannot list them")
        return aborted

    def credentials(self) -> S3Credentials:
        """Those of the machine or pod. They are kept, and fetched anew before they expire.

        Raises:
            StoragePermissionError: there are none.
        """
        with self._translated("find credentials for"):
            if self._identity is None:
                self._identity = _boto3().Session().get_credentials()
            if self._identity is None:
                raise StoragePermissionError(
                    "There are no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the "
                    "machine or pod a role"
                )
            frozen = self._identity.get_frozen_credentials()
        return S3Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def _make(self, client: Any) -> None:
        place = self._place
        options: dict[str, Any] = {}
        if place.region != "us-east-1":  # Where it may not be said.
            options["CreateBucketConfiguration"] = {"LocationConstraint": place.region}
        client.create_bucket(Bucket=place.bucket, **options)
        _logger.info("bucket_created", bucket=place.bucket)

    def _encrypt_by_default(self, client: Any) -> None:
        headers = self._place.encryption_headers
        if not headers:
            return
        algorithm, key = [*headers.values(), None][:2]
        rule = {"SSEAlgorithm": algorithm} | ({"KMSMasterKeyID": key} if key else {})
        configuration = {"Rules": [{"ApplyServerSideEncryptionByDefault": rule, "BucketKeyEnabled": True}]}
        self._try(client, client.put_bucket_encryption, ServerSideEncryptionConfiguration=configuration)

    def _is_public(self, client: Any) -> bool:
        block = self._try(client, client.get_public_access_block)
        settings = (block or {}).get("PublicAccessBlockConfiguration", {})
        if settings.get("IgnorePublicAcls") and settings.get("RestrictPublicBuckets"):
            return False
        grants = (self._try(client, client.get_bucket_acl) or {}).get("Grants", [])
        if any(grant["Grantee"].get("URI", "").startswith(_EVERYBODY) for grant in grants):
            return True
        policy = self._try(client, client.get_bucket_policy_status) or {}
        return bool(policy.get("PolicyStatus", {}).get("IsPublic"))

    def _try(self, client: Any, call: Any, **options: Any) -> Any:
        """The answer; None where nothing of the kind is set, or the server does not know the question."""
        with self._translated("look at"):
            try:
                return call(Bucket=self._place.bucket, **options)
            except client.exceptions.ClientError as error:
                code = _code(error)
                if code in _NOT_THERE:
                    _logger.warning("bucket_setting_unknown", operation=call.__name__)
                elif not code.startswith("NoSuch"):
                    raise
                return None

    def _abort(self, client: Any, upload: dict[str, Any]) -> None:
        try:
            client.abort_multipart_upload(Bucket=self._place.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except client.exceptions.NoSuchUpload:  # Someone else was quicker.
            return

    def _client(self) -> Any:
        place, limits = self._place, self._limits
        boto3 = _boto3()
        from botocore.config import Config  # type: ignore[import-untyped]  # noqa: PLC0415  (optional, without types)

        credentials: dict[str, str | None] = {}
        if place.credentials is not None:
            credentials = {
                "aws_access_key_id": place.credentials.access_key_id,
                "aws_secret_access_key": place.credentials.secret_access_key,
                "aws_session_token": place.credentials.session_token,
            }
        config = Config(
            connect_timeout=limits.connect_timeout,
            read_timeout=limits.timeout,
            retries={"mode": "standard", "max_attempts": limits.retries + 1},
        )
        return boto3.client("s3", region_name=place.region, endpoint_url=place.endpoint, config=config, **credentials)

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        from botocore import exceptions  # type: ignore[import-untyped]  # noqa: PLC0415  (optional, without types)

        bucket = self._place.bucket
        try:
            yield
        except exceptions.ClientError as error:
            code = _code(error)
            if code in _REFUSED:
                raise StoragePermissionError(
                    f"S3 refused to {action} the bucket {bucket!r} ({code}): see that the credentials are right and "
                    "grant this"
                ) from None
            if code in _MISSING:
                raise StorageMissingError(
                    f"There is no bucket {bucket!r}: `data-layer storage init` makes it"
                ) from None
            raise StorageUnavailableError(f"S3 could not {action} the bucket {bucket!r} ({code})") from None
        except exceptions.BotoCoreError as error:
            raise StorageUnavailableError(
                f"S3 could not {action} the bucket {bucket!r} ({type(error).__name__}): see that its server runs and "
                "can be reached"
            ) from None


def _boto3() -> Any:
    require_extra("s3", "preparing a bucket, or signing with the identity of the machine,", "boto3")
    import boto3  # type: ignore[import-untyped]  # noqa: PLC0415  (optional, without types)

    return boto3


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) or "no code"
