"""``S3Storage``: the ``Storage`` port on Amazon S3 and the servers that resemble it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

from data_layer.errors import FileExistsInStorageError, NotSupportedByStorageError
from data_layer.storage.conditions import Condition
from data_layer.storage.keys import split_key
from data_layer.storage.object_store.adapter import ObjectStorage
from data_layer.storage.object_store.failures import translated
from data_layer.storage.object_store.limits import Limits
from data_layer.storage.object_store.listing import STAGING
from data_layer.storage.object_store.s3_administration import BucketSettings, S3Administration
from data_layer.storage.object_store.s3_place import ALGORITHMS, S3Place
from data_layer.storage.signing import s3 as signing
from data_layer.storage.signing.terms import Answer, Terms, quoted

if TYPE_CHECKING:
    from datetime import timedelta

    from obstore.store import ObjectStore, S3Config

    from data_layer.storage.port import SignedMethod, SignedUrl
    from data_layer.storage.signing.cloudfront import CloudFrontSigner

_ONLY_IF_ABSENT = "header-with-status:If-None-Match:*:412"


class S3Storage(ObjectStorage):
    """Files in a bucket."""

    backend = "s3"

    def __init__(
        self,
        place: S3Place,
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
        self._keeps_conditions: dict[bool, bool] = {}

    def url(self, key: str) -> str:
        """The address of a file; see `StorageUrls.url`."""
        split_key(key)
        return f"{self._cdn_url or self._place.url}/{quoted(key)}"

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
        terms = Terms.checked(
            key, method, expires_in, Answer(content_type, content_disposition, content_encoding, cache_control), size
        )
        if method == "GET" and self._cloudfront is not None and self._cdn_url is not None:
            return self._cloudfront.sign(terms, base_url=self._cdn_url)
        credentials = self._place.credentials
        if credentials is None:
            credentials = await asyncio.to_thread(self._administration.credentials)
        headers = self._place.encryption_headers if method == "PUT" else {}
        return signing.sign(
            terms, base_url=self._place.url, region=self._place.region, credentials=credentials, headers=headers
        )

    async def describe(self) -> BucketSettings:
        """How the bucket is set up. Needs the extra ``s3``, and rights that the service itself can do without."""
        return await asyncio.to_thread(self._administration.describe)

    async def create(self, *, allow_public: bool = False) -> None:
        """Make the bucket, private; see `StorageAdministration.create`. Needs the extra ``s3``."""
        await asyncio.to_thread(self._administration.create, allow_public=allow_public)

    async def remove_abandoned_uploads(self, *, older_than: timedelta) -> int:
        """Remove the parts of broken uploads. Needs the extra ``s3``."""
        parts = await asyncio.to_thread(self._administration.abort_uploads, older_than)
        return parts + await super().remove_abandoned_uploads(older_than=older_than)

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

    async def _require_conditions(self, *, of_copies: bool = False) -> None:
        if of_copies not in self._keeps_conditions:
            self._keeps_conditions[of_copies] = await self._try_condition(of_copies=of_copies)
        if not self._keeps_conditions[of_copies]:
            raise NotSupportedByStorageError(
                "This server ignores the condition not to overwrite: use keys that nobody else uses, like random ones"
            )

    async def _try_condition(self, *, of_copies: bool) -> bool:
        """Whether the server keeps from overwriting what is there, tried with a tiny file."""
        key, condition = f"{STAGING}/condition-{token_hex(8)}", Condition(overwrite=False)
        other = f"{key}-source" if of_copies else key
        with translated(key, "try a condition with"):
            await obstore.put_async(self._store, key, b"")
            await obstore.put_async(self._store, other, b"")
        try:
            with translated(key, "try a condition with", condition), suppress(obstore.exceptions.NotSupportedError):
                if of_copies:
                    await obstore.copy_async(self._store, other, key, overwrite=False)
                else:
                    await obstore.put_async(self._store, key, b"", mode="create")
        except FileExistsInStorageError:
            return True
        finally:
            with translated(key, "remove"):
                await obstore.delete_async(self._store, list({key, other}))
        return False
