"""The storage that the settings choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.storage.local import LocalStorage
from data_layer.storage.object_store.azure import AzureStorage
from data_layer.storage.object_store.limits import Limits
from data_layer.storage.object_store.s3 import S3Storage
from data_layer.storage.object_store.s3_place import S3Place
from data_layer.storage.port import StorageBackend
from data_layer.storage.signing.cloudfront import CloudFrontSigner
from data_layer.storage.signing.local import LocalUrlSigner
from data_layer.storage.signing.s3 import S3Credentials

if TYPE_CHECKING:
    from data_layer.config import Settings


def make_storage(settings: Settings) -> StorageBackend:
    """A storage that is not open yet.

    Raises:
        ConfigurationError: a file that the settings name cannot be used.
    """
    match settings.storage_backend:
        case "s3":
            return _make_s3(settings)
        case "azure":
            return AzureStorage(
                settings.azure_place,
                max_file_size=settings.max_file_size,
                cdn_url=settings.azure_storage_cdn_url,
                limits=_limits(settings),
            )
        case _:
            return LocalStorage(
                settings.local_storage_path, max_file_size=settings.max_file_size, signer=local_url_signer(settings)
            )


def local_url_signer(settings: Settings) -> LocalUrlSigner:
    """Signs and verifies URLs of local files: the same in every process with the same settings."""
    secrets = [settings.storage_signing_secret or settings.session_secret]
    if settings.storage_signing_secret_previous is not None:
        secrets.append(settings.storage_signing_secret_previous)
    return LocalUrlSigner([secret.get_secret_value() for secret in secrets], public_url=settings.public_url or "")


def _make_s3(settings: Settings) -> S3Storage:
    place = S3Place(
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


def _credentials(settings: Settings) -> S3Credentials | None:
    if settings.aws_access_key_id is None or settings.aws_secret_access_key is None:
        return None
    token = settings.aws_session_token
    return S3Credentials(
        settings.aws_access_key_id,
        settings.aws_secret_access_key.get_secret_value(),
        token.get_secret_value() if token is not None else None,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.storage_connect_timeout,
        settings.storage_timeout,
        settings.storage_retries,
        retry_timeout=2 * settings.storage_timeout,
    )
