"""Where a page ended, as a text that callers hand back unread."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING
from uuid import UUID

from data_layer.errors import InvalidValueError

if TYPE_CHECKING:
    from data_layer.schemas.audit import AuditFilter

_LENGTH = 16 + 8


def encode_cursor(last: UUID, wanted: AuditFilter, *, newest_first: bool) -> str:
    """The cursor after an entry, for the same filter and direction only."""
    return base64.urlsafe_b64encode(last.bytes + _mark(wanted, newest_first=newest_first)).decode()


def decode_cursor(cursor: str, wanted: AuditFilter, *, newest_first: bool) -> UUID:
    """The id of the last entry before the page.

    Raises:
        InvalidValueError: it is no cursor, or one of another filter or direction.
    """
    try:
        decoded = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        decoded = b""
    if len(decoded) != _LENGTH:
        raise InvalidValueError("cursor: this is none; hand back next_cursor of the page before", field="cursor")
    if decoded[16:] != _mark(wanted, newest_first=newest_first):
        raise InvalidValueError("cursor: it belongs to another filter; begin without a cursor", field="cursor")
    return UUID(bytes=decoded[:16])


def _mark(wanted: AuditFilter, *, newest_first: bool) -> bytes:
    return hashlib.sha256(f"{newest_first}{wanted.model_dump_json()}".encode()).digest()[:8]
