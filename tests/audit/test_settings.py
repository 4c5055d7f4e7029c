"""The settings of the audit trail and of maintenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_layer import DataLayer, Settings
from data_layer.errors import ConfigurationError


def test_defaults() -> None:
    settings = Settings(_env_file=None)
    assert (settings.audit.audit_flush_interval, settings.audit.audit_buffer_size) == (1, 50_000)
    assert (settings.audit.audit_retention_months, settings.audit.maintenance_interval) == (24, 3600)
    assert settings.audit.trash_retention == 30


@pytest.mark.parametrize(
    "values",
    [
        {"audit_flush_interval": 0},
        {"audit_buffer_size": 10},
        {"audit_spill_limit": -1},
        {"audit_retention_months": -1},
        {"maintenance_interval": -1},
        {"trash_retention": -1},
    ],
)
def test_nonsense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(values)).upper()):
        Settings(_env_file=None, **values)


async def test_entries_wait_in_the_data_folder_by_default(settings: Settings, tmp_path: Path) -> None:
    async with DataLayer(settings.replaced(data_folder=tmp_path / "data")) as data:
        assert data.audit._buffer._spill._folder == tmp_path / "data" / "audit-spill"
