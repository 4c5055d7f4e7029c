"""What obstore cannot do on S3, done with boto3: making private buckets, listing any key, ending broken uploads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from data_layer.errors import (
    PublicStorageError,
    StorageMissingError,
    StoragePermissionError,
    StorageUnavailableError,
)
from data_layer.extras import require_extra
from data_layer.observability.log import get_log
from data_layer.storage.object_store.failures import refusal
from data_layer.storage.object_store.limits import Limits
from data_layer.storage.object_store.listing import Page, listed_file
from data_layer.storage.object_store.s3_location import S3Location
from data_layer.storage.signing.s3 import S3Credentials

_MISSING = frozenset({"404", "NoSuchBucket", "NotFound"})
_WRONG_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_NOT_THERE = frozenset({"501", "NotImplemented", "MethodNotAllowed", "Unimplemented", "XNotImplemented"})
_UNSUPPORTED = frozenset({400, 405, 501})
_NOT_SET = frozenset(
    {
        *("NoSuchPublicAccessBlockConfiguration", "NoSuchBucketPolicy", "NoSuchLifecycleConfiguration"),
        *("NoSuchCORSConfiguration", "ServerSideEncryptionConfigurationNotFoundError"),
    }
)
_EVERYBODY = "http://acs.amazonaws.com/groups/global/"
_NOTHING_PUBLIC = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}

_making = threading.Lock()
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
        unknown: What the server does not know, or does not say to these credentials.
    """

    is_public: bool
    keeps_versions: bool
    expires_versions: bool
    aborts_uploads: bool
    allows_browsers: bool
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PageMark:
    """Where a page of a listing begins: at a token of the server, or behind a key. ``is_old``: listed as of 2006."""

    token: str | None = None
    after: str = ""
    is_old: bool = False

    def ask(self, client: Any, bucket: str, prefix: str) -> dict[str, Any]:
        """Fetch the page."""
        options: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        if self.is_old:
            return dict(client.list_objects(**options, **({"Marker": self.after} if self.after else {})))
        if self.token is not None:
            options["ContinuationToken"] = self.token
        elif self.after:
            options["StartAfter"] = self.after
        return dict(client.list_objects_v2(**options))

    def following(self, found: dict[str, Any], last: str | None) -> PageMark | None:
        """The mark of the next page; None at the end."""
        if not found.get("IsTruncated"):
            return None
        after = last or self.after
        token = found.get("NextContinuationToken")
        if self.is_old:
            return PageMark(after=after, is_old=True) if last is not None else None
        if token == self.token and last in {None, self.after}:  # The mark was ignored.
            return PageMark(after=after, is_old=True)
        return PageMark(token, after)


