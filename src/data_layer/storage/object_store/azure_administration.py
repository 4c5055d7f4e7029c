"""What obstore cannot do on Azure, done with Microsoft's library: making a container, and seeing that it is private."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_layer.errors import (
    PublicStorageError,
    StoragePermissionError,
    StorageUnavailableError,
)
from data_layer.extras import require_extra
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from data_layer.settings.azure_place import AzurePlace
    from data_layer.storage.object_store.limits import Limits

_logger = get_log(__name__)


class AzureAdministration:
    """Blocking calls, for a thread of their own."""

    def __init__(self, place: AzurePlace, limits: Limits) -> None:
        self._place = place
        self._limits = limits

    def create(self, *, allow_public: bool) -> None:
        """Make the container if it is missing, and see that it is private."""
        container = self._client()
        from azure.core import exceptions  # noqa: PLC0415  (optional)

        name = self._place.container
        try:
            with container:
                if not container.exists():
                    container.create_container()
                    _logger.info("container_created", container=name)
                is_public = container.get_container_properties().public_access is not None
        except exceptions.HttpResponseError as error:
            code = getattr(error, "error_code", None) or error.status_code
            if error.status_code in {401, 403}:
                raise StoragePermissionError(
                    f"Azure refused to make the container {name!r} ({code}): see that the credentials are right and "
                    "grant this on the account; or make it by hand, without public access"
                ) from None
            raise StorageUnavailableError(f"Azure could not make the container {name!r} ({code})") from None
        except exceptions.AzureError as error:
            raise StorageUnavailableError(
                f"Azure could not make the container {name!r} ({type(error).__name__}): see that the account exists "
                "and can be reached"
            ) from None
        if is_public and not allow_public:
            raise PublicStorageError(
                f"The container {name!r} can be read by everybody: set its access level to private, or say "
                "--allow-public if this is meant"
            )

    def _client(self) -> Any:
        require_extra("azure", "preparing a container", "azure.storage.blob")
        from azure.storage.blob import ContainerClient, ExponentialRetry  # noqa: PLC0415  (optional)

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
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415  (optional)

    return DefaultAzureCredential()
