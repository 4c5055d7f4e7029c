"""The secrets of this process itself, in every spelling in which they could reach the log."""

from __future__ import annotations

import base64
import html
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from pydantic import SecretStr

from data_layer.observability.secret_names import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data_layer.config import Settings

_SHORTEST = 8
_ESCAPED_BYTE = re.compile("%[0-9A-F]{2}")
_CONNECTION_STRING = re.compile(r"\w+=[^;]*;")
_COMMON_WORDS = frozenset({"password", "changeme"})


def secrets_of(settings: Settings) -> list[str]:
    """What must not appear in a log line, longest first.

    Short ones are left out, and those that are ordinary words (a password ``postgres`` beside a user ``postgres``):
    replacing them everywhere would garble lines and tell the password. Where they stand as a password they are
    masked like any other.
    """
    values = [getattr(settings, name) for name in type(settings).model_fields]
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
