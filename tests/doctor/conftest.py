from __future__ import annotations

from pathlib import Path

import pytest

from data_layer import Settings
from tests.cli.conftest import commands_for
from tests.observability.conftest import logging_as_before

from .support import Examine

__all__ = ["logging_as_before"]


@pytest.fixture
def examine(servers: tuple[str, str], migrated: Settings, tmp_path: Path) -> Examine:
    """The doctor, on the servers that all tests share and a folder of its own."""
    uploads = tmp_path / "uploads"
    uploads.mkdir(mode=0o700)
    return Examine(
        commands_for(
            *servers, uploads, DATA_FOLDER=str(tmp_path / "data"), REDIS_KEY_PREFIX=migrated.redis.redis_key_prefix
        )
    )
