"""What obstore cannot do on Azure, done with Microsoft's library: making containers, and listing any name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data_layer.errors import PublicStorageError, StorageUnavailableError
from data_layer.extras import require_extra
from data_layer.observability.log import get_log
from data_layer.settings.azure_location import AzureLocation
from data_layer.storage.object_store.failures import MISSING_PLACE, missing_place, refusal
from data_layer.storage.object_store.limits import Limits
from data_layer.storage.object_store.listing import Page, listed_file

_PAGE = 1000

_logger = get_log(__name__)


class AzureAdministration:
    """Blocking calls, for a thread of their own."""

    def __init__(self, place: AzureLocation, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        self._open_client: Any = None

    def create(self, *, allow_public: bool) -> None:
        """Make the container if it is missing, and see that it is private."""
        container = self._client()
        name = self._place.container
        with self._translated("make"), container:
            if not container.exists():
                container.create_container()
                _logger.info("container_created", container=name)
            is_public = container.get_container_properties().public_access is not None
        if is_public and not allow_public:
            raise PublicStorageError(
                f"the container {name!r} can be read by everybody: set its access level to private, or say "
                "--allow-public if this is meant"
            )

    def close(self) -> None:
        """Let go of the connections; harmless, as they are made again when they are needed."""
        client, self._open_client = self._open_client, None
        if client is not None:
            client.close()

    def page(self, prefix: str, mark: str | None) -> tuple[Page, str | None]:
        """One page of the blobs whose names begin with this, and the mark of the next one."""
        if self._open_client is None:
            self._open_client = self._client()
        with self._translated("list"):
            found = self._open_client.list_blobs(name_starts_with=prefix or None, results_per_page=_PAGE)
            pages = found.by_page(continuation_token=mark)
            blobs = next(pages, ())
            page = [listed_file(blob.name, blob.size, blob.last_modified) for blob in blobs]
            return page, pages.continuation_token or None

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        from azure.core import exceptions

        name = self._place.container
        try:
            yield
        except exceptions.HttpResponseError as error:
            code, status = getattr(error, "error_code", None), error.status_code
            if code in MISSING_PLACE:
                raise missing_place() from None
            permanent = refusal(f"{action} the container {name!r}", status=status, code=code, text=str(error))
            if permanent is not None:
                raise permanent from None
            raise StorageUnavailableError(
                f"Azure could not {action} the container {name!r} ({code or status}); this may pass"
            ) from None
        except exceptions.AzureError as error:
            raise StorageUnavailableError(
                f"Azure could not {action} the container {name!r} ({type(error).__name__}): see that the account "
                "exists and can be reached"
            ) from None

    def _client(self) -> Any:
        require_extra("azure", "preparing a container", "azure.storage.blob")
        from azure.storage.blob import ContainerClient, ExponentialRetry

        place, limits = self._place, self._limits
        credential: Any = place.account_key or place.sas or _identity()
        if place.account_key is not None:
            credential = {"account_name": place.account, "account_key": place.account_key}
        return ContainerClient(
            place.endpoint,
            place.container,
            credential=credential,
            connection_timeout=limits.connect_timeout,
            read_timeout=limits.timeout,
            retry_policy=ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=limits.retries),
        )


def _identity() -> Any:
    require_extra("azure", "preparing a container with the identity of the machine", "azure.identity")
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()
