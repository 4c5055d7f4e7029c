"""The metadata of a stored file, as the headers of an object store carry it."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from data_layer.storage.metadata import RESERVED_PREFIX
from data_layer.storage.port import FileInformation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore import GetResult

    from data_layer.storage.metadata import Description

_SHA256 = f"{RESERVED_PREFIX}sha256"
_EMPTY = "%"
"""Stands for an empty value, which some servers drop; no quoted text is like it."""

_STANDARD = frozenset(
    {
        "Content-Type",
        "Content-Encoding",
        "Content-Language",
        "Content-Disposition",
        "Cache-Control",
        "Storage-Class",
    }
)
_UNKNOWN_TYPE = "application/octet-stream"


def to_attributes(description: Description, sha256: str | None) -> dict[str, str]:
    """What is sent with a file: headers of HTTP by their names, and metadata, percent-encoded."""
    attributes = {name: _kept(value) for name, value in description.metadata.items()}
    attributes["Content-Type"] = description.content_type
    if description.content_encoding is not None:
        attributes["Content-Encoding"] = description.content_encoding
    if description.cache_control is not None:
        attributes["Cache-Control"] = description.cache_control
    if sha256 is not None:
        attributes[_SHA256] = sha256
    return attributes


def to_information(key: str, result: GetResult) -> FileInformation:
    """What the headers of an answer say about a file."""
    attributes, meta = result.attributes, result.meta
    return FileInformation(
        key,
        meta["size"],
        attributes.get("Content-Type", _UNKNOWN_TYPE),
        attributes.get(_SHA256),
        meta["last_modified"].astimezone(UTC),
        (meta["e_tag"] or "").strip('"'),
        _metadata(attributes),
        attributes.get("Content-Encoding"),
        attributes.get("Cache-Control"),
    )


def _metadata(attributes: Mapping[str, str]) -> dict[str, str]:
    # Servers are free to change the case of names.
    return {
        name.lower(): "" if value == _EMPTY else unquote(value)
        for name, value in attributes.items()
        if name not in _STANDARD and not name.startswith(RESERVED_PREFIX)
    }


def _kept(value: str) -> str:
    return quote(value) if value else _EMPTY
