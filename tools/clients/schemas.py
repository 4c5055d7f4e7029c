"""Schemas in a description of an API (OpenAPI)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def resolved(document: Schema, schema: Schema) -> Schema:
    """What a schema refers to; itself, if it is no reference.

    Args:
        document: the description that holds it.
        schema: of the description.
    """
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema
