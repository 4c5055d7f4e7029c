"""Reading the environment and ``.env``: what they hold, and what in them is probably a mistake."""

from __future__ import annotations

import os
import re
import string
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from dotenv.parser import parse_stream

from data_layer.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

# Names that other programs use for the same thing.
_SYNONYMS = {
    "DB_DATABASE": "DB_NAME",
    "DB_HOSTNAME": "DB_HOST",
    "DB_PASS": "DB_PASSWORD",
    "DB_SSLMODE": "DB_SSL",
    "DB_USER": "DB_USERNAME",
    "REDIS_CLUSTER": "REDIS_CLUSTER_NODES",
    "REDIS_DB": "REDIS_DATABASE",
    "REDIS_PASS": "REDIS_PASSWORD",
    "REDIS_SENTINELS": "REDIS_SENTINEL_NODES",
    "REDIS_SENTINEL_MASTER_NAME": "REDIS_SENTINEL_MASTER",
    "REDIS_USER": "REDIS_USERNAME",
}
# Of those of our prefixes that no other program is likely to use.
_PREFIXES = ("DB_", "REDIS_", "STORAGE_", "LOCAL_STORAGE_", "AZURE_STORAGE_", "JWT_", "AUDIT_", "BCRYPT_")
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP).*)?$")
_SHORTEST_NAME_TO_MISSPELL = 6  # HOST and PORT are one slip away from too much.
_ALPHABET = string.ascii_uppercase + string.digits + "_"


def read_file(path: Path | None) -> dict[str, str]:
    """The variables of an environment file, by their names in capitals, taken as they are; a missing file is empty.

    Raises:
        ConfigurationError: when it cannot be read, is not UTF-8, or holds a line that means nothing.
    """
    if path is None or not path.is_file():
        return {}
    try:
        bindings = list(parse_stream(StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the file {str(path)!r} cannot be read as UTF-8: {type(error).__name__}") from None
    broken = [binding.original.line for binding in bindings if binding.error]
    if broken:
        raise ConfigurationError(*(f"line {line} of the file {str(path)!r} is no NAME=value" for line in broken))
    return {binding.key.upper(): binding.value for binding in bindings if binding.key and binding.value}


def present_variables(file: dict[str, str]) -> dict[str, str]:
    """What is set, by names in capitals; the environment goes before the file, and empty counts as not set."""
    return file | {name.upper(): value for name, value in os.environ.items() if value}


def misspelt(present: dict[str, str], known: tuple[str, ...]) -> list[str]:
    """Problems with variables that nothing reads but that someone surely meant as a setting, such as DB_HOTS."""
    problems = []
    for name in present:
        meant = None if name in known else meant_setting(name, known)
        # Where the right name is set too, a synonym belongs to another program.
        if meant is not None and not (name in _SYNONYMS and meant in present):
            problems.append(f"{name} is not a setting; did you mean {meant}?")
    return problems


def unread(present: dict[str, str], known: tuple[str, ...]) -> list[str]:
    """Variables with a prefix of ours that nothing reads; those that Kubernetes makes for services are left out."""
    return [
        name
        for name in present
        if name.startswith(_PREFIXES) and name not in known and not _SERVICE_LINK.search(name) and name not in _SYNONYMS
    ]


def meant_setting(name: str, known: tuple[str, ...]) -> str | None:
    """The setting that differs from the name by one slip of the fingers, or that others call by this name."""
    if name in _SYNONYMS:
        return _SYNONYMS[name]
    if len(name) < _SHORTEST_NAME_TO_MISSPELL:
        return None
    settings = _settings_by_part(known)
    similar = {setting for part in _one_letter_less(name) for setting in settings.get(part, ())}
    # Few are similar by chance, so that this is hardly ever asked.
    return min(similar & _one_slip_away(name), default=None) if similar else None


@cache
def _settings_by_part(known: tuple[str, ...]) -> dict[str, list[str]]:
    """Names that are one slip apart have a part in common: themselves, or what one letter less leaves."""
    settings: dict[str, list[str]] = {}
    for name in known:
        for part in _one_letter_less(name):
            settings.setdefault(part, []).append(name)
    return settings


def _one_letter_less(name: str) -> set[str]:
    return {name} | {name[:position] + name[position + 1 :] for position in range(len(name))}


def _one_slip_away(name: str) -> set[str]:
    """All names with one character more, less, other, or changed places with its neighbour."""
    cuts = [(name[:position], name[position:]) for position in range(len(name) + 1)]
    less = {left + right[1:] for left, right in cuts if right}
    swapped = {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
    other = {left + letter + right[1:] for left, right in cuts if right for letter in _ALPHABET}
    more = {left + letter + right for left, right in cuts for letter in _ALPHABET}
    return less | swapped | other | more


class Address:
    """The parts of a URL that decide whether it is fit for production."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(hosts_in_query(url))
        options = parse_qs(parts.query)
        self.hosts = options["host"][0].split(",") if "host" in options else [parts.hostname]
        self.password = options.get("password", [None])[0] or (unquote(parts.password) if parts.password else None)
        self.names_ssl_mode = "sslmode" in options

    @property
    def is_local(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return all(is_local(host) for host in self.hosts)


def is_local(host: str | None) -> bool:
    """Whether what is sent to this host stays on this machine: a loopback address or a Unix socket."""
    return not host or host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}


def hosts_in_query(url: str) -> str:
    """The same address with its hosts as options, ``?host=a,b&port=5432,5433``, if it names several as libpq does.

    Raises:
        ValueError: when a port is no number.
    """
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    if "," not in place:
        return url
    query = [*parse_qsl(parts.query, keep_blank_values=True), *host_options(place).items()]
    return parts._replace(netloc=f"{login}{at}", query=urlencode(query)).geturl()


def host_options(hosts: str, default_port: int = 5432) -> dict[str, str]:
    """Libpq's options ``host`` and ``port`` for hosts that are separated by commas.

    Raises:
        ValueError: when a port is no number.
    """
    pairs = [host_and_port(text, default_port) for text in hosts.split(",")]
    return {"host": ",".join(host for host, _ in pairs), "port": ",".join(str(port) for _, port in pairs)}


def host_and_port(text: str, default_port: int) -> tuple[str, int]:
    """The parts of ``host`` or ``host:port``; an IPv6 address that has a port stands in brackets.

    Raises:
        ValueError: when the port is no number.
    """
    text = text.strip()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, int(port) if port else default_port
