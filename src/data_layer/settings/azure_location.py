"""Where a container of Azure Blob Storage is, read from a connection string."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from data_layer.errors import ConfigurationError

EMULATOR_ACCOUNT = "devstoreaccount1"
# Published by Microsoft for the emulator, and the same everywhere.
EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_EMULATOR_ENDPOINT = f"http://127.0.0.1:10000/{EMULATOR_ACCOUNT}"
_NAME = "AZURE_STORAGE_CONNECTION_STRING"


@dataclass(frozen=True, slots=True)
class AzureLocation:
    """A container, and what opens it: the account's key, a shared access signature, or the identity of the machine.

    Attributes:
        container: Its name.
        account: The name of the storage account.
        endpoint: The address of the account's blobs, without a slash at its end.
        account_key: In Base64.
        sas: A shared access signature, without a question mark.
        public_endpoint: The address of the account's blobs for clients; None: ``endpoint``.
    """

    container: str
    account: str
    endpoint: str
    account_key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    public_endpoint: str | None = None

    @property
    def url(self) -> str:
        """The address of the container, without a slash at its end."""
        return f"{self.endpoint}/{self.container}"

    @property
    def public_url(self) -> str:
        """The address of the container for clients, without a slash at its end."""
        return f"{(self.public_endpoint or self.endpoint).rstrip('/')}/{self.container}"

    @classmethod
    def of_account(cls, account: str, container: str) -> AzureLocation:
        """A container that the identity of the machine or pod opens."""
        return cls(container, account, f"https://{account}.blob.core.windows.net")

    @classmethod
    def of_connection_string(cls, text: str, container: str) -> AzureLocation:
        """A container of the account that a connection string names.

        Raises:
            ConfigurationError: it names none, or nothing that opens it. The message never quotes it.
        """
        parts = _parts(text)
        if parts.get("usedevelopmentstorage", "").lower() == "true":
            proxy = parts.get("developmentstorageproxyuri")
            endpoint = f"{proxy.rstrip('/')}:10000/{EMULATOR_ACCOUNT}" if proxy else _EMULATOR_ENDPOINT
            return cls(container, EMULATOR_ACCOUNT, endpoint, EMULATOR_KEY)
        endpoint = _endpoint(parts)
        account = parts.get("accountname") or _account_of(endpoint)
        key = parts.get("accountkey")
        sas = parts.get("sharedaccesssignature", "").removeprefix("?") or None
        if key is None and sas is None:
            raise ConfigurationError(f"{_NAME} has neither AccountKey nor SharedAccessSignature")
        if key is not None:
            _check_key(key)
        return cls(container, account, endpoint, key, None if key is not None else sas)


def _parts(text: str) -> dict[str, str]:
    parts = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, separator, value = part.partition("=")
        if not separator:
            raise ConfigurationError(f"{_NAME} is not of the form Name=value;Name=value")
        parts[name.strip().lower()] = value.strip()
    return parts


def _endpoint(parts: dict[str, str]) -> str:
    if "blobendpoint" in parts:
        endpoint = parts["blobendpoint"].rstrip("/")
        if urlsplit(endpoint).scheme not in {"http", "https"}:
            raise ConfigurationError(f"{_NAME}: BlobEndpoint must begin with https://")
        return endpoint
    if "accountname" not in parts:
        raise ConfigurationError(f"{_NAME} has neither AccountName nor BlobEndpoint")
    scheme = parts.get("defaultendpointsprotocol", "https")
    if scheme not in {"http", "https"}:
        raise ConfigurationError(f"{_NAME}: DefaultEndpointsProtocol must be https or http")
    return f"{scheme}://{parts['accountname']}.blob.{parts.get('endpointsuffix', 'core.windows.net')}"


def _account_of(endpoint: str) -> str:
    place = urlsplit(endpoint)
    return place.path.strip("/").split("/")[0] or (place.hostname or "").split(".")[0]


def _check_key(key: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ConfigurationError(f"{_NAME}: AccountKey is not Base64") from None
