"""The storage that the settings choose."""

from __future__ import annotations

from pydantic import SecretStr

from data_layer.settings.storage import StorageSettings
from data_layer.storage.local import LocalStorage
from data_layer.storage.object_store.azure import AzureStorage
from data_layer.storage.object_store.limits import Limits
from data_layer.storage.object_store.s3 import S3Storage
from data_layer.storage.object_store.s3_location import S3Location
from data_layer.storage.port import StorageBackend
from data_layer.storage.signing.cloudfront import CloudFrontSigner
from data_layer.storage.signing.local import LocalUrlSigner
from data_layer.storage.signing.s3 import S3Credentials


def make_storage(settings: StorageSettings, session_secret: SecretStr) -> StorageBackend:
    """A storage that is not open yet.

    Args:
        settings: which storage, and how it is reached
        session_secret: signs URLs of local files where STORAGE_SIGNING_SECRET is not set

    Raises:
        ConfigurationError: a file that the settings name cannot be used.
    """
    if settings.storage_backend != "local":
        return make_object_storage(settings)
    return LocalStorage(
        settings.local_storage_path,
        max_file_size=settings.max_file_size,
        signer=local_url_signer(settings, session_secret),
    )


def make_object_storage(settings: StorageSettings) -> S3Storage | AzureStorage:
    """A bucket or container that is not open yet.

    Raises:
        ConfigurationError: a file that the settings name cannot be used.
    """
    if settings.storage_backend == "s3":
        return _make_s3(settings)
    return AzureStorage(
        settings.azure_location,
        max_file_size=settings.max_file_size,
        cdn_url=settings.azure_storage_cdn_url,
        limits=_limits(settings),
    )


def local_url_signer(settings: StorageSettings, session_secret: SecretStr) -> LocalUrlSigner:
    """Signs and verifies URLs of local files: the same in every process with the same settings."""
    secrets = [settings.storage_signing_secret or session_secret]
    if settings.storage_signing_secret_previous is not None:
        secrets.append(settings.storage_signing_secret_previous)
    return LocalUrlSigner([secret.get_secret_value() for secret in secrets], public_url=settings.public_url or "")


def _make_s3(settings: StorageSettings) -> S3Storage:
    place = S3Location(
        settings.aws_s3_bucket or "",
        settings.aws_region,
        settings.aws_endpoint_url,
        _credentials(settings),
        settings.aws_s3_encryption,
        settings.aws_s3_kms_key_id,
        settings.aws_s3_public_endpoint_url,
    )
    cloudfront = None
    if settings.aws_cloudfront_key_pair_id is not None and settings.aws_cloudfront_private_key is not None:
        cloudfront = CloudFrontSigner(settings.aws_cloudfront_key_pair_id, settings.aws_cloudfront_private_key)
    return S3Storage(
        place,
        max_file_size=settings.max_file_size,
        cdn_url=settings.aws_s3_cdn_url,
        cloudfront=cloudfront,
        limits=_limits(settings),
    )


def _credentials(settings: StorageSettings) -> S3Credentials | None:
    if settings.aws_access_key_id is None or settings.aws_secret_access_key is None:
        return None
    token = settings.aws_session_token
    return S3Credentials(
        settings.aws_access_key_id,
        settings.aws_secret_access_key.get_secret_value(),
        token.get_secret_value() if token is not None else None,
    )


def _limits(settings: StorageSettings) -> Limits:
    return Limits(
        settings.storage_connect_timeout,
        settings.storage_timeout,
        settings.storage_retries,
        retry_timeout=2 * settings.storage_timeout,
    )
