"""What values of settings look like: numbers in their limits, durations with units, secrets that cannot be guessed."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from data_layer.environment import Address, split_host, strip

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
