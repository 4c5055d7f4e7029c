"""The ``generations`` and ``generation_events`` tables."""

from __future__ import annotations

from data_layer.entities import Generation, GenerationEvent
from data_layer.repositories.repository import Repository


class GenerationRepository(Repository[Generation]):
    """Rows of ``generations``."""

    entity = Generation


class GenerationEventRepository(Repository[GenerationEvent]):
    """Rows of ``generation_events``."""

    entity = GenerationEvent
