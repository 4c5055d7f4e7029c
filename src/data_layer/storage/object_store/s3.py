"""``S3Storage``: the ``Storage`` port on Amazon S3 and the servers that resemble it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import timedelta
from secrets import token_hex
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, S3Store

from data_layer.errors import FileExistsInStorageError, NotSupportedByStorageError, StorageRefusedError
from data_layer.extras import is_installed
from data_layer.observability.log import get_log
from data_layer.storage.arguments import Condition, check_age, check_flag
from data_layer.storage.keys import split_key
from data_layer.storage.object_store.adapter import ConditionKind, ObjectStorage, in_turns
from data_layer.storage.object_store.failures import is_refusal, translated
from data_layer.storage.object_store.limits import Limits
from data_layer.storage.object_store.listing import STAGING, Page, fetched_pages, obstore_pages
from data_layer.storage.object_store.s3_administration import BucketSettings, S3Administration
from data_layer.storage.object_store.s3_location import ALGORITHMS, S3Location
from data_layer.storage.port import SignedMethod, SignedUrl
from data_layer.storage.signing import s3 as signing
from data_layer.storage.signing.cloudfront import CloudFrontSigner
from data_layer.storage.signing.request import HeaderOverrides, SigningRequest, quoted

if TYPE_CHECKING:
    from obstore.store import S3Config

_QUOTE = '"'
_CONDITIONS = {
    "create": "not to overwrite",
    "replace": "to replace one version only",
    "copy": "not to overwrite when it copies",
}
_ONLY_IF_ABSENT = "header-with-status:If-None-Match:*:412"

_logger = get_log(__name__)


class S3Storage(ObjectStorage):
    """Files in a bucket."""

    backend = "s3"

    def __init__(
        self,
        place: S3Location,
        *,
        max_file_size: int,
        cdn_url: str | None = None,
        cloudfront: CloudFrontSigner | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Nothing is touched before ``initialize``.

        Args:
            place: The bucket.
            max_file_size: Bytes that one file may have; MAX_FILE_SIZE.
            cdn_url: Address of a CDN in front of the bucket, without a slash at its end.
            cloudfront: Signs URLs for reading through CloudFront; without it they lead to the bucket itself.
            limits: Of waiting and repeating.
        """
        super().__init__(max_file_size=max_file_size)
        self._place = place
        self._cdn_url = cdn_url
        self._cloudfront = cloudfront
        self._limits = limits or Limits()
        self._administration = S3Administration(place, self._limits)
        self._keeps_conditions: dict[ConditionKind, bool] = {}
        self._trying = asyncio.Lock()
        self._deletes_many: bool | None = None

    def url(self, key: str) -> str:
        """The address of a file; see `StorageUrls.url`."""
        split_key(key)
        return f"{self._cdn_url or self._place.public_url}/{quoted(key)}"

    async def signed_url(
        self,
        key: str,
        *,
        method: SignedMethod = "GET",
        expires_in: timedelta,
        content_type: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        cache_control: str | None = None,
        size: int | None = None,
    ) -> SignedUrl:
        """Permission to read or store one file; see `StorageUrls.signed_url`.

        Where the credentials are those of the machine, and expire earlier than the URL, it expires with them.
        """
        request = SigningRequest.checked(
            key,
            method,
            expires_in,
            HeaderOverrides(content_type, content_disposition, content_encoding, cache_control),
            size,
        )
        if method == "GET" and self._cloudfront is not None and self._cdn_url is not None:
            return self._cloudfront.sign(request, base_url=self._cdn_url)
        credentials = self._place.credentials
        if credentials is None:
            credentials = await asyncio.to_thread(self._administration.credentials)
        headers = self._place.encryption_headers if method == "PUT" else {}
        return signing.sign(
            request,
            base_url=self._place.public_url,
            region=self._place.region,
            credentials=credentials,
            headers=headers,
        )

    async def describe(self) -> BucketSettings:
        """How the bucket is set up. Needs the extra ``s3``, and rights that the service itself can do without."""
        return await asyncio.to_thread(self._administration.describe)

    async def create(self, *, allow_public: bool = False) -> Sequence[str]:
        """Make the bucket, private; see `StorageAdministration.create`. Needs the extra ``s3``."""
        check_flag(allow_public, field="allow_public")
        return await asyncio.to_thread(self._administration.create, allow_public=allow_public)

    async def remove_abandoned_uploads(self, *, older_than: timedelta) -> int:
        """Remove the parts of broken uploads. Needs the extra ``s3``."""
        check_age(older_than, field="older_than")
        parts = await asyncio.to_thread(self._administration.abort_uploads, older_than)
        return parts + await super().remove_abandoned_uploads(older_than=older_than)

    async def close(self) -> None:
        """Let go of all connections; see `ObjectStorage.close`."""
        await super().close()
        self._administration.close()

    def connect(self, *, anonymously: bool = False) -> ObjectStore:
        """A client; see `ObjectStorage.connect`."""
        place = self._place
        config: S3Config = {"region": place.region, "copy_if_not_exists": _ONLY_IF_ABSENT}
        config["virtual_hosted_style_request"] = place.has_own_host
        if place.endpoint is not None:
            config["endpoint"] = place.endpoint
        if anonymously:
            config["skip_signature"] = True
        elif place.credentials is not None:
            config["access_key_id"] = place.credentials.access_key_id
            config["secret_access_key"] = place.credentials.secret_access_key
            if place.credentials.session_token is not None:
                config["session_token"] = place.credentials.session_token
        if place.encryption != "none":
            config["server_side_encryption"] = ALGORITHMS[place.encryption]
            if place.kms_key_id is not None:
                config["sse_kms_key_id"] = place.kms_key_id
        allow_http = place.endpoint is not None and place.endpoint.startswith("http:")
        return S3Store(
            place.bucket,
            config=config,
            client_options=self._limits.client_options(allow_http=allow_http),
            retry_config=self._limits.retry_config(),
        )

    def pages(self, prefix: str) -> AsyncGenerator[Page]:
        """The objects; see `ObjectStorage.pages`."""
        store = self._store
        if not is_installed("boto3"):
            return obstore_pages(store, prefix)
        return fetched_pages(self._administration.page, prefix)

    async def remove_objects(self, keys: Sequence[str], store: ObjectStore | None = None) -> None:
        """Remove objects, many in one request where the server can; see `ObjectStorage.remove_objects`.

        Google's and Alibaba's interfaces lack this request, which obstore sends for a single object, too. Whether the
        server has it is seen at the first removal: by its answer, and by the object, which has to be gone.
        """
        if self._deletes_many is not False and await self._delete_many(keys, store or self._store):
            return
        await in_turns(lambda key: asyncio.to_thread(self._administration.delete, key), keys)
        if self._deletes_many is None:
            _logger.info("objects_are_deleted_one_by_one", reason="the server does not delete many at once")
            self._deletes_many = False

    async def _delete_many(self, keys: Sequence[str], store: ObjectStore) -> bool:
        with translated(keys[0], "delete"):
            try:
                await obstore.delete_async(store, list(keys))
            except (BaseError, FileNotFoundError) as error:
                if self._deletes_many or not (isinstance(error, FileNotFoundError) or is_refusal(error)):
                    raise
                return False
            if self._deletes_many is None:
                with suppress(FileNotFoundError):
                    await obstore.head_async(store, keys[0])
                    return False
                self._deletes_many = True
        return True

    async def _require_conditions(self, kind: ConditionKind) -> None:
        async with self._trying:  # One of several callers tries, for all of them.
            if kind not in self._keeps_conditions:
                self._keeps_conditions[kind] = await self._try_condition(kind)
        if not self._keeps_conditions[kind]:
            raise NotSupportedByStorageError(
                f"this server ignores the condition {_CONDITIONS[kind]}: use keys that nobody else uses, like "
                "random ones"
            )

    async def _try_condition(self, kind: ConditionKind) -> bool:
        """Whether the server keeps from overwriting what is there, tried with a tiny file."""
        key = f"{STAGING}/condition-{token_hex(8)}"
        written: list[str] = []
        try:
            with translated(key, "try a condition with"):
                for place in (key, f"{key}-source"):
                    result = await obstore.put_async(self._store, place, b"")
                    written.append(place)
                etag = str(result["e_tag"] or "")
            refused = await self._is_refused(kind, key, "no-such-version")
            if kind == "replace":
                return refused is True and await self._is_refused(kind, f"{key}-source", etag) is False
            return refused is True
        finally:
            if written:
                await self.remove_objects(written)

    async def _is_refused(self, kind: ConditionKind, key: str, etag: str) -> bool | None:
        """Whether a write is refused because its condition does not hold; None where it is for another reason."""
        condition = Condition(overwrite=False)
        try:
            with translated(key, "try a condition with", condition):
                match kind:
                    case "copy":
                        await obstore.copy_async(self._store, f"{key}-source", key, overwrite=False)
                    case "create":
                        await obstore.put_async(self._store, key, b"", mode="create")
                    case "replace":
                        wanted = f'"{etag.strip(_QUOTE)}"'
                        await obstore.put_async(self._store, key, b"", mode={"e_tag": wanted})
        except FileExistsInStorageError:
            return True
        except (NotSupportedByStorageError, StorageRefusedError):
            return None
        return False
