"""Find and mask secrets in what is logged: by name, by shape, and those that this process knows; with bounded work."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit
from uuid import UUID

from pydantic import SecretStr

from data_layer.text_cache import cached_by_text

_SEPARATORS = re.compile(r"[\W_]+")
_LONGEST_FIELD_NAME = 128
_SECRET = re.compile(
    "passw|passphrase|pwd|secret|token|authorization|cookie|apikey|accesskey|accountkey|sharedkey|privatekey"
    "|signingkey|encryptionkey|instrumentationkey|credential|sessionid|connectionstring|signature|jwt|.hash$|^(?:auth|sig|otp)$"
    # As pydantic shows what it refused.
    "|^input(?:value)?$"
)
_HEADER = re.compile("^(?:proxy)?authorization$|^(?:set)?cookie$|^x.*(?:key|token|secret)$|^apikey$")
_MEASURE = re.compile("tokens|(?:count|length|size|limit|seconds|ttl|used|age)$")


@cached_by_text(4096)
def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, in any spelling: ``api_key``, ``X-API-Key``, ``apiKey``."""
    return _SECRET.search(_normalised(name)) is not None


@cached_by_text(4096)
def is_measure(name: str) -> bool:
    """Whether a number of this name only measures secrets, as ``prompt_tokens`` does."""
    return _MEASURE.search(_normalised(name)) is not None


@cached_by_text(4096)
def is_header_name(name: str) -> bool:
    """Whether the rest of the line is the value, as in ``Authorization: Basic ...``."""
    return _HEADER.search(_normalised(name)) is not None


def _normalised(name: str) -> str:
    return _SEPARATORS.sub("", name[:_LONGEST_FIELD_NAME]).lower()


MASK = "***"

_LONGEST_NAME = 128
_NAME = re.compile(r"(?<![\w-])([\w-]++)(\\{0,3}[\"'\])]{0,2})\s{0,4}([=:])(?!=)\s{0,4}")
_QUOTED = r"""b?(?:"(?:[^"\\]|\\.)*+(?:"|\Z)|'(?:[^'\\]|\\.|'')*+(?:'|\\?\Z)|\\+["'].*?(?:\\+["']\S*|\Z))"""
_BRACKETS_AND_QUOTED = re.compile(rf"[(\[{{}}\])]|{_QUOTED}", re.DOTALL)
_ASSIGNED_VALUE = re.compile(rf"{_QUOTED}|\S+", re.DOTALL)
_LONE_VALUE = re.compile(rf"{_QUOTED}|\S{{6,256}}+(?=[^\S\n]*(?:\n|\Z))", re.DOTALL)
_JSON_VALUE = re.compile(rf"{_QUOTED}|[^\s,}}\]]+", re.DOTALL)
_HEADER_VALUE = re.compile(r"[^\r\n]+")
_NUMBER = re.compile(r"\d{1,9}\b")

_USER = r"://[^\s/:@?#\"']{0,256}:"
_ADDRESS = re.compile(
    rf"((?<!http)(?<!https){_USER}"
    # http://localhost:3000/?mail=a@b has a port, not a password.
    rf"|{_USER}(?!\d{{1,5}}(?:[/?#\s]|\Z)))(?:[^\s\"'<>]{{1,1024}}|\S{{1,1024}})@"
)
_UNIQUE_COLUMNS = re.compile(r"\(([^()]{1,256})\)=\([^)]*+(?:\)|\Z)")
_ROW = re.compile(r"(failing row contains )\(.*?(?:\)\.?(?=\n|\Z)|\Z)", re.IGNORECASE | re.DOTALL)
_PARAMETERS = re.compile(r"(\[parameters: ).*?(?:\](?=\n|\Z)|\Z)", re.DOTALL)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
)
_BEARER = re.compile(r"(bearer\s{1,4})[^\s\"',;]{6,}", re.IGNORECASE)
# "Basic authentication" is prose.
_BASIC = re.compile(r"([Bb]asic )(?=[a-z]{0,64}[A-Z0-9+/=])[A-Za-z0-9+/=]{8,}")
_JSON_WEB_TOKEN = re.compile(r"eyJ[\w-]{5,}(?:\.[\w-]*)*")
_AMAZON_KEY = re.compile(r"A[KS]IA[A-Z0-9]{12,}")
_PROVIDER_KEY = re.compile(
    r"\b(?:sk-|gh[opsur]_|github_pat_|glpat-|npm_|AIza|xox[a-z]-|[rs]k_(?:live|test)_)[\w-]{16,}"
)
# In SQL: ALTER ROLE app PASSWORD 'secret'.
_SQL_PASSWORD = re.compile(rf"(password\s{{1,4}}){_QUOTED}", re.IGNORECASE | re.DOTALL)
_COMMAND_OPTION = re.compile(
    r"((?:--[\w-]{0,64}(?:passw|secret|token|key)[\w-]{0,64}|requirepass)\s{1,4})\S+", re.IGNORECASE
)
_XML_ELEMENT = re.compile(r"(<[\w:]{0,64}(?:passw|secret|token|signature)\w{0,64}>)[^<]+", re.IGNORECASE)
_PAIR = re.compile(r"""(\(b?(["'])([\w-]{1,128})\2,\s?)b?(?:'[^']*+'|"[^"]*+")(?=\))""")
_PASSWORD_HASH = re.compile(r"\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{20,}")

