"""Where the process runs: a part of ``Settings``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_layer.settings.part import SettingsPart
from data_layer.settings.values import ANY_CASE


class Environment(StrEnum):
    """Where the process runs; production refuses what is convenient elsewhere."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    STAGING = "staging"
    PRODUCTION = "production"


class GeneralSettings(SettingsPart):
    """Where the process runs, and where it keeps what is its own."""

    # General
    environment: Annotated[Environment, ANY_CASE] = Field(
        Environment.DEVELOPMENT,
        description="Where this runs: development, testing, staging or production. NODE_ENV is read too.",
    )
    data_folder: Path = Field(
        Path(".data-layer"), description="Folder of the embedded servers, used while no server of your own is set."
    )

    @property
    def is_production(self) -> bool:
        """Whether this is a production environment."""
        return self.environment is Environment.PRODUCTION
