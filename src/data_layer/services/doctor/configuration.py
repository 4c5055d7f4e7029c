"""Whether the settings can be used, and what in them is probably a mistake."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from data_layer.config import DEVELOPMENT_SECRET, Environment, ExaminedSettings, Settings
from data_layer.services.doctor.checks import Check, CheckResult, failed, ok, warning

PART = "settings"
_KEYS = ("db_ssl_key", "aws_cloudfront_private_key")
_CERTIFICATES = ("db_ssl_ca", "db_ssl_cert", "redis_tls_ca", "smtp_tls_ca")
_OWN_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})
_SOON = timedelta(days=30)
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def settings_checks(examined: ExaminedSettings, env_file: Path = Path(".env")) -> list[Check]:
    """The checks of the settings; none needs a server."""
    settings = examined.settings

    async def values() -> list[CheckResult]:
        return _values(examined)

    async def unknown() -> list[CheckResult]:
        return _unknown(examined)

    async def environment() -> list[CheckResult]:
        return _environment(settings)

    async def secrets() -> list[CheckResult]:
        return _secrets(settings)

    async def files() -> list[CheckResult]:
        return _files(settings, env_file)

    async def proxies() -> CheckResult:
        return _proxies(settings)

    async def limits() -> list[CheckResult]:
        return _limits(settings)

    return [
        Check(PART, "values", values),
        Check(PART, "unknown", unknown),
        Check(PART, "environment", environment),
        Check(PART, "secrets", secrets),
        Check(PART, "files", files),
        Check(PART, "proxies", proxies),
        Check(PART, "limits", limits),
    ]


def _values(examined: ExaminedSettings) -> list[CheckResult]:
    if not examined.problems:
        return [ok(f"{len(examined.settings.given)} set, the others have their defaults; all can be used")]
    advice = "the service does not start until this is fixed"
    return [failed(*_parted(problem, advice)) for problem in examined.problems]


def _parted(problem: str, default: str) -> tuple[str, str]:
    """What is wrong and what to do, which stands behind a semicolon."""
    meaning, _, advice = problem.partition("; ")
    return meaning, advice or default


def _unknown(examined: ExaminedSettings) -> list[CheckResult]:
    if not examined.unknown:
        return [ok("no variable looks like a setting and is none")]
    names = ", ".join(examined.unknown)
    return [warning(f"nothing reads {names}", "correct the name, or remove it; `data-layer config show` lists all")]


def _environment(settings: Settings) -> list[CheckResult]:
    if settings.is_production:
        return [ok("production: what would be unsafe is refused")]
    name = settings.general.environment.value
    if "environment" not in settings.given and not settings.database.is_embedded:
        return [
            warning(
                "ENVIRONMENT is not set, which counts as development, although a database of your own is named",
                "set ENVIRONMENT: production refuses what is unsafe, development and testing do not",
            )
        ]
    refused = settings.unfit_for_production()
    if settings.general.environment is Environment.STAGING and refused:
        return [warning(f"staging differs from production, which would refuse: {'; '.join(refused)}", "fix this too")]
    return [ok(f"{name}: not checked as strictly as production, which would refuse {len(refused)} of these settings")]


def _secrets(settings: Settings) -> list[CheckResult]:
    weak = settings.unfit_secrets()
    if not weak:
        return [ok("SESSION_SECRET and JWT_SECRET are long, random enough and different")]
    if settings.is_production:
        return [failed(*_parted(problem, "set it")) for problem in weak]
    known = {settings.security.session_secret.get_secret_value(), settings.security.jwt_secret.get_secret_value()}
    if known == {DEVELOPMENT_SECRET} and settings.general.environment is not Environment.STAGING:
        return [ok("those of development, which everybody knows; production refuses them")]
    return [warning(*_parted(problem, "set it")) for problem in weak]


def _proxies(settings: Settings) -> CheckResult:
    if settings.service.trusted_proxies:
        return ok(
            f"clients' addresses are taken from {', '.join(settings.service.trusted_proxies)}, and from nobody else"
        )
    reasons = [
        reason
        for reason, is_there in (
            ("the service runs in Kubernetes", "KUBERNETES_SERVICE_HOST" in os.environ),
            (
                "it listens for others in production",
                settings.is_production and settings.service.host not in _OWN_MACHINE,
            ),
        )
        if is_there
    ]
    if not reasons:
        return ok("no proxy is trusted, and nothing suggests one")
    return warning(
        f"no proxy is trusted, although one is probably in front: {' and '.join(reasons)}; all of its clients then "
        "count as one, and one of them can lock the others out",
        "set TRUSTED_PROXIES to the addresses or networks of the proxies",
    )


def _limits(settings: Settings) -> list[CheckResult]:
    security = settings.security
    person, key, address = security.request_limit_person, security.request_limit_key, security.request_limit_address
    found = []
    if settings.is_production and not (person and address):
        found.append(
            warning(
                "one caller may send any number of requests, and keep others from being served",
                "set REQUEST_LIMIT_PERSON and REQUEST_LIMIT_ADDRESS, unless a proxy in front limits requests",
            )
        )
    if 0 < address < max(person, key):
        found.append(
            warning(
                f"REQUEST_LIMIT_ADDRESS ({address}) is less than one person or API key may send, who mostly sends from "
                "one address",
                f"set it to {max(person, key)} or more",
            )
        )
    return found or [ok("requests are limited by person, API key and address, as far as the settings say")]


def _files(settings: Settings, env_file: Path) -> list[CheckResult]:
    found = [*_open_keys(settings), *_ending_certificates(settings)]
    if env_file.is_file() and env_file.stat().st_mode & stat.S_IROTH:
        found.append(warning(f"everybody on this machine can read {env_file}", f"chmod 600 {env_file}"))
    return found or [ok("what the settings name is there, readable, private and current")]


def _open_keys(settings: Settings) -> list[CheckResult]:
    found = []
    values = settings.flat()
    for name in _KEYS:
        path: Path | None = values[name]
        if path is None or not os.access(path, os.R_OK):
            continue
        status = path.stat()
        # libpq's rule: 0600, or 0640 for a file of root's (PostgreSQL manual, 32.19.3).
        allowed = stat.S_IRGRP if status.st_uid == 0 else 0
        if status.st_mode & _FOR_OTHERS & ~allowed:
            meaning = f"{name.upper()}: others can read {path}"
            judge = failed if name == "db_ssl_key" else warning
            found.append(judge(meaning, f"chmod 600 {path}"))
    return found


def _ending_certificates(settings: Settings) -> list[CheckResult]:
    found = []
    values = settings.flat()
    for name in _CERTIFICATES:
        path: Path | None = values[name]
        if path is None or not os.access(path, os.R_OK):
            continue
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (ValueError, OSError):
            found.append(failed(f"{name.upper()}: {path} holds no certificate in PEM form", "put the right file there"))
            continue
        # Of many authorities some old ones have always ended.
        end = max(certificate.not_valid_after_utc for certificate in certificates)
        if end < datetime.now(UTC) + _SOON:
            judge = failed if end < datetime.now(UTC) else warning
            found.append(judge(f"{name.upper()}: {path} is valid until {end:%Y-%m-%d %H:%M} UTC", "renew it"))
    return found