_KEEP_FIRST = rf"\g<1>{MASK}"


def mask_patterns(text: str) -> str:
    """The text with everything that looks like a secret replaced."""
    if "://" in text and "@" in text:
        text = _ADDRESS.sub(f"{_KEEP_FIRST}@", text)
    if ")=(" in text:
        text = _UNIQUE_COLUMNS.sub(_mask_columns, text)
    lowered = text.lower()
    for piece, pattern, replacement in _SHAPES:
        if piece in lowered:
            text = pattern.sub(replacement, text)
    if "=" in text or ":" in text:
        text = _mask_named(text)
    if "', " in text or '", ' in text:
        text = _PAIR.sub(_mask_pair, text)
    return text


def _mask_named(text: str) -> str:
    """Mask what is assigned to a secret's name: in settings, queries, headers, JSON and calls."""
    pieces: list[str] = []
    done = 0
    for found in _NAME.finditer(text):
        name = found[1][-_LONGEST_NAME:]
        if found.start() < done or not is_secret_name(name):
            continue
        if is_measure(name) and _NUMBER.match(text, found.end()):
            continue
        end = _end_of_value(text, found, name)
        if end > found.end():
            pieces += text[done : found.end()], MASK
            done = end
    return "".join([*pieces, text[done:]]) if pieces else text


def _end_of_value(text: str, found: re.Match[str], name: str) -> int:
    """Where the value of a name ends.

    After a bare name and a colon, as in prose, only a quoted value counts, or a single word that ends the line.
    """
    start = found.end()
    is_data = found[3] == "=" or found[2]
    if is_data and text.startswith(("(", "[", "{"), start):
        return _end_of_brackets(text, start)
    if is_data:
        value = (_ASSIGNED_VALUE if found[3] == "=" else _JSON_VALUE).match(text, start)
    else:
        value = (_HEADER_VALUE if is_header_name(name) else _LONE_VALUE).match(text, start)
    return value.end() if value else start


def _end_of_brackets(text: str, start: int) -> int:
    depth = 0
    for part in _BRACKETS_AND_QUOTED.finditer(text, start):
        depth += (part[0] in "([{") - (part[0] in ")]}")
        if depth == 0:
            return part.end()
    return len(text)


def _mask_columns(found: re.Match[str]) -> str:
    """PostgreSQL names the values of a violated constraint: Key (a, b)=(1, 2)."""
    secret = any(is_secret_name(name.strip()) for name in found[1].split(","))
    return f"({found[1]})={MASK}" if secret else found[0]


def _mask_pair(found: re.Match[str]) -> str:
    return f"{found[1]}{MASK}" if is_secret_name(found[3]) else found[0]


def _mask_web_token(found: re.Match[str]) -> str:
    return MASK if "." in found[0] else found[0]


_SHAPES: tuple[tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    ("-----begin", _PRIVATE_KEY, MASK),
    ("bearer", _BEARER, _KEEP_FIRST),
    ("basic ", _BASIC, _KEEP_FIRST),
    ("eyj", _JSON_WEB_TOKEN, _mask_web_token),
    ("akia", _AMAZON_KEY, MASK),
    ("asia", _AMAZON_KEY, MASK),
    *((piece, _PROVIDER_KEY, MASK) for piece in ("sk-", "gh", "glpat-", "npm_", "aiza", "xox", "k_live_", "k_test_")),
    ("password", _SQL_PASSWORD, _KEEP_FIRST),
    ("--", _COMMAND_OPTION, _KEEP_FIRST),
    ("requirepass", _COMMAND_OPTION, _KEEP_FIRST),
    ("</", _XML_ELEMENT, _KEEP_FIRST),
    ("$2", _PASSWORD_HASH, MASK),
    ("failing row", _ROW, _KEEP_FIRST),
    ("[parameters: ", _PARAMETERS, f"{_KEEP_FIRST}]"),
)


