"""Whether the settings can be used, and what in them is probably a mistake."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from data_layer.config import DEVELOPMENT_SECRET, Environment, ExaminedSettings, Settings
from data_layer.schemas.doctor import Outcome, Text
from data_layer.services.doctor.checks import Check, CheckResult, failed, listed, ok, warning

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
        number = len(examined.settings.given)
        return [ok("%(number)s set, the others have their defaults; all can be used", number=number)]
    default = Text("the service does not start until this is fixed")
    return [_said(problem, Outcome.FAILED, default) for problem in examined.problems]


def _said(problem: str, outcome: Outcome, default: Text) -> CheckResult:
    """What settings said: what is wrong, and behind a semicolon what to do."""
    meaning, _, advice = problem.partition("; ")
    return CheckResult(outcome, Text.verbatim(meaning), Text.verbatim(advice) if advice else default)


def _unknown(examined: ExaminedSettings) -> list[CheckResult]:
    if not examined.unknown:
        return [ok("no variable looks like a setting and is none")]
    names = ", ".join(examined.unknown)
    return [
        warning(
            "nothing reads %(names)s",
            "correct the name, or remove it; `data-layer config show` lists all",
            names=names,
        )
    ]


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
        reasons = Text.verbatim("; ".join(refused))
        return [
            warning("staging differs from production, which would refuse: %(reasons)s", "fix this too", reasons=reasons)
        ]
    return [
        ok(
            "%(environment)s: not checked as strictly as production, which would refuse %(number)s of these settings",
            environment=name,
            number=len(refused),
        )
    ]


def _secrets(settings: Settings) -> list[CheckResult]:
    weak = settings.unfit_secrets()
    if not weak:
        return [ok("SESSION_SECRET and JWT_SECRET are long, random enough and different")]
    if settings.is_production:
        return [_said(problem, Outcome.FAILED, Text("set it")) for problem in weak]
    known = {settings.security.session_secret.get_secret_value(), settings.security.jwt_secret.get_secret_value()}
    if known == {DEVELOPMENT_SECRET} and settings.general.environment is not Environment.STAGING:
        return [ok("those of development, which everybody knows; production refuses them")]
    return [_said(problem, Outcome.WARNING, Text("set it")) for problem in weak]


def _proxies(settings: Settings) -> CheckResult:
    if settings.service.trusted_proxies:
        return ok(
            "clients' addresses are taken from %(proxies)s, and from nobody else",
            proxies=", ".join(settings.service.trusted_proxies),
        )
    reasons = [
        reason
        for reason, is_there in (
            (Text("the service runs in Kubernetes"), "KUBERNETES_SERVICE_HOST" in os.environ),
            (
                Text("it listens for others in production"),
                settings.is_production and settings.service.host not in _OWN_MACHINE,
            ),
        )
        if is_there
    ]
    if not reasons:
        return ok("no proxy is trusted, and nothing suggests one")
    return warning(
        "no proxy is trusted, although one is probably in front: %(reasons)s; all of its clients then count as one, "
        "and one of them can lock the others out",
        "set TRUSTED_PROXIES to the addresses or networks of the proxies",
        reasons=listed(reasons),
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
                "REQUEST_LIMIT_ADDRESS (%(limit)s) is less than one person or API key may send, who mostly sends from "
                "one address",
                "set it to %(least)s or more",
                limit=str(address),
                least=str(max(person, key)),
            )
        )
    return found or [ok("requests are limited by person, API key and address, as far as the settings say")]


def _files(settings: Settings, env_file: Path) -> list[CheckResult]:
    found = [*_open_keys(settings), *_ending_certificates(settings)]
    if env_file.is_file() and env_file.stat().st_mode & stat.S_IROTH:
        found.append(warning("everybody on this machine can read %(file)s", "chmod 600 %(file)s", file=str(env_file)))
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
            outcome = Outcome.FAILED if name == "db_ssl_key" else Outcome.WARNING
            open_key = warning(
                "%(setting)s: others can read %(file)s", "chmod 600 %(file)s", setting=name.upper(), file=str(path)
            )
            found.append(replace(open_key, outcome=outcome))
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
            found.append(
                failed(
                    "%(setting)s: %(file)s holds no certificate in PEM form",
                    "put the right file there",
                    setting=name.upper(),
                    file=str(path),
                )
            )
            continue
        # Of many authorities some old ones have always ended.
        end = max(certificate.not_valid_after_utc for certificate in certificates)
        if end < datetime.now(UTC) + _SOON:
            outcome = Outcome.FAILED if end < datetime.now(UTC) else Outcome.WARNING
            ending = warning(
                "%(setting)s: %(file)s is valid until %(end)s UTC",
                "renew it",
                setting=name.upper(),
                file=str(path),
                end=f"{end:%Y-%m-%d %H:%M}",
            )
            found.append(replace(ending, outcome=outcome))
    return found
