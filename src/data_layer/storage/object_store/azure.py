"""``AzureStorage``: the ``Storage`` port on Azure Blob Storage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import obstore
from obstore.store import AzureStore

from data_layer.errors import NotSupportedByStorageError
from data_layer.extras import is_installed
from data_layer.settings.azure_location import AzureLocation
from data_layer.storage.arguments import check_flag
from data_layer.storage.keys import split_key
from data_layer.storage.object_store.adapter import ConditionKind, ObjectStorage
from data_layer.storage.object_store.azure_administration import AzureAdministration
from data_layer.storage.object_store.failures import translated
from data_layer.storage.object_store.limits import Limits
from data_layer.storage.object_store.listing import Page, fetched_pages, obstore_pages
from data_layer.storage.port import SignedMethod, SignedUrl
from data_layer.storage.signing import azure as signing
from data_layer.storage.signing.request import HeaderOverrides, SigningRequest, quoted

if TYPE_CHECKING:
    from obstore.store import AzureConfig


class AzureStorage(ObjectStorage):
    """Files in a container."""

    backend = "azure"
    # Microsoft's library sends 64 MiB at once. Half of it is still through in the time limit at 10 Mbit/s.
    one_request = 32 * 1024 * 1024

    def __init__(
        self, place: AzureLocation, *, max_file_size: int, cdn_url: str | None = None, limits: Limits | None = None
    ) -> None:
        """Nothing is touched before ``initialize``.

        Args:
            place: The container.
            max_file_size: Bytes that one file may have; MAX_FILE_SIZE.
            cdn_url: Address of Azure CDN or Front Door in front of the container, without a slash at its end.
            limits: Of waiting and repeating.
        """
        super().__init__(max_file_size=max_file_size)
        self._place = place
        self._cdn_url = cdn_url
        self._limits = limits or Limits()
        self._administration = AzureAdministration(place, self._limits)

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

        Azure does not verify the content type of what is stored: look at it afterwards.
        """
        request = SigningRequest.checked(
            key,
            method,
            expires_in,
            HeaderOverrides(content_type, content_disposition, content_encoding, cache_control),
            size,
        )
        place = self._place
        base_url = self._cdn_url if self._cdn_url is not None and method == "GET" else place.public_url
        if place.account_key is not None:
            return signing.sign(
                request,
                base_url=base_url,
                account=place.account,
                account_key=place.account_key,
                container=place.container,
            )
        if place.sas is not None:
            raise NotSupportedByStorageError(
                "a shared access signature cannot sign URLs: give AZURE_STORAGE_CONNECTION_STRING an AccountKey"
            )
        if method == "GET" and request.headers != HeaderOverrides():
            raise NotSupportedByStorageError(
                "With a managed identity, a signed URL cannot set the headers of the answer: give "
                "AZURE_STORAGE_CONNECTION_STRING an AccountKey"
            )
        with translated(key, "sign a URL for"):
            url = await obstore.sign_async(cast("AzureStore", self._store), method, key, expires_in)
        query = url.partition("?")[2]
        return SignedUrl(
            f"{base_url}/{quoted(key)}?{query}", method, signing.upload_headers(request), request.expires_at
        )

    async def close(self) -> None:
        """Let go of all connections; see `ObjectStorage.close`."""
        await super().close()
        self._administration.close()

    def pages(self, prefix: str) -> AsyncGenerator[Page]:
        """The blobs; see `ObjectStorage.pages`."""
        store = self._store
        has_key = self._place.account_key is not None or self._place.sas is not None
        if not has_key or not is_installed("azure.storage.blob"):
            return obstore_pages(store, prefix)
        return fetched_pages(self._administration.page, prefix)

    async def create(self, *, allow_public: bool = False) -> Sequence[str]:
        """Make the container, private; see `StorageAdministration.create`. Needs the extra ``azure``."""
        check_flag(allow_public, field="allow_public")
        await asyncio.to_thread(self._administration.create, allow_public=allow_public)
        return ()

    def connect(self, *, anonymously: bool = False) -> AzureStore:
        """A client; see `ObjectStorage.connect`."""
        place = self._place
        config: AzureConfig = {"account_name": place.account, "endpoint": place.endpoint}
        if anonymously:
            config["skip_signature"] = True
        elif place.account_key is not None:
            config["account_key"] = place.account_key
        elif place.sas is not None:
            config["sas_key"] = place.sas
        return AzureStore(
            place.container,
            config=config,
            client_options=self._limits.client_options(allow_http=place.endpoint.startswith("http:")),
            retry_config=self._limits.retry_config(),
        )

    async def _require_conditions(self, kind: ConditionKind) -> None:
        """Azure keeps all conditions."""
