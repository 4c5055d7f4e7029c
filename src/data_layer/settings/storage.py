"""The settings of the storage: a part of ``Settings`` with its own rules. Those of unused backends do not matter.

What may be stored, and what is made of it, is a part of its own.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from data_layer.environment import check_visible, is_local, split_host
from data_layer.errors import ConfigurationError
from data_layer.settings.azure_location import EMULATOR_ACCOUNT, EMULATOR_KEY, AzureLocation
from data_layer.settings.part import ANY_CASE, MediaTypes, PixelSizes, Seconds, SettingsPart
from data_layer.settings.strength import password_weakness

# Of MinIO, LocalStack, Ceph, Garage and the rest.
_DEFAULT_LOGINS_OF_S3 = ("minioadmin", "minio", "minio123", "localstack", "rustfsadmin", "seaweedfs", "garage", "ceph")


def _check_web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
        check_visible(unquote(value))
        split_host(f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "")
    except ValueError:
        raise ValueError("is not an address; write it as https://host/path") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be of the form https://host/path, without login and query")
    return value.rstrip("/")


BackendName = Annotated[Literal["local", "azure", "s3"], ANY_CASE]
WebAddress = Annotated[str, AfterValidator(_check_web_address)]


class StorageSettings(SettingsPart):
    """Where files are kept, how they are reached, and how long is waited for them."""

    # Storage
    storage_backend: BackendName = Field("local", description="Where files are kept.")
    storage_second_backend: BackendName | None = Field(
        None, description="Backend that files may still be in while `data-layer storage migrate` moves them."
    )
    max_file_size: int = Field(52_428_800, ge=1, le=5 * 2**40, description="Largest file, in bytes.")
    local_storage_path: Path = Field(Path("./uploads"), description="Folder of the local storage.")
    storage_connect_timeout: float = Field(
        5, gt=0, le=60, description="Seconds to wait for a connection to S3 or Azure."
    )
    storage_timeout: float = Field(
        30, gt=0, le=600, description="Seconds to wait for the answer to one request, and for each piece of a download."
    )
    storage_retries: int = Field(
        3, ge=0, le=10, description="How often a request to S3 or Azure that is safe to repeat is repeated."
    )

    # Addresses of stored files
    public_url: WebAddress | None = Field(
        None, description="Address under which clients reach this service. Default: URLs of local files are relative."
    )
    storage_signing_secret: SecretStr | None = Field(
        None,
        description="Key under which URLs of local files are signed; 32 characters or more. Default: derived from "
        "SESSION_SECRET.",
    )
    storage_signing_secret_previous: SecretStr | None = Field(
        None, description="The key before, which is still accepted; remove it a week after a change."
    )

    # Storage on Azure Blob Storage
    azure_storage_connection_string: SecretStr | None = Field(
        None, description="With AccountKey or SharedAccessSignature; UseDevelopmentStorage=true for the emulator."
    )
    azure_storage_account: str | None = Field(
        None,
        pattern=r"^[a-z0-9]{3,24}$",
        description="Account that is opened with the identity of the machine or pod, instead of a connection string.",
    )
    azure_storage_container_name: str = Field(
        "screenshots", pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$", description="Container of the files."
    )
    azure_storage_public_endpoint_url: WebAddress | None = Field(
        None,
        description="Address under which browsers reach the account's blobs, for signed URLs only. Default: that of "
        "the connection string or the account.",
    )
    azure_storage_cdn_url: WebAddress | None = Field(
        None, description="Address of Azure CDN or Front Door in front of the container."
    )

    # Storage on Amazon S3 and servers like it
    aws_s3_bucket: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Bucket of the files."
    )
    aws_region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,40}$", description="Region of the bucket.")
    aws_access_key_id: str | None = Field(
        None, min_length=1, description="Access key. Default: the role of the machine or pod."
    )
    aws_secret_access_key: SecretStr | None = Field(None, description="Secret that belongs to the access key.")
    aws_session_token: SecretStr | None = Field(None, description="Token that belongs to a temporary access key.")
    aws_endpoint_url: WebAddress | None = Field(
        None, description="Address of another server that speaks S3, such as MinIO. Default: Amazon's."
    )
    aws_s3_public_endpoint_url: WebAddress | None = Field(
        None,
        description="Address under which browsers reach that server, for signed URLs only. Default: AWS_ENDPOINT_URL.",
    )
    aws_s3_cdn_url: WebAddress | None = Field(None, description="Address of CloudFront in front of the bucket.")
    aws_cloudfront_key_pair_id: str | None = Field(
        None, min_length=1, description="Id of the public key with which CloudFront verifies signed URLs."
    )
    aws_cloudfront_private_key: Path | None = Field(
        None, description="File with the private key for them (RSA, PEM, without a password)."
    )
    aws_s3_encryption: Literal["none", "sse-s3", "sse-kms"] = Field(
        "none", description="Encryption that S3 is asked to use; none: whatever the bucket does by itself."
    )
    aws_s3_kms_key_id: str | None = Field(
        None, min_length=1, description="Key for sse-kms. Default: the account's own key for S3."
    )

    @property
    def azure_location(self) -> AzureLocation:
        """The container.

        Raises:
            ConfigurationError: the connection string cannot be used.
        """
        if self.azure_storage_connection_string is not None:
            place = AzureLocation.of_connection_string(
                self.azure_storage_connection_string.get_secret_value(), self.azure_storage_container_name
            )
        else:
            place = AzureLocation.of_account(self.azure_storage_account or "", self.azure_storage_container_name)
        return replace(place, public_endpoint=self.azure_storage_public_endpoint_url)

    @property
    def second(self) -> StorageSettings | None:
        """The settings of the second storage; None where STORAGE_SECOND_BACKEND names none, or the same one."""
        return None if self.storage_second_backend == self.storage_backend else self._of_second()

    def contradictions(self) -> list[str]:
        """Return what makes the chosen backends unusable anywhere."""
        problems = self.backend_contradictions()
        if (second := self._of_second()) is not None:
            wanted = ("STORAGE_BACKEND is", "STORAGE_SECOND_BACKEND is")
            problems += [problem.replace(*wanted) for problem in second.contradictions()]
        return problems

    def unfit(self) -> list[str]:
        """Return what production refuses in the chosen backends."""
        problems = self._own_unfit()
        if (second := self._of_second()) is not None:
            problems += [problem for problem in second.unfit() if problem not in problems]
        return problems

    def _of_second(self) -> StorageSettings | None:
        if self.storage_second_backend is None:
            return None
        # `contradictions` of these settings include those of the second.
        return self.unchecked(storage_backend=self.storage_second_backend, storage_second_backend=None)

    def backend_contradictions(self) -> list[str]:
        """Return what makes the chosen backend unusable, whatever the second one is."""
        match self.storage_backend:
            case "azure":
                return self._azure_contradictions()
            case "s3":
                return self._s3_contradictions()
            case _:
                return self._local_contradictions()

    def _own_unfit(self) -> list[str]:
        problems = self._weak_keys() if self.storage_backend == "s3" else []
        for name, address in self._addresses().items():
            if address.startswith("http:") and not is_local(urlsplit(address).hostname):
                problems.append(f"{name} must begin with https:// in production")
        if self.storage_backend == "azure" and not self._azure_contradictions():
            place = self.azure_location
            if place.account_key == EMULATOR_KEY or place.account == EMULATOR_ACCOUNT:
                problems.append("AZURE_STORAGE_CONNECTION_STRING leads to the emulator, whose key everybody knows")
            elif place.endpoint.startswith("http:") and not is_local(urlsplit(place.endpoint).hostname):
                problems.append("AZURE_STORAGE_CONNECTION_STRING must use https in production")
        return problems

    def _local_contradictions(self) -> list[str]:
        if self.storage_signing_secret_previous is not None and self.storage_signing_secret is None:
            return ["STORAGE_SIGNING_SECRET_PREVIOUS is set, but STORAGE_SIGNING_SECRET is not"]
        return []

    def _azure_contradictions(self) -> list[str]:
        if self.azure_storage_connection_string is None:
            if self.azure_storage_account is None:
                return [
                    "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT must be set: STORAGE_BACKEND is azure"
                ]
            return []
        if self.azure_storage_account is not None:
            return ["AZURE_STORAGE_CONNECTION_STRING and AZURE_STORAGE_ACCOUNT are both set; keep one of them"]
        try:
            _ = self.azure_location
        except ConfigurationError as error:
            return list(error.problems)
        return []

    def _s3_contradictions(self) -> list[str]:
        problems = []
        if self.aws_s3_bucket is None:
            problems.append("AWS_S3_BUCKET must be set: STORAGE_BACKEND is s3")
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            problems.append("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together; set both or neither")
        elif self.aws_session_token is not None and self.aws_access_key_id is None:
            problems.append("AWS_SESSION_TOKEN is set, but AWS_ACCESS_KEY_ID is not")
        if self.aws_s3_kms_key_id is not None and self.aws_s3_encryption != "sse-kms":
            problems.append("AWS_S3_KMS_KEY_ID is set, but AWS_S3_ENCRYPTION is not sse-kms")
        return problems + self._cloudfront_contradictions()

    def _cloudfront_contradictions(self) -> list[str]:
        key = self.aws_cloudfront_private_key
        if (self.aws_cloudfront_key_pair_id is None) != (key is None):
            return ["AWS_CLOUDFRONT_KEY_PAIR_ID and AWS_CLOUDFRONT_PRIVATE_KEY belong together; set both or neither"]
        problems = []
        if key is not None and self.aws_s3_cdn_url is None:
            problems.append("AWS_CLOUDFRONT_PRIVATE_KEY is set, but AWS_S3_CDN_URL is not")
        if key is not None and not os.access(key, os.R_OK):
            problems.append(f"AWS_CLOUDFRONT_PRIVATE_KEY: there is no readable file {str(key)!r}")
        return problems

    def signing_secrets(self) -> list[tuple[str, str]]:
        """The keys of signed addresses with the names of their settings."""
        names = ("storage_signing_secret", "storage_signing_secret_previous")
        secrets: dict[str, SecretStr | None] = {name: getattr(self, name) for name in names}
        return [(name.upper(), secret.get_secret_value()) for name, secret in secrets.items() if secret is not None]

    def _weak_keys(self) -> list[str]:
        if self.aws_secret_access_key is None:
            return []
        names = {self.aws_access_key_id or "", self.aws_s3_bucket or "", *_DEFAULT_LOGINS_OF_S3}
        weakness = password_weakness(self.aws_secret_access_key.get_secret_value(), names)
        return [f"AWS_SECRET_ACCESS_KEY {weakness}; let the server make one"] if weakness else []

    def _addresses(self) -> dict[str, str]:
        names = {
            "local": ("public_url",),
            "azure": ("azure_storage_cdn_url", "azure_storage_public_endpoint_url"),
            "s3": ("aws_endpoint_url", "aws_s3_cdn_url", "aws_s3_public_endpoint_url"),
        }[self.storage_backend]
        return {name.upper(): address for name in names if (address := getattr(self, name)) is not None}


class FileSettings(SettingsPart):
    """What may be stored, and what is made of it."""

    # Files
    allowed_file_types: MediaTypes = Field(
        ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"),
        min_length=1,
        description="Types of files that users may store, recognised by content and separated by commas.",
    )
    upload_expires_in: Seconds = Field(
        900, description="Seconds that the signed URL of a direct upload works; an hour later the upload is abandoned."
    )
    image_max_pixels: int = Field(200_000_000, ge=1, le=500_000_000, description="Pixels that an image may have.")
    image_memory_limit: int = Field(
        256 * 1024 * 1024,
        ge=16 * 1024 * 1024,
        description="Bytes of memory for decoding images, all at once in one process, and at most a third of the "
        "container's; an image that needs more is stored without thumbnails.",
    )
    image_max_frames: int = Field(500, ge=1, le=10_000, description="Frames of one animation, at most.")
    image_time_limit: Seconds = Field(10, description="Seconds that decoding one image may take.")
    image_thumbnail_sizes: PixelSizes = Field(
        (200, 800), description="Longest sides of thumbnails in pixels, separated by commas; 'none' makes none."
    )
    image_remove_metadata: Annotated[Literal["none", "location", "all"], ANY_CASE] = Field(
        "none", description="What is removed from images: none, location (where they were taken), or all of EXIF."
    )
