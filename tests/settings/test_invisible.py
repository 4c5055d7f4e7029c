"""White space and characters that nobody sees change the meaning of no setting, wherever it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from data_layer import Settings
from data_layer.config import examine_settings
from data_layer.database.address import database_address, replica_addresses
from data_layer.environment import strip
from data_layer.errors import ConfigurationError
from tests.test_config import FIT_FOR_PRODUCTION

BLANKS = [
    *(" ", "\n", "\r\n", "\t", "\x00", "\x1b", "\x7f"),
    *("\ufeff", "\u00a0", "\u200b", "\u2060", "\u3000", "\u202e", "\u2028"),
]
# A value for each setting that has no default from which one can be made.
VALUES: dict[str, str] = {
    "database_url": "postgresql://user:password@host:5433/name?sslmode=require",
    "db_host": "one.example.com:5433,[::1]:5434",
    "db_password": "p w",
    "db_ssl": "verify-full",
    "db_ssl_ca": __file__,
    "db_ssl_cert": __file__,
    "db_ssl_key": __file__,
    "db_direct_url": "postgresql://user:password@host/name",
    "db_replica_hosts": "one,two:5433",
    "redis_url": "rediss://user:password@host/3",
    "redis_host": "[::1]:6380",
    "redis_username": "user",
    "redis_password": "p w",
    "redis_tls": "true",
    "redis_tls_ca": __file__,
    "redis_cluster_nodes": "a:1,b:2",
    "redis_sentinel_nodes": "a:1,b:2",
    "redis_sentinel_master": "main",
    "redis_sentinel_username": "user",
    "redis_sentinel_password": "p w",
    "storage_second_backend": "local",
    "public_url": "https://example.com/x",
    "azure_storage_account": "pictures",
    "azure_storage_connection_string": "AccountName=pictures;AccountKey=c2VjcmV0",
    "azure_storage_cdn_url": "https://cdn.example.com",
    "aws_s3_bucket": "pictures",
    "aws_endpoint_url": "https://s3.example.com",
    "aws_s3_cdn_url": "https://cdn.example.com",
    "aws_s3_public_endpoint_url": "https://s3.example.com",
    "azure_storage_public_endpoint_url": "https://azure.example.com",
    "trusted_proxies": "10.0.0.0/8,127.0.0.1",
    "aws_cloudfront_private_key": __file__,
    "log_file": "a.log",
    "audit_spill_folder": "spill",
    "shutdown_delay": "3",
    "oidc_issuer": "https://issuer.example.com/",
    "oidc_allowed_azp": "https://one.example.com,https://two.example.com",
    "oidc_user_url": "https://api.example.com/users/{sub}",
    "cors_allowed_origins": "https://one.example.com,https://two.example.com",
    "preview_origin": "https://pages.example.com",
    "mail_from": "no-reply@example.com",
    "mail_templates": str(Path(__file__).parent),
    "verify_email_url": "https://example.com/verify",
    "reset_password_url": "https://example.com/reset",
    "smtp_host": "mail.example.com",
    "smtp_port": "587",
    "smtp_tls_ca": __file__,
}
COMPANIONS: dict[str, dict[str, str]] = {
    "db_ssl_cert": {"DB_SSL_KEY": __file__},
    "db_ssl_key": {"DB_SSL_CERT": __file__},
    "db_replica_hosts": {"DB_HOST": "primary"},
    "redis_username": {"REDIS_PASSWORD": "x"},
    "redis_tls_ca": {"REDIS_TLS": "true"},
    "redis_sentinel_nodes": {"REDIS_SENTINEL_MASTER": "main"},
    "redis_sentinel_master": {"REDIS_SENTINEL_NODES": "a:1"},
    "redis_sentinel_username": {
        "REDIS_SENTINEL_NODES": "a:1",
        "REDIS_SENTINEL_MASTER": "main",
        "REDIS_SENTINEL_PASSWORD": "x",
    },
    "redis_sentinel_password": {"REDIS_SENTINEL_NODES": "a:1", "REDIS_SENTINEL_MASTER": "main"},
    "storage_signing_secret_previous": {"STORAGE_SIGNING_SECRET": "x"},
    "saas_api_secret": {
        "OIDC_ISSUER": "https://issuer.example.com",
        "OIDC_ACCEPT_BEARER": "true",
        "OIDC_AUDIENCE": "us",
    },
    "session_ttl": {"SESSION_MAX_AGE": "9d"},
    "smtp_host": {"MAIL_FROM": "no-reply@example.com", "PUBLIC_URL": "https://example.com"},
    "smtp_username": {"SMTP_PASSWORD": "x"},
    "smtp_password": {"SMTP_USERNAME": "x"},
    "oidc_issuer": {"OIDC_CLIENT_ID": "id"},
    "oidc_client_id": {"OIDC_ISSUER": "https://issuer.example.com"},
    "oidc_client_secret": {"OIDC_ISSUER": "https://issuer.example.com", "OIDC_CLIENT_ID": "id"},
    "oidc_user_token": {"OIDC_USER_URL": "https://api.example.com/users/{sub}"},
    **{
        f"oidc_{provider}_client_{one}": {f"OIDC_{provider.upper()}_CLIENT_{other.upper()}": "x"}
        for provider in ("google", "github", "entra")
        for one, other in (("id", "secret"), ("secret", "id"))
    },
}
NAMES = sorted(Settings.fields())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, clear=True):
        yield tmp_path


def value_of(name: str) -> str:
    default = Settings.fields()[name].default
    if name in VALUES:
        return VALUES[name]
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "value" if default is None or isinstance(default, SecretStr) else str(default)


def read(name: str, value: str) -> Settings:
    """From the environment, except for NUL, which no environment can hold."""
    variables = COMPANIONS.get(name, {})
    with mock.patch.dict(os.environ, variables):
        if "\0" in value:
            return Settings(_env_file=Path(".env"), **{name: value})
        with mock.patch.dict(os.environ, {name.upper(): value}):
            return Settings()


@pytest.mark.parametrize("name", NAMES)
def test_at_the_ends_of_every_setting_they_are_removed(name: str) -> None:
    value = value_of(name)
    plain = read(name, value)
    assert name in plain.given
    for written in (f"{value}\n", f"\n{value}", *(f"{blank} {value} \n{blank}" for blank in BLANKS)):
        assert read(name, written) == plain, f"{written!r}"


@pytest.mark.parametrize("name", NAMES)
def test_as_arguments_and_in_the_file_too(name: str, folder: Path) -> None:
    value = value_of(name)
    plain = read(name, value)
    with mock.patch.dict(os.environ, COMPANIONS.get(name, {})):
        assert Settings(_env_file=Path(".env"), **{name: f"\ufeff{value}\u200b\n"}) == plain
        if "SecretStr" in str(Settings.fields()[name].annotation):
            assert Settings(_env_file=Path(".env"), **{name: SecretStr(f"{value}\n")}) == plain
        if "Path" in str(Settings.fields()[name].annotation):
            assert Settings(_env_file=Path(".env"), **{name: Path(f"{value}\n")}) == plain
        (folder / ".env").write_text(f'\ufeff{name.upper()}="{value}\\n"\n\ufeffPORT = 3001\u00a0\n', encoding="utf-8")
        assert Settings() == plain.replaced(**{} if name == "port" else {"port": 3001}) or name == "port"


@pytest.mark.parametrize("name", NAMES)
def test_inside_they_are_refused_by_the_name_of_the_setting(name: str) -> None:
    value = value_of(name)
    for character in ("\n", "\0", "\x1b", "\u200b", "\udce9"):
        written = value[:1] + character + value[1:] + "end"
        with pytest.raises(ConfigurationError) as caught:
            read(name, written)
        why = "is not UTF-8" if character == "\udce9" else f"holds an invisible character (U+{ord(character):04X})"
        assert [problem for problem in caught.value.problems if problem.startswith(f"{name.upper()}: {why}")]


@pytest.mark.parametrize("blank", [" ", "\t\n", "\ufeff", "\u200b "])
def test_nothing_else_counts_as_not_set(blank: str, folder: Path) -> None:
    with mock.patch.dict(os.environ, {name.upper(): blank for name in NAMES}):
        assert Settings() == Settings(_env_file=None)
        assert examine_settings().settings == Settings()
    (folder / ".env").write_text("DB_NAME=file\n")
    with mock.patch.dict(os.environ, {"DB_NAME": blank}):
        assert Settings().database.db_name == "file"


@given(st.lists(st.sampled_from([*BLANKS, "a", "é", "👩\u200d💻"]), max_size=8).map("".join))
def test_what_is_removed_is_only_at_the_ends(text: str) -> None:
    rest = strip(text)
    assert rest in text
    assert strip(rest) == rest
    assert [character for character in text if character.isalpha()] == [c for c in rest if c.isalpha()]


def test_a_name_of_a_variable_may_have_them_too() -> None:
    with mock.patch.dict(os.environ, {"DB_NAME ": "a", "\ufeffPORT": "3001"}):
        assert (Settings().database.db_name, Settings().service.port) == ("a", 3001)


def test_joiners_inside_a_name_stay() -> None:
    assert Settings(data_folder="a\u200cb").general.data_folder == Path("a\u200cb")


@pytest.mark.parametrize("name", ["database_url", "db_direct_url"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:password@host/name%0A",
        "postgresql://user:password@host/name%20",
        "postgresql://user:password@host/%09name",
        "postgresql://user:password@host/na%00me",
        "postgresql://user:password@host/name ?sslmode=require",
        "postgresql://user%0A:password@host/name",
        "postgresql://user :password@host/name",
        "postgresql://user:pass%0Aword@host/name",
        "postgresql://user:password@host%0A/name",
        "postgresql://user:password@/name?host=host%0A",
        "postgresql://user:password@host/?dbname=name%0A",
        "postgresql://user:password@host/name?sslmode=require%0D",
        "postgresql://user:password@host/name%E2%80%8B",
    ],
)
def test_the_pieces_of_an_address_hide_none(name: str, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(_env_file=Path(".env"), **{name: url})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name.upper()}: ")
    assert "password" not in problem


@pytest.mark.parametrize(
    "url",
    ["redis://:pass%0Aword@host/0", "redis://user%0A:word@host", "redis://:p@ho%0Ast", "unix:///run/redis.sock%0A"],
)
def test_nor_do_those_of_redis(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL: "):
        Settings(redis_url=url)


@pytest.mark.parametrize("url", ["https://ho%0Ast/x", "https://host/x%0A", "https://ho st", "https://host/\u200bx"])
@pytest.mark.parametrize("name", ["public_url", "aws_endpoint_url", "azure_storage_cdn_url", "aws_s3_cdn_url"])
def test_nor_do_those_of_the_web(name: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name.upper()}: "):
        Settings(_env_file=Path(".env"), **{name: url})


def test_a_blank_at_the_end_of_a_password_can_be_meant() -> None:
    url = database_address(Settings(database_url="postgresql://user:word%20@host/name").database).url
    assert url.password == "word "


@pytest.mark.parametrize("separator", [" , ", ",\n", "\u200b,\ufeff", ",\r\n  "])
def test_lists_may_be_broken_beside_commas(separator: str) -> None:
    nodes = separator.join(["a:1", "b:2"])
    assert Settings(redis_cluster_nodes=nodes).redis.redis_cluster_nodes == "a:1,b:2"
    sentinels = Settings(redis_sentinel_nodes=nodes, redis_sentinel_master="main")
    assert sentinels.redis.redis_sentinel_nodes == "a:1,b:2"
    types = Settings(allowed_file_types=separator.join(["image/png", "image/gif"]))
    assert types.files.allowed_file_types == ("image/png", "image/gif")
    assert Settings(image_thumbnail_sizes=separator.join(["64", "128"])).files.image_thumbnail_sizes == (64, 128)
    proxies = Settings(trusted_proxies=separator.join(["10.0.0.0/8", "192.0.2.1"]))
    assert len(proxies.service.trusted_proxies) == 2
    servers = Settings(db_host=nodes, db_replica_hosts=nodes)
    assert database_address(servers.database).url.query == {"host": "a,b", "port": "1,2"}
    found = [(replica.url.host, replica.url.port) for replica in replica_addresses(servers.database)]
    assert found == [("a", 1), ("b", 2)]


def test_production_is_production() -> None:
    with mock.patch.dict(os.environ, FIT_FOR_PRODUCTION | {"ENVIRONMENT": "production\n"}):
        assert Settings().is_production
    with mock.patch.dict(os.environ, FIT_FOR_PRODUCTION | {"ENVIRONMENT": "", "NODE_ENV": " production\u200b"}):
        assert Settings().is_production