_SHORTEST = 8
_ESCAPED_BYTE = re.compile("%[0-9A-F]{2}")
_CONNECTION_STRING = re.compile(r"\w+=[^;]*;")
_COMMON_WORDS = frozenset({"password", "changeme"})


def secrets_of(values: Collection[Any]) -> list[str]:
    """Return what of the values of settings must not appear in a log line, longest first.

    Short ones are left out, and those that are ordinary words (a password ``postgres`` beside a user ``postgres``):
    replacing them everywhere would garble lines and disclose the password. Where they stand as a password they are
    masked like any other.
    """
    words = _COMMON_WORDS | {str(value) for value in values if not isinstance(value, SecretStr)}
    secrets = {
        secret
        for value in values
        if isinstance(value, SecretStr)
        for secret in _parts(value.get_secret_value())
        if len(secret) >= _SHORTEST and secret not in words
    }
    return sorted({spelling for secret in secrets for spelling in _spellings(secret)}, key=len, reverse=True)


def _parts(secret: str) -> Iterator[str]:
    """Of an address only its secrets: the host may be logged. A connection string is one, and so are its keys."""
    if _CONNECTION_STRING.match(secret):
        yield secret
        pairs = (part.partition("=") for part in secret.split(";"))
        yield from (value for name, _, value in pairs if "key" in name.lower() or is_secret_name(name))
        return
    if "://" not in secret:
        yield secret
        return
    address = urlsplit(secret)
    if address.password:
        yield address.password
        yield unquote(address.password)
    yield from (value for name, value in parse_qsl(address.query) if is_secret_name(name))


def _spellings(secret: str) -> set[str]:
    encoded = secret.encode(errors="surrogatepass")
    quoted = {quote(encoded), quote(encoded, safe=""), quote_plus(encoded)}
    in_json = {json.dumps(secret), json.dumps(secret, ensure_ascii=False)}
    return {
        secret,
        *quoted,
        *(_ESCAPED_BYTE.sub(lambda found: found[0].lower(), text) for text in quoted),
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        repr(encoded)[2:-1],
        *(text[1:-1] for text in in_json),
        *(json.dumps(text[1:-1])[1:-1] for text in in_json),
        html.escape(secret),
        base64.b64encode(encoded).decode(),
        base64.urlsafe_b64encode(encoded).decode(),
    }


_SHORTEST_SECRET = 6
_LONGEST_TEXT = 16_384
# So much more is searched and then dropped: a secret that is cut in two at the end would not be recognised.
_OVERLAP = 4_096
_LONGEST_BYTES = 1_024
_DEPTH = 8
_ITEMS = 100
_VALUES = 1_000
_CHARACTERS = 131_072
_LEFT_OUT = "…"

_PLAIN = frozenset({int, float, bool, type(None)})
_LARGEST_NUMBER = 2**63
_SHORT_TEXT = frozenset({UUID, datetime, date, time, timedelta, Decimal})
_CONTAINERS = (dict, list, tuple, set, frozenset)
_HEXADECIMAL = re.compile("[0-9a-f]+")  # In lower case no secret that is known by its shape looks like that.
_REMEMBERED_NAMES = 1_024
_REMEMBERED_TEXTS = 1_024
_LONGEST_REMEMBERED = 64


