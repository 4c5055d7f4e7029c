"""The rules of texts: what PostgreSQL can store in one, and formats that some have."""

from __future__ import annotations

from data_layer.errors import InvalidTextError, ValueTooLongError

MAXIMUM_TEXT_SIZE = 5 * 2**20
"""Largest text or JSON value of one column, in bytes of UTF-8: 5 MiB."""


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
    shown = name.encode(errors="replace").decode().replace("\0", "?")
    if "\0" in value:
        raise InvalidTextError(f"{shown} holds a NUL character, which PostgreSQL cannot store; remove it", field=field)
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidTextError(
            f"{shown} holds half a surrogate pair, which is not a character; decode the text correctly", field=field
        ) from None
    if size > MAXIMUM_TEXT_SIZE:
        raise ValueTooLongError(
            f"{shown} may have {MAXIMUM_TEXT_SIZE} bytes at most; this one has {size}. Keep large content in storage",
            field=field,
        )
