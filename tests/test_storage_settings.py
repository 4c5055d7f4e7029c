"""Settings of the storage: all contradictions are reported at once, and only those of the backend in use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from data_layer import Settings
from data_layer.errors import ConfigurationError
from data_layer.settings.azure_location import EMULATOR_KEY
from data_layer.settings.storage import StorageSettings
from data_layer.storage import AzureLocation, AzureStorage, LocalStorage, S3Storage
from data_layer.storage.selection import local_url_signer, make_storage
from data_layer.storage.signing.local import LocalUrlSigner
from data_layer.storage.signing.request import SigningRequest

KEY = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
ACCOUNT = f"DefaultEndpointsProtocol=https;AccountName=pictures;AccountKey={KEY};EndpointSuffix=core.windows.net"
S3: dict[str, Any] = {"storage_backend": "s3", "aws_s3_bucket": "pictures"}
PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "database_url": "postgresql://user:aBcdEfGh12345@localhost/name",
    "redis_url": "redis://localhost",
    "session_secret": "3eb1a0f5c2d94786ab51e07c9d3f6a28",
    "jwt_secret": "9c0d7e42f6b18a35d4c97f02e6518b3a",
}


def problems(**values: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings(_env_file=None, **values)
    return list(caught.value.problems)


def connect(text: str) -> AzureLocation:
    return AzureLocation.of_connection_string(text, "screenshots")


def test_each_backend_is_made() -> None:
    kinds = {
        LocalStorage: Settings(),
        S3Storage: Settings(**S3),
        AzureStorage: Settings(storage_backend="azure", azure_storage_connection_string=ACCOUNT),
    }
    for kind, settings in kinds.items():
        assert type(make_storage(settings.storage, settings.security.session_secret)) is kind


def test_the_defaults_are_those_of_the_specification() -> None:
    settings = Settings()
    assert (settings.storage.storage_backend, settings.storage.aws_region) == ("local", "us-east-1")
    assert settings.storage.azure_storage_container_name == "screenshots"


def test_what_is_missing_and_what_contradicts_is_told_at_once() -> None:
    found = problems(
        storage_backend="s3",
        aws_access_key_id="id",
        aws_s3_kms_key_id="key",
        aws_cloudfront_key_pair_id="pair",
        aws_endpoint_url="ftp://host",
    )
    names = [problem.split(" ")[0].rstrip(":") for problem in found]
    assert sorted(names) == [
        "AWS_ACCESS_KEY_ID",
        "AWS_CLOUDFRONT_KEY_PAIR_ID",
        "AWS_ENDPOINT_URL",
        "AWS_S3_BUCKET",
        "AWS_S3_KMS_KEY_ID",
    ]


def test_settings_of_another_backend_do_not_matter() -> None:
    Settings(aws_access_key_id="left over", azure_storage_connection_string="nonsense")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("AccountName=pictures", "neither AccountKey nor SharedAccessSignature"),
        (f"AccountKey={KEY}", "neither AccountName nor BlobEndpoint"),
        ("AccountName=pictures;AccountKey=!", "AccountKey is not Base64"),
        ("pictures", "not of the form"),
        (f"BlobEndpoint=ftp://host;AccountKey={KEY}", "BlobEndpoint"),
    ],
)
def test_a_connection_string_that_is_no_good_is_not_quoted(text: str, problem: str) -> None:
    (found,) = problems(storage_backend="azure", azure_storage_connection_string=text)
    assert found.startswith("AZURE_STORAGE_CONNECTION_STRING")
    assert problem in found
    assert KEY not in found


def test_connection_strings() -> None:
    place = connect(ACCOUNT)
    assert (place.account, place.url) == ("pictures", "https://pictures.blob.core.windows.net/screenshots")
    assert place.account_key == KEY
    assert KEY not in repr(place)
    place = connect("UseDevelopmentStorage=true")
    assert (place.account_key, place.endpoint) == (EMULATOR_KEY, "http://127.0.0.1:10000/devstoreaccount1")
    place = connect("BlobEndpoint=https://pictures.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=a%3D")
    assert (place.account, place.sas, place.account_key) == ("pictures", "sv=1&sig=a%3D", None)


def test_azure_needs_one_way_in() -> None:
    assert "must be set" in problems(storage_backend="azure")[0]
    both = {"azure_storage_connection_string": ACCOUNT, "azure_storage_account": "pictures"}
    assert "keep one" in problems(storage_backend="azure", **both)[0]
    settings = Settings(storage_backend="azure", azure_storage_account="pictures")
    assert settings.storage.azure_location.url == "https://pictures.blob.core.windows.net/screenshots"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({**S3, "aws_endpoint_url": "http://minio:9000"}, "AWS_ENDPOINT_URL must begin with https"),
        ({**S3, "aws_s3_cdn_url": "http://cdn.example.com"}, "AWS_S3_CDN_URL must begin with https"),
        ({"storage_backend": "s3"}, "AWS_S3_BUCKET must be set"),
        (
            {"storage_backend": "azure", "azure_storage_connection_string": "UseDevelopmentStorage=true"},
            "leads to the emulator",
        ),
        (
            {
                "storage_backend": "azure",
                "azure_storage_connection_string": ACCOUNT.replace("=https;", "=http;"),
            },
            "must use https",
        ),
        ({"storage_signing_secret": "short"}, "STORAGE_SIGNING_SECRET has under 32 characters"),
        ({"public_url": "http://example.com"}, "PUBLIC_URL must begin with https"),
    ],
)
def test_what_production_refuses(values: dict[str, Any], problem: str) -> None:
    (found,) = problems(**PRODUCTION, **values)
    assert problem in found


def test_production_accepts_a_server_on_the_same_machine() -> None:
    Settings(**PRODUCTION, **S3, aws_endpoint_url="http://127.0.0.1:9000")


def test_no_secret_is_shown() -> None:
    settings = Settings(
        **S3,
        aws_access_key_id="id",
        aws_secret_access_key="hidden-1",
        aws_session_token="hidden-2",
        azure_storage_connection_string="hidden-3",
        storage_signing_secret="hidden-4",
    )
    assert "hidden" not in repr(settings) + str(settings.masked())


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    settings = Settings(
        **S3,
        aws_s3_cdn_url="https://cdn.example.com",
        aws_cloudfront_key_pair_id="K1",
        aws_cloudfront_private_key=tmp_path / "key.pem",
    )
    with pytest.raises(ConfigurationError, match="AWS_CLOUDFRONT_PRIVATE_KEY"):
        make_storage(settings.storage, settings.security.session_secret)


def _signer(settings: Settings) -> LocalUrlSigner:
    return local_url_signer(settings.storage, settings.security.session_secret)


def test_local_signatures_outlive_a_change_of_the_secret() -> None:
    old: dict[str, Any] = {"storage_signing_secret": "a" * 32}
    both: dict[str, Any] = {"storage_signing_secret": "b" * 32, "storage_signing_secret_previous": "a" * 32}
    request = SigningRequest("a", "GET", now=datetime.now(UTC), seconds=60)
    signed = _signer(Settings(**old)).sign(request)
    query = dict(part.split("=") for part in signed.url.partition("?")[2].split("&"))
    assert _signer(Settings(**both)).verify("GET", "a", query).method == "GET"
    assert problems(storage_signing_secret_previous="a" * 32)


def test_the_second_storage_has_settings_of_its_own() -> None:
    settings = Settings(storage_backend="s3", aws_s3_bucket="bucket", storage_second_backend="LOCAL").storage
    second = settings.second
    assert second is not None
    assert (second.storage_backend, second.storage_second_backend, second.second) == ("local", None, None)
    assert settings.replaced(storage_second_backend="s3").second is None
    assert Settings().storage.second is None


def test_a_part_is_checked_by_itself() -> None:
    with pytest.raises(ConfigurationError) as caught:
        StorageSettings(storage_backend="s3", aws_access_key_id="id")
    assert [problem.partition(" ")[0] for problem in caught.value.problems] == ["AWS_S3_BUCKET", "AWS_ACCESS_KEY_ID"]
    with pytest.raises(ConfigurationError, match="MAX_FILE_SIZE"):
        StorageSettings().replaced(max_file_size=0)
    typo: dict[str, Any] = {"storage_bakend": "s3"}
    with pytest.raises(ConfigurationError, match="STORAGE_BAKEND"):
        StorageSettings(**typo)


def test_settings_with_changes_do_not_read_the_environment_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Settings(max_file_size=7)
    monkeypatch.setenv("STORAGE_TIMEOUT", "9")
    after = before.replaced(storage_retries=1)
    assert after.given - before.given == {"storage_retries"}
    assert (after.storage.max_file_size, after.storage.storage_timeout) == (7, 30)


def test_a_copy_of_settings_is_checked_and_reaches_the_parts() -> None:
    before = Settings(max_file_size=7)
    copied = before.model_copy(update={"storage_retries": 1, "port": 3001})
    assert (copied.storage.storage_retries, copied.storage.max_file_size, copied.service.port) == (1, 7, 3001)
    for change in (before.model_copy, lambda *, update: before.replaced(**update)):
        with pytest.raises(ConfigurationError, match="MAX_FILE_SIZE"):
            change(update={"max_file_size": 0})
        with pytest.raises(ConfigurationError, match="STORAGE_RETRYS is not a setting"):
            change(update={"storage_retrys": 1})
