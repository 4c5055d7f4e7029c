"""What of a request is stored, and how its variants are called after it."""

from __future__ import annotations

from typing import Any

from data_layer.entities.enums import GenerationType, RequestType
from data_layer.entities.secret_names import is_secret

CODE_TYPES = {
    RequestType.CREATE: GenerationType.CREATE,
    RequestType.IMPORT: GenerationType.CREATE,
    RequestType.UPDATE: GenerationType.UPDATE,
    RequestType.RESTORE: GenerationType.UPDATE,
    RequestType.REFINE: GenerationType.REFINE,
}


def without_secrets(value: Any) -> Any:
    """The same JSON value without what is named like a secret."""
    match value:
        case dict():
            return {
                key: without_secrets(inner)
                for key, inner in value.items()
                if not isinstance(key, str) or not is_secret(key)
            }
        case list():
            return [without_secrets(inner) for inner in value]
        case _:
            return value
