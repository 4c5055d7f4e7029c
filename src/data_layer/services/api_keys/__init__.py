"""API keys: what programs show in place of a login."""

from data_layer.services.api_keys.service import ApiKeyService

__all__ = ["ApiKeyService"]
