"""How secrets look inside of text that nobody structured: messages, addresses, tracebacks.

Every pattern begins with a literal piece and either bounds or consumes what it repeats, so its time grows with the
text and not faster. In doubt a pattern takes too much: a line without a harmless word is better than one that tells a
password.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from data_layer.observability.secret_names import is_header_name, is_measure, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """PostgreSQL tells the values of a violated constraint: Key (a, b)=(1, 2)."""
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
