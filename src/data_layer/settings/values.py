"""What values of settings look like: numbers in their limits, durations with units, secrets that cannot be guessed."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr

from data_layer.environment import hosts_in_query

DEVELOPMENT_SECRET = "development-only-secret-never-use-in-production"  # noqa: S105  (production refuses it)
_MINIMUM_SECRET_LENGTH = 32
_MINIMUM_SECRET_VARIETY = 8
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhd])")


def _read_duration(value: Any) -> Any:
    match = _DURATION.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    return int(match[1]) * _UNITS[match[2]] if match else value


def _split(value: Any) -> Any:
    """A list as it is written in a variable: separated by commas; none for an empty one."""
    if not isinstance(value, str):
        return value
    return () if value.lower() == "none" else tuple(part.strip() for part in value.split(",") if part.strip())


Port = Annotated[int, Field(ge=1, le=65535)]
HostName = Annotated[str, Field(pattern=r"^(/.*|\S+)$")]
HostList = Annotated[str, Field(pattern=r"^([^\s,/@]+(\s*,\s*[^\s,/@]+)*)?$")]
PlainText = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]
SecondsOrNever = Annotated[float, Field(ge=0, le=3600)]
Milliseconds = Annotated[int, Field(gt=0, le=600_000)]
MediaType = Annotated[str, Field(pattern=r"^[a-z]+/[A-Za-z0-9.+-]+$")]
MediaTypes = Annotated[tuple[MediaType, ...], BeforeValidator(_split)]
PixelSizes = Annotated[tuple[Annotated[int, Field(ge=16, le=4096)], ...], BeforeValidator(_split)]
Duration = Annotated[int, BeforeValidator(_read_duration), Field(ge=1, le=3650 * 86_400)]
"""Seconds, which may be written with a unit: 900, 15m, 24h, 30d."""


def weak_secrets(secrets: dict[str, str]) -> list[str]:
    """What keeps secrets from being fit for production, by the names of their settings; never with the secret."""
    problems = []
    for name, secret in secrets.items():
        if weakness := _weakness(secret):
            problems.append(f"{name.upper()} {weakness}; make one with: openssl rand -hex 32")
    for name, other in itertools.combinations(secrets, 2):
        if secrets[name] == secrets[other] != DEVELOPMENT_SECRET:
            problems.append(f"{name.upper()} and {other.upper()} are the same; each needs one of its own")
    return problems


def _weakness(secret: str) -> str | None:
    if secret == DEVELOPMENT_SECRET:
        return "is missing"
    if len(secret) < _MINIMUM_SECRET_LENGTH:
        return f"has under {_MINIMUM_SECRET_LENGTH} characters"
    if len(set(secret)) < _MINIMUM_SECRET_VARIETY:
        return "repeats a few characters"
    return None


def check_url(value: SecretStr, schemes: tuple[str, ...], example: str) -> None:
    """Refuse what is no address of one of these schemes.

    Raises:
        ValueError: with an example of one.
    """
    try:
        parts = urlsplit(hosts_in_query(value.get_secret_value()))
        _ = parts.port
    except ValueError:
        raise ValueError(f"is no address; write it as {example}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}; for example {example}")


def describe_problem(problem: Any) -> str:
    """One line for one pydantic problem, never with the value: it may be a secret."""
    name = "_".join(part for part in problem["loc"] if isinstance(part, str)).upper() or "settings"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"


def disagreement(present: dict[str, str]) -> list[str]:
    """The problem that two names of the same setting say different things."""
    here, there = present.get("ENVIRONMENT"), present.get("NODE_ENV")
    if here is None or there is None or here.lower() == there.lower():
        return []
    return [f"ENVIRONMENT is {here!r}, but NODE_ENV is {there!r}; keep one of them"]
