"""Reading the environment and ``.env``: what they hold, and what in them is probably a mistake."""

from __future__ import annotations

import ipaddress
import os
import re
import string
import unicodedata
from collections.abc import Iterable
from functools import cache
from io import StringIO
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from data_layer.errors import ConfigurationError

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
_PREFIXES = ("DB_", "REDIS_", "STORAGE_", "LOCAL_STORAGE_", "AZURE_STORAGE_", "JWT_", "AUDIT_", "BCRYPT_", "OIDC_")
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP).*)?$")
_SHORTEST_NAME_TO_MISSPELL = 6  # HOST and PORT are one slip away from too much.
_ALPHABET = string.ascii_uppercase + string.digits + "_"
_LARGEST_PORT = 65535
_HOST_AND_PORT = re.compile(
    r"(?P<bare>[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%\w+)?)"
    r"|(\[(?P<ipv6>[^\]\s]+)\]|(?P<name>[\w.-]+))(:(?P<port>[0-9]{1,5}))?"
)
# Control and format characters, separators of lines and paragraphs, and bytes that are not UTF-8.
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
_FILLERS = "\u034f\u115f\u1160\u2800\u3164\uffa0"  # They look like a blank, and are letters or marks to Unicode.
_JOINERS = "\u200c\u200d"  # They shape words and emoji, in the name of a folder for example.


def read_file(path: Path | None) -> dict[str, str]:
    """The variables of an environment file, by their names in capitals, taken as they are; a missing file is empty.

    Raises:
        ConfigurationError: when it cannot be read, is not UTF-8, or holds a line that means nothing.
    """
    from dotenv.parser import parse_stream  # Needed only where there is such a file.

    if path is None or not path.is_file():
        return {}
    try:
        bindings = list(parse_stream(StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the file {str(path)!r} cannot be read as UTF-8: {type(error).__name__}") from None
    broken = [binding.original.line for binding in bindings if binding.error]
    if broken:
        raise ConfigurationError(*(f"line {line} of the file {str(path)!r} is not NAME=value" for line in broken))
    return _without_empty((binding.key, binding.value or "") for binding in bindings if binding.key)


def present_variables(file: dict[str, str]) -> dict[str, str]:
    """What is set, by names in capitals; the environment goes before the file, and empty counts as not set."""
    return file | _without_empty(os.environ.items())


def _without_empty(variables: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {strip(name).upper(): text for name, value in variables if (text := strip(value))}


def strip(text: str) -> str:
    """The text without what cannot be seen at its ends: white space, control characters, a byte order mark."""
    start, end = 0, len(text)
    while start < end and _is_blank(text[start]):
        start += 1
    while end > start and _is_blank(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_blank(character: str) -> bool:
    if character.isascii():
        return not "!" <= character <= "~"
    return character.isspace() or character in _FILLERS or unicodedata.category(character) in _INVISIBLE - {"Cs"}


def check_visible(text: str) -> None:
    """Refuse what nobody means to write into a setting, and nobody sees in it.

    Raises:
        ValueError: it holds a control character or the like. It is not quoted: it may be a secret.
    """
    for character in text:
        if not character.isprintable() and unicodedata.category(character) in _INVISIBLE and character not in _JOINERS:
            code = f"U+{ord(character):04X}"
            if unicodedata.category(character) == "Cs":
                raise ValueError("is not UTF-8")
            raise ValueError(f"holds an invisible character ({code}); remove it")


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
    """The parts of a URL with a login, as they are meant: decoded.

    Raises:
        ValueError: it is not a URL, or a port in it is not a number.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(hosts_in_query(url))
        _ = parts.port
        self.scheme = parts.scheme
        self.options = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        host = unquote(parts.hostname) if parts.hostname else None
        self.hosts: list[str | None] = [*self.options["host"].split(",")] if "host" in self.options else [host]
        self.name = self.options.get("dbname") or unquote(parts.path.removeprefix("/"))
        self.username = self.options.get("user") or (unquote(parts.username) if parts.username else None)
        self.password = self.options.get("password") or (unquote(parts.password) if parts.password else None)
        self.names_ssl_mode = "sslmode" in self.options

    @property
    def is_local(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return all(is_local(host) for host in self.hosts)

    def check_pieces(self) -> None:
        """Refuse pieces that mean something else than what people see in them.

        Raises:
            ValueError: one holds a control character, also one that is percent-encoded, or begins or ends with a blank,
                which only a password may. It is not quoted.
        """
        pieces = {"host": ",".join(host or "" for host in self.hosts), "name": self.name, "user": self.username or ""}
        pieces |= {f"option {name}": value for name, value in self.options.items() if name != "password"}
        for piece, text in pieces.items():
            if text != strip(text):
                raise ValueError(f"begins or ends its {piece} with white space or an invisible character; remove it")
        for text in (*pieces.values(), self.password or ""):
            check_visible(text)


def is_local(host: str | None) -> bool:
    """Whether what is sent to this host stays on this machine: a loopback address or a Unix socket."""
    if not host or host.startswith("/") or host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def hosts_in_query(url: str) -> str:
    """The same address with its hosts as options, ``?host=a,b&port=5432,5433``, if it names several as libpq does.

    Also with the folder of a Unix socket, which libpq reads from ``postgresql://%2Frun%2Fpostgresql:5433/name``.

    Raises:
        ValueError: when a port is not a number.
    """
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    if place.lower().startswith("%2f"):
        folder, _, port = place.partition(":")
        options = {"host": unquote(folder), "port": str(int(port or 5432))}
    elif "," in place:
        options = host_options(place)
    else:
        return url
    query = [*parse_qsl(parts.query, keep_blank_values=True), *options.items()]
    return parts._replace(netloc=f"{login}{at}", query=urlencode(query)).geturl()


def host_options(hosts: str, default_port: int = 5432) -> dict[str, str]:
    """Libpq's options ``host`` and ``port`` for hosts that are separated by commas.

    Raises:
        ValueError: when a port is not a number.
    """
    pairs = [host_and_port(text, default_port) for text in hosts.split(",")]
    return {"host": ",".join(host for host, _ in pairs), "port": ",".join(str(port) for _, port in pairs)}


def host_and_port(text: str, default_port: int) -> tuple[str, int]:
    """The parts of ``host`` or ``host:port``; an IPv6 address that has a port stands in brackets.

    Raises:
        ValueError: as `split_host` does.
    """
    host, port = split_host(text)
    return host, default_port if port is None else port


def split_host(text: str) -> tuple[str, int | None]:
    """The host without brackets, and its port if it names one.

    A host is a name, an address or, if it begins with a slash, the folder of a Unix socket.

    Raises:
        ValueError: it is none of that. It is not quoted: it may hold a password.
    """
    text = text.strip()
    if text.startswith("/"):
        return text, None
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        raise ValueError("is not a host; write it as host or host:port, an IPv6 address as [::1] or [::1]:port")
    address, port = match["ipv6"] or match["bare"], int(match["port"]) if match["port"] else None
    if address is not None:
        _check_ipv6(address)
    if port is not None and not 1 <= port <= _LARGEST_PORT:
        raise ValueError(f"has a port that is not between 1 and {_LARGEST_PORT}")
    return address or match["name"], port


def _check_ipv6(address: str) -> None:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise ValueError("has an IPv6 address that is none; write [::1] or [::1]:port") from None
