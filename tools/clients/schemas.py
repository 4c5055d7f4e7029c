"""What a description of an API (OpenAPI) refers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def resolved(document: Schema, schema: Schema) -> Schema:
    """What a schema, an answer or a header refers to; itself, if it is no reference.

    Args:
        document: the description that holds it.
        schema: of the description.
    """
    while "$ref" in schema:
        _, components, kind, name = schema["$ref"].split("/")
        schema = document[components][kind][name]
    return schema
