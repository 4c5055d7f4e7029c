"""The rules of texts: what PostgreSQL can store in one, and the one spelling of an e-mail address."""

from __future__ import annotations

import re
import unicodedata

import idna

from data_layer.errors import InvalidTextError, InvalidValueError, ValueTooLongError

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")

MAXIMUM_TEXT_SIZE = 5 * 2**20
"""Largest text or JSON value of one column, in bytes of UTF-8: 5 MiB."""

WHITE_SPACE = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What applications strip from the ends of a code: Python's white space, and the byte order mark of JavaScript's."""


def check_text(name: str, value: str, *, field: str | None = None) -> None:
    """Refuse what PostgreSQL cannot store in a text: NUL, lone surrogates, and more than 5 MiB.

    Args:
        name: What the error calls the text.
        value: The text.
        field: The column, where the text is only a part of it.

    Raises:
        InvalidTextError: for NUL and lone surrogates.
        ValueTooLongError: over ``MAXIMUM_TEXT_SIZE``.
    """
    field = field or name
    if "\0" in value:
        raise InvalidTextError(
            f"{_shown(name)} holds a NUL character, which PostgreSQL cannot store; remove it", field=field
        )
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidTextError(
            f"{_shown(name)} holds half a surrogate pair, which is not a character; decode the text correctly",
            field=field,
        ) from None
    if size > MAXIMUM_TEXT_SIZE:
        raise ValueTooLongError(
            f"{_shown(name)} may have {MAXIMUM_TEXT_SIZE} bytes at most; this one has {size}. "
            "Keep large content in storage",
            field=field,
        )


def _shown(name: str) -> str:
    return name.encode(errors="replace").decode().replace("\0", "?")


def normalize_email(address: str, *, field: str = "email") -> str:
    """Return the one spelling of an e-mail address, so that letter case and encodings make no second account.

    Lower case, composed (NFC), the domain in Unicode (RFC 5891 and UTS 46). Computed here and compared byte for byte,
    because ``lower()`` of a database depends on its collation: in a Turkish one ``I`` and ``i`` are different letters.
    Whether an address can receive mail is another question; ``admin@localhost`` has a spelling, too.

    Raises:
        InvalidValueError: for what is not an address.
    """
    text = unicodedata.normalize("NFC", address.strip())
    if not _ADDRESS.fullmatch(text) or not text.isprintable():
        raise InvalidValueError(f"{field} must be an e-mail address, such as name@example.com", field=field)
    local, _, domain = text.rpartition("@")
    try:
        domain = idna.decode(idna.encode(domain, uts46=True))
    except (idna.IDNAError, UnicodeError):
        domain = domain.lower()  # A name of a private network, such as one with an underscore.
    return unicodedata.normalize("NFC", f"{local.lower()}@{domain}")
