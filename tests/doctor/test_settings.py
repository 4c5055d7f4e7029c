"""Settings that the service would refuse to start with are lines like others."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from data_layer import Settings
from data_layer.layer.doctor import examine as examine_service

from .support import Examine

STRONG = {"SESSION_SECRET": "kTn3vB8xQz5rLw1cYd7fGh2jMp9sAe4u", "JWT_SECRET": "uP6mZx2wEv9tRb4yNc7qKd1hJf8gLs3a"}


def test_all_problems_at_once_and_everything_else_is_looked_at(examine: Examine) -> None:
    wrong = {"PORT": "99999", "DB_HOTS": "x", "LOG_LEVEL": "loud", "SESSION_TTL": "90d", "SESSION_MAX_AGE": "1d"}
    report = examine(**wrong)
    texts = [one["meaning"] for one in report.all_of("settings.values")]
    for name in ("PORT", "DB_HOTS", "LOG_LEVEL", "SESSION_TTL"):
        assert any(name in text for text in texts), name
    assert {one["outcome"] for one in report.all_of("settings.values")} == {"failed"}
    assert report.of("database.login")["outcome"] == report.of("cache.login")["outcome"] == "ok"
    assert report.code == 1


def test_a_part_whose_place_is_unknown_is_not_looked_for_elsewhere(examine: Examine) -> None:
    report = examine(DATABASE_URL="mysql://host/name", REDIS_URL="", REDIS_HOST="127.0.0.1", REDIS_PORT="many")
    for part in ("database", "cache"):
        assert report.of(f"{part}.server")["caused_by"] == "settings.values"
        assert set.union(*report.outcomes(part).values()) == {"skipped"}
    assert report.of("storage.writes")["outcome"] == "ok"


def test_production_without_what_it_needs(examine: Examine) -> None:
    report = examine(ENVIRONMENT="production", DATABASE_URL="", REDIS_URL="")
    report.says("settings.values", "failed", "DB_HOST or DATABASE_URL must be set")
    report.says("settings.secrets", "failed", "SESSION_SECRET is missing", "openssl rand -hex 32")
    assert report.of("database.server")["outcome"] == report.of("cache.server")["outcome"] == "skipped"


def test_production_with_what_it_needs(examine: Examine) -> None:
    report = examine(ENVIRONMENT="production", BCRYPT_ROUNDS="12", **STRONG)
    assert {one["outcome"] for one in report.findings if one["part"] == "settings"} == {"ok"}


def test_probable_mistakes(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379")
    report = examine(DB_POOL_SIZE="5")
    assert report.of("settings.unknown")["meaning"] == "nothing reads DB_POOL_SIZE"
    examine(ENVIRONMENT="").says("settings.environment", "warning", "counts as development")
    examine(ENVIRONMENT="staging").says("settings.environment", "warning", "SESSION_SECRET is missing")


def test_a_proxy_that_nobody_trusts(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine().of("settings.proxies")["outcome"] == "ok"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    examine().says("settings.proxies", "warning", "runs in Kubernetes", "set TRUSTED_PROXIES")
    trusting = examine(TRUSTED_PROXIES="10.244.0.0/16").of("settings.proxies")
    assert trusting["outcome"] == "ok"
    assert "10.244.0.0/16" in trusting["meaning"]


def test_limits(examine: Examine) -> None:
    assert examine().of("settings.limits")["outcome"] == "ok"
    examine(REQUEST_LIMIT_ADDRESS="5999").says("settings.limits", "warning", "REQUEST_LIMIT_ADDRESS (5999)", "6000")
    assert examine(REQUEST_LIMIT_PERSON="0").of("settings.limits")["outcome"] == "ok"
    for name in ("REQUEST_LIMIT_PERSON", "REQUEST_LIMIT_ADDRESS"):
        examine(ENVIRONMENT="production", **{name: "0"}).says("settings.limits", "warning", "any number of requests")


def test_files(examine: Examine, tmp_path: Path) -> None:
    authority = trustme.CA()
    soon = authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=3))
    past = authority.issue_cert("localhost", not_after=datetime.now(UTC) - timedelta(days=3))
    for name, certificate in (("soon", soon), ("past", past)):
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        (tmp_path / f"{name}.key").chmod(0o644)
    report = examine(
        DB_SSL_CERT=str(tmp_path / "soon.pem"),
        DB_SSL_KEY=str(tmp_path / "soon.key"),
        DB_SSL_CA=str(tmp_path / "past.pem"),
    )
    report.says("settings.files", "failed", "DB_SSL_KEY", "others can read", "chmod 600")
    report.says("settings.files", "warning", "DB_SSL_CERT", "is valid until")
    report.says("settings.files", "failed", "DB_SSL_CA", "is valid until", "renew")
    (tmp_path / "past.pem").write_text("nothing")
    examine(DB_SSL_CA=str(tmp_path / "past.pem")).says("settings.files", "failed", "holds no certificate")
    examine(DB_SSL_CA=str(tmp_path / "none.pem")).says("settings.values", "failed", "there is no readable file")


async def test_who_cannot_hear_more_ends_the_examination(migrated: Settings) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    before = asyncio.all_tasks()
    # Its traceback keeps everything that it was doing.
    with pytest.raises(ZeroDivisionError) as examining:
        await examine_service(migrated, fail)
    assert all(task.cancelling() for task in asyncio.all_tasks() - before), examining