class Masker:
    """Knows the secrets of this process and what secrets look like."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self._hexadecimal_secrets = tuple(filter(_HEXADECIMAL.fullmatch, secrets))
        self._harmless_names: set[str] = set()
        self._harmless_fields: set[str] = set()
        self._harmless_texts: set[str] = set()

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """What is to be shown of an event: made of JSON's types only, without secrets."""
        if len(event) <= _ITEMS and self.has_cleared(event.items()):
            return event
        return _Walk(self).fields(event.items(), _DEPTH)

    def text(self, text: str) -> str:
        """The text without secrets; of a very long one the beginning.

        Short ones that hold none are remembered: the same events, loggers, methods and paths come again and again.
        """
        if len(text) <= _LONGEST_REMEMBERED:
            return text if text in self._harmless_texts else self._short(text)
        if len(text) <= _LONGEST_TEXT:
            return self._mask(text)
        beginning = self._mask(text[: _LONGEST_TEXT + _OVERLAP])[:-_OVERLAP]
        return f"{beginning}{_LEFT_OUT} ({len(text)} characters)"

    def name(self, name: str) -> str:
        """The name of a field without secrets. There are few names, so the harmless ones are remembered."""
        if name in self._harmless_names:
            return name
        masked = self.text(name)
        if masked == name and len(self._harmless_names) < _REMEMBERED_NAMES:
            self._harmless_names.add(name)
            if name.isascii() and not is_secret_name(name):
                self._harmless_fields.add(name)
        return masked

    def has_cleared(self, fields: Iterable[tuple[Any, Any]]) -> bool:
        """Whether fields are of those that come again and again, and shown as they are."""
        # One loop without a call for each field: there is a line for every request.
        names, texts = self._harmless_fields, self._harmless_texts
        for name, value in fields:
            kind = type(value)
            if type(name) is not str or name not in names:
                return False
            if kind is str:
                if not ((value in texts and value.isascii()) or self._is_id(value)):
                    return False
            elif kind not in _PLAIN or (kind is int and abs(value) >= _LARGEST_NUMBER):
                return False
        return True

    def _is_id(self, text: str) -> bool:
        """Whether a text is hexadecimal and no secret of this process: ids are seldom seen again."""
        return (
            len(text) <= _LONGEST_REMEMBERED
            and _HEXADECIMAL.fullmatch(text) is not None
            and not any(secret in text for secret in self._hexadecimal_secrets)
        )

    def _short(self, text: str) -> str:
        if self._is_id(text):
            return text
        masked = self._mask(text)
        if masked == text:
            if len(self._harmless_texts) >= _REMEMBERED_TEXTS:
                self._harmless_texts.clear()
            self._harmless_texts.add(text)
        return masked

    def _mask(self, text: str) -> str:
        if len(text) < _SHORTEST_SECRET:
            return text
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return mask_patterns(text)


class _Walk:
    """One pass through one event; what exceeds its budget is left out."""

    __slots__ = ("_characters", "_masker", "_values")

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._values = _VALUES
        self._characters = _CHARACTERS

    def fields(self, items: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        masker = self._masker
        found: dict[str, Any] = {}
        for name, value in islice(items, _ITEMS):
            if masker.has_cleared(((name, value),)) and self._values > 0:
                self._values -= 1
                found[name] = value
            else:
                found[self._name(name)] = self._field(name, value, depth)
        return found

    def _name(self, name: Any) -> str:
        return _encodable(self._masker.name(name) if type(name) is str else self._text(_read(name)))

    def _field(self, name: Any, value: Any, depth: int) -> Any:
        return MASK if _is_secret(name, value) else self._value(value, depth)

    def _value(self, value: Any, depth: int) -> Any:
        self._values -= 1
        if self._values < 0:
            return _LEFT_OUT
        if type(value) is str:
            return self._text(value)
        if type(value) in _PLAIN and not (type(value) is int and abs(value) >= _LARGEST_NUMBER):
            return value
        if type(value) in _SHORT_TEXT:
            return str(value)
        try:
            return self._compound(value, depth - 1)
        except Exception:  # noqa: BLE001  (foreign code, or a dictionary that another thread is changing)
            return _unreadable(value)

    def _compound(self, value: Any, depth: int) -> Any:
        if isinstance(value, Enum):
            return self._value(value.value, depth)
        if isinstance(value, _CONTAINERS):
            return self._container(value, depth) if depth > 0 else _LEFT_OUT
        return self._text(_read(value))

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return self.fields(value.items(), depth)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self.fields(zip(value._fields, value, strict=False), depth)
        if isinstance(value, (tuple, list)) and len(value) == 2 and _is_secret(*value):
            return [self._value(value[0], depth), MASK]  # A header, as ASGI writes it.
        return [self._value(item, depth) for item in islice(value, _ITEMS)]

    def _text(self, text: str) -> str:
        if self._characters <= 0:
            return _LEFT_OUT
        masked = self._masker.text(text)
        self._characters -= len(masked)
        return _encodable(masked)


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _is_secret(name: Any, value: Any) -> bool:
    # By type: isinstance asks the value, which can be anything.
    if type(value) in {type(None), bool} or not issubclass(type(name), (str, bytes)):
        return False
    text = name if issubclass(type(name), str) else name[:_LONGEST_BYTES].decode(errors="replace")
    return is_secret_name(text) and not (type(value) in {int, float} and is_measure(text))


def _read(value: Any) -> str:
    try:
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _read_bytes(value)
        return str(value) if isinstance(value, PurePath) else repr(value)
    except Exception:  # noqa: BLE001  (foreign code)
        return _unreadable(value)


def _read_bytes(value: bytes | bytearray | memoryview) -> str:
    size = len(value)
    return f"<{size} bytes>" if size > _LONGEST_BYTES else bytes(value).decode(errors="backslashreplace")


def _unreadable(value: Any) -> str:
    return f"<{type(value).__name__}: unreadable>"
