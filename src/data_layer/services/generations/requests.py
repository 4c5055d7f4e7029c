"""What of a request is stored, and how its variants are called after it."""

from __future__ import annotations

from typing import Any

from data_layer.entities.changes import is_secret
from data_layer.entities.enums import GenerationType, RequestType
from data_layer.schemas.generations import GenerationRequest, VariantModel

CODE_TYPES = {
    RequestType.CREATE: GenerationType.CREATE,
    RequestType.IMPORT: GenerationType.CREATE,
    RequestType.UPDATE: GenerationType.UPDATE,
    RequestType.RESTORE: GenerationType.UPDATE,
    RequestType.REFINE: GenerationType.REFINE,
}


_OF_VARIANTS = {"code_stack", "parent_id"}


def generation_values(request: GenerationRequest) -> dict[str, Any]:
    """What a generation keeps of its request."""
    values = {name: value for name, value in vars(request).items() if name not in _OF_VARIANTS}
    return values | {"inputs": without_secrets(request.inputs)}


def variant_values(request: GenerationRequest, model: VariantModel) -> dict[str, Any]:
    """What a code keeps of the request and of its model."""
    return {
        "code_stack": request.code_stack,
        "provider": model.provider,
        "model": model.name,
        "generation_type": CODE_TYPES[request.generation_type],
        "original_prompt": request.prompt,
        "parent_id": request.parent_id,
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
