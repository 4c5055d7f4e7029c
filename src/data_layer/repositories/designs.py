"""The ``design_systems`` table."""

from __future__ import annotations

from data_layer.entities import DesignSystem
from data_layer.repositories.repository import Repository


class DesignSystemRepository(Repository[DesignSystem]):
    """Rows of ``design_systems``."""

    entity = DesignSystem
