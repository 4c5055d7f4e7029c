"""What the parts of ``Settings`` have in common, and what their values look like.

Numbers have their limits, durations their units, and secrets cannot be guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from data_layer.environment import Address, check_visible, split_host, strip
from data_layer.errors import ConfigurationError

DEVELOPMENT_SECRET = "development-only-secret-never-use-in-production"  # noqa: S105  (production refuses it)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhd])")


def _read_duration(value: Any) -> Any:
    match = _DURATION.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    return int(match[1]) * _UNITS[match[2]] if match else value


def split_list(value: Any) -> Any:
    """A list as it is written in a variable: separated by commas; none for an empty one."""
    if not isinstance(value, str):
        return value
    return () if value.lower() == "none" else tuple(filter(None, map(strip, value.split(","))))


def _strip_parts(value: Any) -> Any:
    if not isinstance(value, str) or value.startswith("/"):
        return value
    return ",".join(map(strip, value.split(",")))


def _check_hosts(value: str) -> str:
    hosts = value.split(",") if value else []
    for number, host in enumerate(hosts, start=1):
        try:
            split_host(host)
        except ValueError as error:
            raise ValueError(f"server {number} of {len(hosts)} {error}") from None
    return value


def _check_host(value: str) -> str:
    if "," in value:
        raise ValueError("names several servers; write one")
    split_host(value)
    return value


def _check_own_host(value: str) -> str:
    host, port = split_host(value)
    if host.startswith("/") or port is not None:
        raise ValueError("is not an address to listen on; the port is a setting of its own")
    return host


_DEFAULT_PORTS = {"http": 80, "https": 443}


def _check_origin(value: str) -> str:
    """An origin as browsers write it: in small letters, without the default port."""
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
        split_host(f"[{host}]" if ":" in host else host)
    except ValueError:
        raise ValueError("is not an origin; write it as https://host") from None
    if parts.scheme not in _DEFAULT_PORTS or not host or parts.username is not None:
        raise ValueError("must be of the form https://host, without login")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or not value.isascii():
        raise ValueError("must be an origin alone, such as https://host, without a path")
    authority = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{authority}" + ("" if port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{port}")


def _explain_service_links(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and value.startswith("tcp://"):
        name = str(info.field_name).upper()
        service = name.removesuffix("_PORT").lower()
        raise ValueError(
            f"was set by Kubernetes for the service {service!r}; put enableServiceLinks: false into the pod, "
            f"or set {name} there"
        )
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Origin = Annotated[str, AfterValidator(_check_origin)]
Port = Annotated[int, BeforeValidator(_explain_service_links), Field(ge=1, le=65535)]
ANY_CASE = BeforeValidator(_lower)
"""Marks one of several words, which may be written in capitals."""
COMMA_SEPARATED = BeforeValidator(_strip_parts)
"""Marks a list, in which lines may break beside commas."""
Host = Annotated[str, Field(min_length=1), AfterValidator(_check_host)]
Hosts = Annotated[str, Field(min_length=1), AfterValidator(_check_hosts)]
OwnHost = Annotated[str, Field(min_length=1), AfterValidator(_check_own_host)]
"""An address of this machine, as the socket module takes it: an IPv6 address without brackets."""
PlainText = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]
SecondsOrNever = Annotated[float, Field(ge=0, le=3600)]
Milliseconds = Annotated[int, Field(gt=0, le=600_000)]
MediaType = Annotated[str, Field(pattern=r"^[a-z]+/[A-Za-z0-9.+-]+$")]
MediaTypes = Annotated[tuple[MediaType, ...], BeforeValidator(split_list), COMMA_SEPARATED]
PixelSizes = Annotated[tuple[Annotated[int, Field(ge=16, le=4096)], ...], BeforeValidator(split_list), COMMA_SEPARATED]
Duration = Annotated[int, BeforeValidator(_read_duration), Field(ge=1, le=3650 * 86_400)]
"""Seconds, which may be written with a unit: 900, 15m, 24h, 30d."""


def check_url(value: SecretStr, schemes: tuple[str, ...], example: str) -> Address:
    """The parts of an address of one of these schemes.

    Raises:
        ValueError: it is something else, with an example of one; or a piece of it is not what it looks like.
    """
    try:
        address = Address(value.get_secret_value())
    except ValueError:
        raise ValueError(f"is not an address; write it as {example}") from None
    if address.scheme not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}; for example {example}")
    address.check_pieces()
    return address


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


class SettingsPart(BaseModel):
    """The settings of one thing, frozen and valid on their own; each is named as its environment variable.

    Raises:
        ConfigurationError: with every problem that was found, not only the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    harmless: ClassVar[dict[str, Any]] = {}
    """What replaces malformed values whose defaults would also be reported, as missing."""

    def __init__(self, *, _checked: bool = True, **values: Any) -> None:
        if not _checked:
            super().__init__(**values)
            return
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigurationError(*describe_problems(error)) from None
        if problems := self.contradictions():
            raise ConfigurationError(*problems)

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        """Expand ~ as shells do; neither files of settings nor manifests expand it."""
        if not isinstance(value, Path):
            return value
        try:
            return value.expanduser()
        except RuntimeError:
            raise ValueError("begins with ~, but there is no such home folder; write the whole path") from None

    # Runs before the validators of the fields' types.
    @field_validator("*", mode="before")
    @classmethod
    def _remove_invisible(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, SecretStr):
            return SecretStr(cls._remove_invisible(value.get_secret_value(), info))
        if isinstance(value, Path):
            return Path(cls._remove_invisible(str(value), info))
        if not isinstance(value, str) or isinstance(value, StrEnum):
            return value
        text = strip(value)
        is_list = COMMA_SEPARATED in cls.model_fields[str(info.field_name)].metadata
        check_visible(COMMA_SEPARATED.func(text) if is_list else text)  # type: ignore[call-arg]
        return text

    def contradictions(self) -> list[str]:
        """Return what makes these settings unusable anywhere, although each value by itself is valid."""
        return []

    @classmethod
    def examine(cls, values: dict[str, Any]) -> tuple[Self, list[str], frozenset[str]]:
        """Read values that may be wrong.

        Returns:
            The part, in which defaults replace malformed values; all problems; the names of the malformed settings.
        """
        malformed, problems = frozenset[str](), list[str]()
        try:
            part = cls(_checked=False, **values)
        except ValidationError as error:
            malformed, problems = malformed_names(error), describe_problems(error)
            part = cls(_checked=False, **values | cls._instead_of(malformed))
        return part, problems + part.contradictions(), malformed

    @classmethod
    def _instead_of(cls, names: frozenset[str]) -> dict[str, Any]:
        return {name: cls.harmless.get(name, cls.model_fields[name].default) for name in names}

    def missing_files(self, *names: str) -> list[str]:
        """Return a problem for each of these settings that names no readable file."""
        files = {name: getattr(self, name) for name in names}
        return [
            f"{name.upper()}: there is no readable file {str(path)!r}"
            for name, path in files.items()
            if path is not None and (path.is_dir() or not os.access(path, os.R_OK))
        ]

    def replaced(self, **changes: Any) -> Self:
        """Return these settings with some changed, validated like any others."""
        return type(self)(**self._given() | changes)

    def unchecked(self, **changes: Any) -> Self:
        """Return these settings with some changed, whose contradictions are of no interest; each value is validated."""
        return type(self)(_checked=False, **self._given() | changes)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Return `replaced`: pydantic's own copy would not validate the changes."""
        return self.replaced(**update or {})

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


def describe_problems(error: ValidationError) -> list[str]:
    """Return one line for each problem, never with the value: it may be a secret."""
    return [describe_problem(problem) for problem in error.errors(include_url=False)]


def malformed_names(error: ValidationError) -> frozenset[str]:
    """Return the names of the settings whose values mean nothing."""
    return frozenset(str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"])