class S3Administration:
    """Blocking calls, for a thread of their own. Those that only operators make have a client each."""

    def __init__(self, place: S3Location, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        self._identity: Any = None
        self._shared: Any = None
        self._lock = threading.Lock()

    def create(self, *, allow_public: bool) -> Sequence[str]:
        """Make the bucket if it is missing, and see that it is private; what could not be learned or set."""
        client = self._client()
        unknown: list[str] = []
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
            block = {"PublicAccessBlockConfiguration": _NOTHING_PUBLIC}
            self._ask(client.put_public_access_block, "public access could not be blocked", unknown, **block)
        if is_new:
            self._encrypt_by_default(client, unknown)
        if not allow_public and self._is_public(client, unknown):
            raise PublicStorageError(
                f"the bucket {self._place.bucket!r} can be read by everybody: block its public access, or say "
                "--allow-public if this is meant"
            )
        return unknown

    def describe(self) -> BucketSettings:
        """How the bucket is set up; nothing is changed.

        Raises:
            StoragePermissionError: the credentials are wrong.
            MissingExtraError: boto3 is not installed.
        """
        client = self._client()
        unknown: list[str] = []

        def ask(call: Any, what: str) -> dict[str, Any]:
            return self._ask(call, f"{what} is not known", unknown) or {}

        versioning = ask(client.get_bucket_versioning, "whether old versions are kept")
        rules = ask(client.get_bucket_lifecycle_configuration, "what removes old versions and broken uploads")
        enabled = [rule for rule in rules.get("Rules", []) if rule.get("Status") == "Enabled"]
        cors = ask(client.get_bucket_cors, "whether browsers may upload").get("CORSRules", [])
        return BucketSettings(
            is_public=self._is_public(client, unknown),
            keeps_versions=versioning.get("Status") == "Enabled",
            expires_versions=any("NoncurrentVersionExpiration" in rule for rule in enabled),
            aborts_uploads=any("AbortIncompleteMultipartUpload" in rule for rule in enabled),
            allows_browsers=any("PUT" in rule.get("AllowedMethods", []) for rule in cors),
            unknown=tuple(unknown),
        )

    def page(self, prefix: str, mark: PageMark | None) -> tuple[Page, PageMark | None]:
        """One page of the objects whose keys begin with this, and the mark of the next one.

        Some servers say that there is more and not where it begins, ignore the mark, or list only in the older way.
        """
        client = self._shared_client()
        mark = mark or PageMark()
        with self._translated("list"):
            try:
                found = mark.ask(client, self._place.bucket, prefix)
            except client.exceptions.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if mark.is_old or not (status in _UNSUPPORTED or _code(error) in _NOT_THERE):
                    raise
                return [], PageMark(after=mark.after, is_old=True)
        contents = [item for item in found.get("Contents", []) if mark.token is not None or item["Key"] > mark.after]
        page = [listed_file(item["Key"], item["Size"], item["LastModified"]) for item in contents]
        return page, mark.following(found, contents[-1]["Key"] if contents else None)

    def delete(self, key: str) -> None:
        """Remove one object; nothing happens where there is none."""
        client = self._shared_client()
        with self._translated("delete from"):
            try:
                client.delete_object(Bucket=self._place.bucket, Key=key)
            except client.exceptions.ClientError as error:
                if _code(error) != "NoSuchKey":
                    raise

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
                if _code(error) in {"NoSuchBucket", *_WRONG_CREDENTIALS}:
                    raise
                if _code(error) != "NoSuchUpload":  # What rclone says where there never was one.
                    _logger.warning(
                        "abandoned_uploads_unknown", reason=f"the server does not list them ({_code(error)})"
                    )
        return aborted

    def credentials(self) -> S3Credentials:
        """Those of the machine or pod. They are kept, and fetched again before they expire.

        Raises:
            StoragePermissionError: there are none.
        """
        with self._translated("find credentials for"):
            if self._identity is None:
                self._identity = _boto3().Session().get_credentials()
            if self._identity is None:
                raise StoragePermissionError(
                    "there are no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the "
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

    def _encrypt_by_default(self, client: Any, unknown: list[str]) -> None:
        headers = self._place.encryption_headers
        if not headers:
            return
        algorithm, key = [*headers.values(), None][:2]
        rule = {"SSEAlgorithm": algorithm} | ({"KMSMasterKeyID": key} if key else {})
        configuration = {"Rules": [{"ApplyServerSideEncryptionByDefault": rule, "BucketKeyEnabled": True}]}
        options = {"ServerSideEncryptionConfiguration": configuration}
        self._ask(client.put_bucket_encryption, "encryption by default could not be set", unknown, **options)

    def _is_public(self, client: Any, unknown: list[str]) -> bool:
        block = self._ask(client.get_public_access_block, "whether public access is blocked is not known", unknown)
        settings = (block or {}).get("PublicAccessBlockConfiguration", {})
        if settings.get("IgnorePublicAcls") and settings.get("RestrictPublicBuckets"):
            return False
        acl = self._ask(client.get_bucket_acl, "whether its ACL lets everybody in is not known", unknown)
        if any(grant["Grantee"].get("URI", "").startswith(_EVERYBODY) for grant in (acl or {}).get("Grants", [])):
            return True
        policy = self._ask(
            client.get_bucket_policy_status, "whether its policy lets everybody in is not known", unknown
        )
        return bool((policy or {}).get("PolicyStatus", {}).get("IsPublic"))

    def _ask(self, call: Any, otherwise: str, unknown: list[str], **options: Any) -> Any:
        """The answer to an optional question; None where nothing of the kind is set, or it is ``unknown``.

        Servers that resemble S3 answer questions that they do not know with anything, also with BucketAlreadyExists.
        """
        from botocore import exceptions, parsers

        with self._translated("look at"):
            try:
                return call(Bucket=self._place.bucket, **options)
            except exceptions.ClientError as error:
                code = _code(error)
                if code in {"NoSuchBucket", *_WRONG_CREDENTIALS}:
                    raise
                if code in _NOT_SET:
                    return None
            except parsers.ResponseParserError:
                code = "not understood"
        unknown.append(f"{otherwise} ({code})")
        _logger.warning("bucket_setting_unknown", operation=call.__name__, code=code)
        return None

    def _abort(self, client: Any, upload: dict[str, Any]) -> None:
        try:
            client.abort_multipart_upload(Bucket=self._place.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except client.exceptions.NoSuchUpload:  # Someone else was quicker.
            return

    def close(self) -> None:
        """Let go of the connections; harmless, as they are made again when they are needed."""
        with self._lock:
            client, self._shared = self._shared, None
        if client is not None:
            client.close()

    def _shared_client(self) -> Any:
        """One client for what the service itself does, as it may be used by several threads."""
        with self._lock:
            if self._shared is None:
                self._shared = self._client()
            return self._shared

    def _client(self) -> Any:
        place, limits = self._place, self._limits
        boto3 = _boto3()
        from botocore.config import Config

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
            # Checksums that boto3 adds by itself are unknown to many servers that resemble S3.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # Credentials of the machine are remembered by a session, so those get a new one.
        session = boto3.Session() if place.credentials is None else _session()
        with _making:  # Two threads may not make clients of one session at once.
            return session.client(
                "s3", region_name=place.region, endpoint_url=place.endpoint, config=config, **credentials
            )

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        from botocore import exceptions, parsers

        bucket = self._place.bucket
        try:
            yield
        except exceptions.ClientError as error:
            code = _code(error)
            if code in _MISSING:
                raise StorageMissingError(
                    f"there is no bucket {bucket!r}: `data-layer storage init` makes it"
                ) from None
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            permanent = refusal(f"{action} the bucket {bucket!r}", status=status, code=code, text=_text(error))
            if permanent is not None:
                raise permanent from None
            raise StorageUnavailableError(
                f"S3 could not {action} the bucket {bucket!r} ({code}); this may pass"
            ) from None
        except parsers.ResponseParserError:
            raise StorageUnavailableError(
                f"S3 could not {action} the bucket {bucket!r}: its answer was not understood"
            ) from None
        except exceptions.BotoCoreError as error:
            name = type(error).__name__
            reason = "it did not answer in time" if "Timeout" in name else "the connection was refused or broke"
            raise StorageUnavailableError(
                f"S3 could not {action} the bucket {bucket!r} ({reason}, {name}): see that its server runs and can be "
                "reached; this may pass"
            ) from None


@cache
def _session() -> Any:
    """One for all clients with keys in the settings: it reads the descriptions of the services once, for 0.2 s."""
    return _boto3().Session()


def _boto3() -> Any:
    require_extra("s3", "preparing a bucket, or signing with the identity of the machine,", "boto3")
    import boto3

    return boto3


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) or "no code"


def _text(error: Any) -> str:
    """What the answer said, as XML again, in which the region of a bucket is looked for."""
    found = error.response.get("Error", {})
    return f"{found.get('Message', '')} <Region>{found.get('Region', '')}</Region>"
